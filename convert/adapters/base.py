"""The model that an adapter was trained on: a Hugging Face directory, or a GGUF file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from convert.adapters.blueprint import read_blueprint
from convert.architectures import Architecture
from convert.errors import CheckpointError
from convert.files.models_directory import name_of_checkpoint
from convert.gguf.file import GgufFile, read_heads
from convert.gguf.target import Target
from convert.model import ModelPlan
from convert.source.checkpoint import SourceCheckpoint
from convert.source.tensor import SourceTensor

OUTPUT, EMBEDDING = "output.weight", "token_embd.weight"


@dataclass(frozen=True, eq=False)
class Base:
    """A base model: the tensors that adapters can change.

    Attributes:
        path: the directory or file.
        family: knows the checkpoint's tensors by their names.
        targets: the GGUF file's tensors by name; each knows what it is made of.
        repository: its name on Hugging Face, as ORG/NAME, where that is known.
        checkpoint: what the directory holds; None for a GGUF file.
        files: the GGUF file's parts; empty for a directory.
    """

    path: Path
    family: Architecture
    targets: Mapping[str, Target]
    repository: str | None
    checkpoint: SourceCheckpoint | None = None
    files: tuple[GgufFile, ...] = ()

    @classmethod
    def open(cls, path: Path) -> Base:
        """Read what a base says about itself; no weights are read.

        Raises:
            CheckpointError: a file is missing or malformed.
            UnsupportedError: the architecture is not known.
        """
        if path.is_dir():
            checkpoint = SourceCheckpoint.open(path)
            model = ModelPlan.of(checkpoint)
            name = name_of_checkpoint(path, checkpoint.config.get("_name_or_path"))
            repository = name if "/" in name else None
            return cls(path, model.family, _by_name(model.targets), repository, checkpoint)
        files = tuple(read_heads(path))
        if files[0].metadata.get("general.type", "model") != "model":
            raise CheckpointError(
                f"{path} is no model: its general.type is {files[0].metadata['general.type']!r}"
            )
        family, targets = read_blueprint(files)
        return cls(path, family, _by_name(targets), _repository(files[0].metadata), None, files)

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        if self.files:
            return str(self.files[0].metadata["general.architecture"])
        return self.family.gguf_name

    @property
    def is_tied(self) -> bool:
        """Whether the GGUF file has no output matrix of its own."""
        return OUTPUT not in self.targets

    @cached_property
    def modules(self) -> Mapping[str, SourceTensor]:
        """The checkpoint's tensors that are used in the file, by their plain names (see ``plain``)."""
        used = {name for target in self.targets.values() for name in target.sources}
        return {
            plain(name): tensor for name, tensor in self.family.sources.items() if tensor.sources[0] in used
        }

    def made_of(self, tensor: SourceTensor) -> list[Target]:
        """Return the targets that a tensor of the checkpoint is used in."""
        return self._users.get(tensor.sources[0], [])

    def made_from(self, target: Target) -> list[str]:
        """Return the plain names of the tensors that a target is made of, in order."""
        return [self._plain[name] for name in target.sources if name in self._plain]

    @cached_property
    def _plain(self) -> dict[str, str]:
        return {tensor.sources[0]: name for name, tensor in self.modules.items()}

    @cached_property
    def _users(self) -> dict[str, list[Target]]:
        users: dict[str, list[Target]] = {}
        for target in self.targets.values():
            for name in target.sources:
                users.setdefault(name, []).append(target)
        return users


_PREFIX = re.compile(
    r"(?:base_model\.model\.)?(?:model\.language_model\.|language_model\.model\."
    r"|language_model\.backbone\.|language_model\.|model\.|backbone\.|transformer\.)?"
)
_HEADS = {"unembed_tokens": "lm_head"}
_EMBEDDINGS = ("embed_tokens", "embeddings", "wte")


def plain(name: str) -> str:
    """Return a module's name without what differs between checkpoints, adapters and models with vision.

    ``model.language_model.layers.3.mlp.up_proj.weight`` -> ``layers.3.mlp.up_proj``;
    ``model.unembed_tokens`` -> ``lm_head``; ``transformer.wte`` -> ``embed_tokens``.
    """
    bare = _PREFIX.sub("", name, count=1).removesuffix(".weight")
    return "embed_tokens" if bare in _EMBEDDINGS else _HEADS.get(bare, bare)


def _by_name(targets: list[Target]) -> dict[str, Target]:
    return {target.name: target for target in targets}


def _repository(keys: Mapping[str, Any]) -> str | None:
    name = keys.get("general.source.huggingface.repository")
    return name if isinstance(name, str) and "/" in name else None


__all__ = ["EMBEDDING", "OUTPUT", "Base", "plain"]
