"""How much memory there is for the caches of contexts."""

from __future__ import annotations

import os
from pathlib import Path

from tinker_local.engine.devices import device_memory

_UNKNOWN = 8 << 30
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def main_memory() -> int:
    """Bytes of main memory, or what a container may have of it; 8 GiB where the system does not tell."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        there = _UNKNOWN
    return min([there, *filter(None, map(_limit, _LIMITS))])


def memory_of(devices: str | None) -> int:
    """Bytes of main memory, or of the devices (see ``load_model``) where these have less."""
    return min(main_memory(), device_memory(devices) or main_memory())


def _limit(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # there is none ("max"), or it is no such system
        return None
