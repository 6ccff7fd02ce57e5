"""Fuzzing that is guided by what the input reaches in our readers, for as long as it is told to run.

    python -m tests.fuzz.guided gguf|safetensors|json|adapter [--seconds N]

Needs ``atheris`` (pip install atheris). Any error that is not ours ends it and is printed with the input;
so does an input that takes 10 s or 1 GB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tinker_local.gguf", "convert"]):
    # Modules come from this folder by Python's own loader: atheris can instrument no other, such as that
    # of an editable installation, which has only the compiled kernels left to find.
    sys.meta_path.sort(key=lambda finder: type(finder).__module__.startswith("_editable"))
    from convert.adapters.archive import is_archive, unpacked
    from convert.errors import ConversionError
    from convert.files.json_file import parse_json
    from convert.source.safetensors_file import read_tensors
    from tinker_local.errors import TinkerError
    from tinker_local.gguf.adapter_check import check_adapter
    from tinker_local.gguf.file import read_head
    from tinker_local.gguf.model_check import check_model
    from tinker_local.gguf.parts import ModelFiles

import contextlib

from tests.fuzz.archives import make as make_archive
from tests.fuzz.gguf import ARCHITECTURES, write_seeds
from tests.random_checkpoints.plain import write_llama

BASE = "llama"


def _archive(path: Path) -> None:
    is_archive(path)
    with unpacked(path, path.parent):
        pass


READERS: dict[str, Callable[[Path], object]] = {
    "gguf": check_model,
    "adapter": lambda path: check_adapter(
        read_head(path), ModelFiles.read(path.parent / "seeds" / f"{BASE}.gguf")
    ),
    "safetensors": read_tensors,
    "json": lambda path: parse_json(path.read_bytes(), "x"),
    "archive": _archive,
}


def _write_corpus(name: str, directory: Path) -> Path:
    """Write what it starts from; return where."""
    seeds, corpus = directory / "seeds", directory / "corpus"
    seeds.mkdir()
    corpus.mkdir()
    write_seeds(seeds)
    write_llama(seeds / "checkpoint")
    files = {
        "gguf": [seeds / f"{architecture}.gguf" for architecture in ARCHITECTURES],
        "adapter": [seeds / f"{BASE}.lora"],
        "safetensors": [seeds / "checkpoint" / "model.safetensors"],
        "json": list((seeds / "checkpoint").glob("*.json")),
        "archive": [],
    }
    for number, file in enumerate(files[name]):
        (corpus / str(number)).write_bytes(file.read_bytes())
    if name == "archive":
        for number in range(30):
            (corpus / str(number)).write_bytes(make_archive(number, 0, seeds))
    return corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp())
    corpus = _write_corpus(given.reader, directory)
    path, read = directory / "input", READERS[given.reader]

    def one(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(ConversionError, TinkerError):
            read(path)

    options = [f"-max_total_time={given.seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=400000"]
    print(f"{given.reader}: {given.seconds} s from {time.strftime('%H:%M:%S')} on", flush=True)
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={directory}/", str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
