"""The machine: CPU, cores, memory, and GPUs that llama.cpp cannot use."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.files.sizes import format_bytes
from tinker_local.doctor.diagnosis import Diagnosis
from tinker_local.llama.build import Build, Device
from tinker_local.llama.machine import cpu_limit, default_threads

_FLAGS = {  # CPU features: llama.cpp's name -> Linux's name in /proc/cpuinfo, x86 and ARM
    "AVX": "avx",
    "AVX2": "avx2",
    "F16C": "f16c",
    "FMA": "fma",
    "BMI2": "bmi2",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "NEON": "asimd",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}
_REBUILD = (
    "build it again for this machine: CMAKE_ARGS='-DGGML_NATIVE=on' {python} -m pip install "
    "--force-reinstall --no-cache-dir --no-deps --no-binary llama-cpp-python llama-cpp-python"
)
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """CPU and memory, as this process may use them.

    Attributes:
        cpu: model name of the CPU.
        features: the CPU's features, of those that llama.cpp can use; None if unknown.
        n_cpus: logical CPUs.
        n_usable: logical CPUs that this process may run on.
        n_threads: threads that llama.cpp computes with by default.
        quota: CPU time that the container may use, in CPUs; None without a limit.
        n_bytes: main memory, or the container's limit; None if unknown.
        n_free: available part of ``n_bytes``; None if unknown.
    """

    cpu: str
    features: frozenset[str] | None
    n_cpus: int
    n_usable: int
    n_threads: int
    quota: float | None
    n_bytes: int | None
    n_free: int | None

    @property
    def facts(self) -> dict[str, Any]:
        """The attributes, for people."""
        return {
            "CPU": self.cpu,
            "features": None if self.features is None else ", ".join(sorted(self.features)),
            "logical CPUs": self.n_cpus,
            "usable CPUs": self.n_usable,
            "threads": self.n_threads,
            "CPU limit": self.quota,
            "memory": self.n_bytes and format_bytes(self.n_bytes),
            "memory free": self.n_free and format_bytes(self.n_free),
        }


def detect() -> Machine:
    """Examine this machine."""
    n_cpus = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else n_cpus
    cpu, features = _cpu()
    n_bytes, n_free = _memory()
    return Machine(cpu, features, n_cpus, usable, default_threads(), cpu_limit(), n_bytes, n_free)


def device_facts(device: Device) -> dict[str, Any]:
    """Return a device's kind, description and free memory, for people."""
    memory = f"{format_bytes(device.n_free)} of {format_bytes(device.n_bytes)} free"
    return {"kind": device.kind, "description": device.description, "memory": memory}


def diagnoses(machine: Machine, made: Build, devices: list[Device]) -> Iterator[Diagnosis]:
    """Yield mismatches between CPU, llama.cpp's build, GPUs and the container's limits."""
    built = {name for name, value in made.features.get("CPU", {}).items() if value == "1"} & _FLAGS.keys()
    rebuild = _REBUILD.format(python=sys.executable)
    if machine.features is not None and built:
        if beyond := sorted(built - machine.features):
            yield Diagnosis(
                f"llama.cpp was built for {', '.join(beyond)}, which this CPU does not have", rebuild
            )
        if unused := sorted(machine.features - built):
            said = (
                f"llama.cpp was built without {', '.join(unused)}, which this CPU has; this makes it slower"
            )
            yield Diagnosis(said, rebuild, is_wrong=False)
    if gpu := _gpu_without_backend(devices):
        yield Diagnosis(*gpu, is_wrong=False)


def _gpu_without_backend(devices: list[Device]) -> tuple[str, str] | None:
    """Return problem and remedy if there is a GPU that llama.cpp was not built for."""
    if any("GPU" in device.kind for device in devices):
        return None
    install = f"{sys.executable} -m pip install --force-reinstall --no-cache-dir --no-deps llama-cpp-python"
    if Path("/proc/driver/nvidia/version").exists():
        return "there is an NVIDIA GPU, but llama.cpp was built without CUDA", (
            f"install the CUDA toolkit, then: CMAKE_ARGS='-DGGML_CUDA=on' {install}"
        )
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return (
            "llama.cpp was built without Metal",
            f"build it again: CMAKE_ARGS='-DGGML_METAL=on' {install}",
        )
    return None


def _cpu() -> tuple[str, frozenset[str] | None]:
    """Return the CPU's name and features; None for features that the system does not tell."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine(), None
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), None
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    has = set(flags[1].split()) if flags else None
    features = None if has is None else frozenset(ours for ours, flag in _FLAGS.items() if flag in has)
    return (name[1] if name else platform.machine()), features


def _memory() -> tuple[int | None, int | None]:
    """Return the bytes of main memory, and how many are available; a container's limit counts."""
    if sys.platform == "darwin":
        return int(_sysctl("hw.memsize") or 0) or None, None
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None, None
    found = {name: int(kib) << 10 for name, kib in re.findall(r"^(\w+):\s*(\d+) kB", text, re.MULTILINE)}
    total, free = found.get("MemTotal"), found.get("MemAvailable")
    limit = _number(_CGROUP / "memory.max")
    if total and limit and limit < total:
        return limit, max(0, min(free or limit, limit - (_number(_CGROUP / "memory.current") or 0)))
    return total, free


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # ValueError: the file says max
        return None


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(
            ["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
