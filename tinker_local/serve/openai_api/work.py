"""Work: the requests to a model behind one HTTP request: waited for, or followed token by token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from tinker_local.engine.token_feed import Immediate
from tinker_local.futures import when_done
from tinker_local.sampling_client import SamplingClient
from tinker_local.serve.mailbox import Mailbox
from tinker_local.serve.openai_api.prompts import Prompt
from tinker_local.types import SampledToken, SampleResponse, SamplingParams

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
    future: Future[SampleResponse]

    @property
    def response(self) -> SampleResponse:
        """The answer."""
        return self.future.result()


Event: TypeAlias = Drawn | Finished


_MOST_AT_ONCE = 64
"""Events between which others have their turn on the event loop."""


class Work:
    """The requests for some prompts to one client.

    Args:
        client: the model.
        prompts: what is continued or scored.
        ask: what is asked of each.
    """

    def __init__(self, client: SamplingClient, prompts: Sequence[Prompt], ask: Ask) -> None:
        self._client, self.prompts, self._ask = client, prompts, ask
        self._futures: list[Future[SampleResponse]] = []
        self._arrived: list[Event] = []
        self._news = asyncio.Event()

    def submit(self, mailbox: Mailbox | None = None) -> None:
        """Submit all requests, from any thread; with a mailbox of the loop that follows their ``events``.

        Raises:
            BadRequestError: one cannot be served.
            RateLimitError: the queue is full.
        """
        try:
            for number in range(len(self.prompts)):
                self._submit(number, mailbox)
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

    async def events(self) -> AsyncIterator[list[Event]]:
        """Yield all that came since the last time: drawn tokens, and the end of each prompt's samples.

        Raises:
            TinkerError: a request failed; its tokens come first.
        """
        n_left = len(self._futures)
        while n_left:
            await self._news.wait()
            arrived, self._arrived = self._arrived[:_MOST_AT_ONCE], self._arrived[_MOST_AT_ONCE:]
            if self._arrived:
                await asyncio.sleep(0)
            else:
                self._news.clear()
            ends = [event for event in arrived if isinstance(event, Finished)]
            failed = next((event for event in ends if event.future.exception()), None)
            yield arrived if failed is None else arrived[: arrived.index(failed)]
            if failed is not None:
                failed.future.result()  # raises
            n_left -= len(ends)

    def _submit(self, number: int, mailbox: Mailbox | None) -> None:
        ask = self._ask
        future = self._client.sample(
            self.prompts[number].input,
            ask.num_samples,
            ask.params,
            ask.prompt_logprobs,
            ask.topk_prompt,
            ask.topk_sample,
            on_token=Immediate(partial(self._told, mailbox, number)) if mailbox else None,
        )
        self._futures.append(future)
        if mailbox:
            when_done(future, partial(self._ended, mailbox, number))

    def _told(self, mailbox: Mailbox, prompt: int, sample: int, token: SampledToken) -> None:
        mailbox.put(self._take, Drawn(prompt, sample, token))

    def _ended(self, mailbox: Mailbox, prompt: int, future: Future[SampleResponse]) -> None:
        mailbox.put(self._take, Finished(prompt, future))

    def _take(self, event: Event) -> None:
        self._arrived.append(event)
        self._news.set()


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
