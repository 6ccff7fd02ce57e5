"""The account of KV sequences and cells: who holds which, and what llama.cpp has to change.

Two accounts meet here. The prefix cache knows cells by the tokens in them, once they are *committed*.
Cells that a sequence has filled since then are *open*: they belong to it alone. Edits are collected, and
the runner applies them before the next batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinker_local.engine.prefix_cache import Match, PrefixCache, Row
from tinker_local.engine.request import Request
from tinker_local.engine.scores import Scores
from tinker_local.engine.sequence import Prompt, Sample, Sequence
from tinker_local.engine.step import Copy, Remove


@dataclass(frozen=True, slots=True)
class Start:
    """A cached beginning of a sequence.

    Attributes:
        match: the cells to start from.
        logits: those after the last of these cells, if they are cached. Without them a token is left
            to compute, whose row says what comes next.
        n_scored: tokens, from the first, of which all wanted scores are known.
        scores: those scores, in pieces with their places.
    """

    match: Match
    logits: Row | None = None
    n_scored: int = 0
    scores: tuple[tuple[int, Scores], ...] = ()

    @property
    def length(self) -> int:
        """Tokens that need not be computed."""
        return self.match.length


class Cells:
    """Sequences and cells of one KV cache.

    Args:
        n_cells: cells of the context.
        n_sequences: KV sequences that the context can tell apart.
        keeps_prefixes: finished sequences stay for later requests to start from.
        copies_whole: a sequence can only be copied as a whole (recurrent and hybrid models).
    """

    def __init__(
        self, n_cells: int, n_sequences: int, *, keeps_prefixes: bool = False, copies_whole: bool = False
    ) -> None:
        self._cache = PrefixCache(copies_whole=copies_whole)
        self._n_cells, self._n_sequences = n_cells, n_sequences
        self._keeps_prefixes, self._copies_whole = keeps_prefixes, copies_whole
        self._n_open = 0
        self._free_ids = list(range(n_sequences - 1, -1, -1))
        self._edits: list[Remove | Copy] = []

    @property
    def n_free(self) -> int:
        """Cells that hold nothing."""
        return self._n_cells - self._n_open - self._cache.n_cells

    @property
    def n_available(self) -> int:
        """Cells that hold nothing, or only what is cached."""
        return self._n_cells - self._n_open - self._cache.n_pinned

    @property
    def has_free_id(self) -> bool:
        """Whether a KV sequence is free without a cached one being forgotten."""
        return bool(self._free_ids)

    def take_edits(self) -> list[Remove | Copy]:
        """Return the edits collected since the last call, in order."""
        edits, self._edits = self._edits, []
        return edits

    # -- starting -------------------------------------------------------------------------------

    def find_id(self) -> bool:
        """Make a KV sequence free, if need be one that is only cached; False if all are at work."""
        return bool(self._free_ids) or self.evict()

    @property
    def from_nothing(self) -> Start:
        """A start without cached tokens."""
        return Start(self._cache.nothing)

    def find_start(self, sequence: Sequence) -> Start:
        """Find the best cached beginning of a sequence."""
        if isinstance(sequence, Sample):
            start = _start_of_sample(self._cache, sequence)
        else:
            assert isinstance(sequence, Prompt)
            start = _start_of_prompt(self._cache, sequence)
        return self._without_part(sequence, start) if sequence.request.images else start

    def _without_part(self, sequence: Sequence, start: Start) -> Start:
        """Return a start that cuts no image: its cells have one position, and are copied by that."""
        length = sequence.without_part(start.length)
        if self._copies_whole or length == start.length:
            return start
        return replace(start, match=self._cache.shortened(start.match, length))

    def n_to_pin(self, start: Start) -> int:
        """Return how many cached cells could no longer be evicted after such a start."""
        return self._cache.n_unpinned(start.match)

    def attach(self, sequence: Sequence, start: Start) -> None:
        """Give a sequence a free id and the cells of its start."""
        sequence.id = self._begin(start.match, sequence.request)
        sequence.n_computed = sequence.n_committed = start.length

    def take_over(self, sample: Sample) -> None:
        """Let a sample go on in its prompt's own KV sequence."""
        prompt = sample.prompt
        sample.id, prompt.id = prompt.id, -1
        sample.n_computed = sample.n_committed = prompt.length

    # -- growing --------------------------------------------------------------------------------

    def advance(self, sequence: Sequence, n_tokens: int) -> None:
        """Count cells that a sequence has filled."""
        sequence.n_computed += n_tokens
        self._n_open += n_tokens

    def commit(self, sequence: Sequence) -> None:
        """Tell the prefix cache of the cells that a sequence has filled since the last commit."""
        start, stop = sequence.n_committed, sequence.n_computed
        # Scores go with their tokens, so that a later request can have them without computing. A node of
        # the tree has scores for all of its tokens or for none: the run is cut where wanted scores begin.
        tokens, scored = sequence.tokens[start:stop], stop
        if self._keeps_prefixes and sequence.is_scored:
            first = sequence.request.wanted.first
            scored = min(stop, max(start, first if first > 1 else 0))  # nothing scores the first token
        self._cache.extend(sequence.id, tokens[: scored - start])
        if scored < stop:
            assert isinstance(sequence, Prompt)
            scores = sequence.scores.part(scored, stop).copy()  # the user gets the original
            self._cache.extend(sequence.id, tokens[scored - start :], scores)
        self._n_open -= stop - start
        sequence.n_committed = stop

    def keep_snapshot(self, prompt: Prompt) -> None:
        """Keep a copy of the state a prompt has reached, for others to start from."""
        if not self.find_id():
            return
        copy = self._begin(self._cache.whole(prompt.id), prompt.request)
        if prompt.last_logits is not None:
            self._cache.keep_row(copy, prompt.last_logits)
        if not self._cache.release(copy):
            self._cache.remove(copy)
            self._free(copy)

    def keep_logits(self, prompt: Prompt) -> None:
        """Keep the logits after a complete prompt, so that the same prompt computes nothing later."""
        if prompt.last_logits is not None and prompt.id >= 0 and self._keeps_prefixes:
            self._cache.keep_row(prompt.id, prompt.last_logits)

    # -- ending ---------------------------------------------------------------------------------

    def release_to_cache(self, sequence: Sequence, *, keep: bool = False) -> None:
        """End the work on a sequence; its cells stay cached if others can start from them.

        Args:
            keep: whether it stays even where finished sequences do not, since it will go on itself.
        """
        # Only committed cells can stay; and of these only what no other cached sequence has.
        self.commit(sequence)
        if (keep or self._keeps_prefixes) and self._cache.release(sequence.id):
            sequence.id = -1
        else:
            self.drop(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence, and the cells that only it holds."""
        self._n_open -= sequence.n_computed - sequence.n_committed
        self._cache.remove(sequence.id)
        self._free(sequence.id)
        sequence.id = -1

    def evict(self) -> bool:
        """Forget the least recently used cached sequence; False if there is none."""
        sequence = self._cache.evict()
        if sequence is None:
            return False
        self._free(sequence)
        return True

    def forget_prefixes(self) -> None:
        """Forget everything that is only cached."""
        while self.evict():
            pass

    def check_integrity(self, at_work: list[Sequence]) -> None:
        """Check the accounts against the sequences that hold an id; for tests.

        Raises:
            AssertionError: they differ.
        """
        self._cache.check_integrity({sequence.id for sequence in at_work})
        ids = sorted([*self._free_ids, *self._cache.sequences])
        assert ids == list(range(self._n_sequences)), f"ids lost or doubled: {ids}"
        n_open = sum(sequence.n_computed - sequence.n_committed for sequence in at_work)
        assert self._n_open == n_open, f"{self._n_open} open cells counted, {n_open} held"
        assert self.n_free >= 0, f"{-self.n_free} more cells are in use than there are"

    def _begin(self, match: Match, request: Request) -> int:
        sequence = self._free_ids.pop()
        source = self._cache.attach(sequence, match)
        if match.length:
            self._edits.append(Copy(source, sequence, request.position(match.length)))
        return sequence

    def _free(self, sequence: int) -> None:
        self._edits.append(Remove(sequence))
        self._free_ids.append(sequence)


def _start_of_prompt(cache: PrefixCache, prompt: Prompt) -> Start:
    """Find where to start a prompt.

    Its last token is computed again unless the logits after it were kept. Where it is scored, so is the
    last token with a known score, whose row scores the next.
    """
    tokens, wanted = prompt.tokens, prompt.request.wanted
    if not prompt.is_scored:
        # All of it is cached, and the logits after it: nothing to compute. Else a token must be left over.
        match = cache.match(tokens)
        if match.length == len(tokens) and match.row is not None:
            return Start(match, match.row)
        return Start(cache.match(tokens[:-1]))
    if prompt.n_scored > wanted.first:  # preempted: it has these scores itself
        return Start(cache.match(tokens[: prompt.first_row]))
    # A scored prompt starts where the known scores end, not where the cached cells end.
    match = cache.match_scored(tokens, wanted)
    n_scored = max(wanted.first, match.n_scored)
    scores = tuple(cache.known_scores(match, wanted.first))
    if n_scored == match.length and match.row is not None:
        return Start(match, match.row, n_scored, scores)
    if n_scored == len(prompt.request.prompt) and not prompt.owner.samples:
        return Start(match, None, n_scored, scores)
    return Start(cache.shortened(match, min(match.length, n_scored - 1)), None, n_scored, scores)


def _start_of_sample(cache: PrefixCache, sample: Sample) -> Start:
    """Find where to start a sample: all but its last token can be cached."""
    # A new sample starts from its prompt, while that holds its cells. A preempted one may find more of its
    # own tokens in the cache than the prompt has.
    home = sample.prompt.id
    if home >= 0 and len(sample.drawn) == 1:
        return Start(cache.whole(home))
    match = cache.match(sample.tokens[:-1])
    if home >= 0 and match.length < sample.prompt.length:
        return Start(cache.whole(home))
    return Start(match)
