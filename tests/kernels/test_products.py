"""Matrix products against float64, in graphs that ggml makes and computes."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels.ggml_graphs import (
    F32,
    POINTER,
    Graph,
    ask,
    data_of,
    floats_of,
    ggml_memory,
    mul_mat,
    mul_mat_id,
    new_tensor,
    op_of,
    permute,
    tensor,
    view_4d,
)
from tinker_local import kernels
from tinker_local.llama.ggml import bind

PLAIN = (Type.F32, Type.F16, Type.BF16)
ROUNDED_IN_TILES = {Type.BF16}  # by AMX, with bits of its own
PACKED = (
    *(Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0),
    *(Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K),
    *(Type.IQ4_NL, Type.IQ4_XS, Type.MXFP4, Type.IQ2_XXS),
)
double: Any = bind("ggml_dup", POINTER, POINTER, POINTER)
add: Any = bind("ggml_add", POINTER, *[POINTER] * 3)
SUPER_BLOCKS = {Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K}  # eight bits of activations
GROUPS = {*PACKED} - {Type.IQ2_XXS} - SUPER_BLOCKS  # sixteen
_HALVES = {  # where a block has float16 numbers, in bytes
    **dict.fromkeys((Type.Q4_0, Type.Q5_0, Type.Q8_0, Type.IQ4_NL, Type.IQ4_XS, Type.IQ2_XXS), (0,)),
    **dict.fromkeys((Type.Q4_1, Type.Q5_1, Type.Q4_K, Type.Q5_K), (0, 2)),
    Type.Q2_K: (80, 82),
    Type.Q3_K: (108,),
    Type.Q6_K: (208,),
}


OWN = {  # of paths that differ from another in parts alone: AVX-512's, and AVX2's
    "amx": ROUNDED_IN_TILES | GROUPS | SUPER_BLOCKS,  # packed ones where there are many rows
    "avx_vnni": GROUPS | SUPER_BLOCKS,
}
MANY_ROWS = 70


def on_paths(*kinds: Type) -> pytest.MarkDecorator:
    """Each of some types on each path that computes it in its own way."""
    cases = [(k, path) for k in kinds for path in kernels.simd_paths() if k in OWN.get(path, kinds)]
    names = [f"{kind.name}-{path}" for kind, path in cases]
    return pytest.mark.parametrize(("kind", "simd_path"), cases, indirect=["simd_path"], ids=names)


def plain_weights(kind: Type, numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
    return gguf.quants.quantize(numbers, kind).view(np.uint8).reshape(*numbers.shape[:-1], -1)


def random_weights(kind: Type, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    """Return random bytes of a type, with scales that are numbers: every bit of a format is used."""
    rng = np.random.default_rng(seed)
    size, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    if kind in PLAIN:
        return plain_weights(kind, rng.normal(size=shape).astype(np.float32))
    blocks = rng.integers(0, 256, (*shape[:-1], shape[-1] // size, n_bytes), np.uint8)
    for place in _HALVES.get(kind, ()):
        scales = rng.normal(scale=0.05, size=blocks.shape[:-1]).astype(np.float16)
        blocks[..., place : place + 2] = scales[..., None].view(np.uint8)
    if kind is Type.MXFP4:
        blocks[..., 0] = rng.integers(120, 130, blocks.shape[:-1])
    return blocks.reshape(*shape[:-1], -1)


def in_float32(kind: Type, weights: NDArray[np.uint8], n: int) -> NDArray[np.float32]:
    if kind in PLAIN:
        weights = weights.view({Type.F32: np.float32, Type.F16: np.float16, Type.BF16: np.uint16}[kind])
    if kind is Type.F16:
        return weights.astype(np.float32)
    if kind is Type.BF16:
        return (weights.astype(np.uint32) << 16).view(np.float32)
    return gguf.quants.dequantize(weights, kind).reshape(*weights.shape[:-1], n)


def weights_tensor(context: int, kind: Type, weights: NDArray[np.uint8], n: int) -> int:
    found = new_tensor(context, int(kind), *(n, *weights.shape[-2::-1], 1, 1)[:4])
    ctypes.memmove(data_of(found), weights.ctypes.data, weights.nbytes)
    return int(found)


def product(
    kind: Type, weights: NDArray[np.uint8], inputs: NDArray[np.float32], n_threads: int = 1
) -> NDArray[np.float32]:
    """Return weights times inputs (.., rows, n) by our kernel: (.., rows, columns)."""
    shape = (*inputs.shape[:-1], weights.shape[-2])
    room = weights.nbytes + inputs.nbytes + 4 * int(np.prod(shape))
    with ggml_memory(room) as context:
        node = mul_mat(
            context, weights_tensor(context, kind, weights, inputs.shape[-1]), tensor(context, inputs)
        )
        Graph(context, [node]).compute(kernels.GraphState(products=True), n_threads)
        assert op_of(node) == b"CUSTOM"
        return floats_of(node, shape)


def experts_product(
    kind: Type,
    weights: NDArray[np.uint8],
    inputs: NDArray[np.float32],
    ids: NDArray[np.int32],
    n_threads: int = 1,
) -> NDArray[np.float32]:
    """The same of experts, of which ``ids`` (tokens, used) names some for each token."""
    shape = (*ids.shape, weights.shape[-2])
    room = weights.nbytes + inputs.nbytes + ids.nbytes + 4 * int(np.prod(shape))
    with ggml_memory(room) as context:
        matrices = weights_tensor(context, kind, weights, inputs.shape[-1])
        node = mul_mat_id(context, matrices, tensor(context, inputs), tensor(context, ids))
        Graph(context, [node]).compute(kernels.GraphState(products=True), n_threads)
        assert op_of(node) == b"CUSTOM"
        return floats_of(node, shape)


def normal(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


RUN, BLOCK = 32, 256


def largest_of(inputs: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    most = np.abs(inputs.reshape(*inputs.shape[:-1], -1, n)).max(-1, keepdims=True)
    return np.broadcast_to(most, (*most.shape[:-1], n)).reshape(inputs.shape)


def in_sixteen_bits(inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return activations as products with groups take them: a scale for each 32."""
    most, largest = largest_of(inputs, RUN), np.float32(32767)
    return np.rint(inputs * (largest / most)) * (most / largest).astype(np.float64)


