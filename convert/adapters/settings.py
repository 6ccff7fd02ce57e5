"""adapter_config.json: the rank and the scale of each module's factors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convert.errors import CheckpointError, UnsupportedError
from convert.files.json_file import read_json

CONFIG = "adapter_config.json"

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    "bias": (None, "none"),
    "kasa_config": (None,),
    "layer_replication": (None, []),
    "lora_bias": (None, False),
    "monteclora_config": (None,),
    "modules_to_save": (None, []),
    "peft_type": (None, "LORA"),
    "trainable_token_indices": (None, [], {}),
    "use_bdlora": (None, False),
    "use_dora": (None, False),
    "use_qalora": (None, False),
    "velora_config": (None,),
}
"""Settings under which a model is its weights plus the product of the factors."""

_INITS_OF_FACTORS = ("true", "false", "gaussian", "eva", "orthogonal", "mica")
"""Values of PEFT's ``init_lora_weights`` that set A and B only, in small letters."""
_INITS_OF_WEIGHTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of its values that change the base's weights as well, so that the sum stays what it was."""

_PLAIN = re.compile(r"[\w.]+")
_HARMLESS = re.compile(r"(?:[\w.^$|()-]|\\[.d]|\[[\w-]+\]|(?<!\))[*+?](?![*+?{]))+")
_MOST_PATTERN = 200
_MOST_REPEATS = 4


@dataclass(frozen=True)
class Settings:
    """The settings of an adapter.

    Attributes:
        rank, alpha: of modules that no pattern names.
        rank_pattern, alpha_pattern: of others, by the end of their names or a regular expression.
        uses_rslora: the product counts alpha / sqrt(rank) times, not alpha / rank.
        target_parameters: parameters that PEFT trained by themselves, not as a module's weight, by the end
            of their names: ``mlp.experts.down_proj``, ``q_proj.weight``.
        ties: PEFT's ``ensure_weight_tying``: what changes the embeddings changes a tied output as well.
        base: the model it was trained on, as the file calls it.
        where: the file, for messages.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    uses_rslora: bool = False
    target_parameters: tuple[str, ...] = ()
    ties: bool = False
    base: str | None = None
    where: str = CONFIG

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read adapter_config.json.

        Raises:
            CheckpointError: it cannot be read, or a value is not valid.
            UnsupportedError: the adapter is of another kind than LoRA, or changes more than it adds.
        """
        values, where = read_json(path), str(path)
        _check_init(values.get("init_lora_weights"), where)
        for key, neutral in _NEUTRAL.items():
            if values.get(key) not in neutral:
                raise UnsupportedError(
                    f"{where}: {key} is {values[key]!r:.80}; only plain LoRA, which adds B A to weights "
                    "and changes nothing else, can be converted"
                )
        return cls(
            _count(values.get("r"), "r", where),
            _alpha(values.get("lora_alpha"), "lora_alpha", where),
            {k: _count(v, f"rank_pattern of {k}", where) for k, v in _table(values, "rank_pattern", where)},
            {
                k: _alpha(v, f"alpha_pattern of {k}", where)
                for k, v in _table(values, "alpha_pattern", where)
            },
            bool(values.get("use_rslora")),
            _names(values, "target_parameters", where),
            bool(values.get("ensure_weight_tying")),
            _text(values.get("base_model_name_or_path")),
            where,
        )

    def targets_parameter(self, name: str) -> bool:
        """Whether PEFT trained this parameter by itself; ``name`` begins with its module's."""
        return any(name == target or name.endswith(f".{target}") for target in self.target_parameters)

    def rank_of(self, name: str) -> int:
        """Return the rank that the file gives a module, or a parameter that was trained by itself."""
        return int(_matching(self.rank_pattern, name, self.rank))

    def scale_of(self, name: str) -> float:
        """Return the scale of the product B A of a module, or of a parameter that was trained by itself."""
        rank, alpha = self.rank_of(name), _matching(self.alpha_pattern, name, self.alpha)
        return float(alpha / (math.sqrt(rank) if self.uses_rslora else rank))


def _check_init(value: Any, where: str) -> None:
    """Refuse factors that belong to other weights than the base's."""
    said = str(value).casefold()
    if value is None or said in _INITS_OF_FACTORS:
        return
    if said.startswith(_INITS_OF_WEIGHTS):
        raise UnsupportedError(
            f"{where}: init_lora_weights is {value!r:.80}, which changes the base's weights too: the "
            "factors belong to those and not to the base. PEFT makes a plain LoRA of it: save_pretrained("
            "..., path_initial_model_for_weight_conversion=...), or a merged model: merge_and_unload()"
        )
    raise UnsupportedError(
        f"{where}: init_lora_weights is {value!r:.80}; known are {', '.join(_INITS_OF_FACTORS)}, which "
        "set the factors only"
    )


def _matching(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return the value of the first pattern that is the end of a name, as PEFT compares them."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", name):
            return value
    return default


def _table(values: Mapping[str, Any], key: str, where: str) -> list[tuple[str, Any]]:
    table = values.get(key) or {}
    if not isinstance(table, dict):
        raise CheckpointError(f"{where}: {key} must be a table, not {table!r:.60}")
    for pattern in table:
        if not _PLAIN.fullmatch(pattern) and not _is_harmless(pattern):
            raise UnsupportedError(
                f"{where}: {key} has the regular expression {pattern!r:.60}, which is not evaluated, as it "
                "might run forever; write out the names it stands for"
            )
    return list(table.items())


def _names(values: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    names = values.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{where}: {key} must be a list of names, not {names!r:.60}")
    return tuple(names)


def _is_harmless(pattern: str) -> bool:
    """Whether a regular expression is cheap to match: short, few repetitions, none of a group."""
    if len(pattern) > _MOST_PATTERN or sum(map(pattern.count, "*+?")) > _MOST_REPEATS:
        return False
    if not _HARMLESS.fullmatch(pattern):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _count(value: Any, key: str, where: str) -> int:
    if type(value) is not int or not 0 < value < 1 << 20:
        raise CheckpointError(f"{where}: {key} must be a whole number of at least 1, not {value!r:.60}")
    return value


def _alpha(value: Any, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < abs(value) < 1e30:
        raise CheckpointError(f"{where}: {key} must be a number other than 0, not {value!r:.60}")
    return float(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
