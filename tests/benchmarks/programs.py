"""Our engine and other programs on the same weights: scoring, and decoding 1, 8 and 32 samples.

    python -m tests.benchmarks.programs [--type f16] [--peers llama.cpp,transformers-f32,...] [--rounds N]

llama.cpp      ``llama_decode`` on prepared batches, with its own kernels and repacked weights
transformers   in bfloat16 and in float32 (needs torch and accelerate)
openvino       raw inference in float32, of the model that openvino-genai makes of the GGUF file

Ours scores with top-20 and samples, each token told to a callback. Transformers makes log-probabilities and
top-20 as well, and draws tokens. llama.cpp and OpenVINO compute logits and nothing more. All take turns in
one process, with the same number of threads. Prints median tokens/s, and the median ratio ours / theirs of
the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tests.bare_loop import BareLoop
from tests.benchmarks.engine import decode_bare, decode_ours, score_ours
from tests.benchmarks.requantized import CACHE, command_line, default_model
from tinker_local import ServiceClient
from tinker_local.bench.rounds import take_turns
from tinker_local.llama.machine import default_threads

N_CTX, N_BATCH, N_PROMPT, N_NEW, TOP = 8192, 512, 128, 64, 20
SCORED, SAMPLES = (512, 2048), (1, 8, 32)


class Peer(Protocol):
    """A program with a model; both functions return seconds, of decoding those after the prompt."""

    def score(self, tokens: list[int]) -> float: ...
    def decode(self, tokens: list[int], n_samples: int) -> float: ...


class Ours:
    def __init__(self, path: Path) -> None:
        service = ServiceClient(n_ctx=N_CTX, prefix_cache=False)
        client = service.create_sampling_client(base_model=str(path))
        self.score, self.decode = partial(score_ours, client), partial(decode_ours, client)


class LlamaCpp:
    def __init__(self, path: Path) -> None:
        self._bare = BareLoop(path, n_ctx=N_CTX, n_sequences=max(SAMPLES))
        self.decode = partial(decode_bare, self._bare)

    def score(self, tokens: list[int]) -> float:
        self._bare.clear()
        starts = range(0, len(tokens), N_BATCH)
        return sum(self._decode(tokens[start : start + N_BATCH], start) for start in starts)

    def _decode(self, tokens: list[int], start: int) -> float:
        n = len(tokens)
        return self._bare.decode(tokens, np.arange(start, start + n), [0] * n, np.ones(n))


class Transformers:
    """The model with ``torch``; a sample is drawn from the whole distribution."""

    def __init__(self, path: Path, dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(default_threads())
        self._torch = torch
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, dtype=getattr(torch, dtype)
        )

    def score(self, tokens: list[int]) -> float:
        with self._torch.inference_mode():
            ids, start = self._torch.tensor([tokens]), time.perf_counter()
            logprobs = self._model(ids, use_cache=False).logits[0].float().log_softmax(-1)
            logprobs[:-1].gather(1, ids[0, 1:, None])
            logprobs.topk(TOP)
            return time.perf_counter() - start

    def decode(self, tokens: list[int], n_samples: int) -> float:
        with self._torch.inference_mode():
            output = self._model(self._torch.tensor([tokens] * n_samples))
            start = time.perf_counter()
            for _ in range(N_NEW):
                drawn = self._torch.multinomial(output.logits[:, -1].float().softmax(-1), 1)
                output = self._model(drawn, past_key_values=output.past_key_values)
            return time.perf_counter() - start


class OpenVino:
    """openvino-genai converts the GGUF file; the model is then inferred without it."""

    def __init__(self, path: Path) -> None:
        openvino, openvino_genai = map(import_module, ("openvino", "openvino_genai"))
        model = path.parent / "openvino_model.xml"  # where openvino-genai leaves it
        kept = CACHE / f"{path.stem}.openvino.xml"
        if not kept.exists():
            openvino_genai.LLMPipeline(str(path), "CPU", enable_save_ov_model=True)
            model.with_suffix(".bin").rename(kept.with_suffix(".bin"))
            model.rename(kept)
        settings = {"INFERENCE_NUM_THREADS": default_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        self._request = openvino.Core().compile_model(kept, "CPU", settings).create_infer_request()

    def score(self, tokens: list[int]) -> float:
        self._request.reset_state()
        start = time.perf_counter()
        assert self._infer(np.array([tokens]), 0).shape[1] == len(tokens)
        return time.perf_counter() - start

    def decode(self, tokens: list[int], n_samples: int) -> float:
        self._request.reset_state()
        self._infer(np.tile(tokens, (n_samples, 1)), 0)
        start = time.perf_counter()
        for position in range(len(tokens), len(tokens) + N_NEW):
            self._infer(np.full((n_samples, 1), 1000), position)
        return time.perf_counter() - start

    def _infer(self, tokens: Any, begin: int) -> Any:
        n, size = tokens.shape
        given = {
            "input_ids": tokens.astype(np.int64),
            "attention_mask": np.ones((n, begin + size), np.int64),
            "position_ids": np.tile(np.arange(begin, begin + size, dtype=np.int64), (n, 1)),
            "beam_idx": np.arange(n, dtype=np.int32),
        }
        self._request.infer(given)
        return self._request.get_output_tensor(0).data


PEERS: dict[str, tuple[Callable[[Path], Peer], tuple[str, ...]]] = {  # and the packages that they need
    "llama.cpp": (LlamaCpp, ()),
    "transformers-bf16": (partial(Transformers, dtype="bfloat16"), ("torch", "transformers", "accelerate")),
    "transformers-f32": (partial(Transformers, dtype="float32"), ("torch", "transformers", "accelerate")),
    "openvino": (OpenVino, ("openvino", "openvino_genai")),
}


def opened(names: list[str], path: Path) -> dict[str, Peer]:
    found: dict[str, Peer] = {"ours": Ours(path)}
    for name in names:
        peer, packages = PEERS[name]
        if missing := [package for package in packages if not find_spec(package)]:
            print(f"{name}: left out, there is no {' and no '.join(missing)}")
        else:
            found[name] = peer(path)
    return found


def compare(name: str, n_tokens: int, work: Mapping[str, Callable[[], float]], rounds: int) -> None:
    for run in work.values():
        run()  # warm up
    times = take_turns(work, rounds, float("inf"))
    print(f"{name:12s}", end="")
    for peer, found in times.items():
        ratio = statistics.median(b / a for a, b in zip(times["ours"], found, strict=True))
        said = f" ({ratio:.2f})" if peer != "ours" else ""
        print(f" | {peer} {n_tokens / statistics.median(found):.1f}{said}", end="", flush=True)
    print()


def main() -> None:
    """Print the table."""
    parser = command_line(__doc__)
    parser.set_defaults(type="f16")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    peers = opened(given.peers.split(","), default_model(given.type))
    tokens = np.random.default_rng(0).integers(20, 40_000, max(SCORED)).tolist()
    for n in SCORED:
        work = {name: partial(peer.score, tokens[:n]) for name, peer in peers.items()}
        compare(f"score {n}", n, work, given.rounds)
    for n in SAMPLES:
        work = {name: partial(peer.decode, tokens[:N_PROMPT], n) for name, peer in peers.items()}
        compare(f"decode {n}", n * N_NEW, work, given.rounds)


if __name__ == "__main__":
    main()
