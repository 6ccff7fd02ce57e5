"""Do changes of the engine keep every bit? Answers to a few hundred requests, written and compared.

    python -m tests.same_bits write before.json      # in a checkout from before the change
    python -m tests.same_bits compare before.json    # in the one after it

Tiny random models of four file types, a mixture of experts, a sliding window and a recurrence, an adapter,
and SmolLM2-135M, in the usual and in the invariant mode. Requests run one by one, so that batches are the
same each time; several samples, short caches and the prefix cache bring preemption, copies and chunks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind

from tests.random_adapter import random_adapter
from tests.random_model import Architecture, Shape, write_random_model
from tinker_local import ModelInput, SampleResponse, SamplingClient, SamplingParams, ServiceClient

WIDE = Shape(n_embd=256, n_layer=3, n_ff=512)
MODELS: dict[str, tuple[Architecture, Kind]] = {
    "bf16": ("llama", Kind.BF16),
    "q8_0": ("llama", Kind.Q8_0),
    "q4_0": ("llama", Kind.Q4_0),
    "f32": ("llama", Kind.F32),
    "window": ("gemma3", Kind.F32),
    "experts": ("qwen3moe", Kind.Q8_0),
    "recurrent": ("jamba", Kind.F32),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {"n_ctx": 512},
    "short": {"n_ctx": 256, "n_ubatch": 192},
    "f32 cache": {"n_ctx": 512, "kv_type": "f32"},
    "invariant": {"n_ctx": 512, "batch_invariant": True},
}
N_REQUESTS = 12


def requests(n_vocab: int, longest: int) -> Iterator[tuple[list[int], int, SamplingParams, dict[str, Any]]]:
    """Yield prompts, numbers of samples, parameters and what is asked of the prompt, the same each time."""
    rng = np.random.default_rng(0)
    common = rng.integers(0, n_vocab, longest).tolist()
    for number in range(N_REQUESTS):
        own = rng.integers(0, n_vocab, int(rng.integers(1, longest))).tolist()
        prompt = (common[: longest // 2] + own)[:longest] if number % 3 else own
        params = SamplingParams(
            max_tokens=int(rng.integers(1, 24)),
            temperature=float(rng.choice([0, 0.7, 1])),
            top_k=int(rng.choice([-1, 20])),
            top_p=float(rng.choice([1, 0.9])),
            seed=number,
            stop=[],
        )
        asked = {"include_prompt_logprobs": True, "topk_prompt_logprobs": 3} if number % 2 else {}
        yield prompt, int(rng.choice([1, 2, 5, 9])), params, asked


def digest(response: SampleResponse) -> str:
    """Return a hash of every token and float of an answer."""
    sequences = [(s.tokens, s.logprobs, s.stop_reason) for s in response.sequences]
    said = repr((sequences, response.prompt_logprobs, response.topk_prompt_logprobs))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def answers(client: SamplingClient, longest: int) -> list[str]:
    """Ask everything of a client, one request after the other."""
    n_vocab = client.get_tokenizer().vocab_size
    return [
        digest(client.sample(ModelInput.from_ints(prompt), n, params, **asked).result())
        for prompt, n, params, asked in requests(n_vocab, longest)
    ]


def clients(directory: Path) -> Iterator[tuple[str, SamplingClient]]:
    """Open each model in each mode."""
    for name, (architecture, kind) in MODELS.items():
        path = write_random_model(directory / f"{name}.gguf", architecture, WIDE, quantization=kind)
        adapter = None
        if name == "bf16":
            adapter = random_adapter(path).write(directory / "adapter.gguf")
        for mode, options in OPTIONS.items():
            if architecture == "jamba" and mode in ("invariant", "f32 cache"):
                continue
            service = ServiceClient(n_threads=2, **options)
            yield f"{name}, {mode}", service.create_sampling_client(base_model=str(path))
            if adapter is not None:
                client = service.create_sampling_client(str(adapter), base_model=str(path))
                yield f"{name}, adapter, {mode}", client
    for mode in ("usual", "invariant"):
        service = ServiceClient(n_threads=2, **OPTIONS[mode])
        yield f"SmolLM2, {mode}", service.create_sampling_client(base_model="SmolLM2-135M-Instruct")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("action", choices=("write", "compare"))
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = {
            name: answers(client, 60 if name.startswith("SmolLM2") else 200)
            for name, client in clients(Path(directory))
        }
    if arguments.action == "write":
        arguments.file.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"{sum(map(len, found.values()))} answers written to {arguments.file}")
        return
    expected = json.loads(arguments.file.read_text(encoding="utf-8"))
    differ = 0
    for name in expected.keys() | found.keys():
        pairs = list(zip(expected.get(name, [""]), found.get(name, [""]), strict=False))
        n = sum(one != other for one, other in pairs)
        differ += n
        if n:
            print(f"{name}: {n} of {len(pairs)} answers differ")
    print(f"{sum(map(len, found.values()))} answers, {differ} differ")
    raise SystemExit(bool(differ))


if __name__ == "__main__":
    main()
