"""What batch invariance decides before a context is made, in each case that there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.random_model import write_random_model
from tinker_local.engine import invariance
from tinker_local.engine.invariance import MAX_TOKENS, invariant_plan
from tinker_local.llama.context_plan import CacheType, ContextPlan
from tinker_local.llama.model import Model, load_model
from tinker_local.options import KvType

USUAL = ContextPlan(n_ctx=100, n_sequences=64, n_batch=200, n_rows=200, n_threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf"), 0)


@pytest.mark.parametrize(
    ("kv_type", "is_known", "is_latent", "flash_attn", "value_type", "own_attention"),
    [
        ("f16", True, False, True, None, True),
        ("f16", True, True, True, None, True),
        ("f16", False, False, True, "bf16", False),
        ("f16", False, True, False, None, False),
        ("f32", True, False, False, None, False),
        ("f32", False, True, False, None, False),
    ],
)
def test_attention(
    kv_type: KvType,
    is_known: bool,
    is_latent: bool,
    flash_attn: bool,
    value_type: CacheType | None,
    own_attention: bool,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invariance, "graph_callback", lambda: 1 if is_known else None)
    monkeypatch.setattr(model, "is_latent", is_latent)
    usual = ContextPlan(n_ctx=100, n_sequences=64, n_batch=200, n_rows=200, n_threads=1, kv_type=kv_type)
    plan = invariant_plan(usual, model)
    assert (plan.kv_type, plan.flash_attn) == (kv_type, flash_attn)
    assert (plan.value_type, plan.own_attention) == (value_type, own_attention)


def test_streams(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = invariant_plan(USUAL, model)
    assert (plan.kv_unified, plan.swa_full, plan.n_spare_cells) == (False, True, MAX_TOKENS)
    assert (plan.n_ctx, plan.n_batch, plan.n_rows) == (100, 200, 200)
    assert plan.n_cells == plan.n_sequences * 256
    assert 4 <= plan.n_sequences <= 32
    monkeypatch.setattr(invariance, "main_memory", lambda: 41 * plan.stream_bytes(model))
    assert invariant_plan(USUAL, model).n_sequences == 8, "an eighth has room for 5, a quarter for 10"
    monkeypatch.setattr(invariance, "main_memory", lambda: 21 * plan.stream_bytes(model))
    assert invariant_plan(USUAL, model).n_sequences == 4
    monkeypatch.setattr(invariance, "main_memory", lambda: 250 * plan.stream_bytes(model))
    assert invariant_plan(USUAL, model).n_sequences == 28


def test_beside_blas_batches_are_small(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invariance, "kinds", lambda: {"BLAS": invariance.ACCELERATOR})
    plan = invariant_plan(USUAL, model)
    assert (plan.n_batch, plan.n_rows) == (24, 24)
    assert plan.n_sequences <= 8


def test_memory_that_a_plan_needs(model: Model) -> None:
    cell, logits = model.kv_numbers * 2, 2 * 4 * 200 * model.n_vocab
    assert USUAL.needed_bytes(model) == 100 * cell + logits
    plan = invariant_plan(USUAL, model)
    assert plan.needed_bytes(model) == plan.n_sequences * 256 * cell + logits


def test_a_window_keeps_fewer_cells(tmp_path: Path) -> None:
    model = load_model(write_random_model(tmp_path / "window.gguf", "gemma3"), 0)
    assert model.sliding_window > 0
    usual = ContextPlan(n_ctx=4096, n_sequences=1, n_batch=8, n_rows=8, n_threads=1)
    cells = model.sliding_window + 8
    assert usual.needed_bytes(model) == int(cells * model.kv_numbers * 2) + 2 * 4 * 8 * model.n_vocab
    assert invariant_plan(usual, model).needed_bytes(model) > 4 * 4096 * model.kv_numbers * 2
