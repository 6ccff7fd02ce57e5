"""Checks of a request before anything is computed: a failure is a BadRequestError that names the value."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinker_local.engine.logit_rule import LogitRule
from tinker_local.engine.request import StopRule
from tinker_local.engine.scores import Targets
from tinker_local.errors import BadRequestError, BadValueError, shown
from tinker_local.types.tensor_data import TensorData, check_csr

MAX_TOPK = 1024
"""Most alternatives a request may ask for at each position."""
MAX_SAMPLES = 65_536
"""Most continuations a request may ask for."""
MOST_BIAS = 10_000.0
"""Largest ``logit_bias``, and the smallest with a minus."""
_AT_THE_END = StopRule()
_TINY, _HUGE = 1e-37, 3e38  # the kernels compute with float32


def integer(value: Any, name: str, minimum: int) -> int:
    """Return ``value`` as an int of at least ``minimum``."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise BadRequestError(f"{name} is {shown(value)}; it must be an int") from None
    if number < minimum:
        raise BadRequestError(f"{name} is {shown(number)}; it must be at least {minimum}")
    return number


def sample_count(value: Any) -> int:
    """Return a number of continuations: 1 to ``MAX_SAMPLES``."""
    count = integer(value, "num_samples", 1)
    if count > MAX_SAMPLES:
        raise BadRequestError(f"num_samples is {shown(count)}; it must be at most {MAX_SAMPLES}")
    return count


def topk_count(value: Any, name: str, n_vocab: int) -> int:
    """Return a number of alternatives: 0 to the smaller of ``MAX_TOPK`` and the vocabulary."""
    count = integer(value, name, 0)
    if count > min(MAX_TOPK, n_vocab):
        raise BadRequestError(
            f"{name} is {shown(count)}; it must be at most {MAX_TOPK}, and at most the {n_vocab} tokens of "
            "the vocabulary"
        )
    return count


def first_scored(last_n: Any, n_prompt: int, included: bool) -> int:
    """Return the first position that is scored, where ``prompt_logprobs_last_n`` is ``last_n``."""
    if last_n is None:
        return 1
    if not isinstance(last_n, int | np.integer) or isinstance(last_n, bool) or last_n < 1:
        raise BadValueError(f"prompt_logprobs_last_n is {shown(last_n)}; it must be an int of 1 or greater")
    if not included:
        raise BadValueError(
            "prompt_logprobs_last_n applies to prompt logprobs; set include_prompt_logprobs"
        )
    if last_n > n_prompt - 1:
        raise BadRequestError(
            f"prompt_logprobs_last_n is {shown(last_n)} and the prompt has {n_prompt} tokens; it must be "
            f"at most {n_prompt - 1}, since the first token has no log-probability"
        )
    return n_prompt - int(last_n)


def alternatives_count(value: Any) -> int:
    """Return ``prompt_alt_tokens_k``: 0 to ``MAX_TOPK``."""
    if isinstance(value, int | np.integer) and value < 0:
        raise BadValueError(f"prompt_alt_tokens_k is {shown(value)}; it must be 0 or greater")
    count = integer(value, "prompt_alt_tokens_k", 0)
    if count > MAX_TOPK:
        raise BadRequestError(f"prompt_alt_tokens_k is {shown(count)}; it must be at most {MAX_TOPK}")
    return count


def targets(value: Any, n_prompt: int, n_vocab: int) -> tuple[TensorData, Targets]:
    """Return ``target_prompt_logprobs`` (ours or Tinker's) as one of ours, and as the engine takes it."""
    name = "target_prompt_logprobs"
    if not all(hasattr(value, attribute) for attribute in ("dtype", "shape", "data")) or isinstance(
        value, np.ndarray
    ):
        raise BadValueError(f"{name} is a {type(value).__name__}; it must be a TensorData")
    if value.dtype != "int64":
        raise BadValueError(f"{name} is a tensor of {value.dtype}; it must be int64 token ids")
    if value.shape is None or len(value.shape) != 2:
        raise BadValueError(f"{name} has shape {value.shape}; it must be 2-D, [len(prompt) - 1, K]")
    rows, columns = (int(extent) for extent in value.shape)
    if rows != n_prompt - 1:
        raise BadRequestError(
            f"{name} has {shown(rows)} rows and the prompt {n_prompt} tokens; it must have one row for "
            f"each token but the first, {n_prompt - 1}"
        )
    begins, places = value.sparse_crow_indices, value.sparse_col_indices
    try:
        tensor = TensorData(_flat(value), "int64", list(value.shape), begins, places)
        indptr = np.arange(rows + 1, dtype=np.int64) * columns
        if begins is not None:
            indptr = np.asarray(begins, np.int64)
            columns_of = np.asarray([] if places is None else places, np.int64)
            check_csr(indptr, columns_of, value.shape, tensor._numpy.size)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequestError(f"{name}: {error}") from error
    ids = tensor._numpy.ravel()
    if ids.size == 0 or ids.max() < 0:
        raise BadRequestError(f"{name} holds no token id; give at least one, or leave it out")
    if ids.min() < -1 or ids.max() >= n_vocab:
        wrong = ids[(ids < -1) | (ids >= n_vocab)][0]
        raise BadRequestError(
            f"{name} holds {wrong}; use token ids from 0 to {n_vocab - 1}, or -1 for an empty cell"
        )
    return tensor, Targets.of(ids.astype(np.int32), indptr)


