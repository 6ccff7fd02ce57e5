"""``convert_checkpoint``: a model directory, or a GGUF file, becomes a GGUF file.

A vision tower becomes a second file beside it.

The way of a tensor is in README.md, "How a tensor travels".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from convert.architectures import Architecture
from convert.errors import CheckpointError, ConversionError, UnsupportedError
from convert.files.mmproj import mmproj_path
from convert.files.models_directory import checked_name, models_directory, name_of_checkpoint
from convert.files.publishing import check_space, publishing
from convert.gguf.file_types import FILE_TYPES, FileType, find_type, split_type
from convert.gguf.head import Value
from convert.gguf.mmproj import carry_mmproj
from convert.gguf.output import GgufOutput
from convert.gguf.tensor_types import choose_types, main_type
from convert.metadata import general_metadata
from convert.model import ModelPlan
from convert.progress import OnProgress
from convert.quantize import quantize
from convert.source.checkpoint import SourceCheckpoint
from convert.verification.llama_process import LlamaProcess
from convert.verification.verify import checking
from convert.vocabularies.vocabulary import read_vocabulary

Change = Callable[[Architecture], None]

_MAGIC = b"GGUF"
_TOWER_TYPES = ("f32", "bf16", "f16")


def convert_checkpoint(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    outtype: str = "bf16",
    name: str | None = None,
    force: bool = False,
    verify: bool = True,
    split_size: int | None = None,
    text_only: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Convert a model to a GGUF file.

    A vision tower of a known kind goes to a file of its own beside the model's, ``mmproj-NAME.gguf``. Its
    type is the model's if that is ``f32``, ``bf16``, ``f16`` or ``auto``, else ``f16``. A GGUF file that is
    stored in another type keeps the tower that it has.

    Tensors are read by memory map and written a block at a time. The result has its name only when it
    is whole, checked and on disk.

    Args:
        source: a Hugging Face model directory, or a GGUF file to store in another type.
        output: the file. None: ``NAME-TYPE.gguf`` in the models directory, under the model's
            organisation where that is known, so that ``create_sampling_client(base_model=...)`` finds it
            by its name.
        outtype: ``f32``, ``bf16``, ``f16``, ``q8_0``, a type of llama.cpp's quantizer (``q4_k_m``, ...), or
            ``auto``: each matrix in the precision it has. Norms, biases and whatever has one axis are
            float32 in every type.
        name: the model's, ``NAME`` or ``ORG/NAME``. None: from where the source lies.
        force: replace an existing output.
        verify: check that llama.cpp loads the file and tokenizes as the source does.
        split_size: most bytes of a file; the model is written in parts then, as llama.cpp reads them.
        text_only: leave out the vision tower.
        on_progress: called with the bytes done and the bytes in all.

    Returns:
        The model's file, or the first part.

    Raises:
        CheckpointError: a file of the source is missing or malformed, or files disagree.
        UnsupportedError: what the source says cannot be expressed.
        ConversionError: the output cannot be written, or did not pass the checks. Nothing is left.
    """
    job = Job(
        None if output is None else Path(output),
        name and checked_name(name),
        force,
        verify,
        split_size,
        on_progress or (lambda done, total: None),
        text_only,
    )
    path = Path(source)
    if path.is_dir():
        type = None if outtype.lower() == "auto" else find_type(outtype)
        return job.convert(SourceCheckpoint.open(path), type)
    return job.requantize(_check_gguf(path), outtype)


