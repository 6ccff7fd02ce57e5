"""The vision towers that can be converted, a module each. A new tower is one file here and a line below.

tower.py   what a tower says, and what its table of tensors is written with
siglip.py  a vision transformer that several families have
qwen3vl.py, gemma3.py ...  the towers, by their model families
"""

from __future__ import annotations

from convert.towers.gemma3 import Gemma3Tower
from convert.towers.qwen3vl import Qwen3VLTower, Qwen35Tower
from convert.towers.tower import Tower

TOWERS: tuple[type[Tower], ...] = (Gemma3Tower, Qwen3VLTower, Qwen35Tower)


def find_tower(architecture: str) -> type[Tower] | None:
    """Return the class for an entry of config.json's ``architectures``, None if there is none."""
    return next((tower for tower in TOWERS if architecture in tower.names), None)


__all__ = ["TOWERS", "Tower", "find_tower"]
