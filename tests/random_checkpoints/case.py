"""A family's random checkpoint, as a row of the table that the parity tests go through."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from tests.random_checkpoints.tokenizers import write_tokenizer

REFERENCE = "reference"
"""A directory in a checkpoint that transformers reads instead: what packed matrices stand for, say."""


NEAR_ONE = ("weight", ".D", "layer_scalar", "router.scale", "per_expert_scale")
"""Vectors that multiply, by their names' ends."""


@dataclass(frozen=True)
class Case:
    """How to make a checkpoint, and how near to transformers its GGUF file must come.

    Attributes:
        family: the module in convert/architectures.
        variant: what is particular about this one.
        write: makes the directory.
        tolerance: the largest difference of a log-probability.
        reason: why the tolerance is more than 1e-4, if it is.
        n_ctx: tokens of the context that scores it.
        unpacks: score the file with its packed matrices as float32.
        n_tokens: that are scored.
        options: of the ``ServiceClient`` that scores it.
        change: makes transformers' model compute what llama.cpp computes otherwise; ``reason`` says what.
    """

    family: str
    variant: str
    write: Callable[[Path], None]
    tolerance: float = 1e-4
    reason: str = ""
    n_ctx: int = 512
    unpacks: bool = False
    n_tokens: int = 64
    options: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[Any], None] | None = None

    def __str__(self) -> str:
        return f"{self.family}, {self.variant}"


def save_random(
    directory: Path,
    model_class: type[PreTrainedModel],
    config: Callable[..., Any],
    kind: str,
    settings: Mapping[str, Any],
    *,
    seed: int = 0,
) -> None:
    """Save a random model with a tokenizer trained on the spot.

    Args:
        config: makes transformers' config from the settings and the tokenizer's ids.
        kind: of tokenizer, as ``write_tokenizer`` names them.
    """
    written = write_tokenizer(directory, kind)
    ids = {
        "vocab_size": written.n_tokens,
        "bos_token_id": written.bos_token_id,
        "eos_token_id": written.eos_token_id,
        "pad_token_id": written.pad_token_id,
    }
    model = model_class(config(**{**ids, **settings}))
    randomize(model, seed)
    model.generation_config = GenerationConfig(eos_token_id=written.eos_token_id)
    model.save_pretrained(directory)


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Draw weights that keep activations near 1 and make logits differ; nothing stays at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor, mean: float, deviation: float) -> None:
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
        tensor.copy_(mean + deviation * noise)

    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("inv_freq") or tensor.dim() == 0 or not tensor.is_floating_point():
                continue
            if name.endswith("A_log"):
                normal(tensor, 0.5, 0.7)
            elif tensor.dim() == 1:
                # Gemma's norms add 1 of their own; a bias is drawn around 0
                mean = float(tensor.float().mean().round()) if name.endswith(NEAR_ONE) else 0.0
                last = name.endswith(("model.norm.weight", "ln_f.weight", "norm_f.weight"))
                normal(tensor, mean + 3 * last, 0.2)
            elif "embed" in name or name.endswith(("wte.weight", "wpe.weight")):
                normal(tensor, 0.0, 0.1)  # little, so that a tied model does not just say its input again
            else:
                inputs = tensor.shape[0] if "c_" in name.rsplit(".", 2)[-2] else tensor.shape[-1]
                gain = 0.5 if name.startswith("lm_head") else 1.5
                normal(tensor, 0.0, gain * inputs**-0.5)


def rewrite_config(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change config.json in place."""
    path = directory / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values, indent=2), encoding="utf-8")
