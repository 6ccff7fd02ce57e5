"""An adapter's directory: adapter_config.json, and the factors in adapter_model.safetensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from convert.adapters.factors import Factors
from convert.adapters.settings import CONFIG, Settings
from convert.errors import CheckpointError, UnsupportedError
from convert.files.directory import find_file
from convert.source.safetensors_file import read_tensors
from convert.source.tensor import SourceTensor

WEIGHTS = "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_KEY = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+?)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(?:\.weight)?"
)
_BASE_COPY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+?)\.base_layer\.weight")
_BASE_LAYER = re.compile(r"\.base_layer(?=\.|$)")
_FLOATS = ("F32", "F16", "BF16", "F64")
_MOST_NAMED = 6


@dataclass(frozen=True, eq=False)
class AdapterCheckpoint:
    """What was trained.

    Attributes:
        directory: where it lies.
        settings: adapter_config.json.
        factors: of every module.
        tensors: all that the factors are made of, by name.
        copies: shapes of the base's own weights that PEFT saved beside the factors, by module.
    """

    directory: Path
    settings: Settings
    factors: tuple[Factors, ...]
    tensors: Mapping[str, SourceTensor]
    copies: Mapping[str, tuple[int, ...]]

    @classmethod
    def open(cls, directory: Path) -> AdapterCheckpoint:
        """Read what the files say about themselves; no weights are read, no code is run.

        Raises:
            CheckpointError: a file is missing or malformed, a tensor has no partner or another rank than
                the settings say.
            UnsupportedError: there is more in it than the factors of a LoRA.
        """
        path, weights = find_file(directory, CONFIG), find_file(directory, WEIGHTS)
        if path is None:
            raise CheckpointError(f"{directory} has no {CONFIG}: it is no adapter")
        settings = Settings.read(path)
        if weights is None:
            if find_file(directory, _PICKLE):
                raise UnsupportedError(
                    f"{directory} has its weights as a pickle ({_PICKLE}), which can run any code when it "
                    "is opened and is not read; PEFT saves safetensors unless told otherwise"
                )
            raise CheckpointError(f"{directory} has no {WEIGHTS}")
        tensors = read_tensors(weights)
        pairs, copies = _pair(tensors, weights)
        factors = tuple(filter(None, (_factors(*pair, settings, weights) for pair in pairs.items())))
        if not factors:
            raise CheckpointError(f"{weights} has no factors of a LoRA")
        used = {name for each in factors for name in each.sources}
        return cls(directory, settings, factors, {name: tensors[name] for name in used}, copies)


_Pairs = dict[tuple[str, bool], dict[str, SourceTensor]]


def _pair(tensors: Mapping[str, SourceTensor], path: Path) -> tuple[_Pairs, dict[str, tuple[int, ...]]]:
    """Return the tensors by module and factor, and the shapes of copies of the base's weights."""
    pairs: _Pairs = {}
    copies: dict[str, tuple[int, ...]] = {}
    unknown = []
    for name, tensor in tensors.items():
        if match := _KEY.fullmatch(name):
            of_module = pairs.setdefault((match["module"], bool(match["embedding"])), {})
            if match["factor"] in of_module:
                raise CheckpointError(f"{path}: {name} is there again as {of_module[match['factor']].name}")
            of_module[match["factor"]] = tensor
        elif match := _BASE_COPY.fullmatch(name):
            copies[match["module"]] = tensor.shape
        else:
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        raise UnsupportedError(
            f"{path} has tensors that are no factors of a LoRA: {', '.join(unknown[:_MOST_NAMED])}{more}; "
            "whole modules (modules_to_save), biases and DoRA's magnitudes cannot be converted"
        )
    for (module, _), of_module in pairs.items():
        if len(of_module) == 1:
            ((factor, tensor),) = of_module.items()
            raise CheckpointError(
                f"{path}: {tensor.name} is factor {factor} of {module}; the other is missing"
            )
    return pairs, copies


def _factors(
    key: tuple[str, bool], of_module: Mapping[str, SourceTensor], settings: Settings, path: Path
) -> Factors | None:
    """Return a module's factors; None for the empty ones that Tinker saves for missing projections."""
    module, is_embedding = _BASE_LAYER.sub("", key[0]), key[1]
    first, second = of_module["A"], of_module["B"]
    if not first.n_bytes and not second.n_bytes:
        return None
    for tensor in (first, second):
        if tensor.dtype not in _FLOATS:
            raise CheckpointError(f"{path}: {tensor.name} has the dtype {tensor.dtype}")
    if _is_stack(module, first.shape, second.shape):
        return Factors(module, first, second, math.nan, is_stack=True)
    parameter = f"{module}.weight"
    is_parameter = not is_embedding and settings.targets_parameter(parameter)
    name = parameter if is_parameter else module
    _check_shapes(first, second, settings.rank_of(name), is_embedding, settings, path)
    return Factors(
        module,
        first,
        second,
        settings.scale_of(name),
        is_swapped=is_embedding,
        is_parameter=is_parameter,
    )


def _check_shapes(
    first: SourceTensor,
    second: SourceTensor,
    rank: int,
    is_embedding: bool,
    settings: Settings,
    path: Path,
) -> None:
    """Refuse factors of no product, or of another rank than the settings say."""
    a, b = first.shape, second.shape
    fits = len(a) == len(b) and len(a) in ((2,) if is_embedding else (2, 3)) and a[-2] == b[-1]
    if not fits or (len(a) == 3 and a[0] != b[0] and 1 not in (a[0], b[0])):
        raise CheckpointError(
            f"{path}: {first.name} {a} and {second.name} {b} are no factors of one product"
        )
    if a[-2] != rank:
        raise CheckpointError(
            f"{path}: {first.name} {a} and {second.name} {b} have the rank {a[-2]}; {settings.where} says "
            f"{rank}"
        )


def _is_stack(module: str, a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether these are factors of many experts in one matrix, as PEFT's ``target_parameters`` has them."""
    is_one = any(part.isdecimal() for part in module.rpartition(".experts")[2].split("."))
    return "experts" in module.split(".") and not is_one and len(a) == len(b) == 2 and a[0] == b[1]
