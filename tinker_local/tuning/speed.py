"""RelativeSpeed: two models timed alternately, so that a machine that slows down slows both."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tinker_local.sampling_client import SamplingClient
from tinker_local.types import ModelInput, SamplingParams

N_SCORED, N_PROMPT = 256, 64  # tokens of the text that is scored, of the prompt that is continued
N_NEW: Mapping[int, int] = {1: 24, 8: 12, 32: 6}
"""Number of samples -> tokens timed of each."""

N_CELLS = 1024
"""KV cache that the largest piece of work needs, in tokens."""


@dataclass(frozen=True, slots=True)
class RelativeSpeed:
    """Speed of a model at one kind of work, alone and relative to another model.

    Attributes:
        rate: tokens per second, median of the rounds.
        ratio: speed divided by the other model's, median of the rounds.
        low, high: quartiles of the ratio: its noise.
    """

    rate: float
    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, n_tokens: int, times: Sequence[tuple[float, float]]) -> RelativeSpeed:
        """Return the speed from the rounds' times ``(this model, other model)``, in seconds."""
        ratios = [other / ours for ours, other in times]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(n_tokens / statistics.median(ours for ours, _ in times), ratio, low, high)


def measure(
    client: SamplingClient, other: SamplingClient, text: Sequence[int], rounds: int
) -> dict[str, RelativeSpeed]:
    """Time all kinds of work on two models that take turns.

    Args:
        client: the model to judge.
        other: the model to compare it with.
        text: token ids, at least ``N_SCORED``.
        rounds: timings of each kind of work, at least 2.

    Returns:
        Speeds of ``client`` by kind of work: ``score``; ``one``, ``8`` and ``32`` (that many samples of one
        prompt at once); ``batch``, the geometric mean of ``8`` and ``32``.
    """
    scored, prompt = list(text[:N_SCORED]), list(text[:N_PROMPT])
    times = _take_turns(lambda each: _score(each, scored), client, other, rounds)
    speeds = {"score": RelativeSpeed.of(len(scored), times)}
    for n, length in N_NEW.items():
        times = _take_turns(partial(_sample, prompt, n, length), client, other, rounds)
        speeds["one" if n == 1 else str(n)] = RelativeSpeed.of(n * length, times)
    speeds["batch"] = _mean(speeds["8"], speeds["32"])
    return speeds


def _take_turns(
    work: Callable[[SamplingClient], float], client: SamplingClient, other: SamplingClient, rounds: int
) -> list[tuple[float, float]]:
    """Return the seconds of both models, ``(client, other)``, for each round."""
    work(client), work(other)  # warm up, not timed
    times = []
    for number in range(rounds):  # each model goes first in half of the rounds
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
    """Return the seconds of decoding, from the last sample's first token to the last token of all."""
    times: list[float] = []
    params = SamplingParams(max_tokens=n_tokens + 1, stop=[], seed=0)
    client.sample(
        ModelInput.from_ints(prompt),
        n_samples,
        params,
        on_token=lambda *_: times.append(time.perf_counter()),
    ).result()
    return times[-1] - times[n_samples - 1]


def _mean(a: RelativeSpeed, b: RelativeSpeed) -> RelativeSpeed:
    return RelativeSpeed(
        math.sqrt(a.rate * b.rate),
        math.sqrt(a.ratio * b.ratio),
        math.sqrt(a.low * b.low),
        math.sqrt(a.high * b.high),
    )
