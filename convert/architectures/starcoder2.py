"""StarCoder 2: layer norms, biases, and an MLP without a gate."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from convert.architectures.architecture import Target
from convert.architectures.transformer import ATTENTION, PRE_NORMS, Transformer


class Starcoder2(Transformer):
    """Rotary positions; llama.cpp adds a bias everywhere, which is 0 where the model has none."""

    names = ("Starcoder2ForCausalLM",)
    gguf_name = "starcoder2"
    is_tied = True
    layer = PRE_NORMS | ATTENTION | {"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}
    activation = ("hidden_act", ("gelu_pytorch_tanh", "gelu_new"))
    epsilon = ("attention.layer_norm_epsilon", "norm_epsilon")
    biases: ClassVar[Mapping[str, Collection[str]]] = {"use_bias": (*ATTENTION, "ffn_up", "ffn_down")}
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 3072,
        "intermediate_size": 12288,
        "num_hidden_layers": 30,
        "num_attention_heads": 24,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "norm_epsilon": 1e-5,
        "hidden_act": "gelu_pytorch_tanh",
        "use_bias": True,
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.expect_usual_heads()
        self.config.expect("use_bias", False, True)

    def part(self, name: str, target: str, source: str) -> Iterator[Target]:
        """Yield one part of a layer, with a bias in any case."""
        yield from super().part(name, target, source)
        if not self.has_bias(name) and name in ("attn_output", "ffn_up", "ffn_down"):
            yield self.constant(f"{target}.bias", np.zeros(self.shapes[name][0], np.float32))

    def norm(self, target: str, source: str) -> Iterator[Target]:
        """Yield the weight of a norm and its bias."""
        yield from super().norm(target, source)
        yield self.take(f"{target}.bias", f"{source}.bias")

    def window(self) -> int | None:
        """Return the sliding window, which llama.cpp's architecture does not have."""
        return self.config.integer("sliding_window") if "sliding_window" in self.config else None
