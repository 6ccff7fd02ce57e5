"""Which GGUF type of a model is best on this machine: what types cost in time and in quality."""

from tinker_local.tuning.candidates import DEFAULT_TYPES
from tinker_local.tuning.text import BUILT_IN_TEXT
from tinker_local.tuning.tuner import Row, Tuner

__all__ = ["BUILT_IN_TEXT", "DEFAULT_TYPES", "Row", "Tuner"]
