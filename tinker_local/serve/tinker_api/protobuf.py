"""A SampleResponse in Tinker's protobuf form, which SDKs since 0.18 read.

The messages (field numbers as in ``tinker.proto.tinker_public_pb2`` of the SDK 0.38):

    SampleResponse   1 repeated SampledSequence   2 prompt_logprobs, float32, NaN for none
                     3 TopkLogprobs of the prompt   4 prompt_cache_hit_tokens
                     5 Tensor target_prompt_logprobs   6 PromptAltTokens
    SampledSequence  1 stop_reason: STOP = 0, LENGTH = 1   2 tokens, int32   3 logprobs, float32
                     4 TopkLogprobs
    TopkLogprobs     1 token_ids, int32   2 logprobs, float32   3 k   4 length
    Tensor           1 dense | 2 SparseCsr {1 values, 2 crow_indices, 3 col_indices, int64}
                     3 DType: F32 = 1, I64 = 2   4 repeated int64 shape, packed
    PromptAltTokens  1 Tensor tokens   2 Tensor logprobs

Arrays travel as little-endian bytes. The encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinker_local.types import SampledSequence, SampleResponse, TensorData, TopkLogprobs

MEDIA_TYPE = "application/x-protobuf"
_STOP_REASONS = {"stop": 0, "length": 1}
_DTYPES = {"float32": 1, "int64": 2}


def encode_response(response: SampleResponse) -> bytes:
    """Return the bytes of a response."""
    parts = [_field(1, _sequence(sequence)) for sequence in response.sequences]
    if response.prompt_logprobs_np is not None:
        parts.append(_field(2, _array(response.prompt_logprobs_np, "<f4")))
    if response.topk_prompt_logprobs_np is not None:
        parts.append(_field(3, _topk(response.topk_prompt_logprobs_np)))
    parts.append(_number(4, response.prompt_cache_hit_tokens))
    if response.target_prompt_logprobs is not None:
        parts.append(_field(5, _tensor(response.target_prompt_logprobs)))
    if response.prompt_alt_tokens is not None:
        drawn = response.prompt_alt_tokens
        parts.append(_field(6, _field(1, _tensor(drawn.tokens)) + _field(2, _tensor(drawn.logprobs))))
    return b"".join(parts)


def _sequence(sequence: SampledSequence) -> bytes:
    parts = [_number(1, _STOP_REASONS[sequence.stop_reason])]
    parts.append(_field(2, _array(sequence.tokens_np, "<i4")))
    if sequence.logprobs_np is not None:
        parts.append(_field(3, _array(sequence.logprobs_np, "<f4")))
    if sequence.topk_logprobs_np is not None:
        parts.append(_field(4, _topk(sequence.topk_logprobs_np)))
    return b"".join(parts)


def _topk(topk: TopkLogprobs) -> bytes:
    length, k = topk.token_ids.shape
    arrays = _field(1, _array(topk.token_ids, "<i4")) + _field(2, _array(topk.logprobs, "<f4"))
    return arrays + _number(3, k) + _number(4, length)


def _tensor(tensor: TensorData) -> bytes:
    values = _array(tensor._numpy, "<f4" if tensor.dtype == "float32" else "<i8")
    if tensor.sparse_crow_indices is None:
        data = _field(1, values)
    else:
        rows, columns = tensor.sparse_crow_indices, tensor.sparse_col_indices or []
        data = _field(
            2, _field(1, values) + _field(2, _array(rows, "<i8")) + _field(3, _array(columns, "<i8"))
        )
    shape = tensor.shape if tensor.shape is not None else [tensor._numpy.size]
    return data + _number(3, _DTYPES[tensor.dtype]) + _field(4, b"".join(map(_varint, shape)))


def _array(values: NDArray[Any] | Sequence[int] | None, dtype: str) -> bytes:
    return np.ascontiguousarray([] if values is None else values, dtype).tobytes()


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    """Return a field of a number, which is left out where it is 0."""
    return _varint(number << 3) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    return bytes(_septets(value))


def _septets(value: int) -> Iterable[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


__all__ = ["MEDIA_TYPE", "encode_response"]
