"""Sizes in bytes, written for people."""

from __future__ import annotations


def format_bytes(n: float) -> str:
    """Return a size as text, in powers of 1000: ``1.5 GB``."""
    if n < 1000:
        return f"{n:.0f} bytes"
    power = 1
    while n >= 1000 ** (power + 1) and power < 4:
        power += 1
    return f"{n / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