def in_eight_bits(inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return them as products with super-blocks do: a step for each 32 and a scale for each 256."""
    most, largest = largest_of(inputs, BLOCK), np.float32(16 * 127)
    by = largest / most
    steps = np.clip(np.ceil(largest_of(inputs, RUN) * by / np.float32(127)), 1, 16)
    return np.rint(inputs * (by / steps)) * steps * (most / largest).astype(np.float64)


def in_two_bfloats(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return activations as products in tiles take them: the nearest bfloat16, and that of what is left."""
    high = numbers.astype(ml_dtypes.bfloat16).astype(np.float32)
    low = (numbers - high).astype(ml_dtypes.bfloat16)
    return high.astype(np.float64) + low.astype(np.float64)


def has_own_bits(kind: Type) -> bool:
    return kernels.simd_path() == "amx" and kind in ROUNDED_IN_TILES


def as_taken(kind: Type, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    if kind in GROUPS:
        return in_sixteen_bits(inputs)
    if kind in SUPER_BLOCKS:
        return in_eight_bits(inputs)
    return in_two_bfloats(inputs) if has_own_bits(kind) else inputs.astype(np.float64)


def assert_close(
    kind: Type, found: NDArray[np.float32], weights: NDArray[np.uint8], inputs: NDArray[np.float32]
) -> None:
    """Within a few roundings of float32 of the exact product, in terms of the numbers that are summed."""
    w = in_float32(kind, weights, inputs.shape[-1]).swapaxes(-1, -2)
    x = as_taken(kind, inputs)
    exact, size = x @ w.astype(np.float64), np.abs(x) @ np.abs(w).astype(np.float64)
    assert np.max(np.abs(found - exact) / (size + 1e-30)) < 4e-7


@on_paths(*PLAIN, *PACKED)
@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 7])
def test_products_are_exact_within_float32(kind: Type, n_rows: int, simd_path: str) -> None:
    n, n_columns = 768, 27
    weights, inputs = random_weights(kind, (n_columns, n)), normal(n_rows, n)
    assert_close(kind, product(kind, weights, inputs), weights, inputs)


