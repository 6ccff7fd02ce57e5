"""The models directory: where converted models are stored, and under which names.

A model ``ORG/NAME`` stored as TYPE is ``ORG/NAME-TYPE.gguf`` in the models directory; one without an
organisation is ``NAME-TYPE.gguf``. The checkpoint ``tinker://RUN/sampler_weights/NAME`` is
``tinker/RUN/sampler_weights/NAME/weights.gguf`` there.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from convert.errors import ConversionError
from convert.files.tinker_path import TinkerPath

VARIABLES = ("TINKER_LOCAL_MODELS_DIR", "TINKER_LOCAL_MODELS")
"""Environment variables that name the directory; the first one that is set counts."""

CHECKPOINT_FILE = "weights.gguf"
"""The file of a converted Tinker checkpoint in its directory: an adapter or a merged model."""

_CHECKOUT = Path(__file__).resolve().parents[2]
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
_SNAPSHOT = re.compile(r"models--(?P<org>.+?)--(?P<name>.+)")


def models_directory() -> Path:
    """Return the models directory: the environment's, or a checkout's ``models/``, or the user's own."""
    for variable in VARIABLES:
        if named := os.environ.get(variable):
            return Path(named).expanduser()
    if in_checkout():
        return _CHECKOUT / "models"
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "tinker-local" / "models"


def in_checkout() -> bool:
    """Whether this package runs from a checkout of tinker-local."""
    return (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "models").is_dir()


def checkpoint_file(path: str) -> Path:
    """Return where the converted checkpoint of ``tinker://RUN/sampler_weights/NAME`` lies.

    Raises:
        ConversionError: the path is not of this form.
    """
    return TinkerPath.parse(path).below(models_directory()) / CHECKPOINT_FILE


def name_of_checkpoint(directory: Path, called: object = None) -> str:
    """Return the name of a model from where it lies: ``ORG/NAME``, or ``NAME`` where no more is known.

    Args:
        directory: in a Hugging Face cache (``models--ORG--NAME/snapshots/HASH``), or anything else; then
            its own name is the model's.
        called: config.json's ``_name_or_path``. Fine-tuned models often carry their base's here, so it
            only adds the organisation to a directory of the same name.

    Raises:
        ConversionError: the directory's name is no name for a model.
    """
    home = directory.resolve()
    if home.parent.name == "snapshots" and (match := _SNAPSHOT.fullmatch(home.parent.parent.name)):
        return checked_name(f"{match['org']}/{match['name']}")
    called = called if isinstance(called, str) else ""
    organisation, _, name = called.rpartition("/")
    if name.casefold() == home.name.casefold() and _PLAIN.fullmatch(organisation):
        return checked_name(called)
    return checked_name(home.name)


def checked_name(name: str) -> str:
    """Return a name that can be that of a file.

    Raises:
        ConversionError: it is not NAME or ORGANISATION/NAME in letters, digits and ``._+-``.
    """
    parts = name.split("/")
    if len(parts) > 2 or not all(map(_PLAIN.fullmatch, parts)):
        raise ConversionError(
            f"{name!r} cannot be a model's name, which is NAME or ORGANISATION/NAME in letters, digits and "
            "._+-; say another with --name"
        )
    return name
