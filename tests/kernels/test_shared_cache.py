"""Attention on a cache that sequences share: whichever cells hold a token, it is summed at its position."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.ggml_graphs import (
    Graph,
    add_sinks,
    cast,
    data_of,
    flash_attn_ext,
    floats_of,
    ggml_memory,
    mul_mat,
    new_tensor,
    op_of,
    permute,
    set_rows,
    tensor,
    view_4d,
)
from tinker_local import kernels

N_CELLS = 1024
F16 = 1
CACHE_TYPES = {"f32": 0, "f16": F16, "q8_0": 8}  # enum ggml_type


@dataclass(frozen=True)
class Kind:
    n_heads: int = 6
    n_key_heads: int = 2
    key_size: int = 32
    value_size: int = 32
    window: int = 10**6
    max_bias: float = 0.0
    soft_cap: float = 0.0
    has_sinks: bool = False
    cache_type: str = "f16"

    def row_bytes(self, n: int) -> int:
        """Bytes of ``n`` numbers in a cell."""
        return {"f32": 4 * n, "f16": 2 * n, "q8_0": n // 32 * 34}[self.cache_type]

    def stored(self, numbers: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what the cache makes of rows of numbers."""
        if self.cache_type == "q8_0":  # quantize_row_q8_0_ref
            blocks = numbers.reshape(-1, 32)
            scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
            quotients = blocks * (np.float32(1) / scale)
            rounded = np.sign(quotients) * np.floor(np.abs(quotients) + np.float32(0.5))
            return (rounded * scale.astype(np.float16).astype(np.float64)).reshape(numbers.shape)
        return numbers.astype(np.float16 if self.cache_type == "f16" else np.float32).astype(np.float64)


KINDS = [
    Kind(),
    Kind(window=100, has_sinks=True),
    Kind(n_heads=4, n_key_heads=4, max_bias=8.0, key_size=24, value_size=40),
    Kind(n_heads=8, n_key_heads=1, key_size=72, value_size=64, soft_cap=5.0),
    Kind(cache_type="f32", key_size=40),
    Kind(cache_type="q8_0", key_size=64, window=100),
]


class Text:
    """A sequence's queries, keys and values, by position."""

    def __init__(self, kind: Kind, seed: int, n: int = 700) -> None:
        rng = np.random.default_rng(seed)
        self.query = rng.normal(size=(n, kind.n_heads, kind.key_size)).astype(np.float32)
        self.key = rng.normal(size=(n, kind.n_key_heads * kind.key_size)).astype(np.float32)
        self.value = rng.normal(size=(n, kind.n_key_heads * kind.value_size)).astype(np.float32)


@dataclass
class Tokens:
    """Some tokens of a sequence, and the cells for them."""

    sequence: int
    text: Text
    start: int
    cells: Sequence[int]
    see_each_other: bool = False

    @property
    def part(self) -> slice:
        return slice(self.start, self.start + len(self.cells))


@dataclass
class Cell:
    sequences: set[int] = field(default_factory=set)
    position: int = -1


@dataclass
class Part:
    """The part of a graph that one cache has: what is computed, and the output of each layer."""

    shape: tuple[int, ...]
    nodes: list[int] = field(default_factory=list)
    casts: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def read(self) -> NDArray[np.float32]:
        """Return the output of the layers, which are all the same."""
        assert all(op_of(node) == b"CUSTOM" for node in self.outputs)
        assert all(op_of(node) == b"NONE" for node in self.casts), "nobody needs what they compute"
        found = [floats_of(node, self.shape) for node in self.outputs]
        assert all(np.array_equal(bits(out), bits(found[0])) for out in found)
        return found[0]


