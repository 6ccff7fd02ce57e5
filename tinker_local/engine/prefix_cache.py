"""The prefix cache: a radix tree over the tokens of the sequences in a KV cache.

A node is a run of cells that the same sequences share. Every sequence holds the nodes from the root to
the one where it ends.

    root ── "You are" ─┬─ " a poet."      sequence 0 ends here, at work: it pins both nodes
                       └─ " a critic."    sequence 1 ends here, idle: it may be evicted

The contract, which ``check_integrity`` checks:

- A sequence is at work, and pins its nodes, or idle. Idle ones wait for others to start from them, and
  are evicted from the least recently used on.
- A node without holders is gone, and its cells with it.
- ``n_cells`` counts the cells of all nodes, ``n_pinned`` those that cannot be evicted.
- Two children of a node may begin with the same tokens, when these were computed twice.
- A row of logits is kept only after the last token of a node.

Knows nothing of requests or llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.scores import Scores, Wanted

Tokens = NDArray[np.int32]
Row = NDArray[np.float32]

_ROWS_BYTES = 64 << 20  # rows of logits that are kept, all together


@dataclass(slots=True, eq=False)
class Node:
    """A run of tokens.

    Attributes:
        tokens: int32 (n,).
        scores: theirs, if known.
        row: the logits after the last token, float32 (n_vocab,), if kept.
        holders: sequences that hold the cells.
        pins: how many of them are at work.
    """

    tokens: Tokens
    scores: Scores | None
    parent: Node | None
    holders: set[int]
    pins: int
    children: list[Node] = field(default_factory=list)
    row: Row | None = None

    @property
    def path(self) -> Iterator[Node]:
        """The node and those above it, without the root."""
        node: Node = self
        while node.parent is not None:
            yield node
            node = node.parent

    def split(self, length: int) -> Node:
        """Cut the node after ``length`` tokens; return its first part."""
        assert self.parent is not None
        head = Node(self.tokens[:length], None, self.parent, set(self.holders), self.pins, [self])
        if self.scores is not None:
            head.scores = self.scores.part(0, length)
            self.scores = self.scores.part(length, len(self.tokens))
        self.parent.children[self.parent.children.index(self)] = head
        self.tokens, self.parent = self.tokens[length:], head
        return head


@dataclass(frozen=True, slots=True)
class Match:
    """A cached prefix of some tokens: it ends ``offset`` tokens into ``node``.

    Attributes:
        n_scored: how many of its tokens, from the first, have known scores, or none that are wanted.
        source: the sequence to copy it from, -1 for any that holds it.
    """

    length: int
    node: Node
    offset: int
    n_scored: int = 0
    source: int = -1

    @property
    def ends_node(self) -> bool:
        """Whether it takes all of its last node."""
        return self.offset == len(self.node.tokens)

    @property
    def row(self) -> Row | None:
        """The logits after its last token, if they were kept."""
        return self.node.row if self.ends_node else None


class PrefixCache:
    """The sequences of a KV cache, by their tokens.

    Args:
        copies_whole: a sequence can only be copied as a whole: recurrent states and sliding windows cannot
            step back.
    """

    def __init__(self, *, copies_whole: bool = False) -> None:
        self._copies_whole = copies_whole
        self._root = Node(np.empty(0, np.int32), None, None, set(), 0)
        self._ends: dict[int, Node] = {}
        self._idle: dict[int, None] = {}  # least recently used first
        self._rows: dict[Node, None] = {}  # nodes with a row, the oldest first
        self.n_cells = 0
        self.n_pinned = 0

    @property
    def sequences(self) -> list[int]:
        """All sequences, at work and idle."""
        return list(self._ends)

    @property
    def nothing(self) -> Match:
        """The match of no tokens."""
        return Match(0, self._root, 0)

    def match(self, tokens: Tokens) -> Match:
        """Return the longest cached prefix of ``tokens`` that a sequence can start from."""
        return max(self._starts(tokens), key=lambda match: match.length, default=self.nothing)

    def match_scored(self, tokens: Tokens, wanted: Wanted) -> Match:
        """Return the cached prefix with the most tokens whose wanted scores are known.

        Where sequences are only copied as a whole, and the next token's score is wanted, the last row of
        logits must be cached too.
        """
        matches = self._starts(tokens, wanted)
        if self._copies_whole:
            matches = (
                m
                for m in matches
                if m.length < wanted.first or (m.n_scored == m.length and m.row is not None)
            )
        return max(matches, key=lambda m: (m.n_scored, m.length), default=self.nothing)

    def known_scores(self, match: Match, first: int) -> list[tuple[int, Scores]]:
        """Return the scores of tokens ``first`` to ``n_scored`` of a match, in pieces with their places."""
        pieces, start = list[tuple[int, Scores]](), 0
        for node in reversed(list(match.node.path)):
            stop = start + len(node.tokens)
            begin, end = max(start, first), min(stop, match.n_scored)
            if begin < end and node.scores is not None:
                pieces.append((begin, node.scores.part(begin - start, end - start)))
            start = stop
        return pieces

    def whole(self, sequence: int) -> Match:
        """Return all of a sequence as a match."""
        node = self._ends[sequence]
        length = sum(len(above.tokens) for above in node.path)
        return Match(length, node, len(node.tokens), source=sequence)

    def shortened(self, match: Match, length: int) -> Match:
        """Return the first ``length`` tokens of a match."""
        node, excess, offset = match.node, match.length - length, match.offset
        while excess >= offset and node.parent is not None:
            excess -= offset
            node = node.parent
            offset = len(node.tokens)
        return Match(length, node, offset - excess)

    def n_unpinned(self, match: Match) -> int:
        """Return how many cells of a match would become pinned by starting from it."""
        cells = sum(len(node.tokens) for node in match.node.path if not node.pins)
        return cells if match.node.pins else cells - len(match.node.tokens) + match.offset

    def attach(self, sequence: int, match: Match) -> int:
        """Let a new sequence start from a match; return the sequence to copy it from, or -1."""
        # 1. A match that ends within a node cuts it, so that the new sequence can end there.
        node = match.node
        if match.offset < len(node.tokens):
            node = node.split(match.offset)
        # 2. The sequence holds and pins every node above its end.
        source = match.source if match.source >= 0 else self._source(node)
        self._ends[sequence] = node
        for above in node.path:
            above.holders.add(sequence)
            self._pin(above, 1)
        # 3. What was started from is the most recently used.
        if source in self._idle:
            self._idle[source] = self._idle.pop(source)
        return source

    def extend(self, sequence: int, tokens: Tokens, scores: Scores | None = None) -> None:
        """Add cells of its own to the end of a sequence at work."""
        if len(tokens):
            end = self._ends[sequence]
            node = Node(tokens, scores, end, {sequence}, 0)
            end.children.append(node)
            self._ends[sequence] = node
            self.n_cells += len(tokens)
            self._pin(node, 1)

    def keep_row(self, sequence: int, row: Row) -> None:
        """Keep the logits after a sequence's last token, while there is room for them."""
        node = self._ends[sequence]
        if node.parent is None:
            return
        node.row = row
        self._rows[node] = self._rows.pop(node, None)
        while len(self._rows) * row.nbytes > _ROWS_BYTES:
            self._forget_row(next(iter(self._rows)))

    def release(self, sequence: int) -> bool:
        """Make a sequence idle: its work is done. False, and no change, if keeping it adds nothing."""
        # Keeping is of no use if the sequence is empty, if another goes through its end, or if other cells
        # hold the same tokens.
        end = self._ends[sequence]
        if end.parent is None or (not self._copies_whole and len(end.holders) > 1) or self._is_double(end):
            return False
        for node in end.path:
            self._pin(node, -1)
        self._idle[sequence] = None
        return True

    def remove(self, sequence: int) -> None:
        """Forget a sequence, and the cells that only it holds."""
        at_work = sequence not in self._idle
        self._idle.pop(sequence, None)
        for node in list(self._ends.pop(sequence).path):
            if at_work:
                self._pin(node, -1)
            node.holders.discard(sequence)
            if not node.holders and node.parent is not None:
                node.parent.children.remove(node)
                self.n_cells -= len(node.tokens)
                self._forget_row(node)

    def evict(self) -> int | None:
        """Remove the least recently used idle sequence and return it; None if there is none."""
        sequence = next(iter(self._idle), None)
        if sequence is not None:
            self.remove(sequence)
        return sequence

    def check_integrity(self, at_work: set[int]) -> None:
        """Check the tree against its contract; for tests. Takes time in proportion to the tree.

        Args:
            at_work: the sequences that somebody works on.

        Raises:
            AssertionError: something in it contradicts something else.
        """
        assert at_work == self._ends.keys() - self._idle.keys(), (at_work, self._ends, self._idle)
        assert self._idle.keys() <= self._ends.keys(), (self._idle, self._ends)
        nodes = list(_below(self._root))
        held: dict[int, set[int]] = {id(node): set() for node in nodes}
        for sequence, end in self._ends.items():
            for node in end.path:
                held[id(node)].add(sequence)
        for node in nodes:
            assert node.holders == held[id(node)], f"holders {node.holders}, found {held[id(node)]}"
            assert node.holders, "a node that nobody holds"
            assert len(node.tokens), "a node without tokens"
            assert node.pins == len(node.holders & at_work), (node.pins, node.holders, at_work)
            assert all(child.parent is node for child in node.children), "a child of two parents"
            assert node.scores is None or len(node.scores) == len(node.tokens), "scores of other tokens"
        assert self.n_cells == sum(len(node.tokens) for node in nodes), self.n_cells
        assert self.n_pinned == sum(len(node.tokens) for node in nodes if node.pins), self.n_pinned
        assert set(self._rows) == {node for node in nodes if node.row is not None}, "rows without a node"

    def _pin(self, node: Node, change: int) -> None:
        before = node.pins
        node.pins += change
        self.n_pinned += len(node.tokens) * (bool(node.pins) - bool(before))

    def _forget_row(self, node: Node) -> None:
        node.row = None
        self._rows.pop(node, None)

    def _starts(self, tokens: Tokens, wanted: Wanted | None = None) -> Iterator[Match]:
        for match in _matches(self._root, tokens, wanted):
            if not self._copies_whole or (match.ends_node and self._ending_at(match.node)):
                yield match

    def _ending_at(self, node: Node) -> list[int]:
        """The idle sequences that end at a node: those at work may be further than the tree knows."""
        return [s for s in node.holders if self._ends[s] is node and s in self._idle]

    def _source(self, node: Node) -> int:
        sequences = self._ending_at(node) if self._copies_whole else node.holders
        return next(iter(sequences), -1)

    def _is_double(self, end: Node) -> bool:
        """Whether other cells hold the same tokens, and can be started from."""
        assert end.parent is not None
        doubles = (m for m in _matches(end.parent, end.tokens) if m.length == len(end.tokens))
        if self._copies_whole:
            return any(m.ends_node and self._ending_at(m.node) for m in doubles)
        return any(end not in m.node.path for m in doubles)


