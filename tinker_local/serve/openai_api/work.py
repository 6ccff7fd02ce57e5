"""Work: the requests to a model behind one HTTP request: waited for, or followed token by token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from tinker_local.futures import when_done
from tinker_local.sampling_client import SamplingClient
from tinker_local.types import ModelInput, SampledToken, SampleResponse, SamplingParams

if TYPE_CHECKING:
    from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of each prompt; see ``SamplingClient.sample``."""

    params: SamplingParams
    num_samples: int
    prompt_logprobs: bool = False
    topk_prompt: int = 0
    topk_sample: int = 0


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token of a sample: numbers of the prompt and of the sample, and the token."""

    prompt: int
    sample: int
    token: SampledToken


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a prompt's samples."""

    prompt: int
    response: SampleResponse


Event: TypeAlias = Drawn | Finished


class Work:
    """The requests for some prompts to one client.

    Args:
        client: the model.
        prompts: token ids of each prompt.
        ask: what is asked of each.
    """

    def __init__(self, client: SamplingClient, prompts: Sequence[list[int]], ask: Ask) -> None:
        self._client, self.prompts, self._ask = client, prompts, ask
        self._futures: list[Future[SampleResponse]] = []
        self._events: asyncio.Queue[Drawn | tuple[int, Future[SampleResponse]]] = asyncio.Queue()

    def submit(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Submit all requests, from any thread; with the loop on which ``events`` is to follow them.

        Raises:
            BadRequestError: one cannot be served.
            RateLimitError: the queue is full.
        """
        try:
            for number in range(len(self.prompts)):
                self._submit(number, loop)
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Cancel what is unfinished, which frees its cells."""
        for future in self._futures:
            future.cancel()

    async def responses(self) -> list[SampleResponse]:
        """Wait for all; if one fails, or nobody waits any longer, the others are cancelled."""
        try:
            return await asyncio.gather(*map(asyncio.wrap_future, self._futures))
        finally:
            self.cancel()

    async def events(self) -> AsyncIterator[Event]:
        """Yield tokens as they are drawn, and then the end of each prompt's samples."""
        left = len(self._futures)
        while left:
            said = await self._events.get()
            if isinstance(said, Drawn):
                yield said
                continue
            prompt, future = said
            left -= 1
            yield Finished(prompt, future.result())

    def _submit(self, number: int, loop: asyncio.AbstractEventLoop | None) -> None:
        ask = self._ask
        future = self._client.sample(
            ModelInput.from_ints(self.prompts[number]),
            ask.num_samples,
            ask.params,
            ask.prompt_logprobs,
            ask.topk_prompt,
            ask.topk_sample,
            on_token=partial(self._told, loop, number) if loop else None,
        )
        self._futures.append(future)
        if loop:
            when_done(future, partial(self._ended, loop, number))

    def _told(self, loop: asyncio.AbstractEventLoop, prompt: int, sample: int, token: SampledToken) -> None:
        loop.call_soon_threadsafe(self._events.put_nowait, Drawn(prompt, sample, token))

    def _ended(self, loop: asyncio.AbstractEventLoop, prompt: int, future: Future[SampleResponse]) -> None:
        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(self._events.put_nowait, (prompt, future))


class ClientLeftError(Exception):
    """The client closed its connection before the answer."""


async def unless_left(request: Request, answer: Awaitable[Any]) -> Any:
    """Await an answer, or cancel it when the client leaves.

    Raises:
        ClientLeftError: it left.
    """
    work, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(_leaving(request.receive))
    try:
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientLeftError
        return work.result()
    finally:
        leaving.cancel()
        work.cancel()


async def _leaving(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


__all__ = ["Ask", "ClientLeftError", "Drawn", "Event", "Finished", "Work", "unless_left"]
