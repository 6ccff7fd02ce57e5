"""Qwen3-VL, dense and with experts: the text part, which is Qwen3 with a rotation for images too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.qwen import Qwen3
from convert.architectures.qwen3moe import Qwen3Moe
from convert.architectures.rotary import interleaved_sections
from convert.architectures.transformer import Transformer
from convert.errors import CheckpointError

DEEPSTACK = (8, 16, 24)
"""transformers' default of ``deepstack_visual_indexes``."""


class _SeesImages(Transformer):
    """The rotation by time, height and width, which are one and the same position in a text.

    What the tower adds to the first layers ("deepstack") concerns the embeddings of images alone, which are
    so much longer: llama.cpp must know by how many layers.
    """

    usual_rope: ClassVar[Mapping[str, Any]] = {"rope_theta": 500000.0}
    prefixes = ("model.language_model.", "model.")
    ignored = (*Transformer.ignored, "model.visual.*", "visual.*")

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        vision = self.config.get("vision_config")
        if not vision:
            return super().metadata()
        n_layers = len(vision.get("deepstack_visual_indexes", DEEPSTACK))
        if n_layers > self.n_layers:
            raise CheckpointError(
                f"config.json: deepstack_visual_indexes has {n_layers} entries; the text part has only "
                f"{self.n_layers} layers to add them to"
            )
        return super().metadata() | {"n_deepstack_layers": n_layers}

    def window(self) -> None:
        """There is no sliding window."""

    def rope_values(self, length: int) -> dict[str, Value]:
        """Return the keys of the rotation."""
        sections = interleaved_sections(self.n_rotated // 2)
        return super().rope_values(length) | {"rope.dimension_sections": sections}


class Qwen3VL(_SeesImages, Qwen3):
    """The dense model."""

    names = ("Qwen3VLForConditionalGeneration",)
    gguf_name = "qwen3vl"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
    }


class Qwen3VLMoe(_SeesImages, Qwen3Moe):
    """The model with experts. Published checkpoints have them fused, with inputs first."""

    names = ("Qwen3VLMoeForConditionalGeneration",)
    gguf_name = "qwen3vlmoe"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 4,
        "num_experts": 60,
        "norm_topk_prob": True,
    }
    aliases: ClassVar[Mapping[str, str]] = {"num_local_experts": "num_experts"}

    @cached_property
    def inputs_first(self) -> bool:  # type: ignore[override]
        """Whether inputs come first: the shape says so, or both would fit."""
        first = f"{self.prefix}layers.0.{self.experts}down_proj"
        shape = (self.n_experts, self.expert_size, self.config.integer("hidden_size"))
        return self.has(first) and self.tensor(first).shape == shape
