"""The errors of the Tinker SDK, raised for local causes.

    TinkerError
    ├── APIError
    │   ├── APIConnectionError                 no progress for longer than RetryConfig allows
    │   │   └── APITimeoutError                never raised here
    │   ├── APIResponseValidationError         never raised here
    │   └── APIStatusError
    │       ├── BadRequestError           400  the request cannot be served as it is written
    │       │   └── BadValueError              of these, what the SDK refuses with a ValueError
    │       ├── AuthenticationError       401  never raised here
    │       ├── BillingError              402  never raised here
    │       ├── PermissionDeniedError     403  never raised here
    │       ├── NotFoundError             404  no model or file of that name
    │       ├── ConflictError             409  never raised here
    │       ├── UnprocessableEntityError  422  never raised here
    │       ├── RateLimitError            429  too much waits already
    │       └── InternalServerError       500  llama.cpp failed while it computed
    ├── RequestFailedError                     a request that had been accepted did not complete
    └── ServiceOnlyError                       only Tinker's service can do that

Names and places in the tree are those of ``tinker`` 0.38, so that ``except tinker.BadRequestError``
keeps its meaning. There is no HTTP here: ``status_code`` is what the service would have answered, and
``request`` and ``response`` are None. Constructors take what the SDK's take. Those never raised are there
for scripts that catch them.
"""

from __future__ import annotations

from enum import StrEnum, auto

_LONGEST_SHOWN = 80  # characters of a value that a message repeats


def shown(value: object) -> str:
    """Return the ``repr`` of a wrong value for a message, cut to a readable length."""
    try:
        text = repr(value)
    except Exception:  # Python writes no ints of more than 4,300 digits, and there are others' classes
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


class TinkerError(Exception):
    """Base of every error this package raises on purpose."""


class APIError(TinkerError):
    """A request was refused or could not be answered."""

    def __init__(self, message: str, request: object = None, *, body: object | None = None) -> None:
        super().__init__(message)
        self.message, self.request, self.body = message, request, body


class APIConnectionError(APIError):
    """Requests made no progress for as long as the ``RetryConfig`` waits."""

    def __init__(self, message: str = "Connection error.", request: object = None) -> None:
        super().__init__(message, request)


class APITimeoutError(APIConnectionError):
    """Never raised here: nothing is sent anywhere."""

    def __init__(self, request: object = None) -> None:
        super().__init__("Request timed out.", request)

    def __reduce__(self) -> tuple[type[APITimeoutError], tuple[object]]:
        return type(self), (self.request,)


class APIResponseValidationError(APIError):
    """Never raised here: no answer comes from elsewhere."""

    status_code: int = 500

    def __init__(
        self, response: object = None, body: object | None = None, message: str | None = None
    ) -> None:
        request = getattr(response, "request", None)
        super().__init__(message or "Data returned by API invalid for expected schema.", request, body=body)
        self.response = response
        self.status_code = getattr(response, "status_code", self.status_code)

    def __reduce__(self) -> tuple[type[APIResponseValidationError], tuple[object, ...]]:
        return type(self), (self.response, self.body, self.message)


class APIStatusError(APIError):
    """An ``APIError`` with the status code the service would have used."""

    status_code: int = 500

    def __init__(self, message: str, response: object = None, body: object | None = None) -> None:
        super().__init__(message, getattr(response, "request", None), body=body)
        self.response = response
        self.status_code = getattr(response, "status_code", self.status_code)


class BadRequestError(APIStatusError):
    """The request, an option or a model file is malformed; nothing was computed."""

    status_code = 400


class BadValueError(BadRequestError, ValueError):
    """An argument that the SDK itself refuses, with a ``ValueError``."""


class AuthenticationError(APIStatusError):
    """Never raised here: there are no keys."""

    status_code = 401


class BillingError(APIStatusError):
    """Never raised here: there are no bills."""

    status_code = 402


class PermissionDeniedError(APIStatusError):
    """Never raised here: there are no accounts."""

    status_code = 403


class NotFoundError(APIStatusError):
    """There is no model of this name or path; the message lists the models that are here."""

    status_code = 404


class ConflictError(APIStatusError):
    """Never raised here."""

    status_code = 409


class UnprocessableEntityError(APIStatusError):
    """Never raised here."""

    status_code = 422


class RateLimitError(APIStatusError):
    """The queue is full: unfinished requests take all memory of ``max_queue_mb``."""

    status_code = 429


class InternalServerError(APIStatusError):
    """llama.cpp or the machine failed: a decode error, or no memory left."""

    status_code = 500


class RequestErrorCategory(StrEnum):
    """Who caused the failure of a request."""

    Unknown = auto()
    Server = auto()
    User = auto()


class RequestFailedError(TinkerError):
    """An accepted request ended without an answer, for example because its client was closed.

    ``request_id`` is "" here; ``category`` is one of ``types.RequestErrorCategory``.
    """

    def __init__(
        self, message: str, request_id: str = "", category: RequestErrorCategory | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id
        self.category = category or RequestErrorCategory.User

    def __reduce__(self) -> tuple[type[RequestFailedError], tuple[object, ...]]:
        return type(self), (self.message, self.request_id, self.category)


class ServiceOnlyError(TinkerError, NotImplementedError):
    """Only Tinker's service can do this: training, accounts, sessions."""


__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseValidationError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BadValueError",
    "BillingError",
    "ConflictError",
    "InternalServerError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "RequestFailedError",
    "ServiceOnlyError",
    "TinkerError",
    "UnprocessableEntityError",
]
