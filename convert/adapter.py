"""``convert_adapter``: a LoRA from Tinker or PEFT becomes a GGUF adapter, or is merged into its base."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from convert.adapters.archive import is_archive, unpacked
from convert.adapters.base import Base
from convert.adapters.checkpoint import AdapterCheckpoint
from convert.adapters.lora_tensors import lora_targets, refuse_output
from convert.adapters.merged import merged_tensors, separate_output, unties
from convert.adapters.settings import CONFIG
from convert.adapters.updates import HEAD, TOKENS, Updates, find_updates
from convert.architectures import Architecture
from convert.convert import Job
from convert.errors import CheckpointError, ConversionError, UnsupportedError
from convert.files.models_directory import checked_name, models_directory
from convert.files.publishing import check_space, publishing
from convert.gguf.file_types import FILE_TYPES, FileType, find_type
from convert.gguf.head import Value
from convert.gguf.output import SOURCE_HASH, GgufOutput
from convert.gguf.tensor_types import choose_types
from convert.progress import OnProgress
from convert.untied import untie

ADAPTER_TYPES = ("f32", "f16", "bf16")
BASE_HASH = "general.base_model.0.source.sha256"
"""The key under which an adapter names its base's weights, by their ``general.source.sha256``."""
BASE_PATH = "tinker_local.base_path"
"""The key under which an adapter names where its base was, if that is outside of the models directory."""

_CONFIG, _WEIGHTS = "config.json", ("model.safetensors", "model.safetensors.index.json")
_ARCHIVE = re.compile(r"\.(tar|tgz|tar\.gz)$")


def is_adapter_source(source: Path) -> bool:
    """Whether a path holds an adapter to convert: an adapter's directory, or an archive of one."""
    if source.is_dir():
        is_model = any((source / name).exists() for name in (_CONFIG, *_WEIGHTS))
        return (source / CONFIG).exists() and not is_model
    return source.is_file() and is_archive(source)


def base_name(source: str | os.PathLike[str]) -> str:
    """Return the model that an adapter says it was trained on.

    Raises:
        CheckpointError: it names none, or it is no adapter.
    """
    with _opened(Path(source), Path(tempfile.gettempdir())) as directory:
        settings = AdapterCheckpoint.open(directory).settings
    if settings.base is None:
        raise CheckpointError(f"{source} does not name the model it was trained on; give it with --base")
    return settings.base


