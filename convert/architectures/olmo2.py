"""OLMo 2 and 3: norms after each part; OLMoE, which has experts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.mixture import Mixture
from convert.architectures.transformer import ATTENTION, GATED_MLP, HEAD_NORMS, POST_NORMS, Transformer
from convert.errors import UnsupportedError
from convert.source.config import Rope


class Olmo2(Transformer):
    """Norms after each part, none before it. Queries and keys are normed over all heads at once."""

    names: ClassVar[tuple[str, ...]] = ("Olmo2ForCausalLM",)
    gguf_name = "olmo2"
    needs_output = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
    }
    layer = ATTENTION | HEAD_NORMS | GATED_MLP | POST_NORMS

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.expect_usual_heads()

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer."""
        usual = super().shapes
        return {**usual, "attn_q_norm": usual["attn_q"][:1], "attn_k_norm": usual["attn_k"][:1]}


class Olmo3(Olmo2):
    """OLMo 3: most layers have a sliding window, and an unscaled rotation."""

    names = ("Olmo3ForCausalLM",)
    rope_kinds = ("yarn",)
    usual_rope: ClassVar[Mapping[str, Any]] = {"rope_theta": 500000.0}
    defaults: ClassVar[Mapping[str, Any]] = {**Olmo2.defaults, "sliding_window": 4096}

    def read_rope(self) -> Rope:
        """Return the rotary settings of the layers with full attention."""
        return self.config.rope("full_attention", default_theta=self.usual_rope["rope_theta"])

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        if "sliding_attention" in self.config.get("rope_parameters", {}):
            sliding = self.config.rope("sliding_attention", default_theta=self.rope.theta)
            if (sliding.kind, sliding.theta) != ("default", self.rope.theta):
                raise UnsupportedError(
                    f"config.json: the sliding layers rotate with {sliding.kind!r}, rope_theta "
                    f"{sliding.theta:g}; llama.cpp's olmo2 turns them unscaled, with {self.rope.theta:g}"
                )
        values = super().metadata()
        if any(slides := self.slides()):
            values["attention.sliding_window"] = self.config.integer("sliding_window")
            values["attention.sliding_window_pattern"] = slides
        return values

    def slides(self) -> list[bool]:
        """Return for each layer whether it has a sliding window; by default all but every fourth."""
        usual = ["full_attention" if i % 4 == 3 else "sliding_attention" for i in range(self.n_layers)]
        return [kind == "sliding_attention" for kind in self.layer_types(usual)]


class Olmoe(Mixture):
    """Experts in every layer; queries and keys are normed over all heads at once."""

    names = ("OlmoeForCausalLM",)
    gguf_name = "olmoe"
    needs_output = True
    sizes = ("num_experts", "num_experts_per_tok", "intermediate_size")
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2048,
        "intermediate_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "num_experts": 64,
        "num_experts_per_tok": 8,
    }
    aliases: ClassVar[Mapping[str, str]] = {"num_local_experts": "num_experts"}

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.expect_usual_heads()
        self.config.expect("num_key_value_heads", self.n_heads)
        self.config.expect("norm_topk_prob", False)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer."""
        usual = super().shapes
        return {**usual, "attn_q_norm": usual["attn_q"][:1], "attn_k_norm": usual["attn_k"][:1]}
