"""Tests of the compiled kernels, against `tinker_local.kernels.reference`.

``make sanitize`` runs them under the address and undefined-behaviour sanitizers. `TINKER_LOCAL_KERNELS`
names the folder of a build that the tests load in place of the installed one. The interpreter itself
leaks at exit, so leaks are not looked for. That build has AMX by emulation (``emulated_tiles.hpp``).
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tinker_local import kernels
from tinker_local.llama.backend import start_backend

folder = os.environ.get("TINKER_LOCAL_KERNELS")
if folder:
    path = Path(folder) / f"_kernels{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    spec = importlib.util.spec_from_file_location("tinker_local.kernels._kernels", path)
    assert spec is not None
    assert spec.loader is not None
    kernels._kernels = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kernels._kernels)
start_backend()  # asks for AMX, which is a path of its own then

# The same examples every time; a slow machine is no failure. Sanitizers make each ten times as slow, and
# see a wrong access in the first example that makes it.
settings.register_profile(
    "kernels",
    derandomize=True,
    deadline=None,
    max_examples=25 if folder else 60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("kernels")


@pytest.fixture(params=[path for path in kernels.simd_paths() if path not in ("amx", "avx_vnni")])
def simd_path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of this machine in turn; not those of which parts alone differ from another."""
    before = kernels.simd_path()
    kernels.use_simd_path(request.param)
    yield request.param
    kernels.use_simd_path(before)
