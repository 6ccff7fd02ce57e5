"""The base of all vision towers: what a tower says, and what its table of tensors is written with.

A tower turns an image into embeddings, which take the places of token embeddings in a prompt. libmtmd runs
the tower from a file of its own, the mmproj file. Two sources say what belongs there: llama.cpp's
tools/mtmd/clip.cpp loads the keys and tensors, and tools/mtmd/models/*.cpp computes with them. The meaning
of a checkpoint's tensors is that of transformers' modeling file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from convert.architectures.architecture import Architecture
from convert.errors import CheckpointError, UnsupportedError
from convert.gguf.head import Value
from convert.gguf.target import Target
from convert.source.config import Config
from convert.source.tensor import SourceTensor

CHANNELS = 3
"""Red, green and blue."""

RESCALES = (1 / 255, 0.00392156862745098, 0.003921568859368563)
"""What libmtmd multiplies bytes by, as published files round it."""


class Tower(Architecture):
    """A kind of vision tower with its projector. A subclass has a module of its own.

    To add one, list the class in ``TOWERS`` (towers/__init__.py). llama.cpp's converters of the kind
    (conversion/*.py, ``MmprojModel``) say which keys it writes.

    Args:
        config: config.json's ``vision_config``.
        tensors: the checkpoint's tensors by name; those of the text part count for nothing.
        outer: the rest of config.json, which says how tower and text meet.
        n_text: the length of the text part's embeddings.
        processor: the settings of the image processor (preprocessor_config.json); empty if there is none.
    """

    gguf_name = "clip"

    projector: ClassVar[str]
    """libmtmd's name of the kind, ``clip.projector_type``, from PROJECTOR_TYPE_NAMES in clip-impl.h."""

    prefixes: ClassVar[tuple[str, ...]]
    """Beginnings of the names of the tower's tensors; the first one that any name has is used."""

    projector_prefixes: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the names of the projector's tensors, where they are not among the tower's."""

    activation: ClassVar[tuple[str, ...]] = ("gelu_pytorch_tanh",)
    """Values of ``hidden_act`` that libmtmd computes."""

    mean: ClassVar[tuple[float, ...]] = (0.5, 0.5, 0.5)
    deviation: ClassVar[tuple[float, ...]] = (0.5, 0.5, 0.5)
    """What published checkpoints of this kind subtract from colours in 0 to 1, and then divide by."""

    def __init__(
        self,
        config: Config,
        tensors: Mapping[str, SourceTensor],
        outer: Config,
        n_text: int,
        processor: Config,
    ) -> None:
        super().__init__(config, tensors)
        self.outer, self.n_text, self.processor = outer, n_text, processor
        self.prefix = next(filter(self._begins, self.prefixes), self.prefixes[0])
        self.width = self.config.integer("hidden_size")
        self.inner = self.config.integer("intermediate_size")
        self.patch = self.side("patch_size")
        self.check()

    def _begins(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.sources)

    @property
    def n_heads(self) -> int:
        """The number of heads of attention."""
        return self.config.integer("num_attention_heads")

    @property
    def image_size(self) -> int:
        """Width and height in pixels of the square that positions are learned for."""
        return self.side("image_size")

    def check(self) -> None:
        """Refuse what libmtmd's graph of this kind cannot express."""
        self.config.expect("hidden_act", *self.activation)
        self.config.expect("num_channels", CHANNELS)
        if not self.n_heads or self.width % self.n_heads:
            raise CheckpointError(
                f"config.json: vision_config's hidden_size ({self.width}) must be a multiple of its number "
                f"of heads ({self.n_heads})"
            )
        if not 0 < self.n_layers <= len(self.sources):
            raise CheckpointError(
                f"config.json: vision_config says that the tower has {self.n_layers} layers; the "
                f"checkpoint has {len(self.sources)} tensors"
            )
        self.processor.expect("do_rescale", True)
        self.processor.expect("do_normalize", True)
        self.processor.expect("rescale_factor", *RESCALES)

    def metadata(self) -> dict[str, Value]:
        """Return the settings; keys without the leading ``clip.``."""
        return {
            "has_vision_encoder": True,
            "projector_type": self.projector,
            "use_gelu": True,
            "vision.image_size": self.image_size,
            "vision.patch_size": self.patch,
            "vision.embedding_length": self.width,
            "vision.feed_forward_length": self.inner,
            "vision.block_count": self.n_layers,
            "vision.attention.head_count": self.n_heads,
            "vision.projection_dim": self.n_text,
            "vision.image_mean": self.colours("image_mean", self.mean),
            "vision.image_std": self.colours("image_std", self.deviation),
        }

    def side(self, key: str) -> int:
        """Return a setting in pixels; both sides of a pair must be the same."""
        value = self.config.get(key)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            value = value[0]
        pixels = self.config.replaced(**{key: value}).integer(key)
        if not 0 < pixels <= 1 << 16:
            raise UnsupportedError(f"config.json: vision_config's {key} is {value!r:.60} pixels")
        return pixels

    def colours(self, key: str, usual: tuple[float, ...]) -> list[float]:
        """Return a setting of the image processor that is a number for each colour."""
        values = self.processor.get(key, list(usual))
        if not isinstance(values, list) or len(values) != CHANNELS or not all(map(_is_number, values)):
            raise CheckpointError(f"preprocessor_config.json: {key} must be 3 numbers, not {values!r:.60}")
        if key == "image_std" and 0 in values:
            raise CheckpointError(
                f"preprocessor_config.json: {key} must be 3 numbers above 0, not {values}"
            )
        return [float(value) for value in values]

    # -- what a tower's table is written with -----------------------------------------------------

    def linear(self, name: str, source: str, n_out: int, n_in: int) -> Iterator[Target]:
        """Yield a matrix and its bias. Names come without ``.weight``, the source's without prefix."""
        self.expect_shape(f"{self.prefix}{source}.weight", (n_out, n_in))
        yield self.take(f"{name}.weight", f"{self.prefix}{source}.weight")
        yield self.vector(f"{name}.bias", f"{self.prefix}{source}.bias", n_out)

    def norm(self, name: str, source: str, n: int) -> Iterator[Target]:
        """Yield weight and bias of a norm; names as for ``linear``."""
        for part in ("weight", "bias"):
            yield self.vector(f"{name}.{part}", f"{self.prefix}{source}.{part}", n)

    def kept(self, name: str, source: str, shape: tuple[int, ...]) -> Target:
        """Return a target that is stored as float32: libmtmd adds or convolves with no other type."""
        self.expect_shape(f"{self.prefix}{source}", shape)
        return self.take(name, f"{self.prefix}{source}", is_matrix=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
