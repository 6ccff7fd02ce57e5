"""The plan of a model's GGUF file: all of its tensors and settings. No number is computed yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from convert.architectures import FAMILIES, Architecture, find_architecture, is_known
from convert.architectures.nearest import describe_unknown
from convert.errors import CheckpointError, UnsupportedError
from convert.gguf.head import Value
from convert.gguf.target import Target
from convert.source.checkpoint import SourceCheckpoint
from convert.source.config import Config
from convert.source.quantization.unpack import CACHE_SCALES, unpack
from convert.source.tensor import SourceTensor

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
        try:
            architecture = family(config, unpack(checkpoint.tensors, config))
            if change:
                change(architecture)
            metadata = architecture.metadata()
            targets = list(architecture.targets())
            architecture.config.refuse_unread()
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            # a family is a table that trusts the settings, so a wrong setting surfaces as any of these
            raise CheckpointError(
                f"{checkpoint.directory}: config.json and the tensors do not make a "
                f"{checkpoint.architecture}: {type(error).__name__}: {error}"
            ) from error
        _refuse_left_over(checkpoint, architecture, targets)
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


def _refuse_left_over(
    checkpoint: SourceCheckpoint, architecture: Architecture, targets: list[Target]
) -> None:
    used = {name for target in targets for name in target.sources}
    scales = CACHE_SCALES if "quantization_config" in architecture.config else ()
    ignored = (*architecture.ignored, *architecture.copies, *scales)
    left = [
        name
        for name in checkpoint.tensors
        if name not in used and not any(fnmatchcase(name, pattern) for pattern in ignored)
    ]
    left = [name for name in left if not _is_no_bias(checkpoint.tensors[name])]
    if left:
        shown = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
        raise CheckpointError(
            f"{checkpoint.directory} has tensors that a {checkpoint.architecture} has no place for: {shown}"
        )


def _is_no_bias(tensor: SourceTensor) -> bool:
    """Whether a tensor is a bias of zeros, which quantizers write where the model has none."""
    return tensor.name.endswith(".bias") and len(tensor.shape) == 1 and not tensor.array().any()
