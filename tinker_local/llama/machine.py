"""This machine: the cores that are worth using, the main memory, and whether a model fits."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tinker_local.errors import BadRequestError
from tinker_local.llama.devices import device_memory
from tinker_local.options import Options

_USUAL = 8 << 30  # bytes of main memory where the system does not tell
_GROUPS = (  # files of Linux's control groups, versions 2 and 1: the limit, and the bytes in use
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)
_MOUNT = Path("/sys/fs/cgroup")


def default_threads() -> int:
    """Return the number of physical cores this process may use, performance cores on a Mac.

    llama.cpp's work is bound by arithmetic units and memory, which hyper-threads share and
    efficiency cores slow down. Threads wait for each other some hundred times a token. So there are no more
    than the CPUs whose time a container may use: else all wait for one that the system holds up.
    """
    limit = cpu_limit()
    return _n_cores() if limit is None else max(1, min(_n_cores(), int(limit)))


def threads(options: Options) -> tuple[int, int]:
    """Return ``n_threads`` and ``n_threads_batch`` as these options say, or by default."""
    n_threads = options.n_threads or default_threads()
    return n_threads, options.n_threads_batch or n_threads


def _n_cores() -> int:
    if sys.platform == "darwin":
        return _mac_performance_cores() or os.cpu_count() or 1
    if sys.platform == "linux":
        return _linux_cores(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _linux_cores(cpus: set[int]) -> int:
    cores = set()
    for cpu in cpus:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(topology.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def _mac_performance_cores() -> int:
    try:
        answer = subprocess.run(
            ["sysctl", "-n", "hw.perflevel0.physicalcpu"], capture_output=True, text=True, timeout=5
        )
        return int(answer.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return 0


def cpu_limit() -> float | None:
    """Return the CPU time that the process's control groups allow, in CPUs; None without a limit."""
    limits = [limit for directory in _groups("cpu") if (limit := _cpu_limit(directory))]
    return min(limits, default=None)


def _cpu_limit(directory: Path) -> float | None:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # versions 2 and 1
        with suppress(OSError, ValueError):  # of ValueError: "max"
            quota, period = map(int, " ".join((directory / name).read_text() for name in names).split())
            return quota / period if quota > 0 < period else None
    return None


def main_memory() -> int:
    """Return the bytes of main memory that this process may use: the machine's, or its control group's."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        total = _USUAL
    return min([total, *(limit for limit, _ in _group_limits())])


def available_memory() -> int:
    """Return the bytes that are available without swapping, or all where the system does not tell."""
    found = [main_memory()]
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) << 10)
    found += [limit - used for limit, used in _group_limits()]
    return max(0, min(found))


def memory_of(devices: str | None) -> int:
    """Return the bytes of main memory, or of the devices (see ``load_model``) where these have less."""
    return min(main_memory(), device_memory(devices) or main_memory())


def check_fits(what: str, n_bytes: int, limit: int, *, is_given: bool, hint: str) -> None:
    """Refuse to load more than memory may hold.

    Args:
        what: what takes the memory, in the plural: the subject of the message.
        n_bytes: bytes that it takes.
        limit: bytes that it may take.
        is_given: whether the limit is ``max_memory_mb``.
        hint: what to do, for the message.

    Raises:
        BadRequestError: n_bytes is above the limit; the message has both.
    """
    if n_bytes > limit:
        room = "that max_memory_mb allows" if is_given else "that there are"
        raise BadRequestError(
            f"{what} take {n_bytes / 1e6:,.0f} MB, more than the {limit / 1e6:,.0f} MB of memory {room}; "
            + hint
        )


def give_back() -> None:
    """Return freed pages to the system: glibc keeps them, in each of its arenas."""
    if _trim is not None:
        _trim(0)


def _find_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return None
    return trim


_trim = _find_trim()


def _group_limits() -> list[tuple[int, int]]:
    """Return the limits of the process's control groups, and the bytes in use without the page cache."""
    found = []
    for directory in _groups("memory"):
        for limit, used in _GROUPS:
            with suppress(OSError, ValueError):  # of ValueError: "max"
                most = int((directory / limit).read_text())
                found.append((most, int((directory / used).read_text()) - _cached(directory)))
    return found


def _groups(controller: str) -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = [_MOUNT, _MOUNT / controller]  # what containers see
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or not controllers:
            found.append(_MOUNT / controllers / path.lstrip("/"))
    return list(dict.fromkeys(found))


def _cached(directory: Path) -> int:
    for line in (directory / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0
