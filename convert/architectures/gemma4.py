"""Gemma 4: heads of two sizes, embeddings for each layer, caches that layers share, and experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from convert.architectures.architecture import Target, Value
from convert.architectures.experts import expert_stacks
from convert.architectures.gemma import NORMS, Gemma3
from convert.architectures.transformer import GATED_MLP
from convert.errors import CheckpointError, UnsupportedError
from convert.source.config import Rope

LAYER = {
    **NORMS,
    **GATED_MLP,
    "attn_q": "self_attn.q_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
}
OWN_CACHE = {"attn_k": "self_attn.k_proj", "attn_k_norm": "self_attn.k_norm"}
VALUES = {"attn_v": "self_attn.v_proj"}
EMBEDDED = {
    "inp_gate": "per_layer_input_gate",
    "proj": "per_layer_projection",
    "post_norm": "post_per_layer_input_norm",
}
"""What brings a layer's own embeddings in."""

WHOLE = {
    "per_layer_token_embd": "embed_tokens_per_layer",
    "per_layer_model_proj": "per_layer_model_projection",
    "per_layer_proj_norm": "per_layer_projection_norm",
}
"""The embeddings of all layers."""

EXPERTS = {
    "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
    "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
    "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_down_exps.scale": "router.per_expert_scale",
}
UNTURNED = 1e30
"""What llama.cpp divides a frequency by so that the pair does not turn."""


