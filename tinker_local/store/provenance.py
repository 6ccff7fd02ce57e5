"""Provenance: what a GGUF file says of its origin, and whether an adapter fits a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from convert.files.parts import parts_of
from convert.gguf.file import GgufFile
from convert.gguf.file_types import FILE_TYPES
from convert.vocabularies.embedded import KEY
from tinker_local.gguf.file import read_head
from tinker_local.gguf.limits import limits_of

BASE_HASH, BASE_PATH = "general.base_model.0.source.sha256", "tinker_local.base_path"
"""Keys of ``convert.adapter``."""

_OWN, _LLAMA = "the source's own", "llama.cpp's"
_HUB = "https://huggingface.co/"
_TYPES = {type.number: type.name for type in FILE_TYPES.values()}


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a file says of its origin; a field is None where the file says nothing.

    Attributes:
        path: the file.
        is_adapter: whether the file is an adapter, not a whole model.
        architecture: in llama.cpp's words, such as "llama".
        type: number format of most of its matrices.
        license: as its metadata has it.
        name: of a model, ``ORG/NAME``: the repository it was converted from.
        source_hash: of a model, the hash of the weights it was converted from.
        base_name: of an adapter, the model it was trained on: ``ORG/NAME`` or ``NAME``.
        base_hash: of an adapter, that model's ``source_hash``.
        base_path: of an adapter, where its base was at the conversion, if that was outside of the store.
        tokenizer: of a model, which tokenizer runs: the source's, if the file has it, or llama.cpp's.
        limits: of a model, what it allows less than others do, a sentence each.
        weights: names of its tensors; of an adapter, of the tensors that it changes.
    """

    path: Path
    is_adapter: bool
    architecture: str | None
    type: str | None
    license: str | None
    name: str | None
    source_hash: str | None
    base_name: str | None
    base_hash: str | None
    base_path: Path | None
    tokenizer: str | None
    limits: tuple[str, ...]
    weights: frozenset[str]

    @classmethod
    def of(cls, path: Path) -> Provenance:
        """Read it from the file's head.

        Raises:
            BadRequestError: it is not a GGUF file.
        """
        head = read_head(path)
        type = head.number("general.file_type")
        return cls(
            path=path,
            is_adapter=head.is_adapter,
            architecture=head.text("general.architecture"),
            type=None if type is None else _TYPES.get(type),
            license=head.text("general.license"),
            name=head.text("general.source.huggingface.repository"),
            source_hash=head.text("general.source.sha256"),
            base_name=_base_name(head),
            base_hash=head.text(BASE_HASH),
            base_path=_base_path(head),
            tokenizer=None if head.is_adapter else _OWN if KEY in head.metadata else _LLAMA,
            limits=() if head.is_adapter else tuple(limits_of(head)),
            weights=frozenset(
                name.removesuffix(".lora_a").removesuffix(".lora_b")
                for file in (head, *map(read_head, parts_of(path)[1:]))
                for name in file.tensors
            ),
        )

    def disagreement(self, base: Provenance, called: tuple[str, ...] = ()) -> str | None:
        """Return why this adapter does not fit ``base``, None if nothing speaks against it.

        Hashes decide where both are known. Otherwise names decide, without their organisations, since
        several organisations publish the same weights.

        Args:
            base: a model.
            called: other names of that model.
        """
        if self.base_hash and base.source_hash:
            if self.base_hash == base.source_hash:
                return None
            return (
                f"it was made for {self.base_name or 'a model'} with the weights {self.base_hash[:12]}..., "
                f"and those of {base.name or base.path.name} are {base.source_hash[:12]}..."
            )
        names = [name for name in (base.name, *called) if name]
        if not self.base_name or not names or is_same_model(self.base_name, names):
            return None
        return f"it was made for {self.base_name}, and the model is {names[0]}"


def _base_path(head: GgufFile) -> Path | None:
    """Return the path that a file gives; one on another machine is not followed."""
    said = head.text(BASE_PATH) or ""
    return Path(said) if Path(said).is_absolute() and not said.startswith(("//", "\\\\")) else None


def _base_name(head: GgufFile) -> str | None:
    url = head.text("general.base_model.0.repo_url") or ""
    if url.startswith(_HUB):
        return url.removeprefix(_HUB)
    name, organisation = (head.text(f"general.base_model.0.{part}") for part in ("name", "organization"))
    return f"{organisation}/{name}" if organisation and name else name


def is_same_model(name: str, others: Iterable[str]) -> bool:
    """Whether a name means one of the others, whoever published it: ``ORG/NAME``, or a path to NAME."""
    return _plain(name) in map(_plain, others)


def _plain(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].casefold()
