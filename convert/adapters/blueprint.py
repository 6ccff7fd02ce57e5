"""A base that is a GGUF file: finds which modules of a checkpoint each of its tensors was made of.

Only the head is read. A family's table gives the names and the orders of rows. The settings that the table
needs are in GGUF files too, under other names; the shapes are the file's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convert.architectures import FAMILIES, Architecture
from convert.architectures.falcon_h1 import MULTIPLIERS
from convert.errors import CheckpointError, UnsupportedError
from convert.gguf.arrays import Array
from convert.gguf.file import GgufFile, StoredValue
from convert.gguf.target import Rows, Target
from convert.source.config import Config
from convert.source.tensor import SourceTensor

Shapes = Mapping[str, tuple[int, ...]]

SETTINGS: dict[str, tuple[str, ...]] = {
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "attention.key_length": ("head_dim",),
    "attention.compress_ratios": ("compress_ratios",),
    "attention.indexer.kpool": ("index_kpool",),
    "attention.shared_kv_layers": ("num_kv_shared_layers",),
    "embedding_length_per_layer_input": ("hidden_size_per_layer_input",),
    "attention.kv_lora_rank": ("kv_lora_rank",),
    "attention.q_lora_rank": ("q_lora_rank",),
    "attention.value_length_mla": ("v_head_dim",),
    "block_count": ("num_hidden_layers", "n_layer"),
    "embedding_length": ("hidden_size", "n_embd"),
    "expert_count": ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_feed_forward_length": (
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
    ),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "expert_shared_count": ("n_shared_experts",),
    "leading_dense_block_count": ("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers"),
    "hash_layer_count": ("num_hash_layers",),
    "moe_latent_size": ("moe_latent_size",),
    "interleave_moe_layer_step": ("interleave_moe_layer_step",),
    "kda.head_dim": ("linear_head_dim",),
    "ssm.inner_size": ("mamba_d_ssm",),
    "shortconv.l_cache": ("conv_L_cache",),
    "ssm.conv_kernel": ("linear_conv_kernel_dim", "conv_kernel", "mamba_d_conv"),
    "ssm.group_count": ("linear_num_key_heads", "n_groups", "mamba_n_groups"),
    "ssm.time_step_rank": ("linear_num_value_heads", "mamba_num_heads", "mamba_n_heads"),
}
"""llama.cpp's keys, each with the names of the same setting in config.json, by family."""

SHOWN: dict[str, tuple[str, ...]] = {
    "attn_q.bias": ("attention_bias", "qkv_bias", "use_bias"),
    "attn_q_norm.weight": ("use_qk_norm",),
    "ffn_down.bias": ("mlp_bias",),
    "ssm_norm.weight": ("mamba_rms_norm",),
}
"""Settings that are true where a layer has a tensor."""


def read_blueprint(files: Sequence[GgufFile]) -> tuple[Architecture, list[Target]]:
    """Return the family of a model in GGUF files, and its tensors without their numbers.

    Raises:
        CheckpointError: the files do not make a model of the architecture that the first one names.
        UnsupportedError: the architecture is not known.
    """
    path, name = files[0].path, files[0].metadata.get("general.architecture")
    families = [family for family in FAMILIES if name in _gguf_names(family)]
    if not families:
        known = ", ".join(sorted({name for family in FAMILIES for name in _gguf_names(family)}))
        raise UnsupportedError(f"{path} has the architecture {name!r}; known are {known}")
    shapes = {key: info.shape for file in files for key, info in file.tensors.items()}
    prefix = f"{name}."
    keys = {
        key.removeprefix(prefix): _plain(value)
        for key, value in files[0].metadata.items()
        if key.startswith(prefix)
    }
    drawn: Any = type("Drawn", (_Drawn, families[0]), {})
    try:
        family = drawn(Config(_config(keys, shapes, str(name)), str(path)), {})
        family.draw(path, shapes)
        return family, list(family.targets())
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not make a {name}: {type(error).__name__}: {error}") from error


def _plain(value: StoredValue) -> Any:
    """Return a value as config.json would have it; of an array of texts the length."""
    if not isinstance(value, Array):
        return value
    return len(value) if value.values is None else value.values.tolist()


def _gguf_names(family: type[Architecture]) -> tuple[str, ...]:
    name = family.gguf_name
    return (name, f"{name}_moe") if name == "nemotron_h" else (name,)


