"""Checks a LoRA adapter's head against its base before llama.cpp opens the file.

llama.cpp refuses some wrong files by itself. On others it ends the process, or it leaves out a
part in silence; those are found here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from convert.gguf.file import FLOAT32, GgufFile
from convert.gguf.formats import NOT_FOR_WEIGHTS
from convert.gguf.tensor_info import TensorInfo
from tinker_local.errors import BadRequestError
from tinker_local.gguf.parts import ModelFiles

_EMBEDDING = "token_embd.weight"
_ONE_OUTPUT = "ffn_gate_inp_shexp.weight"  # a matrix of one row
_CONVOLUTIONS = ("conv.weight", "conv1d.weight")


def check_adapter(adapter: GgufFile, model: ModelFiles) -> None:
    """Check a LoRA against the model it is for.

    Raises:
        BadRequestError: it is not a LoRA, not one for that model, or one that llama.cpp would apply
            only in part; the message says which.
    """
    for problem in (*_wrong_keys(adapter, model), *_wrong_tensors(adapter, model)):
        raise BadRequestError(f"the adapter {adapter.path} cannot be put on {model.path}: {problem}")


def _wrong_keys(adapter: GgufFile, model: ModelFiles) -> Iterator[str]:
    kind, method = adapter.text("general.type"), adapter.text("adapter.type")
    if kind != "adapter":
        yield f"its general.type is {kind or 'missing'}, not adapter; it seems to be a whole model"
    if method != "lora":
        yield f"its adapter.type is {method or 'missing'}, and only lora is supported"
    architecture = adapter.text("general.architecture")
    if architecture != model.architecture:
        yield f"it is for the architecture {architecture}, and the model's is {model.architecture}"
    alpha = adapter.metadata.get("adapter.lora.alpha", 0.0)
    if adapter.type_of("adapter.lora.alpha") not in (None, FLOAT32):
        yield "its adapter.lora.alpha is not a float32"
    elif not isinstance(alpha, float) or not math.isfinite(alpha):
        yield f"its adapter.lora.alpha is {alpha}"
    if adapter.type_of("adapter.alora.invocation_tokens") is not None:
        yield "it is an activated LoRA (aLoRA), which applies to parts of a prompt; not supported"


def _wrong_tensors(adapter: GgufFile, model: ModelFiles) -> Iterator[str]:
    if not adapter.tensors:
        yield "it has no tensors"
    for name, tensor in adapter.tensors.items():
        weight, _, factor = name.rpartition(".")
        if factor not in ("lora_a", "lora_b"):
            yield f"its tensor {name} is no factor of a LoRA, and llama.cpp can apply nothing else"
        elif tensor.type in NOT_FOR_WEIGHTS:
            yield f"its tensor {name} has a number format that llama.cpp cannot multiply with"
        elif weight not in model.tensors:
            yield f"its tensor {name} has no counterpart {weight} in the model"
        elif not _takes_lora(weight, model.tensors[weight]):
            yield f"its tensor {name} is for a weight that llama.cpp applies no LoRA to"
        elif factor == "lora_a" and weight + ".lora_b" in adapter.tensors:
            yield from _wrong_pair(weight, tensor, adapter.tensors[weight + ".lora_b"], model)


def _takes_lora(name: str, weight: TensorInfo) -> bool:
    """Whether llama.cpp multiplies with a weight; norms, biases and convolutions are used in other ways."""
    is_matrix = weight.ne[1] > 1 or name.endswith(_ONE_OUTPUT)
    return name.endswith(".weight") and is_matrix and not name.endswith(_CONVOLUTIONS)


def _wrong_pair(name: str, a: TensorInfo, b: TensorInfo, model: ModelFiles) -> Iterator[str]:
    weight, is_embedding = model.tensors[name].ne, name == _EMBEDDING
    # of the embedding llama.cpp looks up rows of A, so A has the vocabulary and B the rest
    first, rank, *more = (a.ne[1], a.ne[0], *a.ne[2:]) if is_embedding else a.ne
    expected = (weight[1], weight[0]) if is_embedding else weight[:2]
    fits = (first, b.ne[1]) == tuple(expected) and rank == b.ne[0]
    if not (fits and tuple(more) == b.ne[2:] == weight[2:]):
        yield f"its factors of {name} have the wrong shapes {a.ne} and {b.ne} for {weight}"
    if is_embedding and "output.weight" not in model.tensors:
        yield (
            f"it changes {name}, which the model also uses as its output matrix; llama.cpp can apply a "
            "LoRA to only one of the two uses"
        )
