"""Hugging Face's cache: snapshots of repositories that were downloaded before, found without a network.

Layout: ``models--ORG--NAME/snapshots/COMMIT/...`` with the commit of a branch in ``refs/BRANCH``
(huggingface_hub's documentation, "Understand caching").
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_COMMIT = re.compile(r"\w+", re.ASCII)


def hub_cache(environment: Mapping[str, str] | None = None) -> Path:
    """Return the cache's directory: ``HF_HUB_CACHE``, ``HUGGINGFACE_HUB_CACHE``, ``hub`` in ``HF_HOME``."""
    environment = os.environ if environment is None else environment
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := environment.get(name):
            return Path(os.path.expandvars(value)).expanduser()
    if value := environment.get("HF_HOME"):
        return Path(os.path.expandvars(value)).expanduser() / "hub"
    caches = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "huggingface" / "hub"


def find_snapshot(name: str) -> tuple[str, Path] | None:
    """Return a repository as the cache calls it, and its snapshot: the main branch's, else the newest.

    Args:
        name: ``ORG/NAME``, in any case.
    """
    if not _REPOSITORY.fullmatch(name):
        return None
    folder = f"models--{name.replace('/', '--')}".casefold()
    try:
        homes = [path for path in hub_cache().iterdir() if path.name.casefold() == folder]
    except OSError:
        return None
    for home in homes:
        if directory := _newest(home):
            return home.name.removeprefix("models--").replace("--", "/", 1), directory
    return None


def _newest(home: Path) -> Path | None:
    try:
        commit = (home / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    main = home / "snapshots" / commit
    if _COMMIT.fullmatch(commit) and main.is_dir():
        return main
    snapshots = [path for path in home.glob("snapshots/*") if path.is_dir()]
    return max(snapshots, key=lambda path: path.stat().st_mtime, default=None)


__all__ = ["find_snapshot", "hub_cache"]
