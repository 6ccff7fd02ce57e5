"""Why a conversion was refused.

ConversionError
├── CheckpointError     a file of the source is missing, malformed, or disagrees with another
├── UnsupportedError    the source is sound, but llama.cpp or this converter cannot express it
├── LlamaError          llama.cpp failed on a file that it was to quantize or to score
└── VerificationError   the written file does not do what the source does
"""

from __future__ import annotations


class ConversionError(Exception):
    """Base of every error the converter raises on purpose; nothing has been left behind."""


class CheckpointError(ConversionError):
    """A file of the source is missing, malformed, or disagrees with another; the message names it."""


class UnsupportedError(ConversionError):
    """The source is sound, but llama.cpp or this converter cannot express what it says."""


class LlamaError(ConversionError):
    """llama.cpp failed on a file that it was to quantize or to score; the message has its words."""


class VerificationError(ConversionError):
    """The written file does not do what the source does; the message names the first difference."""


class ConversionWarning(UserWarning):
    """The file computes what the source says but for one thing, which the message names."""
