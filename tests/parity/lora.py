"""Random adapters for transformers' models: files in Tinker's and in PEFT's layout, and what they add."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.pytorch_utils import Conv1D

Tensors = dict[str, torch.Tensor]
ALPHA = 8.0
SIZE = 0.5
"""Of an update, relative to a weight's numbers: plain enough to see."""

SPLIT = {
    "linear_attn.in_proj_qkv": ("in_proj_q", "in_proj_k", "in_proj_v"),
    "mixer.in_proj": ("gate_proj", "x_proj"),
}
LEFT_OUT = re.compile(r"vis(ion|ual)|projector")
INPUTS_FIRST = re.compile("gpt_oss|llama4")
STACKS = ("gate_up_proj", "up_proj", "down_proj")


@dataclass
class RandomLora:
    """What is to be written, and what it does.

    Attributes:
        tensors: by key.
        added: to each parameter of the model; the output matrix is ``lm_head.weight``, tied or not.
        ranks, alphas: that differ from the usual ones, by module.
        rslora: the scale is alpha / sqrt(rank).
    """

    tensors: Tensors = field(default_factory=dict)
    added: Tensors = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    alphas: dict[str, float] = field(default_factory=dict)
    rank: int = 4
    rslora: bool = False

    def write(self, directory: Path, **settings: Any) -> Path:
        directory.mkdir(parents=True)
        config = {"r": self.rank, "lora_alpha": ALPHA, "peft_type": "LORA", "use_rslora": self.rslora}
        config |= {"rank_pattern": self.ranks, "alpha_pattern": self.alphas} | settings
        (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        tensors = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, directory / "adapter_model.safetensors")
        return directory

    def scale(self, rank: int, alpha: float = ALPHA) -> float:
        return alpha / (rank**0.5 if self.rslora else rank)


class Maker:
    """Draws factors for a model's modules."""

    def __init__(self, model: torch.nn.Module, chosen: Callable[[str], bool], seed: int) -> None:
        self.model, self.chosen = model, chosen
        self.interleaves = "gpt_oss" in type(model).__module__
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def factor_b(self, n_in: int, rank: int, scale: float, *shape: int) -> torch.Tensor:
        """Return a B so that scale * B A has numbers of about ``SIZE`` / sqrt(inputs)."""
        return self.normal(*shape) * SIZE / (scale * (rank * n_in) ** 0.5)

    def modules(self) -> Iterator[tuple[str, tuple[int, int], bool]]:
        """Yield matrices: name, (out, in), and whether they have inputs first."""
        for name, module in self.model.named_modules():
            if LEFT_OUT.search(name) or not self.chosen(name):
                continue
            if isinstance(module, torch.nn.Linear):
                yield name, (module.out_features, module.in_features), False
            elif isinstance(module, Conv1D):
                yield name, (module.weight.shape[1], module.weight.shape[0]), True

    def stacks(self) -> Iterator[tuple[str, str, torch.Tensor, bool]]:
        """Yield experts' parameters: the module, the parameter, its numbers, whether inputs come first."""
        for name, module in self.model.named_modules():
            if name.endswith(".experts") and self.chosen(name):
                for which in STACKS:
                    parameter = getattr(module, which, None)
                    if isinstance(parameter, torch.nn.Parameter):
                        yield (
                            name,
                            which,
                            parameter,
                            INPUTS_FIRST.search(type(module).__module__) is not None,
                        )


def tinker_lora(
    model: torch.nn.Module, chosen: Callable[[str], bool] = lambda name: True, seed: int = 7
) -> RandomLora:
    """Return an adapter with Tinker's names: one rank, experts with a shared side."""
    lora, maker = RandomLora(), Maker(model, chosen, seed)
    scale = lora.scale(lora.rank)

    def add(name: str, n_out: int, n_in: int) -> torch.Tensor:
        a, b = maker.normal(lora.rank, n_in), maker.factor_b(n_in, lora.rank, scale, n_out, lora.rank)
        lora.tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        return scale * b @ a

    for name, (n_out, n_in), transposed in maker.modules():
        ending = next((ending for ending in SPLIT if name.endswith(ending)), None)
        called = tinker_name(name)
        if ending is None:
            delta = add(called, n_out, n_in)
        else:
            module = model.get_submodule(name.rpartition(".")[0])
            parts = zip(SPLIT[ending], split_rows(module, ending, n_out), strict=True)
            deltas = [add(called.replace(ending.rpartition(".")[2], part), n, n_in) for part, n in parts]
            made = torch.cat(deltas)
            delta = torch.cat([made, torch.zeros(n_out - len(made), n_in)])
        lora.added[f"{name}.weight"] = delta.T if transposed else delta
    for name, which, parameter, inputs_first in maker.stacks():
        n_in, n_out = parameter.shape[1:] if inputs_first else parameter.shape[:0:-1]
        add_tinker_experts(lora, maker, name, which, len(parameter), n_in, n_out, inputs_first)
    return lora


