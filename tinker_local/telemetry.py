"""Telemetry: counters of a client's requests, which stay in this process; nothing is ever sent."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from tinker_local.engine.request import Outcome


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters at one moment.

    Attributes:
        requests: requests accepted.
        finished, failed, cancelled: how requests ended; the others are unfinished.
        tokens_in, tokens_out: prompt tokens of finished requests, and tokens sampled for them.
        cache_hit_tokens: those of ``tokens_in`` that were not computed again.
        busy_seconds: time with at least one unfinished request.
        queue_wait_seconds: mean time that finished requests waited before they were begun.
        time_to_first_token_seconds: mean time to the first sampled token, of finished requests with one.
        prefilled, sampled: tokens of prompts computed up to now, and tokens sampled up to now, whatever
            becomes of their requests. Only a ServiceClient counts these, since clients share steps.
    """

    requests: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cache_hit_tokens: int = 0
    busy_seconds: float = 0.0
    queue_wait_seconds: float = 0.0
    time_to_first_token_seconds: float = 0.0
    prefilled: int = 0
    sampled: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Sampled tokens in a second of work; 0 before any."""
        return self.tokens_out / self.busy_seconds if self.busy_seconds else 0.0


class Telemetry:
    """Counts the requests of a client. The counters of a SamplingClient also add to its ServiceClient's."""

    def __init__(self, whole: Telemetry | None = None) -> None:
        self._whole = whole
        self._lock = threading.Lock()
        self._n_requests = self._n_failed = self._n_cancelled = self._n_finished = 0
        self._n_answered = self._n_began = 0
        self._tokens_in = self._tokens_out = self._hits = 0
        self._prefilled = self._sampled = 0
        self._waited = self._until_first = self._busy = 0.0
        self._busy_since = 0.0
        self.notice_end = self._notice_end  # bound once: every future holds it

    @property
    def counters(self) -> Counters:
        """The counters at this moment."""
        with self._lock:
            return Counters(
                requests=self._n_requests,
                finished=self._n_finished,
                failed=self._n_failed,
                cancelled=self._n_cancelled,
                tokens_in=self._tokens_in,
                tokens_out=self._tokens_out,
                cache_hit_tokens=self._hits,
                busy_seconds=self._busy + (time.monotonic() - self._busy_since if self._n_at_work else 0.0),
                queue_wait_seconds=self._waited / max(1, self._n_answered),
                time_to_first_token_seconds=self._until_first / max(1, self._n_began),
                prefilled=self._prefilled,
                sampled=self._sampled,
            )

    def notice_request(self) -> None:
        """Count an accepted request."""
        with self._lock:
            if not self._n_at_work:
                self._busy_since = time.monotonic()
            self._n_requests += 1
        if self._whole is not None:
            self._whole.notice_request()

    def notice_step(self, n_prefilled: int, n_sampled: int) -> None:
        """Count the tokens of an engine's step."""
        with self._lock:
            self._prefilled += n_prefilled
            self._sampled += n_sampled

    def notice_outcome(self, outcome: Outcome) -> None:
        """Count the tokens and times of an answered request."""
        with self._lock:
            self._n_answered += 1
            self._tokens_in += outcome.n_prompt
            self._tokens_out += sum(len(sample.tokens) for sample in outcome.samples)
            self._hits += max(0, outcome.n_cached)
            self._waited += outcome.queue_wait
            if outcome.time_to_first_token is not None:
                self._n_began += 1
                self._until_first += outcome.time_to_first_token
        if self._whole is not None:
            self._whole.notice_outcome(outcome)

    def _notice_end(self, future: Future[Any]) -> None:
        """Count how a request ended; a callback of its future."""
        with self._lock:
            if future.cancelled():
                self._n_cancelled += 1
            elif future.exception() is not None:
                self._n_failed += 1
            else:
                self._n_finished += 1
            if not self._n_at_work:
                self._busy += time.monotonic() - self._busy_since
        if self._whole is not None:
            self._whole._notice_end(future)

    @property
    def _n_at_work(self) -> int:
        return self._n_requests - self._n_finished - self._n_failed - self._n_cancelled

    def __repr__(self) -> str:
        counters = self.counters
        shown = [
            f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in asdict(counters).items()
        ]
        return f"Telemetry({', '.join(shown)}, tokens_per_second={counters.tokens_per_second:.1f})"


@runtime_checkable
class TelemetryProvider(Protocol):
    """Base of clients that have counters."""

    def get_telemetry(self) -> Telemetry | None:
        """Return the counters, which stay on this machine."""


__all__ = ["Counters", "Telemetry", "TelemetryProvider"]
