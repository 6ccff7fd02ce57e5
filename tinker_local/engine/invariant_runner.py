"""Runs a step so that every token comes out in the bits it has when its request is alone."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.invariance import MAX_TOKENS, Rule, StreamBlock
from tinker_local.engine.prompt_lookup import PromptLookup
from tinker_local.engine.runner import Readout, apply_edits
from tinker_local.engine.sequence import ActiveRequest, Sample
from tinker_local.engine.step import Chunk, Step
from tinker_local.llama.context import ABORTED, Context, DecodeError

_MANY_TOKENS = 32
"""Tokens of a batch up to which one more costs little beside reading the weights."""

_WIDEST_GAP = 4
"""Idle streams between two busy ones that are computed along rather than reading the weights once more."""


class InvariantRunner:
    """Decodes samples in blocks of neighbouring streams, and each chunk of a prompt alone.

    A rule may want more tokens than there are, and a text may repeat itself. Then a sample's next tokens
    are drafted by prompt lookup, and those that are drawn as drafted count. The others, and tokens that
    only fill up a batch, are removed again. See ``runner.Runner``.
    """

    def __init__(self, context: Context, rule: Rule) -> None:
        self._context = context
        self._readout = Readout(context)
        self._rule = rule
        self._lookups: WeakKeyDictionary[ActiveRequest, PromptLookup] = WeakKeyDictionary()

    def run(self, step: Step) -> None:
        """Edit the KV cache, decode, draw and score; see ``runner.Runner``."""
        apply_edits(self._context, step.edits)
        self._readout.begin(step)
        widest = self._context.n_batch // self._rule.per_sequence
        for samples in _neighbours(step.samples, widest):
            self._decode_together(samples)
        for chunk in step.chunks:
            try:
                self._prefill(chunk)
            except DecodeError as error:
                self._note(error, [chunk.sequence.owner])

    # -- samples --------------------------------------------------------------------------------

    def _decode_together(self, samples: list[Sample]) -> None:
        """Decode samples in one block; if that fails, those of each request alone."""
        try:
            self._decode(samples)
        except DecodeError as error:
            requests = list(dict.fromkeys(sample.owner for sample in samples))
            if len(requests) == 1 or error.code == ABORTED:
                self._note(error, requests)
                return
            for request in requests:
                self._decode_together([sample for sample in samples if sample.owner is request])

    def _note(self, error: DecodeError, requests: list[ActiveRequest]) -> None:
        if error.code == ABORTED:
            raise error
        self._readout.failed.update(dict.fromkeys(requests, error))

    def _decode(self, samples: list[Sample]) -> None:
        """Draw the next token of each sample, and more where drafts are accepted."""
        # 1. The block: for each stream its last drawn token, a draft, and padding.
        drafts = self._draft(samples)
        block = self._block(samples, drafts)
        lengths = dict(zip(range(block.first, block.first + len(block.starts)), block.starts, strict=True))
        try:
            # 2. Logits of all of them at once; drawn in order, as long as drafts are right.
            rows = block.decode(self._context, self._rule)
            self._draw_drafted(samples, drafts, rows[[s.id - block.first for s in samples]])
            lengths.update((s.id, s.length - 1) for s in samples)
        finally:
            # 3. What was not accepted is removed, also from idle streams that only filled the block.
            for stream, length in lengths.items():
                self._context.truncate_sequence(stream, int(length))

    def _draft(self, samples: list[Sample]) -> list[list[int]]:
        """Draft tokens for each sample, as many as the batch takes at little cost."""
        width = samples[-1].id - samples[0].id + 1
        many = min(MAX_TOKENS, _MANY_TOKENS // len(samples), self._context.n_batch // width)
        _, free = self._rule.shape(width, self._rule.per_sequence, self._context.n_sequences)
        most = max(free, many) - 1
        return [self._lookup_of(s).draft(s, min(free - 1, s.growth), min(most, s.growth)) for s in samples]

    def _lookup_of(self, sample: Sample) -> PromptLookup:
        if sample.owner not in self._lookups:
            self._lookups[sample.owner] = PromptLookup(sample.prompt)
        return self._lookups[sample.owner]

    def _block(self, samples: list[Sample], drafts: list[list[int]]) -> StreamBlock:
        """Put samples and their drafts into a block that the rule allows."""
        first, last = samples[0].id, samples[-1].id
        length = max(self._rule.per_sequence, 1 + max(map(len, drafts)))
        n_streams, length = self._rule.shape(last - first + 1, length, self._context.n_sequences)
        first = min(first, self._context.n_sequences - n_streams)
        tokens = np.zeros((n_streams, length), np.int32)
        wanted = np.zeros(tokens.shape, np.bool_)
        starts = np.empty(n_streams, np.int32)
        at = {sample.id: (sample, draft) for sample, draft in zip(samples, drafts, strict=True)}
        for index, stream in enumerate(range(first, first + n_streams)):
            if stream in at:
                sample, draft = at[stream]
                tokens[index, : 1 + len(draft)] = [sample.drawn[-1], *draft]
                wanted[index, : 1 + len(draft)] = True
                starts[index] = sample.n_computed
            else:
                starts[index] = self._context.sequence_length(stream)
        return StreamBlock(first, tokens, starts, wanted)

    def _draw_drafted(self, samples: list[Sample], drafts: list[list[int]], rows: NDArray[np.intp]) -> None:
        """Draw from each sample's rows in turn, as long as what is drawn is what was drafted."""
        logits, failed = self._context.logits(int(rows.max()) + 1), self._readout.failed
        going = list(zip(samples, drafts, rows.tolist(), strict=True))
        for n_drawn in range(max(map(len, drafts)) + 1):
            self._readout.draw([(sample, row[n_drawn]) for sample, _, row in going], logits)
            going = [
                (sample, draft, row)
                for sample, draft, row in going
                if n_drawn < len(draft) and sample.drawn[-1] == draft[n_drawn] and not sample.stop_reason
                if sample.owner not in failed
            ]
            if not going:
                break
        for sample, draft in zip(samples, drafts, strict=True):
            if sample.owner not in failed:
                n_accepted = sample.n_remaining - 2
                self._lookup_of(sample).accept(sample, len(draft), n_accepted)

    # -- prompts --------------------------------------------------------------------------------

    def _prefill(self, chunk: Chunk) -> None:
        """Compute a chunk alone, with as many tokens as the rule wants; what only fills up is removed."""
        stream, n = chunk.sequence.id, chunk.stop - chunk.start
        _, length = self._rule.shape(1, max(n, self._rule.per_sequence), 1)
        tokens = np.zeros((1, length), np.int32)
        tokens[0, :n] = chunk.tokens
        wanted = np.zeros(tokens.shape, np.bool_)
        wanted[0, n - chunk.n_rows : n] = True
        block = StreamBlock(stream, tokens, np.array([chunk.start], np.int32), wanted)
        try:
            rows = block.decode(self._context, self._rule)[0]
            logits = self._context.logits(int(rows.max()) + 1)
            first = int(rows[n - chunk.n_rows]) if chunk.n_rows else 0
            self._readout.draw(self._readout.read_chunk(chunk, first, logits), logits)
        finally:
            self._context.truncate_sequence(stream, chunk.stop)


def _neighbours(samples: list[Sample], widest: int) -> Iterator[list[Sample]]:
    """Group samples whose streams are close together, in the order of streams."""
    run = list[Sample]()
    for sample in sorted(samples, key=lambda sample: sample.id):
        if run and (sample.id - run[-1].id > _WIDEST_GAP + 1 or sample.id - run[0].id >= widest):
            yield run
            run = []
        run.append(sample)
    if run:
        yield run
