"""llama.cpp is started once, by whoever needs it first, and by no import."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ROOT
from tinker_local.llama import backend

FORBIDDEN = """
import importlib, os, pkgutil, signal
import llama_cpp

def forbidden(*arguments):
    raise AssertionError("an import called llama.cpp, or redirected a stream")

for name in ("backend_init", "log_set", "print_system_info", "supports_gpu_offload"):
    setattr(llama_cpp, f"llama_{name}", forbidden)
os.dup2 = forbidden
"""
IMPORT_ALL = """
import tinker_local, tinker_local.cli, tinker_local.doctor, tinker_local.llama
for module in pkgutil.iter_modules(tinker_local.llama.__path__):
    importlib.import_module(f"tinker_local.llama.{module.name}")
from tinker_local.llama import backend
print(backend._backend)
"""
FORK = """
import os, signal
from tinker_local.llama import backend

with backend._lock:  # as another thread might hold it at the moment of a fork
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        backend.start_backend()
        os._exit(0)
print(os.waitpid(child, 0)[1])
"""


def said(program: str) -> str:
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert not child.stderr
    return child.stdout.strip()


def test_no_import_starts_it() -> None:
    assert said(FORBIDDEN + IMPORT_ALL) == "None"


@pytest.mark.parametrize(
    "program",
    [
        "from tinker_local.llama.devices import devices; devices()",
        "from tinker_local.llama.build import build; build()",
        "from tinker_local.llama.machine import memory_of; memory_of(None)",
    ],
)
def test_devices_and_builds_start_it(program: str) -> None:
    assert "Backend(" in said(f"{program}; from tinker_local.llama import backend; print(backend._backend)")


def test_it_is_started_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def start_slowly() -> bool:
        steps.append("llama.cpp is kept off AMX")
        time.sleep(0.05)
        return True

    monkeypatch.setattr(backend, "keep_off_amx", start_slowly)
    monkeypatch.setattr(backend.kernels, "request_amx", lambda: steps.append("we ask for it"))
    monkeypatch.setattr(backend, "_backend", None)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: backend.start_backend(), range(8)))
    assert steps == ["llama.cpp is kept off AMX", "we ask for it"]
    assert all(one is found[0] and one.avoids_extra_buffers for one in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_start_it() -> None:
    assert said(FORK) == "0"