def _below(top: Node) -> Iterator[Node]:
    """Every node under one, without itself."""
    stack = list(top.children)
    while stack:
        node = stack.pop()
        stack += node.children
        yield node


def _matches(start: Node, tokens: Tokens, wanted: Wanted | None = None) -> Iterator[Match]:
    """Every way down from a node along ``tokens``, to where it leaves them.

    With ``wanted``, also how far the scores go of which there are all that are wanted.
    """
    # Depth first: several children may begin alike, since tokens can have been computed twice.
    stack = [(start, 0, 0)]
    while stack:
        node, length, n_scored = stack.pop()
        for child in node.children:
            shared = common_prefix(child.tokens, tokens[length:])
            if not shared:
                continue
            # Known scores must be without a gap from the first token on.
            scored = n_scored
            if wanted is not None and n_scored == length:
                known = child.scores is not None and child.scores.k >= wanted.k
                most = wanted.limit if known else wanted.first
                scored = max(n_scored, min(length + shared, most))
            yield Match(length + shared, child, shared, scored)
            if shared == len(child.tokens):
                stack.append((child, length + shared, scored))


def common_prefix(one: Tokens, other: Tokens) -> int:
    """Return how many tokens two runs have in common at their beginning."""
    n = min(len(one), len(other))
    if n == 0 or one[0] != other[0]:
        return 0
    differ = one[:n] != other[:n]
    return int(differ.argmax()) if differ.any() else n
