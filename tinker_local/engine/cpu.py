"""How many threads llama.cpp should have on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def default_threads() -> int:
    """Return the number of physical cores this process may use, performance cores on a Mac.

    llama.cpp's work is bound by arithmetic units and memory, which hyper-threads share and
    efficiency cores slow down.
    """
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
