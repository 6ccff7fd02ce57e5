"""The software: versions, llama.cpp's build, our kernels, settings in the environment."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tinker_local import kernels
from tinker_local.doctor.diagnosis import Diagnosis
from tinker_local.engine.own_kernels import whose_kernels
from tinker_local.errors import BadRequestError
from tinker_local.llama.build import Build
from tinker_local.options import ENVIRONMENT_PREFIX, Options

_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9.]+)$")


def versions(made: Build) -> dict[str, Any]:
    """Return the versions of the packages, of Python and of the system."""
    return {
        "tinker-local": _version("tinker-local") or "from a checkout",
        "llama-cpp-python": made.package,
        "llama.cpp": made.version,
        "ggml": made.ggml,
        "numpy": np.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
    }


def llama_facts(made: Build) -> dict[str, Any]:
    """Return how llama.cpp was built."""
    switches = {
        backend: ", ".join(name if value == "1" else f"{name}={value}" for name, value in found.items())
        for backend, found in made.features.items()
    }
    return {
        **{f"built for {backend}": said for backend, said in switches.items()},
        "computes on GPUs": made.offloads,
        "maps files": made.maps_files,
    }


def kernel_facts() -> dict[str, Any]:
    """Return which path our kernels take, what they compute, and whether they score a row correctly."""
    row = np.array([[0.0, 1.0, 2.0, 3.0]], np.float32)
    found = kernels.score_rows(row).logsumexp[0]
    return {
        "SIMD path": kernels.simd_path(),
        "SIMD paths": kernels.simd_paths(),
        **whose_kernels(Options()),
        "right": bool(abs(found - np.log(np.exp(row, dtype=np.float64).sum())) < 1e-6),
    }


def settings(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the ``TINKER_LOCAL_*`` variables that set an option."""
    environment = os.environ if environment is None else environment
    names = (ENVIRONMENT_PREFIX + name.upper() for name in Options.model_fields)
    return {name: environment[name] for name in names if environment.get(name)}


def diagnoses(environment: Mapping[str, str] | None = None) -> Iterator[Diagnosis]:
    """Yield outdated packages, wrong kernels, invalid and misspelt environment variables."""
    yield from _outdated()
    if not kernel_facts()["right"]:
        yield Diagnosis("the compiled kernels compute wrong numbers", "install tinker-local again")
    environment = os.environ if environment is None else environment
    try:
        Options.resolve({}, environment)
    except BadRequestError as error:
        yield Diagnosis(
            f"an environment variable has an invalid value: {error}",
            f"correct or unset the variable ({ENVIRONMENT_PREFIX}, then the option in capitals)",
        )
    known = [ENVIRONMENT_PREFIX + name.upper() for name in Options.model_fields]
    for name in environment:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith(ENVIRONMENT_PREFIX) and name not in known and near:
            yield Diagnosis(
                f"the variable {name} has no effect", f"rename it {near[0]}, or unset it", is_wrong=False
            )


def _outdated() -> Iterator[Diagnosis]:
    """Yield required packages that are missing or too old."""
    for requirement in _requirements():
        if not (match := _REQUIREMENT.fullmatch(requirement.partition(";")[0].strip())):
            continue
        there = _version(match[1])
        if there is None or _numbers(there) < _numbers(match[2]):
            yield Diagnosis(
                f"{match[1]} is {there or 'not installed'}; {match[2]} or newer is needed",
                f"{sys.executable} -m pip install '{match[0]}'",
            )


def _requirements() -> list[str]:
    try:
        required = importlib.metadata.requires("tinker-local") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [requirement for requirement in required if "extra ==" not in requirement]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])))