class SharedCache:
    """Layers of one KV cache, as llama.cpp writes and reads them."""

    def __init__(
        self, memory: int, kind: Kind, n_layers: int = 2, state: kernels.GraphState | None = None
    ) -> None:
        self.kind, self.state = kind, state or kernels.GraphState()
        sizes = kind.n_key_heads * kind.key_size, kind.n_key_heads * kind.value_size
        self.layers = [tuple(self._new_layer(memory, size) for size in sizes) for _ in range(n_layers)]
        self.cells = [Cell() for _ in range(N_CELLS)]

    def _new_layer(self, memory: int, size: int) -> int:
        layer = int(new_tensor(memory, CACHE_TYPES[self.kind.cache_type], size, N_CELLS, 1, 1))
        ctypes.memset(data_of(layer), 255, N_CELLS * self.kind.row_bytes(size))  # NaN
        return layer

    def copy(self, source: int, target: int, length: int) -> None:
        for cell in self.cells:
            if source in cell.sequences and cell.position < length:
                cell.sequences.add(target)

    def remove(self, sequence: int, first: int = 0) -> None:
        for cell in self.cells:
            if cell.position >= first:
                cell.sequences.discard(sequence)

    def decode(self, *batch: Tokens, n_threads: int = 1, n_times: int = 1) -> list[NDArray[np.float32]]:
        """Compute a micro-batch; return the output of each part, (tokens, heads, value_size)."""
        with ggml_memory(1 << 24) as memory:
            part = self.build(memory, *batch)
            graph = Graph(memory, part.nodes)
            self.state.begin_decode()
            for _ in range(n_times):
                graph.compute(self.state, n_threads)
            found = part.read()
        return np.split(found, np.cumsum([len(tokens.cells) for tokens in batch])[:-1])

    def build(self, memory: int, *batch: Tokens) -> Part:
        """Make the nodes of a micro-batch, whose cells are taken from now on."""
        for tokens in batch:
            for position, cell in enumerate(tokens.cells, tokens.start):
                assert not self.cells[cell].sequences
                self.cells[cell] = Cell({tokens.sequence}, position)
        own = np.concatenate([tokens.cells for tokens in batch]).astype(np.int64)
        query, key, value = (
            np.concatenate([getattr(tokens.text, name)[tokens.part] for tokens in batch])
            for name in ("query", "key", "value")
        )
        mask = tensor(memory, np.concatenate([self._mask(tokens) for tokens in batch]))
        sinks = tensor(memory, np.linspace(-1, 1, self.kind.n_heads, dtype=np.float32))
        part, cells = Part((len(own), self.kind.n_heads, self.kind.value_size)), tensor(memory, own)
        for k, v in self.layers:
            part.nodes += [set_rows(memory, k, tensor(memory, key), cells)]
            part.nodes += [set_rows(memory, v, tensor(memory, value), tensor(memory, own))]
            keys, values = (
                self._heads(memory, k, self.kind.key_size, part),
                self._heads(memory, v, self.kind.value_size, part),
            )
            part.outputs += [self._attend(memory, tensor(memory, query), keys, values, mask, sinks)]
            part.nodes += part.outputs[-1:]
        return part

    def _attend(self, memory: int, query: int, key: int, value: int, mask: int, sinks: int) -> int:
        kind = self.kind
        query = permute(memory, query, 0, 2, 1, 3)
        scale = kind.key_size**-0.5
        node = flash_attn_ext(memory, query, key, value, mask, scale, kind.max_bias, kind.soft_cap)
        if kind.has_sinks:
            add_sinks(node, sinks)
        return int(node)

    def _heads(self, memory: int, layer: int, size: int, part: Part) -> int:
        """Return a layer's keys or values by heads, cast as llama.cpp does it."""
        n_heads = self.kind.n_key_heads
        head, cell = self.kind.row_bytes(size), self.kind.row_bytes(size * n_heads)
        view = view_4d(memory, layer, size, n_heads, N_CELLS, 1, head, cell, cell * N_CELLS, 0)
        heads = int(permute(memory, view, 0, 2, 1, 3))
        if self.kind.cache_type != "f32":
            return heads
        part.casts.append(int(cast(memory, heads, F16)))
        return part.casts[-1]

    def _mask(self, tokens: Tokens) -> NDArray[np.float16]:
        position = np.array([cell.position for cell in self.cells])
        holds = np.array([tokens.sequence in cell.sequences for cell in self.cells])
        own = np.arange(tokens.start, tokens.part.stop)[:, None]
        last = tokens.part.stop - 1 if tokens.see_each_other else own
        seen = holds & (position <= last) & (position > own - self.kind.window)
        bias = position - own if self.kind.max_bias else np.zeros_like(own)
        return np.where(seen, bias, -np.inf).astype(np.float16)


def bits(array: NDArray[np.float32]) -> NDArray[np.int32]:
    return array.view(np.int32)