def _config(keys: Mapping[str, Any], shapes: Shapes, name: str) -> dict[str, Any]:
    """Return the settings of config.json that names and orders of rows depend on."""
    config: dict[str, Any] = {}
    for key, settings in SETTINGS.items():
        if key in keys:
            config |= dict.fromkeys(settings, keys[key])
    if isinstance(heads := keys.get("attention.head_count_kv"), list):  # 0 in layers without attention
        config["num_key_value_heads"] = max(heads)
    if "attention.indexer.types" in keys:
        config["indexer_types"] = [("shared", "full")[full] for full in keys["attention.indexer.types"]]
    config["block_auto_adjust_ff_dim"] = False  # the file has the width that follows
    config["tie_word_embeddings"] = "output.weight" not in shapes
    config["layer_types"] = [_kind(i, shapes) for i in range(keys.get("block_count", 0))]
    for part, settings in SHOWN.items():
        shown = any(f"blk.{i}.{part}" in shapes for i in range(keys.get("block_count", 0)))
        config |= dict.fromkeys(settings, shown)
    if "ssm.state_size" in keys:
        sizes = ("linear_value_head_dim", "mamba_d_state", "ssm_state_size")
        config |= dict.fromkeys(sizes, keys["ssm.state_size"])
    if name == "ernie4_5-moe":
        shared = keys.get("expert_shared_feed_forward_length", 0)
        config["moe_num_shared_experts"] = shared // keys["expert_feed_forward_length"]
    if name == "deepseek4":
        del config["layer_types"]
    if name == "falcon-h1":
        config |= _multipliers(keys)
    if name == "gemma4":
        config |= _gemma4(keys, shapes)
    if name == "granitehybrid" and "expert_count" not in keys:
        config |= {"num_local_experts": 0, "shared_intermediate_size": keys["feed_forward_length"]}
    if name == "llama4":
        config["intermediate_size_mlp"] = keys["feed_forward_length"]
        config["intermediate_size"] = keys["expert_feed_forward_length"]
    if "attention.key_length_mla" in keys:
        config["qk_rope_head_dim"] = keys["rope.dimension_count"]
        config["qk_nope_head_dim"] = keys["attention.key_length_mla"] - keys["rope.dimension_count"]
        config["q_lora_rank"] = keys.get("attention.q_lora_rank") or None
    if name.startswith("nemotron_h"):
        config |= _nemotron_h(keys, name)
    return config


def _kind(layer: int, shapes: Shapes) -> str:
    """Return a layer's kind; only recurrent ones have these tensors."""
    if f"blk.{layer}.shortconv.conv.weight" in shapes:
        return "conv"
    return "linear_attention" if f"blk.{layer}.ssm_a" in shapes else "full_attention"


def _gemma4(keys: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Return the kinds of the layers, and which tensors they have."""
    slides = keys["attention.sliding_window_pattern"]
    first_full = slides.index(False) if False in slides else -1
    return {
        "layer_types": ["sliding_attention" if here else "full_attention" for here in slides],
        "head_dim": keys["attention.key_length_swa"],
        "global_head_dim": keys["attention.key_length"],
        "attention_k_eq_v": f"blk.{first_full}.attn_v.weight" not in shapes,
        "enable_moe_block": "expert_count" in keys,
    }


def _multipliers(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return Falcon-H1's multipliers, which are in the numbers of the file's tensors."""
    if missing := [name for name in MULTIPLIERS if name not in keys]:
        raise UnsupportedError(
            f"the file does not say what its tensors are multiplied by (falcon-h1.{missing[0]}), as other "
            "programs' files of this architecture; give the directory of the checkpoint as the base"
        )
    return {name: keys[name] for name in MULTIPLIERS}


def _nemotron_h(keys: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the kinds of the layers; a file shows a layer's kind by the sizes it has."""
    widths, mlp = keys["feed_forward_length"], "moe" if name.endswith("_moe") else "mlp"
    kinds = [
        "attention" if heads else (mlp if width else "mamba")
        for heads, width in zip(keys["attention.head_count_kv"], widths, strict=True)
    ]
    return {
        "layers_block_type": kinds,
        "mamba_head_dim": keys["ssm.inner_size"] // keys["ssm.time_step_rank"],
        "intermediate_size": max(widths),
    }


class _Drawn(Architecture):
    """Mixed into a family: invents the checkpoint's tensors in the shapes that the file's tensors need."""

    def draw(self, path: Path, shapes: Shapes) -> None:
        """Set the file's tensors, by their shapes, rows first."""
        self._path, self._shapes, self._drawn = path, shapes, dict[str, SourceTensor]()
        self._source = self._drawn

    def _define(self, source: str, shape: tuple[int, ...]) -> None:
        self._drawn.setdefault(source, SourceTensor(source, shape, "F32", self._path, 0))

    def expect_shape(self, source: str, shape: tuple[int, ...]) -> None:
        self._define(source, shape)
        super().expect_shape(source, shape)

    def take(self, name: str, source: str, *, transposed: bool = False, **how: Any) -> Target:
        shape = self._shape(name)
        self._define(source, shape[::-1] if transposed else shape)
        return super().take(name, source, transposed=transposed, **how)

    def stack(self, name: str, sources: Sequence[str], *, rows: Rows | None = None) -> Target:
        for source in sources:
            self._define(source, self._shape(name)[1:])
        return super().stack(name, sources, rows=rows)

    def vector(self, name: str, source: str, n: int) -> Target:
        self._define(source, (n,))
        return super().vector(name, source, n)

    def _shape(self, name: str) -> tuple[int, ...]:
        try:
            return self._shapes[name]
        except KeyError:
            raise CheckpointError(
                f"{self._path} has no tensor {name}, which its architecture needs"
            ) from None


__all__ = ["read_blueprint"]
