"""Which prefixes are in the KV cache: a radix tree over the tokens of its sequences.

A node is a run of cells that the same sequences share. Every sequence holds the nodes from the root
to the one where it ends; a node without holders is gone, and its cells with it. Two children of a node
may begin with the same tokens, when they were computed twice. Knows nothing of requests or llama.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Logprobs = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class Node:
    """A run of tokens, the sequences that hold it, and the tokens' log-probabilities if known."""

    tokens: Tokens
    logprobs: Logprobs | None
    parent: Node | None
    holders: set[int]
    children: list[Node] = field(default_factory=list)

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
        logprobs = self.logprobs
        head = Node(self.tokens[:length], None, self.parent, set(self.holders), [self])
        if logprobs is not None:
            head.logprobs, self.logprobs = logprobs[:length], logprobs[length:]
        self.parent.children[self.parent.children.index(self)] = head
        self.tokens, self.parent = self.tokens[length:], head
        return head


@dataclass(frozen=True, slots=True)
class Match:
    """The longest cached prefix of some tokens: it ends ``offset`` tokens into ``node``."""

    length: int
    node: Node
    offset: int


class PrefixCache:
    """The sequences of a KV cache, by their tokens.

    Args:
        whole_only: a sequence can only be copied as a whole (recurrent states cannot step back).
    """

    def __init__(self, *, whole_only: bool = False) -> None:
        self._whole_only = whole_only
        self._root = Node(np.empty(0, np.int32), None, None, set())
        self._ends: dict[int, Node] = {}
        self._idle: dict[int, None] = {}  # sequences nobody works on, least recently used first
        self.n_cells = 0

    def match(self, tokens: Tokens, *, scored: bool = False) -> Match:
        """Return the longest cached prefix of ``tokens``; only through scored nodes if ``scored``."""
        best = Match(0, self._root, 0)
        for match in _matches(self._root, tokens):
            node, usable = match.node, True
            if scored:
                usable = all(above.logprobs is not None for above in node.path)
            if self._whole_only:
                usable = match.offset == len(node.tokens) and bool(self._ending_at(node))
            if usable and match.length > best.length:
                best = match
        return best

    def attach(self, sequence: int, match: Match) -> int:
        """Let a new sequence hold a matched prefix; return the sequence to copy it from, or -1."""
        node = match.node
        if match.offset < len(node.tokens):
            node = node.split(match.offset)
        source = self._source(node)
        self._ends[sequence] = node
        for above in node.path:
            above.holders.add(sequence)
        if source in self._idle:  # used just now
            self._idle[source] = self._idle.pop(source)
        return source

    def extend(self, sequence: int, tokens: Tokens, logprobs: Logprobs | None = None) -> None:
        """Add cells of its own to the end of a sequence."""
        if len(tokens):
            end = self._ends[sequence]
            node = Node(tokens, logprobs, end, {sequence})
            end.children.append(node)
            self._ends[sequence] = node
            self.n_cells += len(tokens)

    def rest(self, sequence: int) -> bool:
        """Nobody works on a sequence any more: keep it for others. False if it adds nothing."""
        end = self._ends[sequence]
        if end.parent is None or (not self._whole_only and len(end.holders) > 1) or self._is_double(end):
            return False
        self._idle[sequence] = None
        return True

    def remove(self, sequence: int) -> None:
        """Forget a sequence, and the cells that only it holds."""
        self._idle.pop(sequence, None)
        for node in list(self._ends.pop(sequence).path):
            node.holders.discard(sequence)
            if not node.holders and node.parent is not None:
                node.parent.children.remove(node)
                self.n_cells -= len(node.tokens)

    def evict(self) -> int | None:
        """Remove the least recently used idle sequence and return it; None if there is none."""
        sequence = next(iter(self._idle), None)
        if sequence is not None:
            self.remove(sequence)
        return sequence

    def logprobs(self, match: Match) -> Logprobs:
        """Return the log-probabilities along a match of scored nodes."""
        if match.length == 0:
            return np.empty(0, np.float32)
        parts = [node.logprobs for node in match.node.path if node.logprobs is not None]
        parts[0] = parts[0][: match.offset]
        return np.concatenate(parts[::-1])

    def shortened(self, match: Match, length: int) -> Match:
        """Return the first ``length`` tokens of a match."""
        node, excess = match.node, match.length - length
        offset = match.offset
        while excess >= offset and node.parent is not None:
            excess -= offset
            node = node.parent
            offset = len(node.tokens)
        return Match(length, node, offset - excess)

    def whole(self, sequence: int) -> Match:
        """Return all of a sequence as a match."""
        node = self._ends[sequence]
        return Match(sum(len(above.tokens) for above in node.path), node, len(node.tokens))

    def _ending_at(self, node: Node) -> list[int]:
        """The idle sequences that end at a node: those at work may be further than the tree knows."""
        return [s for s in node.holders if self._ends[s] is node and s in self._idle]

    def _source(self, node: Node) -> int:
        sequences = self._ending_at(node) if self._whole_only else node.holders
        return next(iter(sequences), -1)

    def _is_double(self, end: Node) -> bool:
        """Whether other cells hold the same tokens."""
        assert end.parent is not None
        others = (m for m in _matches(end.parent, end.tokens) if end not in m.node.path)
        return any(match.length == len(end.tokens) for match in others)


def _matches(start: Node, tokens: Tokens) -> Iterator[Match]:
    """Every way down from a node along ``tokens``, to where it leaves them."""
    stack = [(start, 0)]
    while stack:
        node, length = stack.pop()
        for child in node.children:
            shared = common_prefix(child.tokens, tokens[length:])
            if shared:
                yield Match(length + shared, child, shared)
            if shared == len(child.tokens):
                stack.append((child, length + shared))


def common_prefix(one: Tokens, other: Tokens) -> int:
    """Return how many tokens two runs have in common at their beginning."""
    n = min(len(one), len(other))
    if n == 0 or one[0] != other[0]:
        return 0
    differ = one[:n] != other[:n]
    return int(differ.argmax()) if differ.any() else n
