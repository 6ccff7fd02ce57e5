"""How near a converted checkpoint comes to transformers: measured a case at a time, or printed as a table.

python -m tests.parity.families [PART OF A NAME]
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from convert import convert_checkpoint
from tests.random_checkpoints.case import REFERENCE, Case
from tinker_local import ModelInput, SamplingParams, ServiceClient

N_GREEDY = 32


@dataclass(frozen=True)
class Parity:
    """Differences of the log-probabilities of random tokens, and whether greedy texts are the same."""

    largest: float
    mean: float
    same_greedy: bool


def all_cases() -> list[Case]:
    """Return the cases of every module of random checkpoints that there is."""
    cases: list[Case] = []
    for name in ("dense", "experts", "lineup"):
        if importlib.util.find_spec(f"tests.random_checkpoints.{name}"):
            cases += importlib.import_module(f"tests.random_checkpoints.{name}").CASES
    return cases


def measure(case: Case, directory: Path) -> Parity:
    """Make a checkpoint, convert it at float32, score both."""
    source = directory / "checkpoint"
    case.write(source)
    path = convert_checkpoint(source, directory / "model.gguf", outtype="f32")
    if case.unpacks:
        path = convert_checkpoint(path, directory / "unpacked.gguf", outtype="f32")
    model = _load(source / REFERENCE if (source / REFERENCE).exists() else source)
    if case.change:
        case.change(model)
    tokens = _random_tokens(model.get_input_embeddings().weight.shape[0], case.n_tokens)
    prompt = ModelInput.from_ints(tokens)
    with ServiceClient(n_ctx=case.n_ctx, kv_type="f32", prefix_cache=False, **case.options) as service:
        client = service.create_sampling_client(base_model=str(path))
        ours = np.array(client.compute_logprobs(prompt).result()[1:])
        greedy = SamplingParams(max_tokens=N_GREEDY, temperature=0, stop=[])
        continuation = client.sample(prompt, 1, greedy).result().sequences[0].tokens
    gap = np.abs(ours - _logprobs(model, tokens))
    return Parity(float(gap.max()), float(gap.mean()), _would_say(model, tokens, list(continuation)))


def _load(directory: Path) -> Any:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    model_class = getattr(transformers, config["architectures"][0])
    return model_class.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


def _random_tokens(n_vocab: int, n_tokens: int = 64) -> list[int]:
    """Return tokens whose first ones are special in no vocabulary."""
    generator = torch.Generator().manual_seed(1)
    return [int(token) for token in torch.randint(20, n_vocab, (n_tokens,), generator=generator)]


@torch.no_grad()
def _logprobs(model: Any, tokens: list[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    rows = torch.log_softmax(model(torch.tensor([tokens])).logits[0].double(), -1)
    return rows[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])].numpy()


@torch.no_grad()
def _would_say(model: Any, tokens: list[int], continuation: list[int]) -> bool:
    """Whether a continuation is the most probable one: each token is, after those before it.

    In one pass, and without a cache, which some models compute otherwise with.
    """
    text = [*tokens, *continuation]
    best = model(torch.tensor([text[:-1]]), use_cache=False).logits[0, len(tokens) - 1 :].argmax(-1)
    return bool(best.tolist() == continuation)


def main(wanted: str = "") -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| family | variant | largest | mean | greedy | reason |\n|---|---|---|---|---|---|")
    for case in all_cases():
        if wanted in str(case):
            with tempfile.TemporaryDirectory() as directory:
                found = measure(case, Path(directory))
            greedy = "same" if found.same_greedy else "DIFFERS"
            print(
                f"| {case.family} | {case.variant} | {found.largest:.1e} | {found.mean:.1e} | {greedy} "
                f"| {case.reason} |",
                flush=True,
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
