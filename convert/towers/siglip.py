"""SigLIP: the vision transformer of several model families. What follows it is theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from convert.errors import CheckpointError
from convert.gguf.head import Value
from convert.gguf.target import Target
from convert.towers.tower import CHANNELS, Tower


class Siglip(Tower):
    """Attention and an MLP in every layer, norms before, a learned position for each patch of a square."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_channels": CHANNELS,
        "image_size": 224,
        "patch_size": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    }

    def check(self) -> None:
        """Refuse what libmtmd's graph of this kind cannot express."""
        super().check()
        if self.image_size % self.patch:
            raise CheckpointError(
                f"config.json: vision_config's image_size ({self.image_size}) must be a multiple of its "
                f"patch_size ({self.patch})"
            )

    def metadata(self) -> dict[str, Value]:
        """Return the settings; keys without the leading ``clip.``."""
        epsilon = self.config.number("layer_norm_eps")
        return super().metadata() | {"vision.attention.layer_norm_epsilon": epsilon}

    @property
    def model(self) -> str:
        """What comes between the prefix and the names: nothing, or ``vision_model.`` of transformers 4."""
        return "vision_model." if self._begins(f"{self.prefix}vision_model.") else ""

    def targets(self) -> Iterator[Target]:
        """Yield the tensors of the transformer, without the projector."""
        embeddings, width = f"{self.model}embeddings.", self.width
        n_patches = (self.image_size // self.patch) ** 2
        kernel = (width, CHANNELS, self.patch, self.patch)
        yield self.kept("v.patch_embd.weight", f"{embeddings}patch_embedding.weight", kernel)
        yield self.vector("v.patch_embd.bias", f"{self.prefix}{embeddings}patch_embedding.bias", width)
        yield self.kept(
            "v.position_embd.weight", f"{embeddings}position_embedding.weight", (n_patches, width)
        )
        for i in range(self.n_layers):
            yield from self.block(f"v.blk.{i}.", f"{self.model}encoder.layers.{i}.")
        yield from self.norm("v.post_ln", f"{self.model}post_layernorm", width)

    def block(self, ours: str, theirs: str) -> Iterator[Target]:
        """Yield a layer."""
        width, inner = self.width, self.inner
        for number in (1, 2):
            yield from self.norm(f"{ours}ln{number}", f"{theirs}layer_norm{number}", width)
        for part in ("q", "k", "v", "out"):
            yield from self.linear(f"{ours}attn_{part}", f"{theirs}self_attn.{part}_proj", width, width)
        yield from self.linear(f"{ours}ffn_up", f"{theirs}mlp.fc1", inner, width)
        yield from self.linear(f"{ours}ffn_down", f"{theirs}mlp.fc2", width, inner)
