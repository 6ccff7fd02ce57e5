"""A decode that is aborted ends soon, and contexts, flags and models go in a safe order."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import llama_cpp
import numpy as np
import pytest

from tests.random_model import Shape, write_random_model
from tinker_local import kernels
from tinker_local.llama.context import ABORTED, Context, DecodeError
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.model import Model, load_model

PLAN = ContextPlan(n_ctx=1024, n_sequences=1, n_batch=1024, n_rows=1, n_threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Layers enough for 1,000 tokens to take a good part of a second."""
    path = tmp_path_factory.mktemp("models") / "deep.gguf"
    return load_model(write_random_model(path, shape=Shape(n_embd=128, n_ff=512, n_layer=16)), 0)


def decode(context: Context, n: int) -> None:
    context.remove_sequence(0)
    batch = context.batch
    batch.tokens[:n], batch.positions[:n] = 7, np.arange(n)
    batch.sequences[:n], batch.flags[:n] = 0, 0
    batch.flags[n - 1] = 1
    context.decode(n)


def test_a_decode_in_progress_ends(model: Model) -> None:
    context = Context(model, PLAN)
    begun = time.perf_counter()
    decode(context, 1000)
    whole = time.perf_counter() - begun
    timer = threading.Timer(whole / 10, context.abort)
    timer.start()
    with pytest.raises(DecodeError) as raised:  # a decode that goes on to its end raises nothing
        decode(context, 1000)
    assert raised.value.code == ABORTED
    with pytest.raises(DecodeError, match="aborted"):  # and all to come
        decode(context, 10)
    timer.join()
    context.close()


def test_one_contexts_flag_is_not_anothers(model: Model) -> None:
    aborted, other = Context(model, PLAN), Context(model, PLAN)
    aborted.abort()
    decode(other, 10)
    with pytest.raises(DecodeError):
        decode(aborted, 10)


def test_the_flag_outlives_the_context_and_no_longer(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # what other tests left is not noted
    order: list[str] = []
    free = llama_cpp.llama_free

    def note(handle: object) -> None:
        order.append("context")
        free(handle)

    monkeypatch.setattr(llama_cpp, "llama_free", note)
    context = Context(model, PLAN)
    weakref.finalize(context._abort_flag, order.append, "flag")
    del context
    gc.collect()
    assert order == ["context", "flag"]


def test_aborting_after_the_close_does_no_harm(model: Model) -> None:
    context = Context(model, PLAN)
    context.close()
    context.abort()


def test_many_contexts_leave_no_flags_behind(model: Model) -> None:
    flags: weakref.WeakSet[kernels.AbortFlag] = weakref.WeakSet()
    for _ in range(5):
        context = Context(model, PLAN)
        flags.add(context._abort_flag)
        context.close()
        del context
    gc.collect()
    assert not flags
