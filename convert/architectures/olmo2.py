"""OLMo 2: norms after each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Target
from convert.architectures.transformer import ATTENTION, GATED_MLP, HEAD_NORMS, Transformer


class Olmo2(Transformer):
    """Norms after each part, none before it. Queries and keys are normed over all heads at once."""

    names = ("Olmo2ForCausalLM",)
    gguf_name = "olmo2"
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
    }
    layer = (
        ATTENTION
        | HEAD_NORMS
        | GATED_MLP
        | {
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        }
    )

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.expect_usual_heads()

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer."""
        usual = super().shapes
        return {**usual, "attn_q_norm": usual["attn_q"][:1], "attn_k_norm": usual["attn_k"][:1]}

    def embeddings(self) -> Iterator[Target]:
        """Yield the token embeddings and the output matrix, which llama.cpp requires even if tied."""
        yield from super().embeddings()
        if self.tied:
            yield self.take("output.weight", self._embeddings)