def convert_adapter(
    source: str | os.PathLike[str],
    base: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    outtype: str | None = None,
    merge: bool = False,
    name: str | None = None,
    force: bool = False,
    verify: bool = True,
    split_size: int | None = None,
    text_only: bool = False,
    any_base: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Convert an adapter to a GGUF file, or base and adapter to one model.

    An adapter of the output matrix of a tied model (Tinker trains it by default) needs a base file with an
    output matrix of its own. Where ``base`` is a GGUF file without one, that file is made as well, once for
    all adapters; see ``convert.untied``.

    Args:
        source: a directory with adapter_config.json and adapter_model.safetensors, as Tinker or PEFT names
            their tensors, or a tar archive of one.
        base: the model it was trained on: a Hugging Face directory, or a GGUF file of any type.
        output: the file. None: in the models directory ``NAME-lora.gguf``, or ``NAME-TYPE.gguf`` if merged.
        outtype: of an adapter ``f32`` (the default), ``f16`` or ``bf16``; of a merged model as for
            ``convert_checkpoint`` (``bf16``).
        merge: write the whole model, with the updates added in float32 before the weights are stored. Then
            ``base`` must be a Hugging Face directory.
        name: the adapter's, or the merged model's.
        force: replace an existing output.
        verify: check a merged model with llama.cpp.
        split_size: most bytes of a file of a merged model.
        text_only: leave out the vision tower of a merged model.
        any_base: use the base even if the adapter names another.
        on_progress: called with the bytes done and the bytes in all.

    Returns:
        The file, or the first part.

    Raises:
        CheckpointError: the source is missing, malformed or hostile, or is not for this base.
        UnsupportedError: it is more than a LoRA, or llama.cpp applies no LoRA to what it changes; the
            message says to what, and whether merging helps.
        ConversionError: the output cannot be written. Nothing is left.
    """
    source, path = Path(source), Path(base)
    name = checked_name(name or _ARCHIVE.sub("", source.resolve().name))
    with _opened(source, models_directory() if output is None else Path(output).parent) as directory:
        adapter = AdapterCheckpoint.open(directory)
        model = Base.open(path)
        if not any_base:
            _check_names(adapter, model)
        updates = find_updates(adapter, model)
        refuse_output(model, updates)
        job = Job(
            None if output is None else Path(output),
            name,
            force,
            verify,
            split_size,
            on_progress or (lambda done, total: None),
            text_only,
        )
        if merge:
            return _merge(job, adapter, model, updates, outtype or "bf16")
        written = _write(job, adapter, model, updates, outtype or "f32")
    if model.files and model.is_tied and {HEAD, TOKENS} & updates.keys():
        untie(path, on_progress=on_progress)
    return written


def _write(job: Job, adapter: AdapterCheckpoint, base: Base, updates: Updates, outtype: str) -> Path:
    """Write the adapter as a GGUF file of its own."""
    if job.split_size is not None:
        raise UnsupportedError("an adapter is written in one file; leave out --split-size")
    type = _adapter_type(outtype)
    targets = lora_targets(updates, base, adapter.settings.alpha)
    output = job.output or models_directory() / f"{job.name}-lora.gguf"
    metadata = _metadata(adapter, base, job.name or "", type)
    layout = GgufOutput.plan(metadata, choose_types(targets, adapter.tensors, type))
    done, total = 0, sum(layout.sizes)

    def count(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        job.on_progress(done, total)

    with publishing(output, force=job.force) as place:
        check_space(place, total)
        paths = [place / layout.file_names(output.stem)[0]]
        layout.write_heads(paths)
        layout.write_data(paths, adapter.tensors, count)
    return output


def _merge(job: Job, adapter: AdapterCheckpoint, base: Base, updates: Updates, outtype: str) -> Path:
    """Write the base with the adapter's updates added, as one model."""
    if base.checkpoint is None:
        raise UnsupportedError(
            f"an adapter is merged into the weights it was trained on, and {base.path} is a GGUF file; "
            "give the Hugging Face directory with --base"
        )
    merged = merged_tensors(updates, base)

    def change(architecture: Architecture) -> None:
        architecture.change(merged)
        if unties(updates, base):
            separate_output(base, architecture, merged)

    tensors = {**base.checkpoint.tensors, **adapter.tensors}
    type = None if outtype.lower() == "auto" else find_type(outtype)
    return job.convert(replace(base.checkpoint, tensors=tensors), type, change)


def _adapter_type(outtype: str) -> FileType:
    if outtype.lower() not in ADAPTER_TYPES:
        raise UnsupportedError(
            f"an adapter is stored as one of {', '.join(ADAPTER_TYPES)}, not {outtype}; only a merged "
            "model (--merge) can have another type"
        )
    return FILE_TYPES[outtype.lower()]


def _metadata(adapter: AdapterCheckpoint, base: Base, name: str, type: FileType) -> Mapping[str, Value]:
    organisation, _, plain = (base.repository or adapter.settings.base or "").rpartition("/")
    keys = base.files[0].metadata if base.files else {}
    values: dict[str, Value] = {
        "general.architecture": base.architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": adapter.settings.alpha,
        "general.name": name.rpartition("/")[2],
        "general.file_type": type.number,
        "general.base_model.count": 1,
        "general.base_model.0.name": plain or base.path.stem,
        "general.base_model.0.organization": organisation,
        BASE_HASH: str(keys.get(SOURCE_HASH, "")),
        BASE_PATH: _place(base.path),
    }
    return {key: value for key, value in values.items() if value != ""}


def _place(base: Path) -> str:
    """Return a base's path, "" for one in the models directory, where its name finds it."""
    home, path = models_directory().resolve(), Path(os.path.abspath(base))
    return "" if path.resolve().is_relative_to(home) else str(path)


def _check_names(adapter: AdapterCheckpoint, base: Base) -> None:
    """Refuse an adapter that names another model as its base, even if the shapes fit."""
    said = adapter.settings.base
    if said is None or base.repository is None or said.count("/") != 1 or said.startswith((".", "/", "~")):
        return
    if said.rpartition("/")[2].casefold() != base.repository.rpartition("/")[2].casefold():
        raise CheckpointError(
            f"{adapter.settings.where} says that the adapter was trained on {said}; {base.path} is "
            f"{base.repository}. To use that base anyway, add --any-base (any_base=True)"
        )


@contextmanager
def _opened(source: Path, beside: Path) -> Iterator[Path]:
    """Yield the adapter's directory; an archive is unpacked for the time of the block."""
    if source.is_dir():
        yield source
    elif not source.exists():
        raise ConversionError(f"there is no {source}")
    elif not is_archive(source):
        raise CheckpointError(f"{source} is no adapter: it is neither a directory nor a tar archive")
    else:
        while not beside.is_dir():
            beside = beside.parent
        with unpacked(source, beside) as directory:
            yield directory


__all__ = ["base_name", "convert_adapter", "is_adapter_source"]
