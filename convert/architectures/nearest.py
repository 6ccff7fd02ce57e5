"""What to say of an unknown architecture: what the checkpoint is, which family is near, what differs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from convert.architectures.architecture import Architecture, Rows, Target
from convert.errors import CheckpointError, ConversionWarning, UnsupportedError
from convert.source.config import Config
from convert.source.tensor import SourceTensor

Families = Sequence[type[Architecture]]

UPSTREAM = {
    "inkling": "https://github.com/ggml-org/llama.cpp/pull/25731",
}
"""Architectures that llama.cpp cannot run yet, by the start of ``model_type``: where it is worked on."""

SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_experts", "n_routed_experts")
CAPS = {"expert": 2, "layer": 16}
"""The most of what a setting with such a name counts; the names of the first ones are those of all."""

OTHERS = re.compile(r"vis(ion|ual)|audio|projector")
_MOST_NAMED = 8
WRONG = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a family raises that settings of another one reach."""

_NUMBER = re.compile(r"\.\d+(?=\.|$)")


def describe_unknown(
    name: str, settings: Mapping[str, Any], tensors: Mapping[str, SourceTensor], families: Families
) -> str:
    """Return what there is to say of a checkpoint of an unknown architecture.

    Args:
        name: the entry of ``architectures``.
        settings: of the text part.
        families: those that are known.
    """
    said = [f"the architecture {name} is not known. {_what_it_is(settings)}"]
    model_type = str(settings.get("model_type", ""))
    for start, place in UPSTREAM.items():
        if model_type.startswith(start) or name.lower().startswith(start):
            said.append(
                f"llama.cpp has no architecture that computes it, so no file could be run; it is worked on "
                f"in {place}."
            )
    if (found := nearest(settings, tensors, families)) is not None:
        said.append(_what_differs(*found))
    known = ", ".join(sorted(name for family in families for name in family.names))
    said.append("CONTRIBUTING.md (How to add a model family) says how to add it.")
    return " ".join([*said, f"Known are {known}"])


def nearest(
    settings: Mapping[str, Any], tensors: Mapping[str, SourceTensor], families: Families
) -> tuple[type[Architecture], set[str], set[str]] | None:
    """Return the family whose tensors have most names in common with a checkpoint's, with these settings.

    Returns:
        The family, the names that only the checkpoint has, and those that only the family would have;
        layers' and experts' numbers are ``N``. None where no family can be read from the settings.
    """
    own = _stems(tensors)
    best: tuple[float, type[Architecture], set[str]] | None = None
    for family in families:
        asked = _asked(family, settings, tensors)
        if not asked:
            continue
        likeness = len(own & asked) / len(own | asked)
        if best is None or likeness > best[0]:
            best = likeness, family, asked
    if best is None:
        return None
    _, family, asked = best
    kept = _stems(name for name in tensors if not any(fnmatchcase(name, p) for p in family.ignored))
    return family, kept - asked, asked - own


def _asked(
    family: type[Architecture], settings: Mapping[str, Any], tensors: Mapping[str, SourceTensor]
) -> set[str]:
    """Return the names of the tensors that a family would read; none where the settings are not its."""
    asking: Any = type("Asking", (_Asking, family), {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConversionWarning)
            model = asking(Config({key: _capped(key, value) for key, value in settings.items()}), tensors)
            model.asked = set[str]()
            for _ in model.targets():
                pass
    except (CheckpointError, UnsupportedError, *WRONG):
        return set()
    return _stems(model.asked)


class _Asking(Architecture):
    """Mixed into a family: notes the names of the tensors that it reads, and reads none."""

    asked: set[str]

    def expect_shape(self, source: str, shape: tuple[int, ...]) -> None:
        self.asked.add(source)

    def tensor(self, source: str) -> SourceTensor:
        self.asked.add(source)
        return self.sources.get(source) or SourceTensor(source, (1, 1, 1), "F32", Path(), 0)

    def take(self, name: str, source: str, **how: Any) -> Target:
        return self.stack(name, [source])

    def vector(self, name: str, source: str, n: int) -> Target:
        return self.stack(name, [source])

    def stack(self, name: str, sources: Sequence[str], *, rows: Rows | None = None) -> Target:
        self.asked.update(sources)
        return Target(name, (1, 1), tuple(sources), lambda: iter(()), is_matrix=True)


def _capped(key: str, value: Any) -> Any:
    """Return a setting that makes no more than some thousand names, whatever a config.json says."""
    if isinstance(value, list | str):  # an entry a layer
        return value[: CAPS["layer"]]
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return min(value, next((most for word, most in CAPS.items() if word in key), 1 << 16))


def _stems(names: Iterable[str]) -> set[str]:
    """Return the text part's names without what stands before the layers, and without numbers."""
    texts = (name for name in names if not OTHERS.search(name))
    return {re.sub(r"^.*?(?=layers\.)", "", _NUMBER.sub(".N", name)) for name in texts}


def _what_it_is(settings: Mapping[str, Any]) -> str:
    sizes = [f"{key} {settings[key]}" for key in SIZES if isinstance(settings.get(key), int)]
    return f"It is a {settings.get('model_type', 'model')} with {', '.join(sizes) or 'no sizes given'}."


def _what_differs(family: type[Architecture], more: Collection[str], less: Collection[str]) -> str:
    said = f"By the names of its tensors it is nearest to {family.names[0]}"
    if more:
        said += f", but has besides: {_some(more)}"
    if less:
        said += f"{';' if more else ','} it lacks: {_some(less)}"
    return f"{said}."


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:_MOST_NAMED]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")


__all__ = ["describe_unknown", "nearest"]
