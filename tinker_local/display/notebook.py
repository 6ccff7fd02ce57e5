"""HTML that a notebook shows for a response."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Protocol

from tinker_local.display import markup
from tinker_local.display.detail import details, number
from tinker_local.display.scored_text import Pairs, ScoredText, TextOf
from tinker_local.display.style import notebook_style
from tinker_local.display.visible import text_of_bytes

_SEQUENCES = 32  # most sequences shown of a response
_TOKENS = 4000  # most tokens shown of a response: a notebook saves its output


class TokenTexts(Protocol):
    """A tokenizer, as far as it is needed here."""

    def token_bytes(self, token_id: int, /) -> bytes:
        """Return the bytes that a token stands for."""


class ShownSequence(Protocol):
    """A sampled sequence, as far as it is shown here."""

    @property
    def stop_reason(self) -> str:
        """``"stop"`` or ``"length"``."""

    @property
    def tokens(self) -> list[int]:
        """ScoredToken ids."""

    @property
    def logprobs(self) -> list[float] | None:
        """Log-probability of each token."""

    @property
    def topk_logprobs(self) -> list[list[tuple[int, float]] | None] | None:
        """For each token the alternatives ``(token_id, logprob)``, best first."""


def in_html(
    sequences: Sequence[ShownSequence],
    vocabulary: TokenTexts | None,
    prompt: Sequence[int] | None = None,
    prompt_logprobs: Sequence[float | None] | None = None,
    prompt_topk: Sequence[Pairs | None] | None = None,
) -> str:
    """Return the sequences, and a scored prompt, as HTML with each token coloured by its probability.

    Args:
        sequences: sampled sequences; the first 32 are shown.
        vocabulary: the tokenizer; None shows token ids instead of texts.
        prompt: token ids of the prompt.
        prompt_logprobs: log-probabilities of the prompt; None leaves the prompt out.
        prompt_topk: alternatives at each position of the prompt.
    """
    text_of = _text_of(vocabulary)
    shown = _Budget(_TOKENS)
    blocks: list[str] = []
    if prompt is not None and prompt_logprobs is not None:
        blocks += _block("prompt", ScoredText.of("", prompt, prompt_logprobs, prompt_topk, text_of), shown)
    for i, sequence in enumerate(sequences[:_SEQUENCES]):
        name = f"{i} · {sequence.stop_reason}" if len(sequences) > 1 else sequence.stop_reason
        scored = ScoredText.of("", sequence.tokens, sequence.logprobs, sequence.topk_logprobs, text_of)
        blocks += _block(name, scored, shown)
    if len(sequences) > _SEQUENCES:
        blocks.append(f'<div class="tl-caption">and {len(sequences) - _SEQUENCES} more</div>')
    body = markup.surprise_legend() + "".join(blocks)
    return f'<div class="tinker-look"><style>{notebook_style()}</style>{body}</div>'


class _Budget:
    """Number of tokens that may still be shown."""

    def __init__(self, left: int) -> None:
        self._left = left

    def take(self, wanted: int) -> int:
        """Use up to ``wanted`` tokens of the budget; return how many may be shown."""
        taken = min(wanted, self._left)
        self._left -= taken
        return taken


def _block(name: str, scored: ScoredText, budget: _Budget) -> Iterator[str]:
    caption = f"{name} · {len(scored.tokens)} token{'s' * (len(scored.tokens) != 1)}"
    if scored.count:
        caption += f" · log-probability {number(scored.total, 3)} · perplexity {scored.perplexity:.3f}"
    yield f'<div class="tl-caption">{escape(caption)}</div>'
    head = ScoredText("", scored.tokens[: budget.take(len(scored.tokens))], scored.has_texts)
    if head.tokens:
        yield markup.tokens(head, markup.surprise_classes(head), details(head), label=name)
    if left := len(scored.tokens) - len(head.tokens):
        yield f'<div class="tl-caption">and {left} more tokens</div>'


def _text_of(vocabulary: TokenTexts | None) -> TextOf | None:
    if vocabulary is None:
        return None
    token_bytes: Callable[[int], bytes] = vocabulary.token_bytes
    return lambda token: text_of_bytes(token_bytes(token))


__all__ = ["ShownSequence", "TokenTexts", "in_html"]
