"""Numbers of bytes as people write them."""

from __future__ import annotations


def format_bytes(n: float) -> str:
    """Return a number of bytes as people say it: 1.5 GB."""
    if n < 1000:
        return f"{n:.0f} bytes"
    power = 1
    while n >= 1000 ** (power + 1) and power < 4:
        power += 1
    return f"{n / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
