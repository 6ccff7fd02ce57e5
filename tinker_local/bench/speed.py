"""EngineSpeed: our engine and the bare loop in turn, scoring and sampling."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tinker_local.bench.bare_loop import BareLoop
from tinker_local.bench.rounds import fit, medians, take_turns
from tinker_local.sampling_client import SamplingClient
from tinker_local.types import ModelInput, SamplingParams

SAMPLES = (1, 8, 32)
"""Numbers of samples that are measured."""
TOP_K = 20
"""Alternatives that scoring returns at each position."""
_N_PROMPT = 64


@dataclass(frozen=True, slots=True)
class EngineSpeed:
    """The speed of our engine and of the bare loop at one kind of work.

    Attributes:
        n_samples: continuations at once; 0 means scoring.
        n_tokens: tokens of a round.
        ours, bare: tokens per second, median of the rounds.
        ratio: ours / bare, median of the rounds.
    """

    n_samples: int
    n_tokens: int
    ours: float
    bare: float
    ratio: float

    @property
    def name(self) -> str:
        """The kind of work, for people."""
        return f"sample {self.n_samples} at once" if self.n_samples else "score"


def measure_speed(
    client: SamplingClient, bare: BareLoop, seconds: float, rounds: int, *, seed: int = 0
) -> list[EngineSpeed]:
    """Measure both in about ``seconds``: scoring, then each of ``SAMPLES`` that the context has room for.

    Each part first runs a little to warm up and to find how many tokens fit its share of the time.
    """
    n_ctx = bare.context.n_ctx
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, client.get_tokenizer().vocab_size, 512).astype(np.int32)[: n_ctx // 2]
    each = seconds / (1 + len(SAMPLES))  # for one kind of work
    share = each / (2 * rounds)  # for one run of ours or of the bare loop
    n = fit(share, _warm(lambda: bare.score(tokens[:32])) / 32, 32, len(tokens))
    ours, them = partial(_score, client, tokens[:n]), partial(bare.score, tokens[:n])
    found = [_compare(0, n, ours, them, rounds, each)]
    prompt = tokens[:_N_PROMPT]
    room = min(n_ctx - len(prompt), (bare.context.n_cells - len(prompt)) // SAMPLES[-1] - 2)
    for n_samples in SAMPLES:
        if n_samples > bare.context.n_sequences:
            break
        step = _warm(partial(bare.sample, prompt, n_samples, 2)) / 2
        n_steps = fit(share, step, 4, min(64, room))
        ours = partial(_sample, client, prompt, n_samples, n_steps)
        them = partial(bare.sample, prompt, n_samples, n_steps)
        found.append(_compare(n_samples, n_samples * n_steps, ours, them, rounds, each))
    return found


def _compare(
    n_samples: int,
    n_tokens: int,
    ours: Callable[[], float],
    bare: Callable[[], float],
    rounds: int,
    seconds: float,
) -> EngineSpeed:
    ours()  # warm up: the first run is slower
    times = take_turns({"ours": ours, "bare": bare}, rounds, seconds)
    ratio = statistics.median(b / a for a, b in zip(times["ours"], times["bare"], strict=True))
    middle = medians(times)
    return EngineSpeed(n_samples, n_tokens, n_tokens / middle["ours"], n_tokens / middle["bare"], ratio)


def _warm(run: Callable[[], float]) -> float:
    """Run twice; return the seconds of the second run."""
    run()
    return run()


def _score(client: SamplingClient, tokens: NDArray[np.int32]) -> float:
    prompt = ModelInput.from_ints(tokens.tolist())
    top_k = min(TOP_K, client.get_tokenizer().vocab_size)
    begun = time.perf_counter()
    client.sample(
        prompt, 1, SamplingParams(max_tokens=0), include_prompt_logprobs=True, topk_prompt_logprobs=top_k
    ).result()
    return time.perf_counter() - begun


def _sample(client: SamplingClient, tokens: NDArray[np.int32], n_samples: int, n_steps: int) -> float:
    """Return the seconds of decoding, from the last sample's first token to the last token of all."""
    times: list[float] = []
    client.sample(
        ModelInput.from_ints(tokens.tolist()),
        n_samples,
        SamplingParams(max_tokens=n_steps + 1, stop=[], seed=0),
        on_token=lambda *_: times.append(time.perf_counter()),
    ).result()
    return times[-1] - times[n_samples - 1]
