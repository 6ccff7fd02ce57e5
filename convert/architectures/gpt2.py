"""GPT-2: learned positions, and matrices with their inputs first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Target, Value
from convert.architectures.decoder import DecoderOnly

NORMS = {"attn_norm": "ln_1", "ffn_norm": "ln_2"}
MATRICES = {
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}


class Gpt2(DecoderOnly):
    """Learned positions, layer norms, biases everywhere; matrices with their inputs first (``Conv1D``)."""

    names = ("GPT2LMHeadModel",)
    gguf_name = "gpt2"
    defaults: ClassVar[Mapping[str, Any]] = {
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "layer_norm_epsilon": 1e-5,
    }
    aliases: ClassVar[Mapping[str, str]] = {
        "n_ctx": "n_positions",  # of the oldest files
        "max_position_embeddings": "n_positions",
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
    }
    is_tied = True
    prefixes = ("transformer.", "")
    embedding = "wte.weight"
    without_lora = ("position_embd.weight",)
    ignored = ("*.attn.bias", "*.attn.masked_bias")  # the causal mask, which old files contain

    @cached_property
    def n_layers(self) -> int:
        """Layers."""
        return self.config.integer("n_layer")

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        config = self.config
        config.expect("activation_function", "gelu_new", "gelu_pytorch_tanh", "gelu_fast")
        config.expect("scale_attn_weights", True)
        config.expect("scale_attn_by_inverse_layer_idx", False)
        config.expect("add_cross_attention", False)
        width = config.integer("n_embd")
        return {
            "context_length": config.integer("n_positions"),
            "embedding_length": width,
            "block_count": self.n_layers,
            "feed_forward_length": config.integer("n_inner", 4 * width),
            "attention.head_count": config.integer("n_head"),
            "attention.layer_norm_epsilon": config.number("layer_norm_epsilon"),
        }

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each matrix in the checkpoint, inputs first."""
        width = self.config.integer("n_embd")
        inner = self.config.integer("n_inner", 4 * width)
        return {
            "attn_qkv": (width, 3 * width),
            "attn_output": (width, width),
            "ffn_up": (width, inner),
            "ffn_down": (inner, width),
        }

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from self.embeddings()
        yield self.take("position_embd.weight", f"{self.prefix}wpe.weight", is_matrix=False)
        yield from self.pair("output_norm", f"{self.prefix}ln_f")
        for i in range(self.n_layers):
            for name, source in (NORMS | MATRICES).items():
                theirs = f"{self.prefix}h.{i}.{source}"
                if name in MATRICES:
                    self.expect_shape(f"{theirs}.weight", self.shapes[name])
                yield from self.pair(f"blk.{i}.{name}", theirs, transposed=name in MATRICES)

    def pair(self, target: str, source: str, *, transposed: bool = False) -> Iterator[Target]:
        """Yield a weight and its bias."""
        yield self.take(f"{target}.weight", f"{source}.weight", transposed=transposed)
        yield self.take(f"{target}.bias", f"{source}.bias")
