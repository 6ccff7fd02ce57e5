"""QueueState: whether requests wait, and the observers that are told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum


class QueueState(Enum):
    """Whether new requests are computed or wait. The values are those of the Tinker SDK."""

    ACTIVE = "active"
    """Requests are computed."""
    PAUSED_RATE_LIMIT = "paused_rate_limit"
    """Does not occur here."""
    PAUSED_CAPACITY = "paused_capacity"
    """Requests wait: the KV cache has no room for them yet."""
    UNKNOWN = "unknown"
    """Does not occur here."""


class QueueStateObserver(ABC):
    """Base of observers that are told when requests begin or cease to wait."""

    @abstractmethod
    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        """Called on a thread of the engine's pool when the state changes, with a reason or None."""


__all__ = ["QueueState", "QueueStateObserver"]