def exact(kind: Kind, text: Text, positions: range) -> NDArray[np.float64]:
    """In float64, (positions, heads, value_size), of keys and values as the cache has them."""
    group, n = kind.n_heads // kind.n_key_heads, positions.stop
    key, value = (
        kind.stored(x[:n]).reshape(n, kind.n_key_heads, -1).repeat(group, 1) for x in (text.key, text.value)
    )
    query = text.query[positions.start : n].astype(np.float64) * np.float32(kind.key_size**-0.5)
    products = np.einsum("thd,nhd->thn", query, key)
    if kind.soft_cap:
        products = kind.soft_cap * np.tanh(products / kind.soft_cap)
    own, other = np.array(positions)[:, None], np.arange(n)[None]
    if kind.max_bias:
        slopes = 2.0 ** (-kind.max_bias / kind.n_heads * (np.arange(kind.n_heads) + 1))
        products += slopes[:, None] * (other - own)[:, None]
    products[
        ~np.broadcast_to(((other <= own) & (other > own - kind.window))[:, None], products.shape)
    ] = -np.inf
    if kind.has_sinks:
        sinks = np.broadcast_to(np.linspace(-1, 1, kind.n_heads)[:, None], (*products.shape[:2], 1))
        products = np.concatenate([products, sinks], 2)
    weights = np.exp(products - products.max(2, keepdims=True))
    weights /= weights.sum(2, keepdims=True)
    return np.einsum("thn,nhv->thv", weights[..., :n], value)


def in_order(kind: Kind, text: Text, n: int) -> NDArray[np.float32]:
    """Compute a text alone, all at once, in cells that are its positions."""
    with ggml_memory(1 << 24) as memory:
        return SharedCache(memory, kind).decode(Tokens(0, text, 0, range(n)))[0]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_bits_do_not_depend_on_cells(kind: Kind, simd_path: str) -> None:
    """In shuffled cells, in small pieces, beside other sequences that come and go."""
    text, other, n = Text(kind, 0), Text(kind, 1), 330
    expected = in_order(kind, text, n)
    np.testing.assert_allclose(expected, exact(kind, text, range(n)), rtol=0, atol=5e-6)
    rng = np.random.default_rng(2)
    found = list[NDArray[np.float32]]()
    with ggml_memory(1 << 24) as memory:
        cache = SharedCache(memory, kind)
        cache.decode(Tokens(1, other, 0, range(90)), Tokens(2, other, 0, range(200, 230)))
        cache.remove(1, first=40)
        start, others = 0, 30
        for size in (1, 70, 1, 3, 120, 64, 1, 1, 69):
            free = rng.permutation([i for i, cell in enumerate(cache.cells) if not cell.sequences])
            mine, beside = (
                Tokens(0, text, start, free[:size]),
                Tokens(2, other, others, free[size : size + 5]),
            )
            batch = (mine, beside) if size % 2 else (beside, mine)
            outputs = cache.decode(*batch, n_threads=1 + size % 3)
            found.append(outputs[batch.index(mine)])
            start, others = start + size, others + 5
            if size == 3:
                cache.remove(1)
    assert start == n
    assert np.array_equal(bits(np.concatenate(found)), bits(expected))


@pytest.mark.parametrize("kind", KINDS[:2], ids=str)
def test_samples_of_a_prompt_share_its_cells(kind: Kind, simd_path: str) -> None:
    text, n_prompt, n_samples = Text(kind, 0), 200, 9
    expected = in_order(kind, text, n_prompt + 3)[n_prompt:]
    rng = np.random.default_rng(3)
    with ggml_memory(1 << 24) as memory:
        cache = SharedCache(memory, kind)
        cells = rng.permutation(N_CELLS)
        cache.decode(Tokens(0, text, 0, cells[:n_prompt]))
        for sample in range(1, n_samples):
            cache.copy(0, sample, n_prompt)
        cache.remove(0)
        for step in range(3):
            free = cells[n_prompt + step * n_samples :]
            batch = [Tokens(s, text, n_prompt + step, free[s : s + 1]) for s in range(1, n_samples)]
            for output in cache.decode(*batch, n_threads=1 + step):
                assert np.array_equal(bits(output[0]), bits(expected[step]))


def test_rewritten_cells_and_graphs_computed_again() -> None:
    kind = KINDS[0]
    text, other = Text(kind, 0), Text(kind, 1)
    expected = in_order(kind, text, 150)
    with ggml_memory(1 << 24) as memory:
        cache = SharedCache(memory, kind)
        cache.decode(Tokens(1, other, 0, range(300, 0, -1)))
        cache.remove(1, first=20)
        first = cache.decode(Tokens(0, text, 0, range(100)), n_times=2)[0]
        cache.decode(Tokens(0, other, 100, range(100, 200)))  # another end, which is forgotten
        cache.remove(0, first=100)
        last = cache.decode(Tokens(0, text, 100, range(249, 199, -1)), n_threads=2, n_times=3)[0]
    assert np.array_equal(bits(np.concatenate([first, last])), bits(expected))