def split_rows(module: Any, ending: str, n_out: int) -> list[int]:
    if ending.startswith("linear"):
        return [module.key_dim, module.key_dim, module.value_dim]
    return [module.intermediate_size, module.intermediate_size]


def tinker_name(name: str) -> str:
    name = name.replace("model.language_model.", "model.").replace("transformer.h.", "model.h.")
    return "model.unembed_tokens" if name == "lm_head" else name


def add_tinker_experts(
    lora: RandomLora, maker: Maker, name: str, which: str, n: int, n_in: int, n_out: int, inputs_first: bool
) -> None:
    rank, scale, deltas = lora.rank, lora.scale(lora.rank), []
    parts = {"gate_up_proj": ("w1", "w3"), "up_proj": ("w1",), "down_proj": ("w2",)}[which]
    for part in parts:
        rows = n_out // len(parts)
        shapes = ((1, rank, n_in), (n, rows, rank)) if part != "w2" else ((n, rank, n_in), (1, rows, rank))
        a, b = maker.normal(*shapes[0]), maker.factor_b(n_in, rank, scale, *shapes[1])
        key = f"{tinker_name(name)}.{part}"
        lora.tensors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
        deltas.append(scale * b.expand(n, -1, -1) @ a.expand(n, -1, -1))
    if which == "up_proj":  # there is no gate; Tinker leaves its place empty
        empty = f"{tinker_name(name)}.w3"
        lora.tensors |= {f"{empty}.lora_A.weight": torch.zeros(0), f"{empty}.lora_B.weight": torch.zeros(0)}
    if maker.interleaves and len(deltas) == 2:  # gate and up in turn
        delta = torch.stack(deltas, dim=2).reshape(n, n_out, n_in)
    else:
        delta = torch.cat(deltas, dim=1)
    lora.added[f"{name}.{which}"] = delta.mT if inputs_first else delta


def peft_lora(
    model: torch.nn.Module, chosen: Callable[[str], bool] = lambda name: True, seed: int = 7
) -> RandomLora:
    """Return an adapter with PEFT's names: several ranks and alphas, rsLoRA, experts in one matrix."""
    lora, maker = RandomLora(rslora=True), Maker(model, chosen, seed)
    for i, (name, (n_out, n_in), transposed) in enumerate(maker.modules()):
        rank, alpha = lora.rank, ALPHA
        if i % 3 == 1:
            rank = lora.ranks[name] = 3
        if i % 4 == 1:
            alpha = lora.alphas[name] = 5.0
        scale = lora.scale(rank, alpha)
        a, b = maker.normal(rank, n_in), maker.factor_b(n_in, rank, scale, n_out, rank)
        lora.tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        lora.added[f"{name}.weight"] = scale * (b @ a).T if transposed else scale * b @ a
    rank, scale = lora.rank, lora.scale(lora.rank)
    for name, which, parameter, inputs_first in maker.stacks():
        n, (n_in, n_out) = len(parameter), parameter.shape[1:] if inputs_first else parameter.shape[:0:-1]
        a, b = maker.normal(n * rank, n_in), maker.factor_b(n_in, rank, scale, n_out, n * rank)
        key = f"{name}.base_layer" if which == "down_proj" else name
        lora.tensors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
        delta = scale * torch.einsum("ore,eri->eoi", b.reshape(n_out, rank, n), a.reshape(n, rank, n_in))
        lora.added[f"{name}.{which}"] = delta.mT if inputs_first else delta
    return lora


@torch.no_grad()
def merge(model: Any, added: Tensors) -> None:
    """Add updates to a model in place; an output matrix tied to the embeddings becomes another one."""
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(head.weight.clone())
    for name, delta in added.items():
        model.get_parameter(name).add_(delta)
