"""Ids that say what they stand for, so that a server which starts anew serves those of the one before.

A sampling session is ``base64url(JSON)`` with what the client asked for. A request is its session's id, a
full stop and its ``seq_id``; a sampled sequence is its request's id, a full stop and its index. Where
several replicas serve, a request's id has the key of its replica in the middle (``replicas.py``).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from functools import lru_cache

from tinker_local.errors import NotFoundError, shown
from tinker_local.serve.served_models import ModelName

_LONGEST = 4096  # characters of an id
_KEY = re.compile("[0-9a-f]{0,32}")
CLONE = 1_000_000_000
"""A client that was unpickled counts its requests from a multiple of this."""


@dataclass(frozen=True, slots=True)
class SamplingSession:
    """A sampling session: the session it belongs to, its number there, and its model."""

    session: str
    number: int
    model: ModelName

    @property
    def id(self) -> str:
        """The id, URL-safe."""
        said = [self.session, self.number, self.model.base, self.model.checkpoint]
        text = json.dumps(said, separators=(",", ":"), ensure_ascii=False)
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, id: str) -> SamplingSession:
        """Read an id.

        Raises:
            NotFoundError: no server of ours made it.
        """
        return _read(id)


@lru_cache(1024)
def _read(id: str) -> SamplingSession:
    try:
        if len(id) > _LONGEST:
            raise ValueError
        said = json.loads(base64.b64decode(id + "=" * (-len(id) % 4), b"-_", validate=True))
        session, number, base, checkpoint = said
        if not isinstance(session, str) or type(number) is not int or not (base or checkpoint):
            raise ValueError
        if not all(name is None or isinstance(name, str) for name in (base, checkpoint)):
            raise ValueError
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise NotFoundError(f"{shown(id)} is no id of a sampling session here") from None
    return SamplingSession(session, number, ModelName(base, checkpoint))


def request_id(sampling_session_id: str, seq_id: int, key: str = "") -> str:
    """Return the id of a request; ``key`` is that of its replica, if there are several."""
    return ".".join(filter(None, (sampling_session_id, key, str(seq_id))))


def sequence_ids(request_id: str, n: int) -> list[str]:
    """Return the ids of the sequences that a request samples."""
    return [f"{request_id}.{index}" for index in range(n)]


def client_of(request_id: str) -> tuple[str, int]:
    """Return the sampling session of a request and the number of the clone that made it.

    Raises:
        NotFoundError: the id is malformed.
    """
    session, _, number = _parts(request_id)
    return session, number // CLONE


def key_of(request_id: str) -> str:
    """Return the key of a request's replica; "" where one server made the id.

    Raises:
        NotFoundError: the id is malformed.
    """
    return _parts(request_id)[1]


def _parts(request_id: str) -> tuple[str, str, int]:
    """Return session, key and number."""
    session, _, rest = request_id.partition(".")
    key, _, number = rest.rpartition(".")
    if not number.isdecimal() or len(number) > 20 or not _KEY.fullmatch(key):
        raise NotFoundError(f"{shown(request_id)} is no id of a request here")
    return session, key, int(number)


__all__ = ["CLONE", "SamplingSession", "client_of", "key_of", "request_id", "sequence_ids"]
