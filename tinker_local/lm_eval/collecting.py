"""From submitted requests to answers in their order."""

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
    """Return what ``read`` makes of each answer, in the order of the requests.

    It is called as answers come, with the request's place. If anything fails, the rest is cancelled.
    """
    places: dict[APIFuture[SampleResponse], int] = {}  # so that no answer is kept once it was read

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


def shown(items: Iterable[T], total: int, silent: bool) -> Iterable[T]:
    """Return the same, with the harness's kind of bar, while texts become tokens."""
    shown: Iterable[T] = tqdm(items, total=total, desc="Tokenizing inputs", disable=silent)
    return shown


__all__ = ["collect", "shown"]
