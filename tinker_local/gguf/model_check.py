"""Checks a model's head before llama.cpp opens the file.

llama.cpp refuses many wrong files by itself. On others it ends the process (``GGML_ASSERT``), divides by
zero or asks for all memory; those are found here. Sources of the rules:
``src/llama-model.cpp`` (``load_hparams``), ``src/models/*.cpp``, ``src/llama-graph.cpp`` and
``ggml/src/ggml.c`` of llama.cpp. Tensors' shapes against the settings are llama.cpp's own check.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from convert.gguf.arrays import Array
from convert.gguf.file import FLOAT32, INT32, UINT32, StoredValue
from convert.gguf.formats import F32, I32, I64, NOT_FOR_WEIGHTS
from tinker_local.errors import BadRequestError
from tinker_local.gguf.architectures import (
    BY_HEADS,
    EQUAL_HEADS,
    NOT_LANGUAGE_MODELS,
    UNROTATED,
    WHOLE_ROTATION,
)
from tinker_local.gguf.layer_check import Heads, wrong_layers
from tinker_local.gguf.parts import ModelFiles
from tinker_local.gguf.vocabulary_check import wrong_vocabulary

_LARGEST = 2**31 - 1
_LIMITS: dict[str, tuple[int, int]] = {
    "context_length": (1, _LARGEST),
    "embedding_length": (1, 1 << 20),
    "block_count": (1, 512),  # LLAMA_MAX_LAYERS
    "feed_forward_length": (0, 1 << 24),
    "attention.head_count": (0, 1 << 16),
    "attention.head_count_kv": (0, 1 << 16),
    "attention.key_length": (1, 1 << 16),
    "attention.value_length": (1, 1 << 16),
    "attention.key_length_swa": (1, 1 << 16),
    "attention.value_length_swa": (1, 1 << 16),
    "attention.sliding_window": (0, _LARGEST),
    "rope.dimension_count": (0, 1 << 16),
    "rope.dimension_count_swa": (0, 1 << 16),
    "rope.scaling.original_context_length": (1, _LARGEST),
    "expert_count": (0, 1024),  # LLAMA_MAX_EXPERTS
    "expert_used_count": (0, 1024),
    "expert_gating_func": (0, 4),
    "pooling_type": (0, 4),
    "vocab_size": (1, 1 << 24),
    "ssm.conv_kernel": (2, 1 << 10),
    "ssm.inner_size": (1, 1 << 20),
    "ssm.state_size": (1, 1 << 16),
    "ssm.time_step_rank": (1, 1 << 20),
    "shortconv.l_cache": (2, 1 << 10),
    "wkv.head_size": (1, 1 << 16),
}
_REQUIRED = ("context_length", "embedding_length", "block_count")
_POSITIVE = ("rope.freq_base", "rope.freq_base_swa")
_SCALINGS = ("none", "linear", "yarn", "longrope")
_ELEMENTWISE = re.compile(
    r".*(norm\.weight|\.bias|conv1d\w*\.weight|ssm_a|ssm_d|shortconv\.conv\.weight|sinks\.weight"
    r"|rope_freqs\.weight|rope_factors_\w+\.weight)"
)
_INTEGERS = re.compile(r".*(tid2eid|d2t)\b.*")  # tables of ids


def check_model(path: Path) -> ModelFiles:
    """Check a model, all of its files, and return what their heads say.

    Raises:
        BadRequestError: it is not a whole model, or llama.cpp would end the process on it; the message
            says which setting, tensor or token is wrong.
    """
    model = ModelFiles.read(path)
    if model.text("general.type") == "adapter":
        raise BadRequestError(
            f"{path} is an adapter, not a model: give it as model_path, with a base_model"
        )
    for problem in _problems(model):
        raise BadRequestError(f"{path} cannot be used as a model: {problem}")
    return model


def _problems(model: ModelFiles) -> Iterator[str]:
    if model.architecture is None:
        yield "general.architecture is missing or no text"
    if model.architecture in NOT_LANGUAGE_MODELS:
        yield f"a {model.architecture} is not a language model"
    settings = _Settings(model)
    yield from settings.wrong_numbers()
    yield from settings.wrong_heads()
    yield from settings.wrong_latent_attention()
    yield from settings.wrong_rotation()
    yield from settings.wrong_experts()
    yield from settings.wrong_states()
    yield from settings.wrong_kinds()
    yield from settings.wrong_deepstack()
    yield from settings.wrong_indexers()
    yield from wrong_layers(model.architecture, model.tensors, settings.heads())
    yield from _wrong_tensors(model, settings.integer("embedding_length"))
    yield from wrong_vocabulary(model)


class _Settings:
    """The settings of a model: the keys that begin with its architecture."""

    def __init__(self, model: ModelFiles) -> None:
        self._model = model
        self._start = f"{model.architecture}."
        self._values = {
            key.removeprefix(self._start): value
            for key, value in model.metadata.items()
            if key.startswith(self._start)
        }

    def integer(self, name: str, default: int = 0) -> int:
        """Return a setting, ``default`` if it is not there; of an array, the first."""
        value = self._values.get(name, default)
        if isinstance(value, Array):
            return (value.integers() or [default])[0]
        return value if isinstance(value, int) else default

    def each(self, name: str) -> list[int]:
        """Return a setting of every layer."""
        value = self._values.get(name)
        layers = self.integer("block_count")
        if isinstance(value, Array):
            return value.integers() or []
        return [value if isinstance(value, int) else 0] * layers

    def heads(self) -> Heads:
        """Return the heads of each layer and their lengths."""
        own = self.each("attention.head_count")
        shared = self.each("attention.head_count_kv") if "attention.head_count_kv" in self._values else own
        return Heads(own, shared, self._head("key"), self._head("value"))

    def wrong_numbers(self) -> Iterator[str]:
        """Settings that are missing, of the wrong kind or out of bounds, each by itself."""
        for name in _REQUIRED:
            if name not in self._values:
                yield f"{self._start}{name} is missing"
        for name, value in self._values.items():
            said = f"{self._start}{name} is {_shown(value)}"
            kind = self._model.types[self._start + name]
            if name in _LIMITS:
                yield from _outside(said, value, kind, *_LIMITS[name])
            elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST:
                yield f"{said}, and {_LARGEST} is the most"
            elif isinstance(value, float) and not math.isfinite(value):
                yield f"{said}, which is not a finite number"
            elif name.endswith("epsilon") and isinstance(value, float) and value < 0:
                yield f"{said}, and must not be negative"
            elif name in _POSITIVE and isinstance(value, float) and value <= 0:
                yield f"{said}, and must be positive"
            elif isinstance(value, Array) and value.kind == FLOAT32 and not _is_finite(value):
                yield f"{said}, and has entries that are no numbers"

    def wrong_heads(self) -> Iterator[str]:
        """Attention heads that do not go together."""
        layers = self.integer("block_count")
        for name in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
            if name in self._values and len(self.each(name)) != layers:
                yield f"{self._start}{name} must have an entry for each of {layers} layers"
        heads = self.heads()
        for layer, (n, n_kv) in enumerate(zip(heads.of_queries, heads.of_keys, strict=True)):
            if n_kv and n % n_kv:
                yield (
                    f"{self._start}attention.head_count_kv is {n_kv} in layer {layer}; it must divide "
                    f"head_count, which is {n}"
                )
            if not n and f"blk.{layer}.attn_q.weight" in self._model.tensors:
                yield f"{self._start}attention.head_count is 0 in layer {layer}, which has attention"
        has_equal = self._model.architecture in EQUAL_HEADS and any(heads.of_queries)
        if has_equal and heads.n_key != heads.n_value:
            yield (
                f"{self._start}attention.key_length is {heads.n_key} and value_length {heads.n_value}; "
                "this architecture has them equal"
            )

    def wrong_latent_attention(self) -> Iterator[str]:
        """Sizes of compressed keys and values (MLA) that do not add up; they are cached as one head."""
        expanded = [self.integer(f"attention.{of}_length_mla") for of in ("key", "value")]
        if not any(expanded):
            return
        rank, turned = self.integer("attention.kv_lora_rank"), self.integer("rope.dimension_count")
        lengths = [self.integer(f"attention.{of}_length") for of in ("key", "value")]
        heads = self.each("attention.head_count_kv")
        if not heads or not {0, 1} >= set(heads):
            yield f"{self._start}attention.head_count_kv must be 1, as keys and values are compressed"
        if not all(expanded) or not turned < expanded[0] or lengths != [rank + turned, rank]:
            yield (
                f"{self._start}attention: keys of {lengths[0]} and values of {lengths[1]} numbers do not "
                f"fit a kv_lora_rank of {rank}, {turned} numbers that turn and heads of {expanded}"
            )

    def wrong_rotation(self) -> Iterator[str]:
        """Rotary embeddings that do not fit the heads, or of an unknown kind."""
        scaling = self._values.get("rope.scaling.type", "none")
        if scaling not in _SCALINGS:
            yield f"{self._start}rope.scaling.type is {_shown(scaling)}; known are {', '.join(_SCALINGS)}"
        sections = self._values.get("rope.dimension_sections")
        if sections is not None:
            parts = sections.integers() if isinstance(sections, Array) else None
            if not parts or min(parts) < 0 or not 0 < sum(parts) < 1 << 16 or len(parts) > 4:
                yield f"{self._start}rope.dimension_sections must be up to 4 counts that are not all zero"
        if not self.integer("attention.head_count") or self._model.architecture in UNROTATED:
            return
        head = self._head("key")
        for suffix in ("", "_swa"):
            size = self.integer(f"attention.key_length{suffix}", head)
            turned = self.integer("rope.dimension_count", head)
            turned = self.integer(f"rope.dimension_count{suffix}", turned)
            said = f"{self._start}rope.dimension_count{suffix} is {turned}"
            if turned % 2 or not 0 < turned <= size:
                yield f"{said}; it must be even, and from 2 to the {size} numbers of a head"
            elif self._model.architecture in WHOLE_ROTATION and turned != size and not suffix:
                yield f"{said}; this architecture turns all {size} numbers of a head"

    def wrong_experts(self) -> Iterator[str]:
        """Numbers of experts and groups that do not go together."""
        n, used = self.integer("expert_count"), max(self.each("expert_used_count"), default=0)
        groups, of_groups = self.integer("expert_group_count"), self.integer("expert_group_used_count")
        lonely = self._model.architecture in ("hunyuan_vl", "hunyuan-dense") and n <= 1
        if not lonely and (used > n or (n and not used)):
            yield f"{self._start}expert_used_count is {used}, of {n} experts"
        if groups < 0 or (groups >= max(n, 1) and groups):
            yield f"{self._start}expert_group_count is {groups}, with {n} experts"
        elif groups > 1 and (n % groups or not 0 < of_groups < groups):
            yield f"{n} experts cannot be in {groups} groups of which {of_groups} serve"
        if not 0 <= self.integer("nextn_predict_layers") < self.integer("block_count"):
            yield (
                f"{self._start}nextn_predict_layers is {self.integer('nextn_predict_layers')}, of "
                f"{self.integer('block_count')} layers"
            )

    def wrong_states(self) -> Iterator[str]:
        """Recurrent layers whose parts do not divide as they should."""
        inner, rank = self.integer("ssm.inner_size"), self.integer("ssm.time_step_rank")
        groups = self.integer("ssm.group_count")
        if self._model.architecture in ("mamba", "jamba") and inner != 2 * self.integer("embedding_length"):
            yield f"{self._start}ssm.inner_size is {inner}; it must be twice the embedding_length"
        if groups < 0 or (groups and (not rank or rank % groups or inner % rank)):
            yield f"{self._start}ssm: an inner size of {inner}, {rank} heads and {groups} groups do not fit"

    def wrong_kinds(self) -> Iterator[str]:
        """Layers of one kind alone, where llama.cpp makes a memory for each of two kinds."""
        heads = self.heads().of_keys
        if self._model.architecture in BY_HEADS and (all(heads) or not any(heads)):
            yield (
                f"{'none' if all(heads) else 'all'} of the {len(heads)} layers are recurrent; this "
                "architecture must have some of these and some with attention"
            )
        streams = self.integer("hyper_connection.count", 4)
        if self._model.architecture in ("deepseek4", "glm5-next") and streams != 4:
            yield f"{self._start}hyper_connection.count is {streams}; llama.cpp computes with 4"

    def wrong_deepstack(self) -> Iterator[str]:
        """More layers to which images add than there are."""
        n_deep, n_layers = self.integer("n_deepstack_layers"), self.integer("block_count")
        if not 0 <= n_deep < max(1, n_layers):
            yield f"{self._start}n_deepstack_layers is {n_deep}; it must be less than the {n_layers} layers"

    def wrong_indexers(self) -> Iterator[str]:
        """Indexers of sparse attention that llama.cpp cannot rotate, or whose pools do not fit."""
        size = self.integer("attention.indexer.key_length")
        if self._model.architecture in ("deepseek32", "deepseek4", "glm-dsa") and size % 64:
            yield f"{self._start}attention.indexer.key_length is {size}; it must be a multiple of 64"
        if self._model.architecture != "glm5-next":
            return
        pool, chosen = self.integer("attention.indexer.kpool"), self.integer("attention.indexer.top_k")
        if pool < 2 or chosen % pool:
            yield (
                f"{self._start}attention.indexer.kpool is {pool}; it must be 2 or more, and divide top_k, "
                f"which is {chosen}"
            )

    def _head(self, of: str) -> int:
        heads = max(1, self.integer("attention.head_count"))
        return self.integer(f"attention.{of}_length", self.integer("embedding_length") // heads)


def _outside(said: str, value: StoredValue, kind: int, low: int, high: int) -> Iterator[str]:
    """What is wrong with a count, or with an array of counts."""
    counts = value.integers() if isinstance(value, Array) else [value]
    if counts is None or (not isinstance(value, Array) and kind not in (UINT32, INT32)):
        yield f"{said}, and must be a 32-bit integer"
    elif not all(isinstance(count, int) and low <= count <= high for count in counts):
        yield f"{said}; it must be from {low} to {high}"


def _wrong_tensors(model: ModelFiles, n_embd: int) -> Iterator[str]:
    embedding = model.tensors.get("token_embd.weight")
    if embedding is None:
        yield "the tensor token_embd.weight is missing"
    elif embedding.ne[0] != n_embd:
        yield f"the tensor token_embd.weight has rows of {embedding.ne[0]} numbers, not of {n_embd}"
    for name, tensor in model.tensors.items():
        is_table = tensor.type in (I32, I64) and _INTEGERS.fullmatch(name)
        flat = math.prod(tensor.shape) == tensor.ne[0] or _ELEMENTWISE.fullmatch(name)
        if is_table:
            continue
        if flat and tensor.type != F32:
            yield f"the tensor {name} is {tensor.format.name}, and llama.cpp can add and scale by F32 only"
        elif tensor.type in NOT_FOR_WEIGHTS:
            yield f"the tensor {name} is {tensor.format.name}, which llama.cpp cannot multiply with"


def _is_finite(array: Array) -> bool:
    assert array.values is not None
    return bool(np.isfinite(array.values.astype(np.float64)).all())


def _shown(value: object) -> str:
    if isinstance(value, Array):
        return f"an array of {len(value)}"
    return f"{value!r:.80}"


__all__ = ["check_model"]
