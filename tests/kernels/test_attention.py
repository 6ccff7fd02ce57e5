"""Attention against float64, on nodes that ggml makes, called as llama.cpp would call it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tinker_local import kernels
from tinker_local.llama.ggml import bind
from tinker_local.llama.graph_attention import _F16, _F32, _Init, _Tensor, attention_callback

_POINTER = ctypes.c_void_p
_new = bind("ggml_new_tensor_4d", _POINTER, _POINTER, ctypes.c_int, *[ctypes.c_int64] * 4)
_attend = bind("ggml_flash_attn_ext", _POINTER, *[_POINTER] * 5, *[ctypes.c_float] * 3)
_add_sinks = bind("ggml_flash_attn_ext_add_sinks", None, _POINTER, _POINTER)
_Callback = ctypes.CFUNCTYPE(ctypes.c_bool, _POINTER, ctypes.c_bool, _POINTER)
_Operation = ctypes.CFUNCTYPE(None, _POINTER, ctypes.c_int, ctypes.c_int, _POINTER)


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
]


class Inputs:
    """Random queries, keys and values; each token sees the cells up to its own, of a window."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.case, c = case, case
        self.query = rng.normal(size=(c.n_streams, c.n_heads, c.n_tokens, c.key_size)).astype(np.float32)
        shape = (c.n_streams, c.n_key_heads, c.n_cells)
        self.key = rng.normal(size=(*shape, c.key_size)).astype(np.float16)
        self.value = rng.normal(size=(*shape, c.value_size)).astype(np.float16)
        own = np.arange(c.n_tokens)[:, None] + min(c.n_cells - c.n_tokens, 90)
        cells = np.arange(c.n_cells)[None]
        seen = (cells <= own) & (cells > own - c.window)
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

    def ours(self, tokens: slice = slice(None), stream: int | None = None) -> NDArray[np.float32]:
        """By the operation, for some tokens of one stream or of all."""
        c = self.case
        streams = slice(None) if stream is None else slice(stream, stream + 1)
        query, mask = self.query[streams, :, tokens], self.mask[streams, :, tokens]
        context = bind("ggml_init", _POINTER, _Init)(_Init(1 << 16, None, True))
        kept: list[Any] = []

        def tensor(array: NDArray[Any]) -> int:
            array = np.ascontiguousarray(array)
            kept.append(array)
            sides = (*array.shape[::-1], 1, 1, 1)[:4]
            pointer = _new(context, _F32 if array.dtype == np.float32 else _F16, *sides)
            _Tensor.from_address(pointer).data = array.ctypes.data
            return int(pointer)

        inputs = [tensor(x) for x in (query, self.key[streams], self.value[streams])]
        node = _attend(
            context, *inputs, tensor(mask) if c.has_mask else None, self.scale, c.max_bias, c.soft_cap
        )
        if c.has_sinks:
            _add_sinks(node, tensor(self.sinks))
        out = np.full((len(query), query.shape[2], c.n_heads, c.value_size), np.nan, np.float32)
        found = _Tensor.from_address(node)
        found.data = out.ctypes.data
        address = attention_callback()
        assert address is not None
        before = found.op
        assert _Callback(address)(node, True, None) is False
        assert found.op != before
        start = _Tensor.op_params.offset
        operation = ctypes.c_void_p.from_address(ctypes.addressof(found) + start).value
        assert operation is not None
        _Operation(operation)(node, 0, 1, None)
        bind("ggml_free", None, _POINTER)(context)
        return out


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(case: Case, simd_path: str) -> None:
    inputs = Inputs(case)
    np.testing.assert_allclose(inputs.ours(), inputs.exact(), rtol=0, atol=3e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_do_not_depend_on_company(case: Case, simd_path: str) -> None:
    inputs = Inputs(case)
    together = inputs.ours()
    for stream in range(case.n_streams):
        for tokens in (slice(0, 1), slice(case.n_tokens // 2, None), slice(0, case.n_tokens - 1)):
            if len(range(case.n_tokens)[tokens]):
                alone = inputs.ours(tokens, stream)[0]
                assert np.array_equal(alone.view(np.int32), together[stream, tokens].view(np.int32))


def test_bits_are_those_of_every_path() -> None:
    inputs, before = Inputs(Case(n_tokens=70)), kernels.simd_path()
    outputs = []
    for path in kernels.simd_paths():
        kernels.use_simd_path(path)
        outputs.append(inputs.ours())
    kernels.use_simd_path(before)
    assert all(np.array_equal(output, outputs[0]) for output in outputs)


def test_masked_cells_may_hold_anything_finite() -> None:
    inputs = Inputs(Case(n_tokens=3))
    expected = inputs.ours()
    last = 90 + 3
    inputs.key[:, :, last:] = 60000
    inputs.value[:, :, last:] = np.nan
    assert np.array_equal(inputs.ours(), expected)


def test_other_operations_are_left_alone() -> None:
    context = bind("ggml_init", _POINTER, _Init)(_Init(1 << 16, None, True))
    node = _new(context, _F32, 4, 1, 1, 1)
    before = bytes(_Tensor.from_address(node))
    address = attention_callback()
    assert address is not None
    assert _Callback(address)(node, True, None) is False
    assert bytes(_Tensor.from_address(node)) == before
    bind("ggml_free", None, _POINTER)(context)
