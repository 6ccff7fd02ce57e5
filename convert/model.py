"""The plan of a model's GGUF file: all of its tensors and settings. No number is computed yet."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from convert.architectures import FAMILIES, Architecture, find_architecture, is_known
from convert.architectures.nearest import describe_unknown
from convert.errors import CheckpointError, ConversionWarning, UnsupportedError
from convert.gguf.head import Value
from convert.gguf.target import Target
from convert.source.checkpoint import SourceCheckpoint
from convert.source.config import Config
from convert.source.image_processor import read_image_processor
from convert.source.quantization.unpack import CACHE_SCALES, unpack
from convert.source.tensor import SourceTensor
from convert.towers import TOWERS, find_tower

_EMBEDDING = "token_embd.weight"


@dataclass(frozen=True, eq=False)
class ModelPlan:
    """The tensors and settings that a checkpoint becomes, as its architecture says.

    Attributes:
        architecture: llama.cpp's name.
        metadata: hyperparameters, with their full keys.
        targets: every tensor of the GGUF file.
        family: the architecture, which made them of the checkpoint.
    """

    architecture: str
    metadata: Mapping[str, Value]
    targets: list[Target]
    family: Architecture

    @classmethod
    def of(
        cls, checkpoint: SourceCheckpoint, change: Callable[[Architecture], None] | None = None
    ) -> ModelPlan:
        """Plan the conversion of a checkpoint.

        Args:
            change: called with the architecture before it makes targets; it may replace tensors.

        Raises:
            CheckpointError: settings and tensors do not make a model of this architecture, or a tensor
                is missing, or one is left over.
            UnsupportedError: the architecture is not known, or cannot express the settings.
        """
        where = str(checkpoint.directory / "config.json")
        if not is_known(checkpoint.architecture):
            settings = checkpoint.text_config | {"model_type": checkpoint.config.get("model_type")}
            unknown = describe_unknown(checkpoint.architecture, settings, checkpoint.tensors, FAMILIES)
            raise UnsupportedError(f"{where}: {unknown}")
        family = find_architecture(checkpoint.architecture, checkpoint.text_config.get("model_type"))
        config = Config(checkpoint.text_config, where)

        def make() -> Architecture:
            architecture = family(config, unpack(checkpoint.tensors, config))
            if change:
                change(architecture)
            return architecture

        plan = cls._made(checkpoint, make)
        _refuse_left_over(checkpoint, plan, checkpoint.tensors)
        return plan

    @classmethod
    def of_tower(cls, checkpoint: SourceCheckpoint) -> ModelPlan | None:
        """Plan the conversion of a checkpoint's vision tower; None if it has none.

        A tower of an unknown kind is none; a warning names it.

        Raises:
            CheckpointError, UnsupportedError: as ``of``, for the tower.
        """
        where, settings = str(checkpoint.directory / "config.json"), checkpoint.config.get("vision_config")
        if not isinstance(settings, dict):
            return None
        kind = find_tower(checkpoint.architecture)
        if kind is None:
            _say_unknown(checkpoint, settings)
            return None
        owned = kind.prefixes + kind.projector_prefixes
        tensors = {n: t for n, t in checkpoint.tensors.items() if n.startswith(owned)}
        if not tensors:  # a checkpoint of the text part alone
            return None
        text = Config(checkpoint.text_config, where)
        processor = Config(read_image_processor(checkpoint.directory), "preprocessor_config.json")

        def make() -> Architecture:
            return kind(
                Config(settings, f"{where}: vision_config"),
                unpack(checkpoint.tensors, text),
                Config(checkpoint.config, where),
                text.integer("hidden_size"),
                processor,
            )

        plan = cls._made(checkpoint, make)
        _refuse_left_over(checkpoint, plan, tensors)
        return plan

    @classmethod
    def _made(cls, checkpoint: SourceCheckpoint, make: Callable[[], Architecture]) -> ModelPlan:
        try:
            architecture = make()
            metadata = architecture.metadata()
            targets = list(architecture.targets())
            architecture.config.refuse_unread()
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            # a family is a table that trusts the settings, so a wrong setting surfaces as any of these
            raise CheckpointError(
                f"{checkpoint.directory}: config.json and the tensors do not make a "
                f"{checkpoint.architecture}: {type(error).__name__}: {error}"
            ) from error
        return cls(
            architecture.gguf_name,
            {architecture.full_key(key): value for key, value in metadata.items()},
            targets,
            architecture,
        )

    @property
    def n_rows(self) -> int:
        """Rows of the token embeddings: as many tokens must be in the vocabulary."""
        return self.embedding.shape[0]

    @property
    def embedding(self) -> Target:
        """The token embeddings."""
        for target in self.targets:
            if target.name == _EMBEDDING:
                return target
        raise CheckpointError(f"the checkpoint makes no {_EMBEDDING}")


def _say_unknown(checkpoint: SourceCheckpoint, settings: Mapping[str, Any]) -> None:
    warnings.warn(
        f"the checkpoint has a vision tower of the kind {settings.get('model_type', 'unknown')!r} (of a "
        f"{checkpoint.architecture}), which is not converted: the file reads text only. Known are the "
        f"towers of {', '.join(sorted(name for tower in TOWERS for name in tower.names))}",
        ConversionWarning,
        stacklevel=2,
    )


def _refuse_left_over(
    checkpoint: SourceCheckpoint, plan: ModelPlan, tensors: Mapping[str, SourceTensor]
) -> None:
    """Refuse tensors, of those given, that no target is made of."""
    architecture = plan.family
    used = {name for target in plan.targets for name in target.sources}
    scales = CACHE_SCALES if "quantization_config" in architecture.config else ()
    ignored = (*architecture.ignored, *architecture.copies, *scales)
    left = [
        name
        for name in tensors
        if name not in used and not any(fnmatchcase(name, pattern) for pattern in ignored)
    ]
    left = [name for name in left if not _is_no_bias(tensors[name])]
    if left:
        shown = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
        raise CheckpointError(
            f"{checkpoint.directory} has tensors that a {checkpoint.architecture} has no place for: {shown}"
        )


def _is_no_bias(tensor: SourceTensor) -> bool:
    """Whether a tensor is a bias of zeros, which quantizers write where the model has none."""
    return tensor.name.endswith(".bias") and len(tensor.shape) == 1 and not tensor.array().any()
