from __future__ import annotations

import ctypes
import pickle
from typing import Any

import numpy as np
import pytest

from tests.kernels.rows import requests
from tinker_local import kernels
from tinker_local.kernels import reference

LOGITS = np.zeros((2, 10), dtype=np.float32)


def int32(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def uint64(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def edits(**changed: Any) -> kernels.LogitEdits:
    one = np.ones(1, np.float32)
    good: dict[str, Any] = {"indptr": np.array([0, 1, 1]), "ids": int32(3)}
    return kernels.LogitEdits(**{**good, "bias": one, "repetition": one, "penalty": one, **changed})


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        ({"logits": [[0.0]]}, TypeError, "logits .* float32, not list"),
        ({"logits": LOGITS.astype(np.float64)}, TypeError, "logits .* float32, not of float64"),
        ({"logits": LOGITS[:, ::2]}, ValueError, "logits .* C-contiguous .* gaps"),
        ({"logits": LOGITS.T}, ValueError, "logits .* C-contiguous"),
        ({"logits": LOGITS[0]}, ValueError, r"logits .* \(rows, vocabulary\), not \(10,\)"),
        ({"logits": LOGITS[:, :0]}, ValueError, r"logits .* \(2, 0\)"),
        ({"rows": np.array([0])}, TypeError, "rows .* int32, not of int64"),
        ({"rows": int32(0, 2)}, ValueError, r"rows\[1\] is 2, not one of the 2 rows"),
        ({"rows": int32(-1)}, ValueError, r"rows\[0\] is -1"),
        ({"rows": int32(0)[None]}, ValueError, r"rows .* \(1, 1\)"),
        ({"targets": int32(0)}, ValueError, r"targets must have shape \(2,\), not \(1,\)"),
        ({"targets": int32(0, 10)}, ValueError, r"targets\[1\] is 10, not -1 or an id below 10"),
        ({"targets": int32(-2, 0)}, ValueError, r"targets\[0\] is -2"),
        ({"topk": 11}, ValueError, "topk is 11, not between 0 and 10 .*vocabulary of 10"),
        ({"topk": -1}, ValueError, "topk is -1"),
        ({"ids": int32(0, 1)}, ValueError, r"ids without ids_indptr .* \(2, k\), not \(2,\)"),
        ({"ids": int32(0, 99)[:, None]}, ValueError, r"ids\[1\] is 99"),
        (
            {"ids": int32(0, 1), "ids_indptr": np.array([0, 1, 3])},
            ValueError,
            "ids_indptr must rise from 0 to the length of ids, 2",
        ),
        (
            {"ids": int32(0, 1), "ids_indptr": np.array([0, 3, 2])},
            ValueError,
            "ids_indptr must rise",
        ),
        ({"ids": int32(0), "ids_indptr": np.array([0, 1])}, ValueError, r"ids_indptr .* \(3,\)"),
        ({"ids_indptr": np.array([0, 0, 0])}, ValueError, "without ids"),
        ({"alt_k": 2}, ValueError, "alt_k was given without positions"),
        ({"alt_k": -1}, ValueError, "alt_k is -1"),
        ({"alt_temperature": -0.5}, ValueError, "alt_temperature is -0.5"),
        ({"alt_temperature": float("nan")}, ValueError, "alt_temperature is nan"),
        ({"positions": int32(0, 0)}, TypeError, "positions .* uint64, not of int32"),
        ({"n_threads": 0}, ValueError, "n_threads is 0"),
    ],
)
def test_bad_arguments_of_score_rows(wanted: dict[str, Any], error: type[Exception], says: str) -> None:
    logits = wanted.pop("logits", LOGITS) if "logits" in wanted else LOGITS
    with pytest.raises(error, match=says):
        kernels.score_rows(logits, **wanted)


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"temperature": np.float32([-1, 1])}, ValueError, r"temperature\[0\] is -1"),
        ({"temperature": np.float32([0, np.inf])}, ValueError, r"temperature\[1\] is inf"),
        ({"temperature": np.ones(2)}, TypeError, "temperature .* float32, not of float64"),
        ({"top_k": int32(0, 1)}, ValueError, r"top_k\[0\] is 0, not -1 or at least 1"),
        ({"top_p": np.float32([1, 0])}, ValueError, r"top_p\[1\] is 0.*, not in \(0, 1\]"),
        ({"top_p": np.float32([1, np.nan])}, ValueError, r"top_p\[1\] is nan"),
        ({"top_p": np.float32([1, 1.5])}, ValueError, r"top_p\[1\] is 1.5"),
        ({"min_p": np.float32([0, 1.5])}, ValueError, r"min_p\[1\] is 1.5.*, not in \[0, 1\]"),
        ({"edits": edits(ids=int32(10))}, ValueError, r"edits.ids\[0\] is 10.*, not an id below 10"),
        ({"edits": edits(indptr=np.array([0, 2, 1]))}, ValueError, "edits.indptr must rise from 0"),
        ({"edits": edits(bias=np.float32([np.inf]))}, ValueError, r"edits.bias\[0\] is inf.*, not finite"),
        ({"edits": edits(repetition=np.float32([0]))}, ValueError, r"edits.repetition\[0\] is 0.*above 0"),
        ({"edits": edits(penalty=np.float32([1, 2]))}, ValueError, r"edits.penalty must have shape \(1,\)"),
        ({"edits": edits(penalty=None)}, TypeError, "edits.penalty .* not NoneType"),
        ({"seed": uint64(1)}, ValueError, r"seed must have shape \(2,\), not \(1,\)"),
        ({"sample": int32(1, 1)}, TypeError, "sample .* uint64"),
        ({"position": uint64(1, 1, 1)}, ValueError, "position must have shape"),
        ({"rows": int32(0, 5)}, ValueError, r"rows\[1\] is 5"),
        ({"topk": 1025}, ValueError, "topk is 1025"),
    ],
)
def test_bad_arguments_of_sample_rows(changed: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        kernels.sample_rows(LOGITS, **{**requests(2), **changed})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({3: np.nan}, "holds NaN"),
        ({3: -np.nan}, "holds NaN"),
        ({0: np.inf}, r"holds \+inf"),
        ({299: np.inf}, r"holds \+inf"),
        ({1: np.inf, 2: np.nan}, "holds NaN"),
        (dict.fromkeys(range(300), np.nan), "holds NaN"),
        (dict.fromkeys(range(300), -np.inf), "is all -inf"),
        ({**dict.fromkeys(range(300), -np.inf), 280: np.nan}, "holds NaN"),
    ],
)
def test_rows_that_are_no_distribution(values: dict[int, float], says: str, simd_path: str) -> None:
    logits = np.random.default_rng(0).standard_normal((6, 300)).astype(np.float32)
    for r in (2, 4):
        logits[r, list(values)] = list(values.values())
    calls = [
        lambda module: module.score_rows(logits),
        lambda module: module.sample_rows(logits, **requests(6, rows=np.arange(6))),
        lambda module: module.sample_rows(logits, **requests(3, rows=[5, 2, 4], temperature=0)),
    ]
    for call in calls:
        for module in (kernels, reference):
            with pytest.raises(kernels.LogitsError, match=f"row 2 of the logits {says}") as caught:
                call(module)
            assert caught.value.row == 2
            assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_any_nan_is_found(simd_path: str) -> None:
    for word in (0x7FC00000, 0xFFC00000, 0x7FC001FF, 0x7F800001, 0xFFFFFFFF):
        logits = np.zeros((1, 600), dtype=np.float32)
        logits.view(np.uint32)[0, 333] = word
        with pytest.raises(kernels.LogitsError, match="NaN"):
            kernels.score_rows(logits)


def test_rows_not_asked_for_may_hold_anything() -> None:
    logits = np.zeros((2, 4), dtype=np.float32)
    logits[0] = np.nan
    assert kernels.score_rows(logits, rows=int32(1)).logsumexp[0] == pytest.approx(np.log(4))


def test_memory_of_others_is_read_where_it_lies() -> None:
    memory = (ctypes.c_float * 30)(*range(30))
    pointer = ctypes.cast(memory, ctypes.POINTER(ctypes.c_float))
    view = np.ctypeslib.as_array(pointer, shape=(3, 10))
    view.flags.writeable = False
    scores = kernels.score_rows(view, rows=int32(1), targets=int32(9))
    assert scores.logsumexp[0] == pytest.approx(reference.logsumexp(np.arange(10.0, 20.0)))
    memory[19] = 100.0
    assert kernels.score_rows(view, rows=int32(1)).logsumexp[0] == pytest.approx(100)


def test_a_chosen_path_stays_when_amx_is_asked_for() -> None:
    before = kernels.simd_path()
    kernels.use_simd_path("portable")
    assert kernels.request_amx() is ("amx" in kernels.simd_paths())
    assert kernels.simd_path() == "portable"
    kernels.use_simd_path(before)
