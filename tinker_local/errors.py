"""The errors of the Tinker SDK, raised for local causes.

    TinkerError
    ├── APIError
    │   ├── APIStatusError
    │   │   ├── BadRequestError       400  the request cannot be served as it is written
    │   │   ├── NotFoundError         404  no model or file of that name
    │   │   └── InternalServerError   500  llama.cpp failed while it computed
    └── RequestFailedError                 a request that had been accepted did not complete

Names and places in the tree are those of ``tinker`` 0.38, so that ``except tinker.BadRequestError``
keeps its meaning. There is no HTTP here: ``status_code`` is what the service would have answered.
"""

from __future__ import annotations


class TinkerError(Exception):
    """Base of every error this package raises on purpose."""


class APIError(TinkerError):
    """A request was refused or could not be answered."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class APIStatusError(APIError):
    """An ``APIError`` with the status code the service would have used."""

    status_code: int = 500


class BadRequestError(APIStatusError):
    """The request, an option or a model file is malformed; nothing was computed."""

    status_code = 400


class NotFoundError(APIStatusError):
    """A model name or path leads nowhere; the message lists what is there."""

    status_code = 404


class InternalServerError(APIStatusError):
    """llama.cpp or the machine failed: a decode error, memory that could not be had."""

    status_code = 500


class RequestFailedError(TinkerError):
    """An accepted request ended without an answer, for example because its client was closed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


__all__ = [
    "APIError",
    "APIStatusError",
    "BadRequestError",
    "InternalServerError",
    "NotFoundError",
    "RequestFailedError",
    "TinkerError",
]