class Gemma4(Gemma3):
    """Its norms add nothing; queries and keys are normed, so that scores are not scaled."""

    names = ("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration")
    gguf_name = "gemma4"
    added_to_norms = 0.0
    ignored = (*Gemma3.ignored, "*audio_tower.*", "*embed_vision.*", "*embed_audio.*")
    without_lora = (
        "per_layer_model_proj.weight",
        "per_layer_token_embd.weight",
        "blk.*.ffn_down_exps.weight",  # llama.cpp adds a LoRA after what the experts are scaled by
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 30,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "global_head_dim": 512,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "sliding_window": 512,
        "hidden_size_per_layer_input": 256,
        "num_kv_shared_layers": 0,
    }

    # -- settings ---------------------------------------------------------------------------------

    @cached_property
    def slides(self) -> list[bool]:
        """For each layer, whether its attention has a sliding window; the last one has none."""
        usual = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(self.n_layers)]
        kinds = self.layer_types(usual)
        return [*(kind == "sliding_attention" for kind in kinds[:-1]), False]

    @cached_property
    def n_own(self) -> int:
        """How many layers have a cache of their own; the others read the last one of their kind."""
        n_own, slides = self.n_layers - self.config.integer("num_kv_shared_layers"), self.slides
        if n_own < self.n_layers and slides[max(n_own - 2, 0) : n_own] != [True, False]:
            raise UnsupportedError(
                f"config.json: {self.n_layers - n_own} layers share caches (num_kv_shared_layers); "
                "llama.cpp's gemma4 then takes those of the two layers before them, which must be one with "
                "a window and one without"
            )
        return n_own

    def of_full(self, key: str, outer: str) -> int:
        """Return a setting of the layers without a window, which may have one of their own."""
        given = self.config.get("per_layer_config")
        if given is None:
            return self.config.integer(outer, self.config.integer(key))
        by_layer = {int(i): settings for i, settings in given.items()}
        own = [by_layer.get(i, {}).get(key) for i in range(self.n_layers)]
        values = {value for value, slides in zip(own, self.slides, strict=True) if not slides}
        others = {value for value, slides in zip(own, self.slides, strict=True) if slides}
        if len(values) != 1 or others - {None, self.config.integer(key)}:
            raise UnsupportedError(f"config.json: per_layer_config gives layers of one kind another {key}")
        return values.pop() or self.config.integer(key)

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        self.config.expect("hidden_activation", "gelu_pytorch_tanh", "gelu_new")
        self.config.expect("attention_bias", False)
        self.config.expect("use_bidirectional_attention", None, "vision")  # a text sees no image
        if not any(self.slides):
            raise UnsupportedError(
                "config.json: layer_types has no sliding_attention; llama.cpp's gemma4 must have some"
            )

    def read_rope(self) -> Rope:
        """Return the rotary settings of the layers without a window."""
        if "rope_parameters" not in self.config:
            return Rope(1e6, 0.25, {"rope_type": "proportional"})
        return self.config.rope("full_attention", default_theta=1e6)

    @cached_property
    def rope(self) -> Rope:
        """The rotary settings of the layers without a window: some pairs of each head turn."""
        rope = self.read_rope()
        if rope.kind not in ("proportional", "default") or rope.scaling.get("factor", 1.0) != 1:
            raise UnsupportedError(
                f"config.json: the rotary scaling is {rope.kind!r}; llama.cpp's gemma4 knows proportional "
                "ones, with a factor of 1"
            )
        return rope

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``gemma4.``."""
        self.check()
        config, sliding = self.config, self.sliding_rope()
        if sliding.kind != "default" or sliding.partial != 1:
            raise UnsupportedError(
                f"config.json: the rotary scaling of the sliding layers is {sliding.kind!r}; llama.cpp's "
                "gemma4 turns them unscaled"
            )
        size, full_size = self.head_size, self.of_full("head_dim", "global_head_dim")
        n_kv, inner = self.n_heads_kv, config.integer("intermediate_size")
        has_own = config.get("attention_k_eq_v") or "per_layer_config" in config
        n_kv_full = self.of_full("num_key_value_heads", "num_global_key_value_heads") if has_own else n_kv
        wide = 2 if config.get("use_double_wide_mlp") else 1
        return {
            "context_length": config.integer("max_position_embeddings"),
            "embedding_length": config.integer("hidden_size"),
            "block_count": self.n_layers,
            "feed_forward_length": [inner * (1 if i < self.n_own else wide) for i in range(self.n_layers)],
            "attention.head_count": self.n_heads,
            "attention.head_count_kv": [n_kv if slides else n_kv_full for slides in self.slides],
            "attention.key_length": full_size,
            "attention.value_length": full_size,
            "attention.key_length_swa": size,
            "attention.value_length_swa": size,
            "attention.layer_norm_rms_epsilon": config.number("rms_norm_eps"),
            "attention.sliding_window": config.integer("sliding_window"),
            "attention.sliding_window_pattern": self.slides,
            "attention.shared_kv_layers": self.n_layers - self.n_own,
            "embedding_length_per_layer_input": self._embedded_size,
            "rope.freq_base": self.rope.theta,
            "rope.freq_base_swa": sliding.theta,
            "rope.dimension_count": full_size,
            "rope.dimension_count_swa": size,
            # llama.cpp caps at 30 where the file says nothing
            "final_logit_softcapping": config.number("final_logit_softcapping", 0.0),
            **self.experts(),
        }

    def experts(self) -> dict[str, Value]:
        """Return the keys of the experts, if there are any."""
        if not self.config.get("enable_moe_block"):
            return {}
        return {
            "expert_count": self.config.integer("num_experts"),
            "expert_used_count": self.config.integer("top_k_experts"),
            "expert_feed_forward_length": self.config.integer("moe_intermediate_size"),
        }

    # -- tensors ----------------------------------------------------------------------------------

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from self.embeddings()
        yield self.take("output_norm.weight", f"{self.prefix}norm.weight")
        yield self.constant("rope_freqs.weight", self._factors())
        is_embedded = self._embedded_size > 0
        if is_embedded:
            shape = (self.tensor(self._embeddings).shape[0], self.n_layers * self._embedded_size)
            self.expect_shape(f"{self.prefix}embed_tokens_per_layer.weight", shape)
            yield from self._weights(WHOLE, "", self.prefix)
        for i in range(self.n_layers):
            ours, theirs = f"blk.{i}.", f"{self.prefix}layers.{i}."
            yield from self._weights({**LAYER, **self._cache(i)}, ours, theirs)
            yield self.take(f"{ours}layer_output_scale.weight", f"{theirs}layer_scalar")
            if is_embedded:
                yield from self._weights(EMBEDDED, ours, theirs)
            if self.config.get("enable_moe_block"):
                yield from self._mixture(ours, theirs)

    @property
    def _embedded_size(self) -> int:
        """Numbers of a token's embedding for one layer; 0 where there are none."""
        return self.config.integer("hidden_size_per_layer_input", 0)

    def _factors(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return what divides the frequencies of a layer without a window: only the first pairs turn."""
        size = self.of_full("head_dim", "global_head_dim")
        turned = int(self.rope.partial * size // 2)
        if not 0 < turned <= size // 2:
            raise CheckpointError(f"config.json: partial_rotary_factor is {self.rope.partial:g}")
        return np.where(np.arange(size // 2) < turned, 1.0, UNTURNED).astype(np.float32)

    def _cache(self, layer: int) -> Mapping[str, str]:
        """Return the table of a layer's own keys and values. Where keys are the values, there is one."""
        if layer >= self.n_own:
            return {}
        is_one = self.config.get("attention_k_eq_v") and not self.slides[layer]
        return OWN_CACHE if is_one else OWN_CACHE | VALUES

    def _weights(self, names: Mapping[str, str], ours: str, theirs: str) -> Iterator[Target]:
        for name, source in names.items():
            yield self.take(f"{ours}{name}.weight", f"{theirs}{source}.weight")

    def _mixture(self, ours: str, theirs: str) -> Iterator[Target]:
        yield self.take(f"{ours}ffn_gate_inp.weight", f"{theirs}router.proj.weight", is_matrix=False)
        for name, source in EXPERTS.items():
            yield self.take(f"{ours}{name}", f"{theirs}{source}")
        yield from expert_stacks(self, ours, f"{theirs}experts.", self.config.integer("num_experts"))
