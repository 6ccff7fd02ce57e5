"""Attention against float64, in graphs that ggml makes and computes, after the callback of llama.cpp's."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.ggml_graphs import (
    F32,
    POINTER,
    Graph,
    InitParams,
    add_sinks,
    ask,
    data_of,
    flash_attn_ext,
    floats_of,
    ggml_memory,
    new_tensor,
    op_of,
    tensor,
)
from tinker_local import kernels
from tinker_local.llama.ggml import address, bind
from tinker_local.llama.graph_callback import graph_callback


@dataclass(frozen=True)
class Case:
    n_tokens: int = 5
    n_cells: int = 256
    n_heads: int = 6
    n_key_heads: int = 2
    key_size: int = 64
    value_size: int = 64
    n_streams: int = 1
    window: int = 10**6
    max_bias: float = 0.0
    soft_cap: float = 0.0
    has_sinks: bool = False
    has_mask: bool = True
    own_cells: int = 0
    """Cells in a row that one token sees, then the next: as several sequences share a cache."""
    cells: type[np.floating[Any]] = np.float16
    """Of keys and values."""


CASES = [
    Case(),
    Case(n_tokens=1, n_cells=768),
    Case(n_tokens=70, n_streams=3),
    Case(n_tokens=100, window=20),
    Case(n_heads=4, n_key_heads=4, key_size=40, value_size=24),
    Case(n_heads=16, n_key_heads=1, key_size=576, value_size=512, n_tokens=9),
    Case(n_cells=70, has_mask=False),
    Case(max_bias=8.0, n_heads=6, n_key_heads=6),
    Case(soft_cap=5.0),
    Case(has_sinks=True, n_tokens=33),
    Case(n_tokens=7, n_cells=1500, own_cells=50),
    Case(n_tokens=30, n_cells=2300, own_cells=130, has_sinks=True),
    Case(n_tokens=2, n_cells=2100, window=900, key_size=128, value_size=128),
    Case(n_tokens=300, n_cells=700, has_sinks=True),  # large tiles
    Case(n_tokens=20, cells=np.float32),
]

every_path = pytest.mark.parametrize("simd_path", kernels.simd_paths(), indirect=True)


def is_in_tiles(case: Case) -> bool:
    """Whether AMX computes it with numbers of sixteen bits."""
    return kernels.simd_path() == "amx" and case.cells is np.float16


class Inputs:
    """Random queries, keys and values; each token sees the cells up to its own, of a window."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.case, c = case, case
        self.query = rng.normal(size=(c.n_streams, c.n_heads, c.n_tokens, c.key_size)).astype(np.float32)
        shape = (c.n_streams, c.n_key_heads, c.n_cells)
        self.key = rng.normal(size=(*shape, c.key_size)).astype(c.cells)
        self.value = rng.normal(size=(*shape, c.value_size)).astype(c.cells)
        last = c.n_cells - c.n_tokens
        own = np.arange(c.n_tokens)[:, None] + (min(last, 90) if c.n_cells <= 1000 else last)
        cells = np.arange(c.n_cells)[None]
        seen = (cells <= own) & (cells > own - c.window)
        if c.own_cells:
            seen = cells // c.own_cells % c.n_tokens == np.arange(c.n_tokens)[:, None]
        mask = np.where(seen, np.minimum(0, cells - own) if c.max_bias else 0, -np.inf)
        self.mask = np.broadcast_to(mask, (c.n_streams, 1, *mask.shape)).astype(np.float16).copy()
        self.sinks = rng.normal(size=c.n_heads).astype(np.float32)
        self.scale = c.key_size**-0.5

    def exact(self) -> NDArray[np.float64]:
        """In float64, (streams, tokens, heads, value_size)."""
        c = self.case
        group = c.n_heads // c.n_key_heads
        key, value = (np.repeat(x.astype(np.float64), group, 1) for x in (self.key, self.value))
        products = self.scale * self.query.astype(np.float64) @ key.swapaxes(2, 3)
        if c.soft_cap:
            products = c.soft_cap * np.tanh(products / c.soft_cap)
        if c.has_mask:
            with np.errstate(invalid="ignore"):
                products = products + self.slopes()[:, None, None] * self.mask
        if c.has_sinks:
            sinks = np.broadcast_to(self.sinks[:, None, None], (*products.shape[:3], 1))
            products = np.concatenate([products, sinks], 3)
        weights = np.exp(products - products.max(3, keepdims=True))
        weights /= weights.sum(3, keepdims=True)
        return (weights[..., : c.n_cells] @ value).swapaxes(1, 2)

    def slopes(self) -> NDArray[np.float64]:
        c = self.case
        power = 2 ** int(np.log2(c.n_heads))
        h = np.arange(c.n_heads)
        low, high = (
            2.0 ** (-c.max_bias / power * (h + 1)),
            2.0 ** (-c.max_bias / 2 / power * (2 * (h - power) + 1)),
        )
        return np.where(h < power, low, high) if c.max_bias else np.ones(c.n_heads)

    def ours(
        self, tokens: slice = slice(None), stream: int | None = None, n_threads: int = 1, n_times: int = 1
    ) -> NDArray[np.float32]:
        """By our kernel, for some tokens of one stream or of all."""
        c = self.case
        streams = slice(None) if stream is None else slice(stream, stream + 1)
        query, mask = self.query[streams, :, tokens], self.mask[streams, :, tokens]
        inputs = [query, self.key[streams], self.value[streams], mask, self.sinks]
        shape = (len(query), query.shape[2], c.n_heads, c.value_size)
        with ggml_memory(sum(x.nbytes for x in inputs) + 4 * int(np.prod(shape))) as context:
            q, k, v, m, sinks = (tensor(context, x) for x in inputs)
            mask = m if c.has_mask else None
            node = flash_attn_ext(context, q, k, v, mask, self.scale, c.max_bias, c.soft_cap)
            if c.has_sinks:
                add_sinks(node, sinks)
            graph = Graph(context, [node])
            assert op_of(node) == b"FLASH_ATTN_EXT"
            state = kernels.GraphState()
            for _ in range(n_times):
                ctypes.memset(data_of(node), 255, 4 * int(np.prod(shape)))  # NaN
                graph.compute(state, n_threads)
                assert op_of(node) == b"CUSTOM"
            return floats_of(node, shape)


