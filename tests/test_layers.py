"""Imports run down the storeys; llama.cpp, the converter and the web server have a door each."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinker_local
from tests.conftest import ROOT

STOREYS = (  # from the ground up; what stands in one line imports nothing of its own line
    "errors",
    "callbacks display gguf kernels options pixels queue_state service_only",
    "chat futures llama store types",
    "encoding",
    "engine tokenizer",
    "checks continued image_prompts isolated progress retry telemetry",
    "answers prompts weights",
    "rest_client sampling_client",
    "service_client",
    "batch bench doctor lm_eval serve tuning",
    "distributed",
    "cli",
)
CONVERT_STOREYS = (
    "errors",
    "files progress",
    "source",
    "gguf",
    "architectures vocabularies",
    "towers",
    "metadata model verification",
    "adapters quantize",
    "convert untied",
    "adapter",
    "cli",
)


def heights(storeys: tuple[str, ...]) -> dict[str, int]:
    """Number the rooms of a package by their storey; the package itself and its program come last."""
    found = {name: height for height, names in enumerate(storeys) for name in names.split()}
    return found | {"__init__": len(storeys), "__main__": len(storeys)}


HEIGHTS = {"tinker_local": heights(STOREYS), "convert": heights(CONVERT_STOREYS)}


def imported(source: str) -> Iterator[str]:
    """Name every module that a file imports, also within its functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_imports(path: Path, source: str) -> list[str]:
    """Return what a file of ours, at a path within the checkout, should not import."""
    package, room, *_ = path.with_suffix("").parts
    height = HEIGHTS[package]
    names = {
        name for name in imported(source) if "." in name or name in ("llama_cpp", "tinker_local", "uvicorn")
    }
    wrong = {name for name in names if is_foreign(name, package, room)}
    rooms = {name: name.split(".")[1] for name in names if name.startswith(f"{package}.")}
    return sorted(wrong | {n for n, r in rooms.items() if r != room and height.get(r, 99) >= height[room]})


def is_foreign(name: str, package: str, room: str) -> bool:
    """Whether a module has a door of its own, and this is not it."""
    first = name.split(".")[0]
    if package == "convert":
        return first == "tinker_local"
    doors = {"llama_cpp": "llama", "ray": "distributed", "starlette": "serve", "uvicorn": "serve"}
    return doors.get(first, room) != room


@pytest.mark.parametrize("package", ["tinker_local", "convert"])
def test_imports_run_down(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 50
    found = {
        str(relative): wrong
        for path in files
        if (wrong := wrong_imports(relative := path.relative_to(ROOT), path.read_text(encoding="utf-8")))
    }
    assert not found


def test_the_map_of_the_package_shows_the_storeys() -> None:
    rooms = re.findall(r"^    (\w+)  +\S", tinker_local.__doc__ or "", flags=re.MULTILINE)
    height = HEIGHTS["tinker_local"]
    assert sorted(rooms) == sorted(name for name in height if not name.startswith("__"))
    assert rooms == sorted(rooms, key=height.__getitem__, reverse=True)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("tinker_local/gguf/file.py", "from tinker_local.llama.model import Model"),
        ("tinker_local/store/names.py", "def f():\n    from tinker_local import weights"),
        ("tinker_local/engine/loop.py", "import llama_cpp"),
        ("tinker_local/cli/serve.py", "from starlette.routing import Route"),
        ("tinker_local/engine/loop.py", "from tinker_local.sampling_client import SamplingClient"),
        ("tinker_local/llama/model.py", "from tinker_local.engine.loop import Loop"),
        ("tinker_local/batch/run.py", "from tinker_local.cli import app"),
        ("convert/model.py", "from tinker_local import errors"),
        ("convert/files/lock.py", "from convert.gguf.file_types import FILE_TYPES"),
        ("convert/gguf/head.py", "from convert.architectures import Architecture"),
        ("convert/architectures/llama.py", "def f():\n    from convert import model"),
        ("convert/model.py", "import convert.adapters.base"),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str) -> None:
    assert wrong_imports(Path(path), source)
