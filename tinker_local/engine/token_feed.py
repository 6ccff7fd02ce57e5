"""Whom drawn tokens are told to: TokenFeed, a callback of a user; Immediate, one of ours."""

from __future__ import annotations

from collections.abc import Callable

from tinker_local.callbacks import InOrder
from tinker_local.types import SampledToken


class Immediate:
    """An ``on_token`` that is ours and never blocks: the engine's own thread calls it.

    Args:
        callback: our function.
    """

    def __init__(self, callback: Callable[[int, SampledToken], None]) -> None:
        self._callback = callback

    def __call__(self, index: int, token: SampledToken) -> None:
        """Tell the callback of a token of sample ``index``."""
        self._callback(index, token)


class TokenFeed:
    """A user's ``on_token``, called in order on a thread for callbacks.

    Args:
        callback: the user's function.
    """

    def __init__(self, callback: Callable[[int, SampledToken], None]) -> None:
        self._calls = InOrder(callback)

    @property
    def error(self) -> Exception | None:
        """What the callback raised, if it did."""
        return self._calls.error

    def __call__(self, index: int, token: SampledToken) -> None:
        """Tell the callback of a token of sample ``index``; returns at once.

        Raises:
            Exception: an earlier call failed with it.
        """
        self._calls.call(index, token)

    def end(self, function: Callable[[], None], *, now: bool) -> None:
        """Call a function after the callback was told of all tokens; ``now`` leaves out those that wait."""
        if now:
            self._calls.drop()
            function()
        else:
            self._calls.then(function)
