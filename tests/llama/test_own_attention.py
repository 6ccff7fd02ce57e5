"""A request's bits on a cache that sequences share, where it is empty and where it is full of others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.benchmarks.memory import resident
from tests.random_model import Architecture, Shape, write_random_model
from tinker_local.llama.backend import start_backend
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan, cell_bytes
from tinker_local.llama.model import Model, load_model
from tinker_local.options import KvType

N_TOKENS, PIECES = 130, (70, 1, 40, 1, 1, 17)
TOKENS = np.random.default_rng(0).integers(0, 256, (8, N_TOKENS))


@dataclass(frozen=True)
class Opened:
    model: Model
    kv_type: KvType

    def context(self, *, own_attention: bool = True) -> Context:
        plan = ContextPlan(
            n_ctx=1024,
            n_sequences=8,
            n_batch=128,
            n_rows=128,
            n_threads=1,
            kv_type=self.kv_type,
            flash_attn=True,
            own_attention=own_attention,
        )
        return Context(self.model, plan)


KINDS: list[tuple[Architecture, KvType]] = [
    ("llama", "f16"),
    ("llama", "f32"),
    ("llama", "q8_0"),
    ("gemma3", "f16"),
    ("jamba", "f16"),
]


@pytest.fixture(scope="module", params=KINDS, ids=" ".join)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    architecture, kv_type = request.param
    start_backend()
    path = tmp_path_factory.mktemp("models") / "m.gguf"
    return Opened(load_model(write_random_model(path, architecture, Shape(n_embd=128)), 0), kv_type)


def decode(context: Context, sequence: int, start: int, stop: int) -> NDArray[np.float32]:
    """Compute some tokens of a sequence; return their logits."""
    batch, n = context.batch, stop - start
    batch.tokens[:n], batch.positions[:n] = TOKENS[sequence, start:stop], range(start, stop)
    batch.sequences[:n], batch.flags[:n] = sequence, 1
    context.decode(n)
    return context.logits(n).copy()


def answer(context: Context, *, crowded: bool) -> NDArray[np.float32]:
    """Compute sequence 0 in pieces, between which others may come and go."""
    rows, start = list[NDArray[np.float32]](), 0
    for number, size in enumerate(PIECES):
        if crowded:
            context.remove_sequence(1 + (number + 4) % 7)
            context.remove_sequence(1 + number % 7)
            decode(context, 1 + number % 7, 0, 20 + 17 * number)
        rows.append(decode(context, 0, start, start + size))
        start += size
    assert start == N_TOKENS
    return np.concatenate(rows)


def test_bits_do_not_depend_on_what_else_the_cache_holds(opened: Opened) -> None:
    expected = answer(opened.context(), crowded=False)
    context = opened.context()
    for _ in range(2):
        assert np.array_equal(answer(context, crowded=True), expected)
        context.remove_sequence(0)


def test_numbers_are_those_of_llama_cpp(opened: Opened) -> None:
    ours, theirs = (answer(opened.context(own_attention=own), crowded=True) for own in (True, False))
    assert not np.array_equal(ours, theirs), "our attention was not used"
    most = 0.1 if opened.kv_type == "q8_0" else 0.02  # llama.cpp rounds queries to 8 bits too
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=most)


def test_a_copied_prefix_has_the_bits_of_its_source(opened: Opened) -> None:
    context = opened.context()
    n_prefix = PIECES[0]
    expected = answer(context, crowded=False)[n_prefix:]
    context.remove_sequence(0)
    decode(context, 3, 0, 50)
    decode(context, 0, 0, n_prefix)
    context.copy_sequence(0, 1, n_prefix)
    decode(context, 3, 50, 61)
    context.remove_sequence(0)
    context.copy_sequence(1, 0, n_prefix)
    rows, start = list[NDArray[np.float32]](), n_prefix
    for size in PIECES[1:]:
        rows.append(decode(context, 0, start, start + size))
        start += size
    assert np.array_equal(np.concatenate(rows), expected)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident set from /proc")
def test_cells_take_memory_when_they_are_used(model_path: Path) -> None:
    """llama.cpp writes zeros to a whole new cache; our kernels give it back before the first write."""
    start_backend()
    model = load_model(model_path, -1)
    plan = ContextPlan(
        n_ctx=8192, n_sequences=2, n_batch=8, n_rows=8, n_threads=1, flash_attn=True, own_attention=True
    )
    context = Context(model, plan)
    whole = cell_bytes(model, "f16") * context.n_cells
    assert whole > 150 << 20
    before = resident()
    first = decode(context, 0, 0, 8)
    assert before - resident() > 0.7 * whole, "the cache is still in memory"
    second = decode(context, 1, 0, 8)
    for sequence, expected in enumerate((first, second)):
        context.remove_sequence(sequence)
        assert np.array_equal(decode(context, sequence, 0, 8), expected)