@every_path
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(case: Case, simd_path: str) -> None:
    inputs = Inputs(case)
    atol = 2e-5 if is_in_tiles(case) else 3e-6
    np.testing.assert_allclose(inputs.ours(), inputs.exact(), rtol=0, atol=atol)


@every_path
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_do_not_depend_on_company(case: Case, simd_path: str) -> None:
    inputs = Inputs(case)
    together = inputs.ours()
    for stream in range(case.n_streams):
        for tokens in (slice(0, 1), slice(case.n_tokens // 2, None), slice(0, case.n_tokens - 1)):
            if len(range(case.n_tokens)[tokens]):
                alone = inputs.ours(tokens, stream)[0]
                assert np.array_equal(alone.view(np.int32), together[stream, tokens].view(np.int32))


@pytest.mark.parametrize("cells", [np.float16, np.float32])
def test_bits_are_those_of_every_path(cells: type[np.floating[Any]]) -> None:
    case, before = Case(n_tokens=70, cells=cells), kernels.simd_path()
    inputs, outputs = Inputs(case), []
    for path in kernels.simd_paths():
        kernels.use_simd_path(path)
        if not is_in_tiles(case):
            outputs.append(inputs.ours())
    kernels.use_simd_path(before)
    assert all(np.array_equal(output, outputs[0]) for output in outputs)


@every_path
def test_masked_cells_may_hold_anything_finite(simd_path: str) -> None:
    inputs = Inputs(Case(n_tokens=3))
    expected = inputs.ours()
    last = 90 + 3
    inputs.key[:, :, last:] = 60000
    inputs.value[:, :, last:] = np.nan
    assert np.array_equal(inputs.ours(), expected)


@every_path
def test_several_threads_and_a_graph_computed_again(simd_path: str) -> None:
    inputs = Inputs(Case(n_tokens=150, n_streams=2))
    expected = inputs.ours()
    assert np.array_equal(inputs.ours(n_threads=3), expected)
    assert np.array_equal(inputs.ours(n_threads=2, n_times=3), expected)


@every_path
@pytest.mark.parametrize("case", [case for case in CASES if case.n_cells > 512], ids=str)
def test_threads_that_share_the_cells_of_a_query(case: Case, simd_path: str) -> None:
    inputs = Inputs(case)
    expected = inputs.ours()
    for n_threads in (2, 5, 16):
        found = inputs.ours(n_threads=n_threads, n_times=2)
        assert np.array_equal(found.view(np.int32), expected.view(np.int32))


def test_other_operations_are_left_alone() -> None:
    compute = ctypes.CFUNCTYPE(None, POINTER, ctypes.c_int, ctypes.c_int, POINTER)(lambda *_: None)
    custom = bind(
        "ggml_custom_4d",
        POINTER,
        POINTER,
        ctypes.c_int,
        *[ctypes.c_int64] * 4,
        POINTER,
        ctypes.c_int,
        type(compute),
        ctypes.c_int,
        POINTER,
    )
    with ggml_memory(0) as context:
        leaf = new_tensor(context, F32, 4, 1, 1, 1)
        others = custom(context, F32, 4, 1, 1, 1, ctypes.byref(POINTER(leaf)), 1, compute, -1, None)
        for node in (leaf, others):
            before = ctypes.string_at(node, 256)
            ask(node, kernels.GraphState())
            assert ctypes.string_at(node, 256) == before


def test_a_ggml_that_keeps_things_elsewhere_is_refused() -> None:
    functions = {name: address(f"ggml_{name}") for name in kernels.GGML_FUNCTIONS}
    assert kernels.graph_callback(functions) == graph_callback()

    def refused(name: str, function: Any) -> bool:
        found = ctypes.cast(function, POINTER).value
        assert found is not None
        return kernels.graph_callback({**functions, name: found}) is None

    named = ctypes.CFUNCTYPE(POINTER, POINTER, ctypes.c_char_p)(lambda tensor, name: tensor)
    assert refused("set_name", named), "the name is not where it should be"
    floats, pointers = [ctypes.c_float] * 3, [POINTER] * 5
    swapped = ctypes.CFUNCTYPE(POINTER, *pointers, *floats)(
        lambda c, q, k, v, m, scale, bias, cap: flash_attn_ext(c, q, k, v, m, scale, cap, bias)
    )
    assert refused("flash_attn_ext", swapped), "its numbers are in another order"
    other_sources = ctypes.CFUNCTYPE(POINTER, *pointers, *floats)(
        lambda c, q, k, v, m, scale, bias, cap: flash_attn_ext(c, q, k, v, None, scale, 0, cap)
    )
    assert refused("flash_attn_ext", other_sources)
    two = ctypes.CFUNCTYPE(POINTER, *[POINTER] * 3)
    assert refused("mul_mat", two(lambda c, weights, inputs: weights))
    assert refused("set_rows", ctypes.CFUNCTYPE(POINTER, *[POINTER] * 4)(lambda c, to, rows, n: to))
    activations = {
        "gelu": "gelu_quick",  # two kinds with one number
        "geglu_quick_split": "geglu_split",
        "geglu_swapped": "geglu",  # which half has the gates is not said
        "geglu": "relu",  # another operation
    }
    for name, other in activations.items():
        assert refused(name, ctypes.c_void_p(address(f"ggml_{other}"))), name
    traits = bind("ggml_get_type_traits", POINTER, ctypes.c_int)
    assert refused("get_type_traits", ctypes.CFUNCTYPE(POINTER, ctypes.c_int)(lambda kind: traits(8)))
    without_memory = ctypes.CFUNCTYPE(POINTER, InitParams)(lambda params: None)
    assert refused("init", without_memory)
