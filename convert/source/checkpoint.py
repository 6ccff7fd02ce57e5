"""A Hugging Face model directory: its config.json, and its tensors in one safetensors file or in shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.errors import CheckpointError, UnsupportedError
from convert.files.directory import find_file
from convert.files.json_file import read_json
from convert.source.safetensors_file import read_tensors
from convert.source.tensor import SourceTensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, eq=False)
class SourceCheckpoint:
    """A model directory as transformers saves it.

    Attributes:
        directory: where it is.
        config: the whole of config.json.
        tensors: all tensors of its safetensors files, by name.
    """

    directory: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, SourceTensor]

    @classmethod
    def open(cls, directory: Path) -> SourceCheckpoint:
        """Read what the files say about themselves; no weights are read, no code is run.

        Raises:
            CheckpointError: a file is missing or malformed, or files disagree.
            UnsupportedError: the weights are there in a form that is not read.
        """
        path = find_file(directory, "config.json")
        if path is None:
            raise CheckpointError(_no_config(directory))
        config = read_json(path)
        return cls(directory, config, _read_weights(directory))

    @property
    def architecture(self) -> str:
        """The class that config.json says the model is of. Raises CheckpointError if it says none."""
        names = self.config.get("architectures")
        if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
            raise CheckpointError(
                f"{self.directory / 'config.json'}: architectures must hold one name, not {names!r}"
            )
        return names[0]

    @property
    def text_config(self) -> dict[str, Any]:
        """The settings of the text part: all of config.json, or its ``text_config`` where it has one.

        Nemotron's is ``llm_config``.
        """
        nested = self.config.get("text_config", self.config.get("llm_config"))
        if not isinstance(nested, dict):
            return dict(self.config)
        outer = ("tie_word_embeddings", "quantization_config", "vision_config")
        return nested | {key: self.config[key] for key in outer if key in self.config}


def _read_weights(directory: Path) -> dict[str, SourceTensor]:
    """Return the tensors; a whole file comes before an index, as in transformers."""
    if path := find_file(directory, WEIGHTS):
        return _some(read_tensors(path), path)
    if index := find_file(directory, INDEX):
        return _read_shards(directory, index)
    names = sorted(path.name for path in directory.glob("*.safetensors"))
    if len(names) == 1 and (path := find_file(directory, names[0])):
        return _some(read_tensors(path), path)
    if names:
        raise CheckpointError(
            f"{directory} has {len(names)} safetensors files ({names[0]}, ...) and no {INDEX} that says "
            "which of them make the model"
        )
    raise _no_weights(directory)


def _some(tensors: dict[str, SourceTensor], path: Path) -> dict[str, SourceTensor]:
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    return tensors


def _read_shards(directory: Path, index: Path) -> dict[str, SourceTensor]:
    """Return the tensors from the files that the index names for them; other files and copies are stale."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} has no table weight_map")
    if wrong := [name for name in places.values() if not isinstance(name, str)]:
        raise CheckpointError(f"{index}: weight_map has {wrong[0]!r} for a file's name")
    paths = {name: find_file(directory, name) for name in sorted(set(places.values()))}
    if lacking := [name for name, path in paths.items() if path is None]:
        raise CheckpointError(f"{directory} lacks {', '.join(lacking)}, which {index.name} lists")
    tensors: dict[str, SourceTensor] = {}
    for name, path in paths.items():
        assert path is not None
        for tensor in read_tensors(path).values():
            if tensor.name not in places:
                raise CheckpointError(
                    f"{path} has the tensor {tensor.name}, and {index.name} says it is in no file"
                )
            if places[tensor.name] == name:  # else a stale one, which the index overlays
                tensors[tensor.name] = tensor
    if missing := sorted(places.keys() - tensors.keys()):
        raise CheckpointError(f"{places[missing[0]]} has no tensor {missing[0]}, which {index.name} lists")
    return tensors


def _no_config(directory: Path) -> str:
    if snapshots := sorted((directory / "snapshots").glob("*")):
        return f"{directory} is a model's place in a cache; give a snapshot in it: {snapshots[0]}"
    if files := sorted(path.name for path in directory.glob("*.gguf")):
        return f"{directory} has no config.json, but GGUF files; give one of them: {files[0]}"
    if (directory / "adapter_config.json").exists():
        return (
            f"{directory} holds an adapter (adapter_config.json), not a model; convert_adapter "
            "converts it, for its base"
        )
    return f"{directory} has no config.json: it is no Hugging Face model directory"


def _no_weights(directory: Path) -> CheckpointError | UnsupportedError:
    pickles = sorted(path.name for pattern in _PICKLES for path in directory.glob(pattern))
    if pickles:
        return UnsupportedError(
            f"{directory} has its weights as a pickle ({pickles[0]}), which can run any code when it is "
            "opened and is not read. Someone who trusts it can save it again with transformers: "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...) writes safetensors"
        )
    return CheckpointError(f"{directory} has no safetensors file")
