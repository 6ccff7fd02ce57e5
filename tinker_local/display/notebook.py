"""How responses show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Protocol

from tinker_local.display import markup
from tinker_local.display.detail import details, number
from tinker_local.display.reading import Pairs, Reading, TextOf
from tinker_local.display.style import notebook_style
from tinker_local.display.visible import text_of_bytes

_SEQUENCES = 32  # shown of a response
_TOKENS = 4000  # shown of all its texts together: a notebook keeps what it shows


class Vocabulary(Protocol):
    """What knows the texts of tokens."""

    def token_bytes(self, token_id: int, /) -> bytes:
        """Return what a token stands for."""


class Sequenced(Protocol):
    """What is shown of a sequence."""

    @property
    def stop_reason(self) -> str:
        """Why it ended."""

    @property
    def tokens(self) -> list[int]:
        """Its tokens' ids."""

    @property
    def logprobs(self) -> list[float] | None:
        """Their log-probabilities."""

    @property
    def topk_logprobs(self) -> list[list[tuple[int, float]] | None] | None:
        """What else could have stood in the place of each."""


def in_html(
    sequences: Sequence[Sequenced],
    vocabulary: Vocabulary | None,
    prompt: Sequence[int] | None = None,
    prompt_logprobs: Sequence[float | None] | None = None,
    prompt_topk: Sequence[Pairs | None] | None = None,
) -> str:
    """Return sequences, and the prompt where it was scored, with each token coloured by its probability.

    Args:
        sequences: the first 32 are shown.
        vocabulary: knows the texts of tokens; None shows ids.
        prompt, prompt_logprobs, prompt_topk: the prompt's tokens and what is known of them.
    """
    text_of = _text_of(vocabulary)
    shown = _Budget(_TOKENS)
    blocks: list[str] = []
    if prompt is not None and prompt_logprobs is not None:
        blocks += _block("prompt", Reading.of("", prompt, prompt_logprobs, prompt_topk, text_of), shown)
    for i, sequence in enumerate(sequences[:_SEQUENCES]):
        name = f"{i} · {sequence.stop_reason}" if len(sequences) > 1 else sequence.stop_reason
        reading = Reading.of("", sequence.tokens, sequence.logprobs, sequence.topk_logprobs, text_of)
        blocks += _block(name, reading, shown)
    if len(sequences) > _SEQUENCES:
        blocks.append(f'<div class="tl-caption">and {len(sequences) - _SEQUENCES} more</div>')
    body = markup.surprise_legend() + "".join(blocks)
    return f'<div class="tinker-look"><style>{notebook_style()}</style>{body}</div>'


class _Budget:
    """How many tokens may still be shown."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, wanted: int) -> int:
        """Return how many of them may be."""
        taken = min(wanted, self._left)
        self._left -= taken
        return taken


def _block(name: str, reading: Reading, budget: _Budget) -> Iterator[str]:
    caption = f"{name} · {len(reading.tokens)} token{'s' * (len(reading.tokens) != 1)}"
    if reading.count:
        caption += f" · log-probability {number(reading.total, 3)} · perplexity {reading.perplexity:.3f}"
    yield f'<div class="tl-caption">{escape(caption)}</div>'
    head = Reading("", reading.tokens[: budget.take(len(reading.tokens))], reading.has_texts)
    if head.tokens:
        yield markup.tokens(head, markup.surprise_classes(head), details(head), label=name)
    if left := len(reading.tokens) - len(head.tokens):
        yield f'<div class="tl-caption">and {left} more tokens</div>'


def _text_of(vocabulary: Vocabulary | None) -> TextOf | None:
    if vocabulary is None:
        return None
    token_bytes: Callable[[int], bytes] = vocabulary.token_bytes
    return lambda token: text_of_bytes(token_bytes(token))


__all__ = ["Sequenced", "Vocabulary", "in_html"]
