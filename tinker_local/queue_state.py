"""Whether requests wait, and who is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum


class QueueState(Enum):
    """What becomes of new requests. The values are those of the Tinker SDK."""

    ACTIVE = "active"
    """They are worked on."""
    PAUSED_RATE_LIMIT = "paused_rate_limit"
    """Never the case here."""
    PAUSED_CAPACITY = "paused_capacity"
    """They wait: the KV cache has no room for them yet."""
    UNKNOWN = "unknown"
    """Never the case here."""


class QueueStateObserver(ABC):
    """Somebody who wants to know when requests begin or cease to wait."""

    @abstractmethod
    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        """Take note of a change; called on a thread of the engine's pool, with a reason in words."""


__all__ = ["QueueState", "QueueStateObserver"]
