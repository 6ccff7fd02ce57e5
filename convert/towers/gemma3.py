"""The tower of Gemma 3: SigLIP on squares of one size, then embeddings pooled and projected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isqrt
from typing import Any, ClassVar

from convert.errors import CheckpointError
from convert.gguf.head import Value
from convert.gguf.target import Target
from convert.towers.siglip import Siglip

_TOKENS = "mm_tokens_per_image"


class Gemma3Tower(Siglip):
    """Each embedding is the mean of a square of patches."""

    names = ("Gemma3ForConditionalGeneration",)
    projector = "gemma3"
    defaults: ClassVar[Mapping[str, Any]] = {**Siglip.defaults, "hidden_size": 1152}
    prefixes = ("model.vision_tower.", "vision_tower.")
    projector_prefixes = ("model.multi_modal_projector.", "multi_modal_projector.")
    ignored = ("*vision_model.head.*", "*vision_tower.head.*")

    @property
    def pooled(self) -> int:
        """Width and height in patches of the square that becomes one embedding."""
        n_tokens = self.outer.integer(_TOKENS, 256)
        patches, tokens = self.image_size // self.patch, isqrt(n_tokens)
        if not tokens or tokens**2 != n_tokens or patches % tokens:
            raise CheckpointError(
                f"config.json: {_TOKENS} is {n_tokens}; an image of {patches} x {patches} patches cannot "
                "be pooled to as many"
            )
        return patches // tokens

    def metadata(self) -> dict[str, Value]:
        """Return the settings; keys without the leading ``clip.``."""
        return super().metadata() | {"vision.projector.scale_factor": self.pooled}

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from super().targets()
        projector = self.projector_prefixes[self.prefixes.index(self.prefix)]
        source = f"{projector}mm_input_projection_weight"
        self.expect_shape(source, (self.width, self.n_text))
        yield self.take("mm.input_projection.weight", source)
        source = f"{projector}mm_soft_emb_norm.weight"
        self.expect_shape(source, (self.width,))
        yield self.take("mm.soft_emb_norm.weight", source, add=1.0)
