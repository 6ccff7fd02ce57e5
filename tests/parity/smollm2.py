"""SmolLM2-135M as a Hugging Face checkpoint, converted to several types: its perplexity in each.

python -m tests.parity.smollm2
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

from convert import convert_checkpoint
from tests.benchmarks.requantized import default_model
from tinker_local import ModelInput, ServiceClient

TYPES = ("f32", "bf16", "q8_0", "q4_k_m")
TEXT = Path(__file__).parents[2] / "LICENSE"
N_TOKENS = 1024


def write_checkpoint(directory: Path) -> Any:
    """Save the embedded model as transformers saves it, in float32; return it.

    The weights are those of the 4-bit file, spelled out in BF16.
    """
    source = default_model("bf16")
    arguments = {"gguf_file": source.name, "local_files_only": True}
    with _parsed_once():
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            source.parent, dtype=torch.float32, **arguments
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, **arguments)
    config = loaded.config
    config.architectures = ["LlamaForCausalLM"]
    del config.quantization_config  # else it counts as packed, and cannot be saved
    model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="eager")
    model.load_state_dict(loaded.state_dict())  # a model without its memory of having been a GGUF file
    for part in (model, tokenizer):
        part.save_pretrained(directory)
    return model.eval()


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Keep what transformers asks of the package gguf again and again: half a minute for this model."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GGUFReader", "get_tensor_name_map"):
            patch.setattr(gguf, name, cache(getattr(gguf, name)))
        yield


def scored_tokens(model_path: Path, n_tokens: int) -> list[int]:
    with ServiceClient(n_ctx=64) as service:
        tokenizer = service.create_sampling_client(base_model=str(model_path)).get_tokenizer()
        return tokenizer.encode(TEXT.read_text(encoding="utf-8"))[:n_tokens]


@torch.no_grad()
def perplexity_of_source(model: Any, tokens: list[int]) -> float:
    rows = torch.log_softmax(model(torch.tensor([tokens])).logits[0].double(), -1)
    logprobs = rows[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]
    return float(torch.exp(-logprobs.mean()))


def perplexity(path: Path, tokens: list[int]) -> float:
    """With a float32 cache and without flash attention."""
    with ServiceClient(n_ctx=2048, kv_type="f32", flash_attn=False) as service:
        client = service.create_sampling_client(base_model=str(path))
        logprobs = client.compute_logprobs(ModelInput.from_ints(tokens)).result()[1:]
    return float(np.exp(-np.mean(np.array(logprobs, np.float64))))


def measure(directory: Path, n_tokens: int = N_TOKENS) -> dict[str, float]:
    """Return the perplexity of transformers and of each type."""
    model = write_checkpoint(directory / "SmolLM2")
    paths = {
        kind: convert_checkpoint(directory / "SmolLM2", directory / f"{kind}.gguf", outtype=kind)
        for kind in TYPES
    }
    tokens = scored_tokens(paths["f32"], n_tokens)
    found = {"transformers": perplexity_of_source(model, tokens)}
    return found | {kind: perplexity(path, tokens) for kind, path in paths.items()}


def main() -> None:
    """Print the table."""
    directory = Path(tempfile.mkdtemp())
    try:
        found = measure(directory)
    finally:
        shutil.rmtree(directory)
    print("| type | perplexity | over transformers' |\n|---|---|---|")
    for kind, value in found.items():
        print(f"| {kind} | {value:.4f} | {value / found['transformers'] - 1:+.3%} |")


if __name__ == "__main__":
    main()
