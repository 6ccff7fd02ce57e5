"""A tied model's file with an output matrix of its own: the token embeddings a second time, byte for byte.

llama.cpp finds the weights that a LoRA changes by their names. In a tied model's file the output matrix and
the token embeddings have one name, and an adapter that was trained on one of the two uses cannot say which.
With both matrices in the file it can. The numbers that the model computes are the same, since the bytes
are; one such file serves all adapters of a base.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from convert.adapters.base import EMBEDDING, OUTPUT
from convert.architectures import FAMILIES
from convert.errors import CheckpointError, UnsupportedError
from convert.files.models_directory import models_directory
from convert.files.publishing import check_space, publishing
from convert.gguf.file import METADATA_START, GgufFile, read_head, read_heads
from convert.gguf.file_types import split_type
from convert.gguf.head import assemble_head, pack_metadata
from convert.gguf.mmproj import carry_mmproj
from convert.gguf.tensor_info import pad
from convert.progress import OnProgress

MADE_FROM = "tinker_local.untied_from"
"""The key under which an untied file notes the size and time of the base's file that it was made from."""

_CHUNK = 1 << 22
_FOREIGN = {"blobs", "snapshots", "site-packages", "dist-packages"}
"""Directories that belong to a cache or a package manager."""


def base_for(base: Path, adapter: Path) -> Path:
    """Return the file of a base that a GGUF adapter goes on: itself, or its untied one, made if need be.

    Raises:
        ConversionError: the untied file is needed and cannot be made; see ``untie``.
    """
    names = read_head(adapter).tensors
    changed = any(name.startswith((f"{OUTPUT}.lora_", f"{EMBEDDING}.lora_")) for name in names)
    return untie(base) if changed else base


def untied_of(base: Path) -> Path | None:
    """Return a base's untied file if it exists and is up to date, else None."""
    path = untied_path(base)
    if base.is_dir() or not path.is_file():
        return None
    return path if _is_untied(path, read_head(base)) else None


def untied_path(path: Path) -> Path:
    """Return where the untied file of a base belongs.

    It lies beside the base, ``NAME-TYPE.gguf`` -> ``NAME-untied-TYPE.gguf``; that of a base in a cache, in
    a package or in a place that cannot be written to in the models directory, with some digits that stand
    for where the base is.
    """
    name, type = split_type(path.name.removesuffix(".gguf"))
    ending = path.name.removesuffix(".gguf")[len(name) :] if type else ""
    if os.access(path.parent, os.W_OK) and not _FOREIGN & set(path.resolve().parts):
        return path.with_name(f"{name}-untied{ending}.gguf")
    digits = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    return models_directory() / f"{name[:64]}-untied-{digits}{ending}.gguf"


def untie(
    path: Path, output: Path | None = None, *, force: bool = False, on_progress: OnProgress | None = None
) -> Path:
    """Return a file of the same model with an output matrix of its own; make it if it is not there.

    Args:
        path: a GGUF file in one piece, of any type.
        output: where the untied one is or shall be. None: ``untied_path``.
        force: make it again where it is there.

    Returns:
        ``path`` itself if it has an output matrix.

    Raises:
        CheckpointError: the file is not sound, or has no token embeddings.
        UnsupportedError: llama.cpp's architecture always uses the token embeddings, or the model is in
            parts.
        ConversionError: the file cannot be written. Nothing is left.
    """
    files = read_heads(path)
    if any(OUTPUT in file.tensors for file in files):
        return path
    source = files[0]
    _refuse(source, len(files))
    output = output or untied_path(path)
    if not force and output.is_file() and _is_untied(output, source):
        return output
    total = path.stat().st_size + source.tensors[EMBEDDING].n_padded
    with publishing(output, force=True) as place:
        check_space(place, total)
        with path.open("rb") as given, (place / output.name).open("wb") as made:
            _write(source, given, made, on_progress or (lambda done, total: None), total)
        carry_mmproj(path, output, place)
    return output


def _refuse(source: GgufFile, n_files: int) -> None:
    name = source.metadata.get("general.architecture")
    if n_files > 1:
        raise UnsupportedError(
            f"{source.path} is a model in {n_files} parts; one that shares its embeddings with the output "
            "can be untied in one file only: convert it again without --split-size"
        )
    if EMBEDDING not in source.tensors:
        raise CheckpointError(f"{source.path} has no {EMBEDDING}")
    if any(family.gguf_name == name and not family.has_output for family in FAMILIES):
        raise UnsupportedError(
            f"{source.path}: llama.cpp's {name} always uses the token embeddings as the output matrix"
        )


def _is_untied(path: Path, source: GgufFile) -> bool:
    """Whether a file is an untied copy of the base as the base is now."""
    try:
        return _raw_metadata(read_head(path)) == _metadata(source)
    except CheckpointError:
        return False


def _metadata(source: GgufFile) -> bytes:
    """Return an untied file's metadata: the base's, and the state of the base's file."""
    status = source.path.stat()
    return _raw_metadata(source) + pack_metadata({MADE_FROM: f"{status.st_size} {status.st_mtime_ns}"})


def _raw_metadata(file: GgufFile) -> bytes:
    """Return the bytes of a file's metadata."""
    with file.path.open("rb") as data:
        data.seek(METADATA_START)
        return data.read(file.metadata_end - METADATA_START)


def _write(source: GgufFile, given: BinaryIO, made: BinaryIO, on_progress: OnProgress, total: int) -> None:
    infos = [*source.tensors.values(), replace(source.tensors[EMBEDDING], name=OUTPUT)]
    made.write(assemble_head(_metadata(source), len(source.metadata) + 1, infos, source.alignment))
    for info in infos:
        given.seek(info.start)
        left = info.n_bytes
        while left:
            data = given.read(min(left, _CHUNK))
            if not data:
                raise CheckpointError(f"{source.path} has become shorter while it was read")
            made.write(data)
            left -= len(data)
            on_progress(min(made.tell(), total), total)
        made.write(bytes(pad(info.n_bytes, source.alignment) - info.n_bytes))


__all__ = ["MADE_FROM", "base_for", "untie", "untied_of", "untied_path"]
