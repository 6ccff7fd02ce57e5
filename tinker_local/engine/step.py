"""One step of the engine: what changes in the KV cache, then which tokens are decoded."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinker_local.engine.sequence import Prompt, Sample


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens ``start`` to ``stop`` of a prompt, next in line."""

    prompt: Prompt
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        """Whether the prompt is complete after it."""
        return self.stop == len(self.prompt.request.prompt)

    @property
    def n_rows(self) -> int:
        """Rows of logits somebody needs: all if the prompt is scored, else only the last token's."""
        if self.prompt.request.scores_prompt:
            return self.stop - self.start
        return int(self.is_last)


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget a sequence."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Make ``target`` hold the first ``length`` tokens of ``source``."""

    source: int
    target: int
    length: int


@dataclass(slots=True)
class Step:
    """One ``llama_decode``: first one token of each sample, then the chunks.

    ``edits`` of the cache come before it, in their order.
    """

    edits: list[Remove | Copy] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def prompts(self) -> set[Prompt]:
        """The requests with a part in this step."""
        return {s.prompt for s in self.samples} | {c.prompt for c in self.chunks}
