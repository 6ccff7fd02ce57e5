"""Collect the answers of many requests, in the order of the requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from tinker_local.futures import APIFuture
from tinker_local.progress import track
from tinker_local.types import SampleResponse

T = TypeVar("T")


def collect(
    futures: Iterable[APIFuture[SampleResponse]],
    read: Callable[[int, SampleResponse], T],
    description: str,
    silent: bool,
) -> list[T]:
    """Return ``read(place, response)`` of each request, in the order of the requests.

    ``read`` is called as soon as a response arrives. If anything fails, the other requests are cancelled.

    Args:
        futures: submitted requests.
        read: turns a request's place, from 0, and its response into a result.
        description: label of the progress bar.
        silent: show no progress bar.
    """
    places: dict[APIFuture[SampleResponse], int] = {}  # unread futures only: a read response is freed

    def numbered() -> Iterator[APIFuture[SampleResponse]]:
        for place, future in enumerate(futures):
            places[future] = place
            yield future

    found: dict[int, T] = {}
    try:
        for future in track(numbered(), description, disable=silent or None):
            place = places.pop(future)
            found[place] = read(place, future.result())
    except BaseException:
        for future in reversed(places):
            future.cancel()
        raise
    return [found[place] for place in range(len(found))]


def with_progress(items: Iterable[T], total: int, silent: bool) -> Iterable[T]:
    """Return the items with a progress bar of the harness's kind, shown while texts are tokenized."""
    shown: Iterable[T] = tqdm(items, total=total, desc="Tokenizing inputs", disable=silent)
    return shown


__all__ = ["collect", "with_progress"]
