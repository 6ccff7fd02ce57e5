"""The account of KV sequences and cells: who holds which, and what llama.cpp has to change."""

from __future__ import annotations

from dataclasses import dataclass

from tinker_local.engine.prefix_cache import Match, PrefixCache, Row
from tinker_local.engine.scores import Scores
from tinker_local.engine.sequence import Prompt, Sample, Sequence
from tinker_local.engine.step import Copy, Remove


@dataclass(frozen=True, slots=True)
class Start:
    """A cached beginning.

    Attributes:
        match: the cells to start from.
        row: the logits after them, if they were kept; else there is a token left whose row says what
            comes next.
        n_scored: tokens, from the first, of which all wanted scores are known.
        scores: those scores, in pieces with their places.
    """

    match: Match
    row: Row | None = None
    n_scored: int = 0
    scores: tuple[tuple[int, Scores], ...] = ()


class Cells:
    """Sequences and cells of one KV cache.

    Args:
        n_cells: cells there are.
        n_sequences: sequences the context can tell apart.
        keeps_prefixes: finished sequences stay for later requests to start from.
        whole_only: sequences can only be copied as a whole (recurrent and hybrid models).

    Attributes:
        cache: which prefixes are in the cells.
    """

    def __init__(
        self, n_cells: int, n_sequences: int, *, keeps_prefixes: bool = False, whole_only: bool = False
    ) -> None:
        self.cache = PrefixCache(whole_only=whole_only)
        self._n_cells = n_cells
        self._keeps_prefixes = keeps_prefixes
        self._n_open = 0  # filled cells that the cache has not been told of
        self._free_ids = list(range(n_sequences - 1, -1, -1))
        self._edits: list[Remove | Copy] = []

    @property
    def n_free(self) -> int:
        """Cells that hold nothing."""
        return self._n_cells - self._n_open - self.cache.n_cells

    @property
    def n_available(self) -> int:
        """Cells that hold nothing, or only what is cached."""
        return self._n_cells - self._n_open - self.cache.n_pinned

    @property
    def has_free_id(self) -> bool:
        """Whether a sequence is free without another being forgotten."""
        return bool(self._free_ids)

    def take_edits(self) -> list[Remove | Copy]:
        """Return what has to be changed since this was last asked, in order."""
        edits, self._edits = self._edits, []
        return edits

    def find_id(self) -> bool:
        """Make a sequence free, if need be one that is only cached."""
        return bool(self._free_ids) or self.evict()

    def attach(self, sequence: Sequence, match: Match) -> None:
        """Begin a sequence with what is cached; there must be a free one."""
        sequence.id = self._begin(match)
        sequence.n_computed = sequence.n_settled = match.length

    def take_over(self, sample: Sample) -> None:
        """Let a sample go on in its prompt's own sequence."""
        prompt = sample.prompt
        sample.id, prompt.id = prompt.id, -1
        sample.n_computed = sample.n_settled = prompt.length

    def keep_copy(self, prompt: Prompt) -> None:
        """Keep the state a prompt has reached, for others to start from."""
        if not self.find_id():
            return
        copy = self._begin(self.cache.whole(prompt.id))
        if prompt.row is not None:
            self.cache.keep_row(copy, prompt.row)
        if not self.cache.rest(copy):
            self.cache.remove(copy)
            self._free(copy)

    def advance(self, sequence: Sequence, n_tokens: int) -> None:
        """Count cells that a sequence has filled."""
        sequence.n_computed += n_tokens
        self._n_open += n_tokens

    def settle(self, sequence: Sequence) -> None:
        """Tell the cache of them."""
        start, stop = sequence.n_settled, sequence.n_computed
        tokens, scored = sequence.tokens[start:stop], stop
        if self._keeps_prefixes and isinstance(sequence, Prompt) and sequence.request.scores_prompt:
            first = sequence.request.wanted.first
            scored = min(stop, max(start, first if first > 1 else 0))  # nothing scores the first token
        self.cache.extend(sequence.id, tokens[: scored - start])
        if scored < stop:
            assert isinstance(sequence, Prompt)
            scores = sequence.scores.part(scored, stop).copy()  # the user gets the original
            self.cache.extend(sequence.id, tokens[scored - start :], scores)
        self._n_open -= stop - start
        sequence.n_settled = stop

    def rest(self, sequence: Sequence, *, keep: bool = False) -> None:
        """Leave a sequence to the cache for others to start from, if it is of use to them."""
        self.settle(sequence)
        if (keep or self._keeps_prefixes) and self.cache.rest(sequence.id):
            sequence.id = -1
        else:
            self.drop(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence, and what only it holds."""
        self._n_open -= sequence.n_computed - sequence.n_settled
        self.cache.remove(sequence.id)
        self._free(sequence.id)
        sequence.id = -1

    def evict(self) -> bool:
        """Forget the cached sequence that was not used for longest; False if there is none."""
        sequence = self.cache.evict()
        if sequence is None:
            return False
        self._free(sequence)
        return True

    def forget_prefixes(self) -> None:
        """Forget all that is only cached."""
        while self.evict():
            pass

    def _begin(self, match: Match) -> int:
        sequence = self._free_ids.pop()
        source = self.cache.attach(sequence, match)
        if match.length:
            self._edits.append(Copy(source, sequence, match.length))
        return sequence

    def _free(self, sequence: int) -> None:
        self._edits.append(Remove(sequence))
        self._free_ids.append(sequence)


def start_of_prompt(cache: PrefixCache, prompt: Prompt) -> Start:
    """Find where to start a prompt.

    Its last token is computed again unless the row of logits after it was kept; where it is scored,
    so is the last token with a known score, whose row scores the next.
    """
    tokens, wanted = prompt.tokens, prompt.request.wanted
    if not prompt.request.scores_prompt:
        match = cache.match(tokens)
        if match.length == len(tokens) and match.row is not None:
            return Start(match, match.row)
        return Start(cache.match(tokens[:-1]))
    if prompt.n_scored > wanted.first:  # it was paused, and knows its scores itself
        return Start(cache.match(tokens[: prompt.first_row]))
    match = cache.match_scored(tokens, wanted)
    n_scored = max(wanted.first, match.n_scored)
    scores = tuple(cache.known_scores(match, wanted.first))
    if n_scored == match.length and match.row is not None:
        return Start(match, match.row, n_scored, scores)
    if n_scored == len(tokens) and not prompt.samples:
        return Start(match, None, n_scored, scores)
    return Start(cache.shortened(match, min(match.length, n_scored - 1)), None, n_scored, scores)


def start_of_sample(cache: PrefixCache, sample: Sample) -> Start:
    """Find where to start a sample: all but its last token can be cached."""
    home = sample.prompt.id
    if home >= 0 and len(sample.drawn) == 1:
        return Start(cache.whole(home))
    match = cache.match(sample.tokens[:-1])
    if home >= 0 and match.length < sample.prompt.length:
        return Start(cache.whole(home))
    return Start(match)
