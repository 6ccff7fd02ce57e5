"""How fast two models do the kinds of work, taking turns, because machines grow slower and faster."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tinker_local.sampling_client import SamplingClient
from tinker_local.types import ModelInput, SamplingParams

N_SCORED, N_PROMPT = 256, 64  # tokens of the scored text, and of the prompt that is continued
N_NEW: Mapping[int, int] = {1: 24, 8: 12, 32: 6}
"""Number of samples -> tokens that each grows by while time is taken."""

N_CELLS = 1024
"""Tokens of KV cache that the work below needs at most."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a model did one kind of work.

    Attributes:
        rate: tokens a second, the median.
        ratio: how many times as fast as the other model, the median of neighbouring runs.
        low, high: quartiles of these; the median's noise.
    """

    rate: float
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, n_tokens: int, times: Sequence[tuple[float, float]]) -> Speed:
        """Return it from neighbouring times of this model and of the other, in seconds."""
        ratios = [other / ours for ours, other in times]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(n_tokens / statistics.median(ours for ours, _ in times), ratio, low, high)


def measure(
    client: SamplingClient, other: SamplingClient, text: Sequence[int], rounds: int
) -> dict[str, Speed]:
    """Time all kinds of work on two models, which take turns; ``rounds`` is at least 2.

    Returns:
        Speeds of ``client`` by the work's name: ``score``, ``one`` (a single sample), ``8`` and ``32``
        (samples of one prompt, together), and ``batch``: both of these, their geometric mean.
    """
    scored, prompt = list(text[:N_SCORED]), list(text[:N_PROMPT])
    times = _take_turns(lambda each: _score(each, scored), client, other, rounds)
    speeds = {"score": Speed.of(len(scored), times)}
    for n, length in N_NEW.items():
        times = _take_turns(partial(_sample, prompt, n, length), client, other, rounds)
        speeds["one" if n == 1 else str(n)] = Speed.of(n * length, times)
    speeds["batch"] = _mean(speeds["8"], speeds["32"])
    return speeds


def _take_turns(
    work: Callable[[SamplingClient], float], client: SamplingClient, other: SamplingClient, rounds: int
) -> list[tuple[float, float]]:
    """Let both do the work; return their seconds."""
    work(client), work(other)  # warm up
    times = []
    for number in range(rounds):  # each goes first half the time
        if number % 2:
            times.append((work(client), work(other)))
        else:
            times.append((work(other), work(client))[::-1])
    return times


def _score(client: SamplingClient, tokens: list[int]) -> float:
    start = time.perf_counter()
    client.compute_logprobs(ModelInput.from_ints(tokens)).result()
    return time.perf_counter() - start


def _sample(prompt: list[int], n_samples: int, n_tokens: int, client: SamplingClient) -> float:
    """Return the seconds from the first tokens, which come with the prompt, to the last."""
    times: list[float] = []
    params = SamplingParams(max_tokens=n_tokens + 1, stop=[], seed=0)
    client.sample(
        ModelInput.from_ints(prompt),
        n_samples,
        params,
        on_token=lambda *_: times.append(time.perf_counter()),
    ).result()
    return times[-1] - times[n_samples - 1]


def _mean(a: Speed, b: Speed) -> Speed:
    return Speed(
        math.sqrt(a.rate * b.rate),
        math.sqrt(a.ratio * b.ratio),
        math.sqrt(a.low * b.low),
        math.sqrt(a.high * b.high),
    )
