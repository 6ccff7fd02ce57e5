"""config.json: settings for the model families. Settings that matter and that nobody read are refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from convert.errors import CheckpointError, UnsupportedError

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "attention_multiplier": (None, 1.0),
    "attn_logit_softcapping": (None,),
    "clip_qkv": (None,),
    "embedding_multiplier": (None, 1.0),
    "final_logit_softcapping": (None,),
    "is_causal": (None, True),
    "logit_scale": (None, 1.0),
    "logits_scaling": (None, 1.0),
    "mlp_bias": (False,),
    "partial_rotary_factor": (None, 1.0),
    "qk_layernorm": (None, False),
    "quantization_config": (None,),
    "residual_multiplier": (None, 1.0),
    "rope_scaling": (None,),
    "sliding_window": (None,),
    "use_bidirectional_attention": (None, False),
    "use_qk_norm": (None, False),
}
"""Settings that change the computation, with the values that leave it as it is. A family that has not
asked for one of these cannot express any other value of it."""


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: base frequency, share of the head that turns, and its scaling.

    ``scaling`` is empty for the plain kind, else has ``rope_type`` and its parameters, whichever
    version of transformers wrote them.
    """

    theta: float
    partial: float = 1.0
    scaling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of scaling: ``default``, ``linear``, ``llama3``, ``yarn``, ``longrope``, ..."""
        return str(self.scaling.get("rope_type", "default"))

    def number(self, key: str, default: float | None = None) -> float:
        """Return a positive parameter of the scaling. Raises CheckpointError if it is something else."""
        value = self.scaling.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise CheckpointError(
                f"config.json: {key} of the {self.kind} rotary scaling must be a positive number, not "
                f"{value!r}"
            )
        return float(value)

    def numbers(self, key: str, count: int) -> list[float]:
        """Return a list of ``count`` positive numbers of the scaling. Raises CheckpointError otherwise."""
        values = self.scaling.get(key)
        numeric = isinstance(values, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and 0 < v < math.inf for v in values
        )
        if not isinstance(values, list) or not numeric or len(values) != count:
            raise CheckpointError(
                f"config.json: {key} of the {self.kind} rotary scaling must be a list of {count} positive "
                f"numbers, one for each pair of the head, not {_short(values)}"
            )
        return [float(value) for value in values]


class Config:
    """The settings of one model; remembers which were read.

    Args:
        values: config.json, or the ``text_config`` in it.
        where: the file's name in messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str = "config.json") -> None:
        self._values, self._where = values, where
        self._read: set[str] = set()

    def completed(self, defaults: Mapping[str, Any], aliases: Mapping[str, str]) -> Config:
        """Return a copy with what the file leaves out, as transformers completes it.

        Args:
            defaults: by the settings' names. A setting that is there, even as null, has none.
            aliases: other names of settings, each with the name it stands for where that is left out.
        """
        others = {own: self._values[other] for other, own in aliases.items() if other in self._values}
        return self._copy({**defaults, **others, **self._values})

    def replaced(self, **values: Any) -> Config:
        """Return a copy with some settings replaced; what is read of either counts as read."""
        return self._copy({**self._values, **values})

    def _copy(self, values: Mapping[str, Any]) -> Config:
        config = Config(values, self._where)
        config._read = self._read
        return config

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        """Return a setting, or ``default`` if it is missing or null."""
        self._read.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def integer(self, key: str, default: int | None = None) -> int:
        """Return an integer from 0 to 2**31 - 1. Raises CheckpointError if it is anything else."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            raise CheckpointError(
                f"{self._where}: {key} must be an integer from 0 to 2**31 - 1, not {value!r:.60}"
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number. Raises CheckpointError if it is missing or something else."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
            raise CheckpointError(f"{self._where}: {key} must be a number, not {value!r}")
        return float(value)

    def expect(self, key: str, *allowed: Any, missing: bool = True) -> None:
        """Refuse every value of a setting but those llama.cpp computes with.

        Args:
            missing: whether the setting may be absent; say False where transformers' default is
                something else.
        """
        value = self.get(key)
        if (value is None and missing) or value in allowed:
            return
        raise UnsupportedError(
            f"{self._where}: {key} is {value!r}; llama.cpp's architecture for this model computes with "
            f"{' or '.join(map(repr, allowed))} only"
        )

    def section(self, key: str) -> Config:
        """Return a nested table of settings."""
        value = self.get(key)
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{self._where}: {key} must be a table, not {value!r}")
        return Config(value, f"{self._where}: {key}")

    def rope(
        self, layer_type: str | None = None, default_theta: float = 10000.0, default_partial: float = 1.0
    ) -> Rope:
        """Return the rotary settings: ``rope_parameters`` of transformers 5, or what came before.

        Args:
            layer_type: the entry to take where transformers 5 keeps one for each type of layer.
        """
        merged: dict[str, Any] = dict(self._table("rope_scaling"))
        parameters = self._table("rope_parameters")
        if any(isinstance(value, Mapping) for value in parameters.values()):
            if layer_type is None:
                raise UnsupportedError(
                    f"{self._where}: rope_parameters has a rotation for each of {', '.join(parameters)}; "
                    "llama.cpp's architecture for this model has one for all layers"
                )
            parameters = parameters.get(layer_type) or {}
        merged.update({k: v for k, v in parameters.items() if v is not None})
        merged.setdefault("rope_theta", self.get("rope_theta", default_theta))
        merged.setdefault("partial_rotary_factor", self.get("partial_rotary_factor", default_partial))
        merged.setdefault("rope_type", merged.pop("type", "default"))
        length = self.get("original_max_position_embeddings")
        if length is not None:  # transformers 5 lets this one win over the scaling's own
            merged["original_max_position_embeddings"] = length
        merged.setdefault("original_max_position_embeddings", self.get("max_position_embeddings"))
        read = Rope(1.0, 1.0, merged)
        theta, partial = read.number("rope_theta"), read.number("partial_rotary_factor")
        return Rope(theta, partial, {} if read.kind == "default" else merged)

    def _table(self, key: str) -> Mapping[str, Any]:
        value = self.get(key, {})
        if not isinstance(value, Mapping):
            raise CheckpointError(f"{self._where}: {key} must be a table, not {value!r}")
        return value

    def refuse_unread(self, neutral: Mapping[str, Iterable[Any]] = NEUTRAL) -> None:
        """Refuse settings that change the computation and that the family has not read."""
        for key, values in neutral.items():
            value = self._values.get(key)
            if key not in self._read and value is not None and value not in tuple(values):
                raise UnsupportedError(
                    f"{self._where}: {key} is {value!r}, which llama.cpp's architecture for this model "
                    "cannot express"
                )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:60]}... ({len(value)} entries)"
