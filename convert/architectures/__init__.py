"""The families that can be converted, one module each."""

from __future__ import annotations

from convert.architectures.architecture import Architecture, Target
from convert.architectures.llama import Llama
from convert.errors import UnsupportedError

FAMILIES: tuple[type[Architecture], ...] = (Llama,)


def find_architecture(name: str) -> type[Architecture]:
    """Return the class for an entry of config.json's ``architectures``.

    Raises:
        UnsupportedError: no family has this name; the message lists those there are.
    """
    for family in FAMILIES:
        if name in family.names:
            return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.names))
    raise UnsupportedError(f"config.json: the architecture {name} is not known; known are {known}")


__all__ = ["FAMILIES", "Architecture", "Target", "find_architecture"]
