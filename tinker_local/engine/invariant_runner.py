"""Runs a step so that every token comes out in the bits it has when its request is alone."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.invariance import MAX_TOKENS, Block, Rule
from tinker_local.engine.prompt_lookup import Guesses
from tinker_local.engine.runner import Runner
from tinker_local.engine.sequence import Prompt, Sample
from tinker_local.engine.step import Chunk, Step
from tinker_local.llama.context import ABORTED, Context, DecodeError

_MANY_TOKENS = 32
"""Tokens of a batch up to which one more costs little beside reading the weights."""

_WIDEST_GAP = 4
"""Streams with nothing to do that are computed along rather than reading the weights once more."""


class InvariantRunner(Runner):
    """Decodes samples in blocks of neighbouring streams, and each chunk of a prompt alone.

    Where a rule wants more tokens than there are, and where a text repeats itself, a sample's next ones are
    guessed; what follows a guess that comes true counts. What only filled up is removed again.
    """

    def __init__(self, context: Context, rule: Rule) -> None:
        super().__init__(context)
        self._rule = rule
        self._guesses: WeakKeyDictionary[Prompt, Guesses] = WeakKeyDictionary()

    def _compute(self, step: Step) -> None:
        widest = self._context.n_batch // self._rule.per_sequence
        for samples in _neighbours(step.samples, widest):
            self._try_to_go_on(samples)
        for chunk in step.chunks:
            try:
                self._compute_chunk(chunk)
            except DecodeError as error:
                self._note(error, [chunk.sequence.prompt])

    # -- samples --------------------------------------------------------------------------------

    def _try_to_go_on(self, samples: list[Sample]) -> None:
        """Go on with samples; if that fails, with those of each request alone."""
        try:
            self._go_on(samples)
        except DecodeError as error:
            prompts = list(dict.fromkeys(sample.prompt for sample in samples))
            if len(prompts) == 1 or error.code == ABORTED:
                self._note(error, prompts)
                return
            for prompt in prompts:
                self._try_to_go_on([sample for sample in samples if sample.prompt is prompt])

    def _note(self, error: DecodeError, prompts: list[Prompt]) -> None:
        if error.code == ABORTED:
            raise error
        self._failed.update(dict.fromkeys(prompts, error))

    def _go_on(self, samples: list[Sample]) -> None:
        """Draw the next token of each sample, and more where guesses come true."""
        guesses = self._guess(samples)
        block = self._block(samples, guesses)
        lengths = dict(zip(range(block.first, block.first + len(block.starts)), block.starts, strict=True))
        try:
            rows = block.decode(self._context, self._rule)
            self._draw_guessed(samples, guesses, rows[[s.id - block.first for s in samples]])
            lengths.update((s.id, s.length - 1) for s in samples)
        finally:  # also streams of others were made longer
            for stream, length in lengths.items():
                self._context.truncate_sequence(stream, int(length))

    def _guess(self, samples: list[Sample]) -> list[list[int]]:
        """Guess what each sample goes on with."""
        width = samples[-1].id - samples[0].id + 1
        many = min(MAX_TOKENS, _MANY_TOKENS // len(samples), self._context.n_batch // width)
        _, free = self._rule.shape(width, self._rule.per_sequence, self._context.n_sequences)
        most = max(free, many) - 1
        return [
            self._guesses_of(s).next_tokens(s, min(free - 1, s.growth), min(most, s.growth))
            for s in samples
        ]

    def _guesses_of(self, sample: Sample) -> Guesses:
        if sample.prompt not in self._guesses:
            self._guesses[sample.prompt] = Guesses(sample.prompt)
        return self._guesses[sample.prompt]

    def _block(self, samples: list[Sample], guesses: list[list[int]]) -> Block:
        first, last = samples[0].id, samples[-1].id
        length = max(self._rule.per_sequence, 1 + max(map(len, guesses)))
        n_streams, length = self._rule.shape(last - first + 1, length, self._context.n_sequences)
        first = min(first, self._context.n_sequences - n_streams)
        tokens = np.zeros((n_streams, length), np.int32)
        wanted = np.zeros(tokens.shape, np.bool_)
        starts = np.empty(n_streams, np.int32)
        at = {sample.id: (sample, guess) for sample, guess in zip(samples, guesses, strict=True)}
        for index, stream in enumerate(range(first, first + n_streams)):
            if stream in at:
                sample, guess = at[stream]
                tokens[index, : 1 + len(guess)] = [sample.drawn[-1], *guess]
                wanted[index, : 1 + len(guess)] = True
                starts[index] = sample.n_computed
            else:
                starts[index] = self._context.sequence_length(stream)
        return Block(first, tokens, starts, wanted)

    def _draw_guessed(
        self, samples: list[Sample], guesses: list[list[int]], rows: NDArray[np.intp]
    ) -> None:
        """Draw from each sample's rows in turn, as long as what is drawn is what was guessed."""
        logits = self._context.logits(int(rows.max()) + 1)
        going = list(zip(samples, guesses, rows.tolist(), strict=True))
        for n_drawn in range(max(map(len, guesses)) + 1):
            self._draw([(sample, row[n_drawn]) for sample, _, row in going], logits)
            going = [
                (sample, guess, row)
                for sample, guess, row in going
                if n_drawn < len(guess) and sample.drawn[-1] == guess[n_drawn] and not sample.stop_reason
                if sample.prompt not in self._failed
            ]
            if not going:
                break
        for sample, guess in zip(samples, guesses, strict=True):
            if sample.prompt in self._failed:
                continue
            n_true = sample.n_remaining - 2
            self._guesses_of(sample).came_true(sample, len(guess), n_true)

    # -- prompts --------------------------------------------------------------------------------

    def _compute_chunk(self, chunk: Chunk) -> None:
        stream, n = chunk.sequence.id, chunk.stop - chunk.start
        _, length = self._rule.shape(1, max(n, self._rule.per_sequence), 1)
        tokens = np.zeros((1, length), np.int32)
        tokens[0, :n] = chunk.tokens
        wanted = np.zeros(tokens.shape, np.bool_)
        wanted[0, n - chunk.n_rows : n] = True
        block = Block(stream, tokens, np.array([chunk.start], np.int32), wanted)
        try:
            rows = block.decode(self._context, self._rule)[0]
            logits = self._context.logits(int(rows.max()) + 1)
            first = int(rows[n - chunk.n_rows]) if chunk.n_rows else 0
            self._draw(self._read_chunk(chunk, first, logits), logits)
        finally:
            self._context.truncate_sequence(stream, chunk.stop)


def _neighbours(samples: list[Sample], widest: int) -> Iterator[list[Sample]]:
    """Samples whose streams are close together, in the order of streams."""
    run = list[Sample]()
    for sample in sorted(samples, key=lambda sample: sample.id):
        if run and (sample.id - run[-1].id > _WIDEST_GAP + 1 or sample.id - run[0].id >= widest):
            yield run
            run = []
        run.append(sample)
    if run:
        yield run
