"""lm-evaluation-harness: the time of a task with our model and with the ``hf`` model, in turn.

    python -m tests.benchmarks.evaluating [--items N] [--shots N] [--rounds N] [--batch-size N]

choices   N questions with four answers each after the same few-shot examples, scored
answers   as many questions after the same examples, 16 tokens generated for each

Both models use the weights of SmolLM2, first as float32, then as BF16. Needs the extra ``parity``. Our
model is opened anew in each round, so that its cache is empty; loading is not timed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM

from convert import convert_checkpoint
from tests.benchmarks.timing import Pairs, alternate
from tests.parity.harness import requests
from tests.parity.smollm2 import write_checkpoint
from tinker_local import ServiceClient
from tinker_local.lm_eval import LocalLM

N_CTX = 4096
WORDS = (Path(__file__).parents[2] / "LICENSE").read_text(encoding="utf-8").split()
RNG = np.random.default_rng(0)


def words(n: int) -> str:
    start = int(RNG.integers(len(WORDS) - n))
    return " ".join(WORDS[start : start + n])


def questions(n_items: int, n_shots: int) -> list[str]:
    """Return contexts of about 40 tokens, all after the same examples of about 40 tokens each."""
    shots = "".join(f"Question: {words(25)}?\nAnswer: {words(4)}\n\n" for _ in range(n_shots))
    return [f"{shots}Question: {words(25)}?\nAnswer:" for _ in range(n_items)]


def choices(n_items: int, n_shots: int) -> list[Any]:
    asked = ((text, f" {words(4)}") for text in questions(n_items, n_shots) for _ in range(4))
    return requests("loglikelihood", *asked)


def answers(n_items: int, n_shots: int) -> list[Any]:
    arguments = {"until": [], "do_sample": False, "max_gen_toks": 16}
    return requests("generate_until", *((text, arguments) for text in questions(n_items, n_shots)))


def seconds(ask: Callable[..., Any], asked: list[Any]) -> float:
    start = time.perf_counter()
    ask(asked, disable_tqdm=True)
    return time.perf_counter() - start


def compare(path: Path, official: HFLM, kind: str, asked: list[Any], rounds: int) -> Pairs:
    def ours() -> float:
        options: dict[str, Any] = {"kv_type": "f32", "flash_attn": False} if path.stem == "f32" else {}
        with ServiceClient(n_ctx=N_CTX, **options) as service:
            client = service.create_sampling_client(base_model=str(path))
            return seconds(getattr(LocalLM(client), kind), asked)

    return alternate(ours, lambda: seconds(getattr(official, kind), asked), rounds)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8, help="of hf")
    arguments = parser.parse_args()
    print(f"{'':32s} {'ours':>8s} {'hf':>8s} {'ratio':>8s}  (seconds)")
    with tempfile.TemporaryDirectory() as place:
        checkpoint = Path(place, "SmolLM2")
        write_checkpoint(checkpoint)
        for kind, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            path = convert_checkpoint(checkpoint, Path(place, f"{kind}.gguf"), outtype=kind)
            official = HFLM(
                pretrained=str(checkpoint), dtype=dtype, device="cpu", batch_size=arguments.batch_size
            )
            for name, make in (("loglikelihood", choices), ("generate_until", answers)):
                asked = make(arguments.items, arguments.shots)
                found = compare(path, official, name, asked, arguments.rounds)
                label = f"{kind}, {make.__name__}, {arguments.shots}-shot"
                print(f"{label:32s} {found.ours:8.2f} {found.other:8.2f} {found.ratio:8.1f}", flush=True)


if __name__ == "__main__":
    main()