@pytest.mark.parametrize("kind", [KINDS[0], Kind(window=40)], ids=str)
def test_tokens_of_an_image_see_each_other(kind: Kind, simd_path: str) -> None:
    """And what follows has the same bits, whichever cells hold the image."""
    text, n, rng = Text(kind, 0), 200, np.random.default_rng(6)
    found = []
    for shuffled in (False, True):
        cells = rng.permutation(N_CELLS) if shuffled else np.arange(N_CELLS)
        with ggml_memory(1 << 24) as memory:
            cache = SharedCache(memory, kind)
            if shuffled:
                cache.decode(Tokens(1, Text(kind, 1), 300, cells[: n + 50]))
                cache.remove(1)
            outputs = [
                cache.decode(tokens)[0]
                for tokens in (
                    Tokens(0, text, 0, cells[:70]),
                    Tokens(0, text, 70, cells[70:103], see_each_other=True),
                    Tokens(0, text, 103, cells[103:n]),
                )
            ]
        found.append(np.concatenate(outputs))
    assert np.array_equal(bits(found[0]), bits(found[1]))
    right = exact(kind, text, range(n))
    group, key = kind.n_heads // kind.n_key_heads, kind.stored(text.key[:103])
    seen = np.arange(103) > np.arange(70, 103)[:, None] - kind.window
    query = text.query[70:103].astype(np.float64) * np.float32(kind.key_size**-0.5)
    products = np.einsum("thd,nhd->thn", query, key.reshape(103, kind.n_key_heads, -1).repeat(group, 1))
    weights = np.where(seen[:, None], np.exp(products), 0)
    values = kind.stored(text.value[:103]).reshape(103, kind.n_key_heads, -1).repeat(group, 1)
    right[70:103] = np.einsum("thn,nhv->thv", weights / weights.sum(2, keepdims=True), values)
    np.testing.assert_allclose(found[0], right, rtol=0, atol=5e-6)


def test_computed_keys_are_read_as_they_are_cast() -> None:
    """A graph writes over what a node has computed, once it is cast; only a cache stays."""
    n, size = 100, 32
    rng = np.random.default_rng(7)
    query, key, value = (rng.normal(size=(n, size)).astype(np.float32) for _ in range(3))
    with ggml_memory(1 << 22) as memory:
        unit = tensor(memory, np.eye(size, dtype=np.float32))
        computed = [mul_mat(memory, unit, tensor(memory, numbers)) for numbers in (key, value)]
        casts = [int(cast(memory, numbers, F16)) for numbers in computed]
        node = int(flash_attn_ext(memory, tensor(memory, query), *casts, None, size**-0.5, 0, 0))
        state = kernels.GraphState()
        state.begin_decode()
        Graph(memory, [node]).compute(state)
        assert (op_of(node), [op_of(each) for each in casts]) == (b"CUSTOM", [b"CPY", b"CPY"])
        found = floats_of(node, (n, size))
    key, value = (numbers.astype(np.float16).astype(np.float64) for numbers in (key, value))
    weights = np.exp(query.astype(np.float64) @ key.T * np.float32(size**-0.5))
    np.testing.assert_allclose(found, weights @ value / weights.sum(1, keepdims=True), rtol=0, atol=5e-6)


def test_two_caches_and_masks_in_one_graph() -> None:
    """As models have them that see all in some layers and a window in others."""
    kinds = (Kind(), Kind(window=100))
    text, n = Text(kinds[0], 0), 150
    expected = [in_order(kind, text, n) for kind in kinds]
    rng = np.random.default_rng(4)
    with ggml_memory(1 << 24) as memory:
        state = kernels.GraphState()
        caches = [SharedCache(memory, kind, state=state) for kind in kinds]
        found = list[list[NDArray[np.float32]]]()
        for start, stop in ((0, 80), (80, 81), (81, n)):
            with ggml_memory(1 << 24) as graph_memory:
                parts = []
                for cache in caches:
                    free = rng.permutation([i for i, cell in enumerate(cache.cells) if not cell.sequences])
                    parts.append(cache.build(graph_memory, Tokens(0, text, start, free[: stop - start])))
                state.begin_decode()
                Graph(graph_memory, [node for part in parts for node in part.nodes]).compute(state)
                found.append([part.read() for part in parts])
    for outputs, right in zip(zip(*found, strict=True), expected, strict=True):
        assert np.array_equal(bits(np.concatenate(outputs)), bits(right))
