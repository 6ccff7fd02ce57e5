"""Memory of this process."""

from __future__ import annotations

import os
from pathlib import Path


def resident() -> int:
    """Return the resident set of this process in bytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