@dataclass(frozen=True)
class Job:
    """One conversion, with the arguments of ``convert_checkpoint`` or ``convert_adapter``."""

    output: Path | None
    name: str | None
    force: bool
    verify: bool
    split_size: int | None
    on_progress: OnProgress
    text_only: bool = False

    def convert(
        self, checkpoint: SourceCheckpoint, type: FileType | None, change: Change | None = None
    ) -> Path:
        """Convert a model directory.

        Args:
            type: None keeps each matrix in the precision it has.
            change: called with the architecture before it makes targets.
        """
        directory = checkpoint.directory
        name = self.name or name_of_checkpoint(directory, checkpoint.config.get("_name_or_path"))
        # 1. Plan: the family says which tensors and settings the file has; each tensor gets its format.
        model = ModelPlan.of(checkpoint, change)
        tower = None if self.text_only else ModelPlan.of_tower(checkpoint)
        tensors = choose_types(model.targets, checkpoint.tensors, type if type and type.is_direct else None)
        kept, type = type, type or main_type(tensors)
        output = self.output or models_directory() / f"{name}-{type.name}.gguf"
        # 2. Metadata: the vocabulary, the family's settings, and what the file says about itself.
        metadata = _metadata(checkpoint, model, name, type)
        # 3. Lay out: heads and sizes of all files are known before a number is read.
        layout = GgufOutput.plan(metadata, tensors, self.split_size)
        names = layout.file_names(output.stem)
        beside = [] if tower is None else [_lay_out_tower(checkpoint, tower, name, kept)]
        # 4. Write to a hidden directory; at the end of the block the files are published.
        with publishing(output, force=self.force) as place:
            towers = [Placed(laid, [place / mmproj_path(output).name]) for laid in beside]
            if type.is_direct:
                files = [Placed(layout, [place / name for name in names]), *towers]
                check_space(place, n_bytes := sum(file.n_bytes for file in files))
                self._write(files, checkpoint, n_bytes)
            else:
                self._write_and_quantize(layout, towers, checkpoint, type, place, names)
        return output if len(names) == 1 else output.with_name(names[0])

    def requantize(self, source: Path, outtype: str) -> Path:
        """Write a GGUF file again with its tensors in another type."""
        if outtype.lower() == "auto":
            raise UnsupportedError(
                f"{source} is a GGUF file and has a type already; name another with --type"
            )
        if self.split_size is not None:
            raise UnsupportedError(
                "a GGUF file cannot be split while its type changes; leave out --split-size"
            )
        type = find_type(outtype)
        output = self.output or self._beside(source, type)
        if output.exists() and output.samefile(source):
            raise ConversionError(f"{output} is the source itself")
        size = source.stat().st_size
        with publishing(output, force=self.force) as place:
            made = place / output.with_suffix(".gguf").name
            quantize(source, made, type, on_share=lambda share: self.on_progress(int(share * size), size))
            if not self.text_only:
                carry_mmproj(source, output, place)
        return output

    def _beside(self, source: Path, type: FileType) -> Path:
        """Return the place of another type of a GGUF file: beside it, or in the models directory."""
        home, here = models_directory(), source.resolve().parent
        name = self.name or checked_name(split_type(source.stem)[0])
        place = here if here.is_relative_to(home.resolve()) and "/" not in name else home
        return place / f"{name}-{type.name}.gguf"

    def _write(self, files: Sequence[Placed], checkpoint: SourceCheckpoint, total: int) -> None:
        """Write the files while llama.cpp checks the heads.

        Args:
            files: the model's, then its tower's if there is one.
            total: bytes of work in all.
        """
        for file in files:
            file.layout.write_heads(file.paths)
        done = sum(len(head) for file in files for head in file.layout.heads)
        with self._checking([file.paths[0] for file in files], checkpoint.directory) as check:

            def count(n_bytes: int) -> None:
                nonlocal done
                done += n_bytes
                self.on_progress(done, total)
                if check:
                    check.check()

            for file in files:
                file.layout.write_data(file.paths, checkpoint.tensors, count)

    def _write_and_quantize(
        self,
        layout: GgufOutput,
        towers: Sequence[Placed],
        checkpoint: SourceCheckpoint,
        type: FileType,
        place: Path,
        names: list[str],
    ) -> None:
        """Write the model in the checkpoint's precision to a temporary file, which llama.cpp quantizes."""
        whole = place / "whole"  # a directory: only files directly in the place are published
        whole.mkdir()
        files = [Placed(layout, [whole / name for name in names]), *towers]
        n_bytes = sum(file.n_bytes for file in files)
        tensors = [tensor for part in layout.parts for tensor in part]
        n_weights = sum(math.prod(tensor.target.shape) for tensor in tensors)
        check_space(place, n_bytes + int(n_weights * type.bits / 8))
        self._write(files, checkpoint, 2 * n_bytes)
        quantize(
            whole / names[0],
            place / (names[0] if len(names) == 1 else names[0].rpartition("-00001-of-")[0]),
            type,
            kept=[(tensor.target.name, int(tensor.type)) for tensor in tensors if tensor.target.raw_type],
            n_parts=len(names),
            on_share=lambda share: self.on_progress(int(n_bytes * (1 + share)), 2 * n_bytes),
        )

    def _checking(self, paths: list[Path], source: Path) -> AbstractContextManager[LlamaProcess | None]:
        return checking(*paths, source=source) if self.verify else nullcontext()


@dataclass(frozen=True, eq=False)
class Placed:
    """A layout and where its files are written."""

    layout: GgufOutput
    paths: Sequence[Path]

    @property
    def n_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(self.layout.sizes)


def _lay_out_tower(
    checkpoint: SourceCheckpoint, tower: ModelPlan, name: str, type: FileType | None
) -> GgufOutput:
    """Lay out the mmproj file. Of types that blocks of weights share, it has float16, as llama.cpp's."""
    if type is not None and type.name not in _TOWER_TYPES:
        type = FILE_TYPES["f16"]
    tensors = choose_types(tower.targets, checkpoint.tensors, type)
    type = type or main_type(tensors)
    about = general_metadata(checkpoint.directory, tower.architecture, name, type, kind="mmproj")
    return GgufOutput.plan({**about, **tower.metadata}, tensors)


def _metadata(
    checkpoint: SourceCheckpoint, model: ModelPlan, name: str, type: FileType
) -> dict[str, Value]:
    """Return the metadata; the vocabulary, which takes some hundred megabytes, does not outlive this."""
    vocabulary = read_vocabulary(checkpoint.directory, checkpoint.config, model.n_rows)
    fitting = vocabulary.fitting_name
    metadata = general_metadata(checkpoint.directory, model.architecture, name, type, fitting)
    return {**metadata, **model.metadata, **vocabulary.metadata()}


def _check_gguf(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except FileNotFoundError:
        raise ConversionError(f"there is no {path}{_hint(path)}") from None
    except OSError as error:
        raise ConversionError(f"{path} cannot be read: {error.strerror}") from error
    if magic != _MAGIC:
        raise CheckpointError(
            f"{path} is neither a model directory nor a GGUF file: it starts with {magic!r}"
        )
    return path


def _hint(path: Path) -> str:
    if len(path.parts) != 2 or path.is_absolute():
        return ""
    return f"; if a model on Hugging Face is meant, this fetches it: hf download {path} --local-dir {path}"