@on_paths(*sorted(SUPER_BLOCKS))
@pytest.mark.parametrize("byte", [0, 0x7F, 0x80, 0xFF])
def test_the_largest_sums_of_super_blocks_fit(kind: Type, byte: int, simd_path: str) -> None:
    """Scales and integers at their ends, against activations at theirs."""
    weights = np.full((3, 2 * gguf.GGML_QUANT_SIZES[kind][1]), byte, np.uint8)
    for place in _HALVES[kind]:
        weights.reshape(6, -1)[:, place : place + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    for n_rows in (1, 9, MANY_ROWS):
        inputs = np.full((n_rows, 512), 1, np.float32)
        assert_close(kind, product(kind, weights, inputs), weights, inputs)
        assert_close(kind, product(kind, weights, -inputs), weights, -inputs)


@on_paths(Type.Q6_K)
def test_the_largest_sum_of_a_super_block_is_exact(kind: Type, simd_path: str) -> None:
    """256 times -32 times a scale of -128 times 127 times 16: just below 2^31."""
    weights = np.zeros((3, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)
    weights[:, 192:208] = 0x80
    weights[:, 208:210] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    inputs = np.ones((MANY_ROWS, BLOCK), np.float32)
    inputs[1:, ::3] *= np.float32(0.37)
    assert_close(kind, product(kind, weights, inputs), weights, inputs)


@on_paths(*sorted(GROUPS))
@pytest.mark.parametrize("byte", [0, 0x7F, 0x80, 0x88, 0xFF])
def test_the_largest_sums_of_groups_fit(kind: Type, byte: int, simd_path: str) -> None:
    """Integers at their ends, against activations at theirs: in tiles, sums are float32, too."""
    weights = np.full(
        (3, 256 // gguf.GGML_QUANT_SIZES[kind][0], gguf.GGML_QUANT_SIZES[kind][1]), byte, np.uint8
    )
    for place in _HALVES.get(kind, ()):
        weights[..., place : place + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
    if kind is Type.MXFP4:
        weights[..., 0] = 125
    weights = weights.reshape(3, -1)
    inputs = np.array([1, -1], np.float32).repeat(5)[:, None] * np.ones(256, np.float32)
    inputs[3:8, 1::2] *= np.float32(0.999)
    for n_rows in (1, len(inputs)):
        assert_close(kind, product(kind, weights, inputs[:n_rows]), weights, inputs[:n_rows])


@on_paths(*PLAIN)
@pytest.mark.parametrize("n", [1, 8, 15, 17, 40, 513, 530])
def test_plain_numbers_need_not_fill_lanes(kind: Type, n: int, simd_path: str) -> None:
    weights = random_weights(kind, (5, n))
    for n_rows in (1, 6):
        inputs = normal(n_rows, n)
        assert_close(kind, product(kind, weights, inputs), weights, inputs)


@given(
    kind=st.sampled_from([*PLAIN, *PACKED]),
    n_blocks=st.integers(1, 4),
    n_columns=st.integers(1, 60),
    n_rows=st.integers(1, 140),
    n_threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_row_has_the_same_bits_alone(
    kind: Type, n_blocks: int, n_columns: int, n_rows: int, n_threads: int, seed: int
) -> None:
    n = n_blocks * (256 if kind not in PLAIN else 100)
    weights, inputs = random_weights(kind, (n_columns, n), seed), normal(n_rows, n, seed=seed)
    together = product(kind, weights, inputs, n_threads)
    row = seed % n_rows
    np.testing.assert_array_equal(product(kind, weights, inputs[row : row + 1])[0], together[row])
    pair = product(kind, weights, inputs[[row, 0]])
    np.testing.assert_array_equal(pair, together[[row, 0]])


@pytest.mark.parametrize("kind", [*PLAIN, *PACKED], ids=lambda kind: kind.name)
def test_every_path_gives_the_same_bits(kind: Type) -> None:
    before, found = kernels.simd_path(), []
    weights = random_weights(kind, (13, 1280))
    for path in kernels.simd_paths():
        kernels.use_simd_path(path)
        if not has_own_bits(kind):
            found.append([product(kind, weights, normal(n_rows, 1280)) for n_rows in (1, 9, MANY_ROWS)])
    kernels.use_simd_path(before)
    for products in found:
        for ours, first in zip(products, found[0], strict=True):
            np.testing.assert_array_equal(ours, first)


@on_paths(Type.BF16, Type.Q8_0, Type.Q5_1, Type.Q4_K, Type.Q6_K)
@pytest.mark.parametrize("n", [300, 320, 1100, 2080])
@pytest.mark.parametrize(("n_rows", "n_columns"), [(20, 70), (33, 200), (150, 130), (1, 1100)])
def test_many_columns(kind: Type, n: int, n_rows: int, n_columns: int, simd_path: str) -> None:
    """More than one strip of tiles, than one panel, and than one panel of a task; panels in parts."""
    block = gguf.GGML_QUANT_SIZES[kind][0]
    n = n // block * block
    weights, inputs = random_weights(kind, (n_columns, n)), normal(n_rows, n)
    found = product(kind, weights, inputs, 2)
    assert_close(kind, found, weights, inputs)
    np.testing.assert_array_equal(product(kind, weights, inputs[-1:])[0], found[-1])


def test_activations_in_tiles_are_near_to_those_in_float32() -> None:
    """Each is a 2^17th away at most."""
    weights, inputs = random_weights(Type.BF16, (40, 1024)), normal(20, 1024)
    w = in_float32(Type.BF16, weights, 1024).astype(np.float64).T
    off = np.abs(product(Type.BF16, weights, inputs) - inputs.astype(np.float64) @ w)
    size = np.abs(inputs).astype(np.float64) @ np.abs(w)
    assert (off <= (2.0**-17 + 4e-7) * size).all()
    assert (off <= 1e-6 * size).all(), "errors of many numbers cancel"


@on_paths(Type.BF16, Type.Q4_K)
def test_matrices_are_shared_by_neighbouring_inputs(kind: Type, simd_path: str) -> None:
    weights, inputs = random_weights(kind, (2, 9, 256)), normal(6, 5, 256)
    found = product(kind, weights, inputs, 2)
    for number in range(6):
        np.testing.assert_array_equal(found[number], product(kind, weights[number // 3], inputs[number]))


@on_paths(Type.BF16, Type.Q8_0, Type.Q6_K)
@pytest.mark.parametrize("n_rows", [2, MANY_ROWS])
def test_products_of_the_same_inputs_share_what_is_prepared(
    kind: Type, n_rows: int, simd_path: str
) -> None:
    """Not of other inputs, nor for a kernel that wants another form, nor in the next graph."""
    n, kinds = 1024, (kind, kind, Type.Q4_0, Type.Q4_K, kind, Type.F16, kind)
    which = (0, 0, 0, 0, 1, 0, 0)  # inputs
    weights = [random_weights(each, (40, n), seed) for seed, each in enumerate(kinds)]
    state = kernels.GraphState(products=True)
    with ggml_memory(1 << 22) as context:
        inputs = [tensor(context, normal(n_rows, n, seed=seed)) for seed in range(2)]
        nodes = [
            mul_mat(context, weights_tensor(context, each, w, n), inputs[place])
            for each, w, place in zip(kinds, weights, which, strict=True)
        ]
        graph = Graph(context, nodes)
        for seeds in ((0, 1), (2, 3)):
            for node, seed in zip(inputs, seeds, strict=True):
                numbers = normal(n_rows, n, seed=seed)
                ctypes.memmove(data_of(node), numbers.ctypes.data, numbers.nbytes)
            graph.compute(state, 3)
            for node, each, w, place in zip(nodes, kinds, weights, which, strict=True):
                alone = product(each, w, normal(n_rows, n, seed=seeds[place]))
                np.testing.assert_array_equal(floats_of(node, alone.shape), alone)


@on_paths(Type.BF16, Type.MXFP4, Type.Q4_K, Type.IQ2_XXS)
@pytest.mark.parametrize(("n_tokens", "of_each"), [(1, 1), (40, 1), (40, 3), (160, 3)])
def test_experts(kind: Type, n_tokens: int, of_each: int, simd_path: str) -> None:
    n_experts, n_used = 7, 3
    rng = np.random.default_rng(n_tokens)
    ids = np.stack([rng.permutation(n_experts)[:n_used] for _ in range(n_tokens)]).astype(np.int32)
    weights, inputs = random_weights(kind, (n_experts, 30, 512)), normal(n_tokens, of_each, 512)
    found = experts_product(kind, weights, inputs, ids, 2)
    for token in range(n_tokens):
        for place in range(n_used):
            row = inputs[token, place % of_each][None]
            np.testing.assert_array_equal(
                found[token, place], product(kind, weights[ids[token, place]], row)[0]
            )


@on_paths(*PLAIN)
@pytest.mark.parametrize("n_rows", [1, 18])
@pytest.mark.parametrize(
    "wrong", [np.inf, -np.inf, np.array(0x7FFFFFFF).astype(np.uint32).view(np.float32)]
)
def test_what_is_no_number_stays_in_its_row_and_column(
    kind: Type, wrong: float, n_rows: int, simd_path: str
) -> None:
    numbers, inputs = normal(10, 300, seed=2), normal(n_rows, 300)
    weights = plain_weights(kind, numbers.copy())
    numbers[9, 50] = wrong
    found = product(kind, plain_weights(kind, numbers), inputs)
    assert not np.isfinite(found[:, 9]).any()
    assert np.isfinite(found[:, :9]).all()
    inputs[0, 299] = wrong
    found = product(kind, weights, inputs)
    assert not np.isfinite(found[0]).any()
    assert np.isnan(found[0]).all() or np.isinf(wrong)
    assert np.isfinite(found[1:]).all()


@on_paths(Type.Q4_K, Type.Q8_0, Type.Q4_1)
@pytest.mark.parametrize("n_rows", [1, 5, MANY_ROWS])
@pytest.mark.parametrize("wrong", [np.inf, np.nan])
def test_what_is_no_number_stays_in_its_row_of_packed_weights(
    kind: Type, wrong: float, n_rows: int, simd_path: str
) -> None:
    weights, inputs = random_weights(kind, (10, 256)), normal(n_rows, 256)
    inputs[0, 69] = wrong
    found = product(kind, weights, inputs)
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:]).all()


@on_paths(Type.Q4_K, Type.Q8_0, Type.Q4_1)
@pytest.mark.parametrize("n_rows", [1, MANY_ROWS])
def test_a_scale_that_is_no_number_stays_in_its_column(kind: Type, n_rows: int, simd_path: str) -> None:
    weights = random_weights(kind, (40, 512))
    weights[7, :2] = 0xFF
    found = product(kind, weights, normal(n_rows, 512))
    assert np.isnan(found[:, 7]).all()
    assert np.isfinite(np.delete(found, 7, 1)).all()


@on_paths(Type.Q8_0, Type.Q6_K)
@pytest.mark.parametrize("n_rows", [5, MANY_ROWS])
@pytest.mark.parametrize("size", [3e36, 1e-20, 1e-38, 0.0])
def test_extreme_activations_of_packed_weights(
    kind: Type, size: float, n_rows: int, simd_path: str
) -> None:
    """What is below 1e-30 is taken for zero."""
    weights, inputs = random_weights(kind, (10, 256)), normal(n_rows, 256) * np.float32(1e-3)
    found = product(kind, weights, inputs * np.float32(size))
    exact = product(kind, weights, inputs).astype(np.float64) * size
    np.testing.assert_allclose(found, exact if size > 1e-30 else 0, rtol=1e-2)


@pytest.mark.parametrize(
    ("kind", "step"), [(Type.Q4_0, 32767), (Type.Q4_K, 127)], ids=["sixteen bits", "eight bits"]
)
def test_activations_in_integers_are_near_to_those_in_float32(kind: Type, step: float) -> None:
    """Each is at most half a step away. A step is a part of the largest of 32.

    With eight bits the step is rounded up, by at most a sixteenth of the step for the largest of 256.
    """
    weights, inputs = random_weights(kind, (40, 1024)), normal(6, 1024)
    w = in_float32(kind, weights, 1024).astype(np.float64)
    most = largest_of(inputs, RUN).astype(np.float64) + largest_of(inputs, BLOCK) / 16
    bound = most @ np.abs(w).T / (2 * step)
    assert (np.abs(product(kind, weights, inputs) - inputs.astype(np.float64) @ w.T) <= bound).all()


def test_extreme_numbers(simd_path: str) -> None:
    """The largest and the smallest floats, subnormal ones too, as they come."""
    weights = np.array([[3e38, 1e-45, -1e-38, 65504.0] * 8, [0.0] * 32], np.float32)
    inputs = np.array([[1.0, 1.0, 1.0, -1.0] * 8], np.float32)
    found = product(Type.F32, weights.view(np.uint8), np.repeat(inputs * np.float32(0.01), 6, 0))
    np.testing.assert_allclose(found[:, 0], 8 * 3e36, rtol=1e-6)
    assert (found[:, 1] == 0).all()


@on_paths(*PLAIN)
def test_extreme_activations(kind: Type, simd_path: str) -> None:
    """The largest are not rounded to infinity; in tiles the smallest are zero."""
    largest = np.finfo(np.float32).max
    extremes = np.array([largest, -largest, 3.3961e38, 1e-40, 1e-38, 0.0], np.float32)
    inputs = np.zeros((len(extremes), 40), np.float32)
    inputs[:, 3] = extremes
    found = product(kind, plain_weights(kind, np.full((3, 40), 0.25, np.float32)), inputs)
    for column in found.T:
        np.testing.assert_allclose(column, extremes / 4, rtol=2.0**-16, atol=1e-38)


@pytest.mark.parametrize("of_all_types", [True, False])
def test_rare_types_are_left_to_llama_cpp_where_bits_may_depend_on_them(*, of_all_types: bool) -> None:
    state = kernels.GraphState(products=True, of_all_types=of_all_types)
    with ggml_memory(1 << 16) as context:
        inputs = tensor(context, normal(1, 256))
        rare, usual = (
            mul_mat(context, new_tensor(context, int(kind), 256, 4, 1, 1), inputs)
            for kind in (Type.IQ2_XXS, Type.Q2_K)
        )
        for node in (rare, usual):
            ask(node, state)
        assert (op_of(rare) == b"CUSTOM") is of_all_types
        assert op_of(usual) == b"CUSTOM"
        assert state.n_left == (not of_all_types)


@pytest.mark.parametrize("of_results", [True, False])
def test_what_is_computed_is_no_weight(*, of_results: bool) -> None:
    """Keys times queries, say: such products stay with llama.cpp unless they are asked for."""
    with ggml_memory(1 << 16) as context:
        keys, queries = (new_tensor(context, F32, 64, 4, 1, 1) for _ in range(2))
        node = mul_mat(context, double(context, keys), queries)
        ask(node, kernels.GraphState(products=True, of_results=of_results))
        assert (op_of(node) == b"CUSTOM") is of_results


@dataclass(frozen=True)
class Factors:
    """Two results that are multiplied; three tokens, each with 16 numbers of a product of weights."""

    shape: tuple[int, int, int] = (4, 4, 3)  # of the right one
    steps: tuple[int, int] = (16, 64)  # its bytes from row to row, and from matrix to matrix
    left: tuple[int, int, int] = (4, 10, 3)
    is_left_cached: bool = False
    is_adapted: bool = False
    are_of_weights: bool = True

    def ask(self, context: int, state: kernels.GraphState) -> None:
        rows = new_tensor(context, F32, 16, 3, 1, 1)
        if self.are_of_weights:
            rows = mul_mat(context, *(new_tensor(context, F32, 8, n, 1, 1) for n in (16, 3)))
            ask(rows, state)
        if self.is_adapted:
            rows = add(context, rows, new_tensor(context, F32, 16, 3, 1, 1))
        right = view_4d(context, rows, *self.shape, 1, *self.steps, 192, 0)
        left = new_tensor(context, F32, *self.left, 1)
        left = permute(context, left, 0, 1, 2, 3) if self.is_left_cached else double(context, left)
        ask(mul_mat(context, left, right), state)


@pytest.mark.parametrize(
    ("factors", "n_left"),
    [
        pytest.param(Factors(), 0, id="a matrix of each token"),
        pytest.param(Factors(is_adapted=True), 0, id="with a LoRA"),
        pytest.param(Factors(is_left_cached=True), 1, id="times cells of a cache"),
        pytest.param(Factors(left=(4, 10, 1)), 1, id="one matrix of all tokens"),
        pytest.param(Factors((4, 3, 4), (64, 16), (4, 10, 4)), 1, id="a matrix of each head"),
        pytest.param(Factors((8, 2, 3), (32, 64), (8, 10, 3), are_of_weights=False), 1, id="of no weights"),
    ],
)
def test_results_times_results_may_stay_where_a_matrix_is_one_token_s(
    factors: Factors, n_left: int
) -> None:
    state = kernels.GraphState(products=True)
    with ggml_memory(1 << 16) as context:
        factors.ask(context, state)
    assert state.n_left == n_left


def test_cached_keys_times_queries(simd_path: str) -> None:
    """Heads in turn in each cell, as in a cache; two of queries to one of keys."""
    state = kernels.GraphState(of_results=True)
    with ggml_memory(1 << 20) as context:
        cache = new_tensor(context, int(Type.F16), 40, 2, 70, 1)
        stored = normal(70, 2, 40).astype(np.float16)
        ctypes.memmove(data_of(cache), stored.ctypes.data, stored.nbytes)
        queries = tensor(context, normal(4, 3, 40))
        node = mul_mat(context, permute(context, cache, 0, 2, 1, 3), queries)
        Graph(context, [node]).compute(state)
        assert op_of(node) == b"CUSTOM"
        found = floats_of(node, (4, 3, 70))
    keys = stored.astype(np.float64).transpose(1, 2, 0).repeat(2, 0)
    np.testing.assert_allclose(found, normal(4, 3, 40).astype(np.float64) @ keys, atol=1e-5)
