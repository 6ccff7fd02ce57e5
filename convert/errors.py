"""Why a conversion was refused.

ConversionError
├── CheckpointError     a file of the source is missing, malformed, or disagrees with another
├── UnsupportedError    the source is sound, but llama.cpp or this converter cannot express it
├── LlamaError          llama.cpp failed to quantize or score a file
└── VerificationError   the written file and the source disagree
"""

from __future__ import annotations


class ConversionError(Exception):
    """Base of every error that the converter raises on purpose. No unfinished file is left."""


class CheckpointError(ConversionError):
    """A file of the source is missing, malformed, or disagrees with another; the message names it."""


class UnsupportedError(ConversionError):
    """The source is sound, but llama.cpp or this converter cannot express what it says."""


class LlamaError(ConversionError):
    """llama.cpp failed to quantize or score a file; the message quotes its log."""


class VerificationError(ConversionError):
    """The written file and the source disagree; the message names the first difference."""


class ConversionWarning(UserWarning):
    """The file departs from the source in one respect, which the message names."""
