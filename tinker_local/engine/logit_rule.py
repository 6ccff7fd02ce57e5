"""What changes the logits that a sample draws from: biases, and penalties for tokens seen before.

The formulas and their order are vLLM's (``vllm/v1/sample/sampler.py``): the bias is added, then the
repetition penalty applies to tokens of the prompt and the continuation, then OpenAI's presence and
frequency penalties to those of the continuation. All of it comes before the temperature.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinker_local.kernels import LogitEdits

Edits: TypeAlias = tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Ids, biases, repetition penalties and penalties: the last four fields of ``kernels.LogitEdits``."""


@dataclass(frozen=True, slots=True, eq=False)
class LogitRule:
    """How a request changes logits.

    Attributes:
        bias: added to the logits of these ids.
        presence_penalty: subtracted for each token that was drawn.
        frequency_penalty: subtracted as many times as a token was drawn.
        repetition_penalty: divides the logits above 0, and multiplies the others, of tokens of the prompt
            and of drawn ones.
        first: what changes before a token is drawn; samples share it.
    """

    bias: Mapping[int, float]
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    first: Edits = field(repr=False)

    @classmethod
    def of(
        cls,
        prompt: NDArray[np.int32],
        bias: Mapping[int, float],
        presence_penalty: float,
        frequency_penalty: float,
        repetition_penalty: float,
    ) -> LogitRule:
        """Return the rule of a request with this prompt, int32 (n,)."""
        seen = np.unique(prompt) if repetition_penalty != 1 else prompt[:0]
        others = np.setdiff1d(np.array(list(bias), np.int32), seen)
        ids = np.concatenate([seen, others])
        repetition = np.ones(len(ids), np.float32)
        repetition[: len(seen)] = repetition_penalty
        first = (
            ids,
            np.array([bias.get(token, 0.0) for token in ids.tolist()], np.float32),
            repetition,
            np.zeros(len(ids), np.float32),
        )
        return cls(bias, presence_penalty, frequency_penalty, repetition_penalty, first)

    @property
    def is_of_drawn(self) -> bool:
        """Whether drawing a token changes its logit from then on."""
        return bool(self.presence_penalty or self.frequency_penalty) or self.repetition_penalty != 1

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return sum(part.nbytes for part in self.first) + 100 * len(self.bias)


class SampleEdits:
    """The edits of one sample's logits, by the tokens it has drawn so far."""

    __slots__ = ("_bias", "_counts", "_ids", "_penalty", "_repetition", "_rule")

    def __init__(self, rule: LogitRule) -> None:
        self._rule = rule
        self._counts: dict[int, list[int]] = {}  # by token: its place in the arrays, times drawn
        self._ids, self._bias, self._repetition = array("i"), array("f"), array("f")
        self._penalty = array("f")

    def notice(self, token: int) -> None:
        """Take account of a drawn token."""
        rule = self._rule
        if not rule.is_of_drawn:
            return
        if token not in self._counts:
            self._counts[token] = [len(self._ids), 0]
            self._ids.append(token)
            self._bias.append(rule.bias.get(token, 0.0))
            self._repetition.append(rule.repetition_penalty)
            self._penalty.append(0.0)
        place = self._counts[token]
        place[1] += 1
        self._penalty[place[0]] = rule.presence_penalty + rule.frequency_penalty * place[1]

    @property
    def parts(self) -> tuple[Edits, Edits]:
        """The request's edits, and then its own, which replace those of the same ids."""
        own = (
            np.array(self._ids, np.int32),
            np.array(self._bias, np.float32),
            np.array(self._repetition, np.float32),
            np.array(self._penalty, np.float32),
        )
        return self._rule.first, own


def edits_of(samples: list[SampleEdits | None]) -> LogitEdits:
    """Return the edits of n samples for the sampling kernel; None edits nothing."""
    parts = [() if sample is None else sample.parts for sample in samples]
    lengths = [sum(len(ids) for ids, *_ in part) for part in parts]
    flat = [edits for part in parts for edits in part]
    columns = [np.concatenate(column) for column in zip(*flat, strict=True)]
    return LogitEdits(np.cumsum([0, *lengths], dtype=np.int64), *columns)
