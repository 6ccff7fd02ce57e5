"""Safetensors headers that lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.errors import CheckpointError
from convert.source.safetensors_file import read_tensors
from tests.random_checkpoints.plain import DTYPES, write_raw, write_safetensors

DATA = bytes(range(48))


def entry(shape: Any = (2, 3), offsets: Any = (0, 24), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


GOOD = {"a": entry(), "b": entry(offsets=(24, 48))}


def test_reads_what_was_written(tmp_path: Path) -> None:
    arrays = {
        name: np.arange(6).reshape(2, 3).astype(dtype) for name, dtype in DTYPES.items() if name != "U8"
    }
    arrays |= {"scalar": np.array(7, np.int64), "empty": np.zeros((0, 4), np.float32)}
    write_safetensors(tmp_path / "x.safetensors", arrays)
    tensors = read_tensors(tmp_path / "x.safetensors")
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert tensors[name].shape == array.shape
        assert tensors[name].n_bytes == array.nbytes
        assert np.array_equal(tensors[name].array(), array)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (GOOD | {"b": entry(offsets=(24, 72), shape=(4, 3))}, "ends at byte"),
        (GOOD | {"b": entry(offsets=(20, 44))}, "b overlaps a"),
        (GOOD | {"b": entry(offsets=(28, 52))}, "b leaves a gap after a"),
        ({"a": entry()}, "24 bytes after a"),
        ({"b": entry(offsets=(24, 48))}, "b leaves a gap after the header"),
        (GOOD | {"b": entry(offsets=(48, 24))}, "data_offsets"),
        (GOOD | {"b": entry(offsets=(-24, 0))}, "data_offsets"),
        (GOOD | {"b": entry(offsets=(24.0, 48))}, "data_offsets"),
        (GOOD | {"b": entry(offsets=(24, 48, 72))}, "data_offsets"),
        (GOOD | {"b": entry(offsets="24")}, "data_offsets"),
        (GOOD | {"b": entry(offsets=(24, True))}, "data_offsets"),
        (GOOD | {"b": entry(offsets=(2**64, 2**64 + 24))}, "leaves a gap"),
        (GOOD | {"b": entry(shape=(-2, -3))}, "shape"),
        (GOOD | {"b": entry(shape=(2, 3.0))}, "shape"),
        (GOOD | {"b": entry(shape=None)}, "shape"),
        (GOOD | {"b": entry(shape=[1] * 9)}, "shape"),
        (GOOD | {"b": entry(shape=(2**40, 2**40))}, "24 bytes; F32 of shape"),
        (GOOD | {"b": entry(shape=(2, 4))}, "24 bytes; F32 of shape"),
        (GOOD | {"b": entry(dtype="F16")}, "24 bytes; F16 of shape"),
        (GOOD | {"b": entry(dtype="Q4")}, "dtype 'Q4'"),
        (GOOD | {"b": entry(dtype=["F32"])}, "dtype"),
        (GOOD | {"b": entry() | {"more": 1}}, "dtype, shape and data_offsets"),
        (GOOD | {"b": {"dtype": "F32"}}, "dtype, shape and data_offsets"),
        (GOOD | {"b": 3}, "dtype, shape and data_offsets"),
        (GOOD | {"b\0": entry(offsets=(24, 48))}, "cannot be printed"),
        (GOOD | {"\ud800": entry(offsets=(24, 48))}, "cannot be printed"),
    ],
)
def test_headers_that_lie(tmp_path: Path, header: dict[str, Any], said: str) -> None:
    path = tmp_path / "x.safetensors"
    write_raw(path, json.dumps(header).encode(), DATA)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("header", "length", "said"),
    [
        (b"{}", 2**63, "at most 100000000"),
        (b"{}", 2**64 - 1, "at most 100000000"),
        (b"{}", 100_000_001, "at most 100000000"),
        (b"{}", 4000, "cut off: its header has 4000 bytes"),
        (b"[]", None, "holds a list where a table is needed"),
        (b"{}", 1, "not JSON"),
        (b"", None, "48 bytes|not JSON"),
        (b'{"a": 1', None, "not JSON"),
        (b"\xff\xfe{}", None, "not JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", None, "not JSON"),
        (b'{"a": {"dtype": "U8", "dtype": "I8"}}', None, "'dtype' twice"),
        (json.dumps(GOOD).replace('"b"', '"a"').encode(), None, "'a' twice"),
    ],
)
def test_headers_that_are_none(tmp_path: Path, header: bytes, length: int | None, said: str) -> None:
    path = tmp_path / "x.safetensors"
    write_raw(path, header, DATA, length)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("n", range(10))
def test_files_of_a_few_bytes(tmp_path: Path, n: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(n))
    with pytest.raises(CheckpointError):
        read_tensors(path)
