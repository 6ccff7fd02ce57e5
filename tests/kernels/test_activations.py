"""GELU against float64, alone and with gates, in graphs that ggml makes and computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kernels.ggml_graphs import (
    POINTER,
    Graph,
    ask,
    floats_of,
    ggml_memory,
    op_of,
    tensor,
    view_4d,
)
from tinker_local import kernels
from tinker_local.llama.ggml import bind

Numbers = NDArray[np.float32]


def tanh_form(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function of twice the tanh's argument: nothing cancels where x < 0."""
    return x / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def quick_form(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / (1 + np.exp(-1.702 * x))


@dataclass(frozen=True)
class Activation:
    """A function of ggml's, of one tensor or of two, and what it computes."""

    name: str
    n_sources: int
    gelu: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    halves: int = 0
    """Which half of a row is activated, the first or the second; 0 where rows are whole."""

    def node(self, context: int, *sources: int) -> int:
        function = bind(f"ggml_{self.name}", POINTER, *[POINTER] * (1 + self.n_sources))
        return int(function(context, *sources))

    def exact(self, x: Numbers, gates: Numbers) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            activated = self.gelu(x.astype(np.float64))
        return activated if self.n_sources == 1 and not self.halves else activated * gates

    def ours(self, x: Numbers, gates: Numbers, n_threads: int = 1, n_times: int = 1) -> Numbers:
        sources = [x, gates][: self.n_sources]
        if self.halves:
            sources = [np.concatenate([x, gates] if self.halves == 1 else [gates, x], -1)]
        with ggml_memory(2 * (x.nbytes + gates.nbytes)) as context:
            node = self.node(context, *(tensor(context, source) for source in sources))
            graph = Graph(context, [node])
            for _ in range(n_times):
                graph.compute(kernels.GraphState(), n_threads)
                assert op_of(node) == b"CUSTOM"
            return floats_of(node, x.shape)


ALL = [
    Activation("gelu", 1, tanh_form),
    Activation("gelu_inplace", 1, tanh_form),
    Activation("gelu_quick", 1, quick_form),
    Activation("geglu", 1, tanh_form, halves=1),
    Activation("geglu_swapped", 1, tanh_form, halves=2),
    Activation("geglu_quick", 1, quick_form, halves=1),
    Activation("geglu_split", 2, tanh_form),
    Activation("geglu_quick_split", 2, quick_form),
]


def inputs(*shape: int, scale: float = 2.0) -> tuple[Numbers, Numbers]:
    rng = np.random.default_rng(sum(shape))
    x, gates = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    return scale * x, gates


@pytest.mark.parametrize("activation", ALL, ids=lambda found: found.name)
@pytest.mark.parametrize("shape", [(1,), (3, 15), (2, 3, 16), (2, 2, 3, 37), (2, 5000)], ids=str)
def test_against_float64(activation: Activation, shape: tuple[int, ...], simd_path: str) -> None:
    x, gates = inputs(*shape)
    np.testing.assert_allclose(
        activation.ours(x, gates), activation.exact(x, gates), rtol=1.5e-7, atol=1e-7
    )


@pytest.mark.parametrize("activation", [ALL[0], ALL[2]], ids=lambda found: found.name)
def test_every_size_of_number(activation: Activation, simd_path: str) -> None:
    sizes = np.concatenate([10.0 ** np.arange(-38, 38), np.linspace(0, 64, 20000)])
    x = np.concatenate([sizes, -sizes]).astype(np.float32)
    found, exact = activation.ours(x, x), activation.exact(x, x)
    assert np.max(np.abs(found - exact) / np.maximum(np.abs(exact), 1)) < 2e-7
    small = np.abs(x) < 1
    assert np.max(np.abs(found - exact)[small] / np.maximum(np.abs(exact), 1e-38)[small]) < 4e-7


@pytest.mark.parametrize("activation", [ALL[0], ALL[2]], ids=lambda found: found.name)
def test_what_is_no_number_stays_none(activation: Activation, simd_path: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 3e38, -3e38, 0.0, -0.0], np.float32)
    expected = np.array([np.inf, 0, np.nan, 3e38, 0, 0, 0], np.float32)
    np.testing.assert_array_equal(activation.ours(x, x), expected)


@pytest.mark.parametrize("activation", ALL, ids=lambda found: found.name)
def test_bits_are_those_of_every_path_and_number_of_threads(activation: Activation) -> None:
    before, outputs = kernels.simd_path(), []
    for path in kernels.simd_paths():
        kernels.use_simd_path(path)
        outputs += [activation.ours(*inputs(3, 4999), n, 2) for n in (1, 3)]
    kernels.use_simd_path(before)
    assert all(np.array_equal(output, outputs[0]) for output in outputs)


def test_rows_need_not_follow_each_other() -> None:
    x, _ = inputs(4, 3, 40)
    with ggml_memory(4 * x.nbytes) as context:
        whole = tensor(context, x)
        rows = view_4d(context, whole, 24, 3, 4, 1, *(4 * n for n in (40, 120, 480)), 4 * 8)
        gelu, geglu = ALL[0].node(context, rows), ALL[3].node(context, rows)
        Graph(context, [gelu, geglu]).compute(kernels.GraphState())
        part = x[..., 8:32].astype(np.float64)
        np.testing.assert_allclose(floats_of(gelu, (4, 3, 24)), tanh_form(part), atol=2e-7, rtol=2e-7)
        gated = tanh_form(part[..., :12]) * part[..., 12:]
        np.testing.assert_allclose(floats_of(geglu, (4, 3, 12)), gated, atol=1e-6, rtol=2e-7)


@pytest.mark.parametrize("name", ["silu", "relu", "gelu_erf", "tanh", "swiglu", "reglu", "geglu_erf"])
def test_other_activations_are_left_alone(name: str) -> None:
    x, _ = inputs(2, 32)
    with ggml_memory(4 * x.nbytes) as context:
        node = Activation(name, 1, tanh_form).node(context, tensor(context, x))
        ask(node, kernels.GraphState())
        assert op_of(node) != b"CUSTOM"
