"""How much may wait: requests take memory as long as they are not finished."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial
from typing import Any

from tinker_local.engine.sequence import Request
from tinker_local.errors import BadRequestError, RateLimitError

_REQUEST = 1500  # bytes of one, and of its future, beside its tokens
_DRAWN = 72  # bytes of a drawn token: two Python objects and their places in lists
_SCORED = 8  # bytes of an id and its log-probability


class QueueLimit:
    """Counts what the unfinished requests of an engine take.

    Args:
        n_bytes: the most that they may.
    """

    def __init__(self, n_bytes: int) -> None:
        self._limit = n_bytes
        self._lock = threading.Lock()
        self._used = 0
        self._n_requests = 0

    def admit(self, request: Request) -> None:
        """Count a request until its future is done.

        Raises:
            RateLimitError: there are too many.
            BadRequestError: its answer could take more than all may.
        """
        if (answer := _answer_bytes(request)) > self._limit:
            raise BadRequestError(
                f"the answer could take {answer / 1e6:,.0f} MB, and max_queue_mb allows "
                f"{self._limit / 1e6:,.0f}: {request.num_samples} samples of at most {request.max_tokens} "
                f"tokens, {len(request.prompt)} prompt tokens; ask for less at once"
            )
        n_bytes = _REQUEST + request.prompt.nbytes
        if request.targets is not None:
            n_bytes += request.targets.ids.nbytes + request.targets.indptr.nbytes
        with self._lock:
            if self._used + n_bytes > self._limit:
                raise RateLimitError(
                    f"{self._n_requests:,} requests wait or run, and take as much memory as max_queue_mb "
                    f"allows, {self._limit / 1e6:,.0f} MB; wait for some of them"
                )
            self._used += n_bytes
            self._n_requests += 1
        request.future.add_done_callback(partial(self._finished, n_bytes))

    def _finished(self, n_bytes: int, _future: Future[Any]) -> None:
        with self._lock:
            self._used -= n_bytes
            self._n_requests -= 1


def _answer_bytes(request: Request) -> int:
    drawn = _DRAWN + _SCORED * request.topk_sample_logprobs
    scored = _SCORED * (1 + request.topk_prompt_logprobs + request.prompt_alt_tokens_k)
    return request.num_samples * request.max_tokens * drawn + len(request.prompt) * scored
