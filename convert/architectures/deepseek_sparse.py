"""DeepSeek-V3.2 and GLM-5: latent attention to the tokens that an indexer chooses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from convert.architectures.architecture import Architecture, Target, Value
from convert.architectures.deepseek import DeepSeekV3
from convert.errors import CheckpointError, UnsupportedError

INDEXER = {"attn_q_b": "wq_b", "attn_k": "wk", "proj": "weights_proj", "k_norm": "k_norm"}
"""An indexer's tensors: llama.cpp's names and the checkpoint's."""


def indexer_targets(model: Architecture, ours: str, theirs: str) -> Iterator[Target]:
    """Yield the tensors of a layer's indexer."""
    for name, source in INDEXER.items():
        yield model.take(f"{ours}{name}.weight", f"{theirs}{source}.weight")
    yield model.take(f"{ours}k_norm.bias", f"{theirs}k_norm.bias")


class DeepSeekV32(DeepSeekV3):
    """DeepSeek-V3 whose layers attend to the ``index_topk`` tokens with the best scores."""

    names: ClassVar[tuple[str, ...]] = ("DeepseekV32ForCausalLM",)
    gguf_name = "deepseek32"
    without_lora = (*DeepSeekV3.without_lora, "blk.*.indexer.*.weight")
    defaults: ClassVar[Mapping[str, Any]] = {
        **DeepSeekV3.defaults,
        "max_position_embeddings": 163840,
        "index_topk": 2048,
        "index_head_dim": 128,
        "index_n_heads": 64,
    }
    aliases: ClassVar[Mapping[str, str]] = {"num_local_experts": "n_routed_experts"}

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        if (size := self.config.integer("index_head_dim")) % 64:
            raise UnsupportedError(
                f"config.json: index_head_dim is {size}; llama.cpp rotates indexers in blocks of 64"
            )
        return super().metadata() | {
            "attention.indexer.head_count": self.config.integer("index_n_heads"),
            "attention.indexer.key_length": size,
            "attention.indexer.top_k": self.config.integer("index_topk"),
        }

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from super().targets()
        for i, is_full in enumerate(self.full_indexers()):
            theirs = f"{self.prefix}layers.{i}.self_attn.indexer."
            if is_full:
                yield from indexer_targets(self, f"blk.{i}.indexer.", theirs)

    def full_indexers(self) -> list[bool]:
        """Return for each layer whether it has an indexer of its own; all have."""
        return [True] * self.n_layers


class SharedChoices(DeepSeekV3):
    """A layer may take over what the last indexer below it has chosen."""

    def full_indexers(self) -> list[bool]:
        """Return for each layer whether it has an indexer of its own."""
        types = self.config.get("indexer_types") or self._pattern()
        if len(types) != self.n_layers or set(types) - {"full", "shared"} or types[0] != "full":
            raise CheckpointError(
                f"config.json: indexer_types must say full or shared for each of {self.n_layers} layers, "
                f"the first one full, not {types!r:.60}"
            )
        return [kind == "full" for kind in types]

    def _pattern(self) -> list[str]:
        """Return what the older settings say: a letter for each layer, or every how many are full."""
        pattern = self.config.get("index_topk_pattern")
        if pattern is not None:
            return [{"F": "full", "S": "shared"}.get(kind, kind) for kind in pattern]
        every = self.config.integer("index_topk_freq", 1)
        offset = self.config.integer("index_skip_topk_offset", 2)
        return [
            "shared" if max(i - offset + 1, 0) % max(1, every) else "full" for i in range(self.n_layers)
        ]


class GlmMoeDsa(SharedChoices, DeepSeekV32):
    """GLM-5, 5.1, 5.2 and 5.3."""

    names = ("GlmMoeDsaForCausalLM",)
    gguf_name = "glm-dsa"
    defaults: ClassVar[Mapping[str, Any]] = {
        **DeepSeekV32.defaults,
        "hidden_size": 6144,
        "intermediate_size": 12288,
        "num_hidden_layers": 78,
        "num_attention_heads": 64,
        "num_key_value_heads": 64,
        "q_lora_rank": 2048,
        "v_head_dim": 256,
        "qk_nope_head_dim": 192,
        "n_group": 1,
        "topk_group": 1,
        "max_position_embeddings": 202752,
        "rms_norm_eps": 1e-5,
        "index_n_heads": 32,
    }

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        return super().metadata() | {"attention.indexer.types": self.full_indexers()}
