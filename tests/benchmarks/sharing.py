"""Savings of the prefix cache: many completions of one context, and interleaved conversations.

    python -m tests.benchmarks.sharing [--type q4_1] [--rounds N] [--completions N] [--turns N]

completions    256 completions of 8 tokens, scored after the same 1,000 tokens and submitted together;
               against scoring each whole prompt without sharing (4 are timed one after the other, and
               their time is scaled up)
conversations  4 conversations of 10 turns, interleaved turn by turn: about 20 tokens of a user, then 24
               sampled. Prints for each turn the tokens computed and the tokens that are new, and the total
               time with and without the cache.

The two clients take turns. No prefix is shared with an earlier round.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.requantized import command_line, default_model
from tests.benchmarks.timing import Pairs, alternate
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient

N_CTX = 8192
N_CONTEXT, N_COMPLETION, N_ALONE = 1000, 8, 4
N_CONVERSATIONS, N_USER, N_REPLY = 4, 20, 24
RNG = np.random.default_rng(0)


def random_tokens(client: SamplingClient, n: int) -> list[int]:
    tokens: list[int] = RNG.integers(20, client.get_tokenizer().vocab_size, n).tolist()
    return tokens


def seconds_to_score(client: SamplingClient, prompts: list[list[int]]) -> float:
    start = time.perf_counter()
    futures = [client.compute_logprobs(ModelInput.from_ints(tokens)) for tokens in prompts]
    for future in futures:
        future.result()
    return time.perf_counter() - start


def completions(sharing: SamplingClient, alone: SamplingClient, n: int, rounds: int) -> Pairs:
    def prompts(count: int) -> list[list[int]]:
        context = random_tokens(sharing, N_CONTEXT)  # a new one every time
        return [context + random_tokens(sharing, N_COMPLETION) for _ in range(count)]

    return alternate(
        lambda: seconds_to_score(sharing, prompts(n)),
        lambda: sum(seconds_to_score(alone, [p]) for p in prompts(N_ALONE)) * n / N_ALONE,
        rounds,
    )


@dataclass(frozen=True)
class Turn:
    """Prompt tokens of one turn of a conversation: those that are new, those that the model computed."""

    number: int
    length: int
    new: int
    computed: int


def converse(client: SamplingClient, users: list[list[list[int]]]) -> tuple[float, list[Turn]]:
    """Return the seconds and the turns of all conversations.

    The last token of a reply counts as new: it was sampled, but never run through the model.

    Args:
        users: token ids of the user's message, by conversation and turn.
    """
    histories: list[list[int]] = [[] for _ in users]
    params = SamplingParams(max_tokens=N_REPLY, temperature=0.8, stop=[], seed=0)
    turns = []
    start = time.perf_counter()
    for number in range(len(users[0])):
        for conversation, history in enumerate(histories):
            said = users[conversation][number]
            history += said
            response = client.sample(ModelInput.from_ints(history), 1, params).result()
            computed = len(history) - response.prompt_cache_hit_tokens
            turns.append(Turn(number, len(history), len(said) + bool(number), computed))
            history += response.sequences[0].tokens
    return time.perf_counter() - start, turns


def conversations(sharing: SamplingClient, alone: SamplingClient, n_turns: int, rounds: int) -> Pairs:
    turns: list[Turn] = []

    def users() -> list[list[list[int]]]:
        return [
            [random_tokens(sharing, N_USER + RNG.integers(-3, 4)) for _ in range(n_turns)]
            for _ in range(N_CONVERSATIONS)
        ]

    def ours() -> float:
        seconds, found = converse(sharing, users())
        turns.extend(found)
        return seconds

    pairs = alternate(ours, lambda: converse(alone, users())[0], rounds)
    print_turns(turns, n_turns)
    return pairs


def print_turns(turns: list[Turn], n_turns: int) -> None:
    print(f"{'turn':>4s} {'prompt':>8s} {'new':>8s} {'computed':>9s} {'computed/new':>13s}  (means)")
    for number in range(n_turns):
        found = [turn for turn in turns if turn.number == number]
        length, new, computed = (
            statistics.mean(getattr(turn, name) for turn in found) for name in ("length", "new", "computed")
        )
        print(f"{number + 1:4d} {length:8.1f} {new:8.1f} {computed:9.1f} {computed / new:13.2f}")


def report(name: str, pairs: Pairs, goal: str = "") -> None:
    print(f"{name:44s} {pairs.ours:8.2f} {pairs.other:8.2f} {pairs.ratio:8.1f} {goal:>6s}", flush=True)


def measure(path: Path, n_completions: int, n_turns: int, rounds: int) -> None:
    sharing, alone = (
        ServiceClient(n_ctx=N_CTX, prefix_cache=kept).create_sampling_client(base_model=str(path))
        for kept in (True, False)
    )
    print(f"{path.name:44s} {'shared':>8s} {'alone':>8s} {'ratio':>8s} {'goal':>6s}  (seconds)", flush=True)
    scores = completions(sharing, alone, n_completions, rounds)
    report(f"{n_completions} x {N_COMPLETION} after the same {N_CONTEXT} (alone: scaled)", scores, "25.0")
    talk = conversations(sharing, alone, n_turns, rounds)
    report(f"{N_CONVERSATIONS} conversations of {n_turns} turns", talk)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--completions", type=int, default=256)
    parser.add_argument("--turns", type=int, default=10)
    arguments = parser.parse_args()
    measure(default_model(arguments.type), arguments.completions, arguments.turns, arguments.rounds)


if __name__ == "__main__":
    main()
