"""The tower of Qwen3-VL and Qwen3.5: images of any size, positions by rotation and by a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from math import isqrt
from typing import Any, ClassVar

import numpy as np

from convert.architectures.qwen3vl import DEEPSTACK
from convert.errors import CheckpointError, UnsupportedError
from convert.gguf.head import Value
from convert.gguf.target import Target
from convert.source.tensor import Array
from convert.towers.tower import CHANNELS, Tower

EPSILON = 1e-6
"""Of every norm; transformers has the number in its code, not in the settings."""

_BLOCK = {"ln1": "norm1", "ln2": "norm2"}


class Qwen3VLTower(Tower):
    """Four patches become one embedding. Some layers add to the text's first layers too ("deepstack")."""

    names: ClassVar[tuple[str, ...]] = (
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
    )
    projector = "qwen3vl_merger"
    prefixes = ("model.visual.", "visual.")
    aliases: ClassVar[Mapping[str, str]] = {
        "num_heads": "num_attention_heads",
        "depth": "num_hidden_layers",
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_hidden_layers": 27,
        "hidden_size": 1152,
        "hidden_act": "gelu_pytorch_tanh",
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "in_channels": CHANNELS,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 3584,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": list(DEEPSTACK),
    }

    def check(self) -> None:
        """Refuse what libmtmd's graph of this kind cannot express."""
        super().check()
        self.config.expect("in_channels", CHANNELS)
        self.config.expect("spatial_merge_size", 2)
        self.config.expect("temporal_patch_size", 2, [2, 2])
        self.config.expect("out_hidden_size", self.n_text)
        rope = self.config.rope()
        if rope.theta != 10000 or rope.kind not in ("default", "axial"):
            raise UnsupportedError(
                f"config.json: vision_config has the rotation {rope.kind} with the base {rope.theta}; "
                "libmtmd computes with 10000 and no scaling"
            )
        if self.width // self.n_heads % 4:
            raise UnsupportedError(
                f"config.json: vision_config's heads have {self.width // self.n_heads} numbers; libmtmd "
                "rotates quarters of a head"
            )
        if self.n_side**2 != self.n_positions:
            raise CheckpointError(
                f"config.json: vision_config's num_position_embeddings ({self.n_positions}) is no square"
            )

    @property
    def n_positions(self) -> int:
        """Rows of the table of positions."""
        return self.config.integer("num_position_embeddings")

    @property
    def n_side(self) -> int:
        """Rows and columns of the square that the table of positions stands for."""
        return isqrt(self.n_positions)

    @property
    def image_size(self) -> int:
        """Width and height in pixels of the square that positions are learned for."""
        return self.n_side * self.patch

    @cached_property
    def deepstack(self) -> list[int]:
        """The layers whose output goes to the text's first layers, in the order of their mergers."""
        layers: list[int] = self.config.get("deepstack_visual_indexes", [])
        if len(set(layers)) != len(layers) or not all(0 <= layer < self.n_layers for layer in layers):
            raise CheckpointError(
                f"config.json: deepstack_visual_indexes must name some of {self.n_layers} layers once "
                f"each, not {layers!r:.60}"
            )
        return layers

    def metadata(self) -> dict[str, Value]:
        """Return the settings; keys without the leading ``clip.``."""
        values = super().metadata() | {
            "vision.attention.layer_norm_epsilon": EPSILON,
            "vision.spatial_merge_size": 2,
        }
        if self.deepstack:
            flags = [layer in self.deepstack for layer in range(self.n_layers)]
            values["vision.is_deepstack_layers"] = flags
        return values | self.limits()

    def limits(self) -> dict[str, Value]:
        """Return the fewest and most pixels of an image, as the image processor is set."""
        size = self.processor.section("size") if "size" in self.processor else self.processor
        found = {
            "vision.image_min_pixels": self.processor.get("min_pixels", size.get("shortest_edge")),
            "vision.image_max_pixels": self.processor.get("max_pixels", size.get("longest_edge")),
        }
        for key, value in found.items():
            if value is not None and not (isinstance(value, int) and 0 < value < 1 << 31):
                raise CheckpointError(f"preprocessor_config.json: {key} would be {value!r:.60}")
        return {key: value for key, value in found.items() if value is not None}

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from self.patches()
        yield self.kept("v.position_embd.weight", "pos_embed.weight", (self.n_positions, self.width))
        for i in range(self.n_layers):
            yield from self.block(f"v.blk.{i}.", f"blocks.{i}.")
        four = 4 * self.width
        yield from self.norm("v.post_ln", "merger.norm", self.width)
        yield from self.linear("mm.0", "merger.linear_fc1", four, four)
        yield from self.linear("mm.2", "merger.linear_fc2", self.n_text, four)
        for number, layer in enumerate(self.deepstack):
            ours, theirs = f"v.deepstack.{layer}.", f"deepstack_merger_list.{number}."
            yield from self.norm(f"{ours}norm", f"{theirs}norm", four)
            yield from self.linear(f"{ours}fc1", f"{theirs}linear_fc1", four, four)
            yield from self.linear(f"{ours}fc2", f"{theirs}linear_fc2", self.n_text, four)

    def patches(self) -> Iterator[Target]:
        """Yield the convolution that embeds patches, a kernel for each of two frames; an image is both."""
        source, side = f"{self.prefix}patch_embed.proj", self.patch
        self.expect_shape(f"{source}.weight", (self.width, CHANNELS, 2, side, side))
        tensor = self.tensor(f"{source}.weight")
        for frame, name in enumerate(("v.patch_embd.weight", "v.patch_embd.weight.1")):

            def kernel(frame: int = frame) -> Array:
                return np.asarray(tensor.array()[:, :, frame])

            shape = (self.width, CHANNELS, side, side)
            yield self.compute(name, shape, tensor.sources, kernel, is_matrix=False)
        yield self.vector("v.patch_embd.bias", f"{source}.bias", self.width)

    def block(self, ours: str, theirs: str) -> Iterator[Target]:
        """Yield a layer."""
        width, inner = self.width, self.inner
        for name, source in _BLOCK.items():
            yield from self.norm(f"{ours}{name}", f"{theirs}{source}", width)
        yield from self.linear(f"{ours}attn_qkv", f"{theirs}attn.qkv", 3 * width, width)
        yield from self.linear(f"{ours}attn_out", f"{theirs}attn.proj", width, width)
        yield from self.linear(f"{ours}ffn_up", f"{theirs}mlp.linear_fc1", inner, width)
        yield from self.linear(f"{ours}ffn_down", f"{theirs}mlp.linear_fc2", width, inner)


class Qwen35Tower(Qwen3VLTower):
    """The tower of Qwen3.5, 3.6 and 3.8: the same without deepstack."""

    names = ("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration")
    defaults: ClassVar[Mapping[str, Any]] = {**Qwen3VLTower.defaults, "deepstack_visual_indexes": []}