def no_targets(targets: Targets, start: int, stop: int) -> None:
    """Check that no id is to be scored at positions ``start`` to ``stop``, which are an image's."""
    if (targets.ids[targets.span(max(1, start), stop)] >= 0).any():
        raise BadRequestError(
            f"target_prompt_logprobs asks for tokens at positions {start} to {stop - 1}, which are an "
            "image; leave -1 there"
        )


def _flat(tensor: Any) -> Any:
    """Return the numbers of a TensorData without a detour by lists, if it holds an array."""
    return getattr(tensor, "_numpy", None) if hasattr(tensor, "_numpy") else tensor.data


def prompt_tokens(prompt: Any, n_vocab: int, n_ctx: int, *, only_scored: bool = False) -> NDArray[np.int32]:
    """Return the tokens of a ``ModelInput`` (ours, Tinker's, or anything with ``to_ints``).

    A prompt that is ``only_scored`` may have ``n_ctx`` + 1 tokens, since its last one need not be read.
    """
    if not hasattr(prompt, "to_ints"):
        raise BadRequestError(
            f"prompt is a {type(prompt).__name__}; it must be a ModelInput, for example "
            "ModelInput.from_ints(tokenizer.encode(text))"
        )
    try:
        given = prompt.to_ints()
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequestError(f"prompt cannot be read as token ids: {error}") from error
    tokens = token_ids(given, n_vocab)
    prompt_length(len(tokens), n_ctx, only_scored=only_scored)
    return tokens


def prompt_length(n_tokens: int, n_ctx: int, *, only_scored: bool = False) -> None:
    """Check the length of a prompt."""
    if n_tokens == 0:
        raise BadRequestError("prompt is empty; it needs at least 1 token")
    if n_tokens > n_ctx + only_scored:
        raise BadRequestError(
            f"prompt has {n_tokens} tokens and the context holds {n_ctx}; shorten it, or open the "
            "model with a larger n_ctx (up to what it was trained for)"
        )


def token_ids(given: Sequence[Any], n_vocab: int, *, first: int = 0) -> NDArray[np.int32]:
    """Return token ids as int32, shape (n,), each checked to be an int below ``n_vocab``.

    ``first`` is the place of the first in its prompt, for the message.
    """
    try:
        array = np.asarray(given)
    except (OverflowError, ValueError):
        array = np.asarray(given, dtype=object)
    is_plain = array.ndim == 1 and array.dtype.kind in "iu" and not _has_bool(given, array)
    if is_plain and len(array) and array.min() >= 0 and array.max() < n_vocab:
        return np.ascontiguousarray(array, np.int32)
    for position, token in enumerate(given, first):
        token_id(token, f"prompt token {position}", n_vocab)
    return np.array([operator.index(token) for token in given], np.int32)


def token_id(value: Any, name: str, n_vocab: int) -> int:
    """Return ``value`` as an int below ``n_vocab``."""
    token = integer(value, name, 0)
    if token >= n_vocab:
        raise BadRequestError(f"{name} is {shown(token)}; the vocabulary has ids 0 to {n_vocab - 1}")
    return token


def _has_bool(given: Sequence[Any], array: NDArray[Any]) -> bool:
    # numpy reads [1, True] as two ints
    if isinstance(given, np.ndarray):
        return False
    return any(isinstance(token, bool | np.bool_) for token in compress(given, (array <= 1).tolist()))


def generation_length(max_tokens: Any, n_prompt: int, n_ctx: int) -> int:
    """Return how many tokens to generate at most; None means to the end of the context."""
    room = max(0, n_ctx - n_prompt)
    if max_tokens is None:
        return room
    length = integer(max_tokens, "max_tokens", 0)
    if length > room:
        raise BadRequestError(
            f"prompt of {n_prompt} tokens + max_tokens of {shown(length)} are {shown(n_prompt + length)} "
            f"tokens, and the context holds {n_ctx}; lower max_tokens to {room} or open the model with a "
            "larger n_ctx (up to what it was trained for)"
        )
    return length


