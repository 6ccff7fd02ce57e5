"""Gemma 1, 2 and 3, and the text part of vision-language checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.transformer import ATTENTION, GATED_MLP, HEAD_NORMS, Transformer
from convert.errors import UnsupportedError
from convert.source.config import Rope

NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class Gemma(Transformer):
    """Llama's layers with GELU, norms that add 1, and scaled embeddings, which also give the output."""

    names = ("GemmaForCausalLM",)
    gguf_name = "gemma"
    rope_kinds = ("linear", "yarn")
    activation = ("hidden_act", ("gelu_pytorch_tanh", "gelu_new"))
    added_to_norms = 1.0
    is_tied = True
    has_output = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
    }


class Gemma2(Transformer):
    """Norms before and after each part, a sliding window in every other layer, soft-capped logits."""

    names: ClassVar[tuple[str, ...]] = ("Gemma2ForCausalLM",)
    gguf_name = "gemma2"
    layer = NORMS | ATTENTION | GATED_MLP
    rope_kinds = ("linear",)
    activation = ("hidden_activation", ("gelu_pytorch_tanh", "gelu_new"))
    added_to_norms = 1.0
    is_tied = True
    has_output = False
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }
    full_every = 2
    """The default of ``sliding_window_pattern``: every n-th layer has full attention."""
    largest = 46
    """The number of layers of the size whose attention llama.cpp scales by hidden size / heads."""

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        share = self.config.integer("hidden_size") // self.n_heads
        scale = share if self.n_layers == self.largest else self.head_size
        scalar = self.config.integer("query_pre_attn_scalar")
        if scalar != scale:
            raise UnsupportedError(
                f"config.json: query_pre_attn_scalar is {scalar}; llama.cpp's "
                f"{self.gguf_name} computes with {scale} for {self.n_layers} layers"
            )

    @cached_property
    def slides(self) -> list[bool]:
        """For each layer, whether its attention has a sliding window."""
        every = self.config.integer("sliding_window_pattern", self.full_every)
        usual = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(self.n_layers)]
        return [kind == "sliding_attention" for kind in self.config.get("layer_types", usual)]

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        values = super().metadata()
        if any(self.slides):
            values["attention.sliding_window"] = self.config.integer("sliding_window")
            values["attention.sliding_window_pattern"] = self.slides
        return values | self.caps()

    def caps(self) -> dict[str, Value]:
        """Return the soft caps, which llama.cpp's gemma2 always applies."""
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            if key not in self.config:
                raise UnsupportedError(f"config.json: {key} is null; llama.cpp's gemma2 always applies one")
        return {
            "attn_logit_softcapping": self.config.number("attn_logit_softcapping"),
            "final_logit_softcapping": self.config.number("final_logit_softcapping"),
        }


class Gemma3(Gemma2):
    """Gemma 3: queries and keys are normed, and sliding layers have a rotation of their own."""

    names = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
    gguf_name = "gemma3"
    has_output = True
    layer = NORMS | ATTENTION | HEAD_NORMS | GATED_MLP
    # published vision-language files give only what differs from transformers' class
    defaults: ClassVar[Mapping[str, Any]] = {
        **Gemma2.defaults,
        "max_position_embeddings": 131072,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    }
    full_every = 6
    largest = 62
    prefixes = ("model.", "model.language_model.", "language_model.model.")
    heads: ClassVar[tuple[str, ...]] = ("lm_head.weight", "language_model.lm_head.weight")
    ignored = (
        *Gemma2.ignored,
        "*vision_tower.*",
        "*multi_modal_projector.*",
    )

    def read_rope(self) -> Rope:
        """Return the rotary settings of the layers with full attention."""
        return self.config.rope("full_attention", default_theta=1e6)

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        sliding = self.sliding_rope()
        if sliding.kind != "default" or sliding.partial != 1:
            raise UnsupportedError(
                f"config.json: the rotary scaling of the sliding layers is {sliding.kind!r}; llama.cpp's "
                "gemma3 turns them unscaled"
            )
        values = super().metadata()
        return values | ({"rope.freq_base_swa": sliding.theta} if any(self.slides) else {})

    def sliding_rope(self) -> Rope:
        """Return the rotary settings of the sliding layers; ``rope_scaling`` does not apply to them."""
        if "sliding_attention" in self.config.get("rope_parameters", {}):
            return self.config.rope("sliding_attention")
        return Rope(self.config.number("rope_local_base_freq", 10000.0))

    def caps(self) -> dict[str, Value]:
        """Return the soft cap of the output, if there is one."""
        if "final_logit_softcapping" not in self.config:
            return {}
        return {"final_logit_softcapping": self.config.number("final_logit_softcapping")}