def temperature(value: Any) -> float:
    """Return a finite temperature of at least 0."""
    number = _real(value, "temperature")
    if not (math.isfinite(number) and number >= 0):
        raise BadRequestError(f"temperature is {shown(value)}; it must be a finite number of at least 0")
    return min(max(number, _TINY), _HUGE) if number else 0.0


def top_p(value: Any) -> float:
    """Return a probability in (0, 1]."""
    number = _real(value, "top_p")
    if not 0 < number <= 1:
        raise BadRequestError(f"top_p is {shown(value)}; it must be above 0 and at most 1")
    return max(number, _TINY)


def top_k(value: Any, n_vocab: int) -> int:
    """Return -1 (all tokens) or a number of tokens of at least 1."""
    number = integer(value, "top_k", -1)
    if number == 0:
        raise BadRequestError("top_k is 0; it must be at least 1, or -1 for all tokens")
    return -1 if number >= n_vocab else number


def min_p(value: Any) -> float:
    """Return a factor in [0, 1]."""
    return _between(value, "min_p", 0.0, 1.0)


def logit_rule(params: Any, prompt: NDArray[np.int32], n_vocab: int) -> LogitRule | None:
    """Return how sampling parameters change logits; None if they do not, as Tinker's cannot."""
    bias = logit_bias(getattr(params, "logit_bias", None), n_vocab)
    presence = _between(getattr(params, "presence_penalty", 0), "presence_penalty", -2.0, 2.0)
    frequency = _between(getattr(params, "frequency_penalty", 0), "frequency_penalty", -2.0, 2.0)
    repetition = _between(getattr(params, "repetition_penalty", 1), "repetition_penalty", 0.01, 100.0)
    if not (bias or presence or frequency) and repetition == 1:
        return None
    return LogitRule.of(prompt, bias, presence, frequency, repetition)


def logit_bias(value: Any, n_vocab: int) -> dict[int, float]:
    """Return ids and what is added to their logits, at most ``MOST_BIAS`` in size; None is nothing."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadRequestError(f"logit_bias is {shown(value)}; it must be a dict of token id to bias")
    result = {}
    for key, bias in value.items():
        token = token_id(_number_of_json(key), "an id in logit_bias", n_vocab)
        result[token] = _between(bias, f"logit_bias[{token}]", -MOST_BIAS, MOST_BIAS)
    return result


def _number_of_json(key: Any) -> Any:
    """Return the int that a key of a JSON object stands for; anything else as it is."""
    is_number = isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 20
    return int(key) if is_number else key


def lora_scale(value: Any) -> float:
    """Return a finite number."""
    number = _real(value, "lora_scale")
    if not abs(number) <= _HUGE:
        raise BadRequestError(f"lora_scale is {shown(value)}; it must be a finite number")
    return number


def seed(value: Any) -> int:
    """Return the low 64 bits of an int seed."""
    return integer(value, "seed", -(2**63)) & (2**64 - 1)


def stop_rule(stop: Any, n_vocab: int) -> StopRule:
    """Return what ``SamplingParams.stop`` means; see there."""
    if stop is None:
        return _AT_THE_END
    if isinstance(stop, str):
        return StopRule(strings=(_stop_string(stop),))
    if isinstance(stop, bytes | dict | set) or not hasattr(stop, "__iter__"):
        raise BadRequestError(f"stop is {shown(stop)}; it must be None, a str, or a list of str and int")
    items = list(stop)
    if not items:
        return StopRule(end_of_generation=False)
    return StopRule(
        tokens=frozenset(
            token_id(item, f"stop token {i}", n_vocab)
            for i, item in enumerate(items)
            if not isinstance(item, str)
        ),
        strings=tuple(_stop_string(item) for item in items if isinstance(item, str)),
    )


def _stop_string(text: str) -> bytes:
    if not text:
        raise BadRequestError("stop holds an empty string, which would stop at once; leave it out")
    return text.encode("utf-8", "surrogatepass")


def _between(value: Any, name: str, least: float, most: float) -> float:
    number = _real(value, name)
    if not least <= number <= most:
        raise BadRequestError(f"{name} is {shown(value)}; it must be from {least:g} to {most:g}")
    return number


def _real(value: Any, name: str) -> float:
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise BadRequestError(f"{name} is {shown(value)}; it must be a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError) as error:
        raise BadRequestError(f"{name} is {shown(value)}; it must be a number: {error}") from None
