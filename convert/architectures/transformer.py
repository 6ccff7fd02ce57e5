"""The plain decoder, from which most families start: attention and an MLP in every layer."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from convert.architectures.architecture import Rows, Target, Value, rotary_rows
from convert.architectures.decoder import DecoderOnly
from convert.architectures.rotary import rope_factors, rope_metadata
from convert.errors import CheckpointError, ConversionWarning, UnsupportedError
from convert.source.config import Rope

ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
QKV = ("attn_q", "attn_k", "attn_v")
GATED_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
PRE_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
POST_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}


class Transformer(DecoderOnly):
    """A decoder with rotary positions. A family overrides class variables, and methods where necessary."""

    layer: ClassVar[Mapping[str, str]] = PRE_NORMS | ATTENTION | GATED_MLP
    """A layer's tensors: llama.cpp's name and the checkpoint's, both without ``.weight``."""

    rope_kinds: ClassVar[tuple[str, ...]] = ("linear", "yarn")
    """Kinds of rotary scaling that llama.cpp's architecture supports, besides none (``Rope.kind``)."""

    rotates_pairs: ClassVar[bool] = False
    """Whether llama.cpp rotates neighbouring pairs (``LLAMA_ROPE_TYPE_NORM``). False: halves (``NEOX``).

    See ``llama_model_rope_type`` in src/llama-model.cpp. Rows of queries and keys are reordered if True.
    """

    partial_rotation: ClassVar[bool] = False
    """Whether a part of each head may stay unrotated (``partial_rotary_factor``)."""

    activation: ClassVar[tuple[str, tuple[str, ...]]] = ("hidden_act", ("silu", "swish"))
    """The setting that names the MLP's activation, and its values for the one that llama.cpp computes."""

    usual_rope: ClassVar[Mapping[str, Any]] = {}
    """The rotation that transformers takes for what config.json leaves out, as in ``rope_parameters``."""

    epsilon: ClassVar[tuple[str, str]] = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
    """llama.cpp's key of what norms add to the variance, and the setting."""

    last_norm: ClassVar[tuple[str, str]] = ("output_norm", "norm")
    """The norm before the output matrix: llama.cpp's name, and the checkpoint's after the prefix."""

    kinds: ClassVar[frozenset[str]] = frozenset(("sliding_attention", "full_attention"))
    """The kinds of layers that ``layer_types`` of config.json may name."""

    biases: ClassVar[Mapping[str, Collection[str]]] = {}
    """Settings that are true where parts of a layer have biases, each with those parts' names."""

    added_to_norms: ClassVar[float] = 0.0
    """Added to the weights of norms: Gemma stores them less 1."""

    ignored: tuple[str, ...] = ("*.rotary_emb.inv_freq",)

    # -- sizes ------------------------------------------------------------------------------------

    @cached_property
    def n_layers(self) -> int:
        """The number of layers."""
        return self.config.integer("num_hidden_layers")

    @cached_property
    def n_heads(self) -> int:
        """Attention heads of the queries."""
        n_heads = self.config.integer("num_attention_heads")
        if n_heads == 0:
            raise CheckpointError("config.json: num_attention_heads must be a number of at least 1, not 0")
        return n_heads

    @cached_property
    def n_heads_kv(self) -> int:
        """Attention heads of the keys and values."""
        return self.config.integer("num_key_value_heads", self.n_heads)

    @cached_property
    def head_size(self) -> int:
        """Numbers in a head of queries, keys or values."""
        return self.config.integer("head_dim", self.config.integer("hidden_size") // self.n_heads)

    @cached_property
    def n_rotated(self) -> int:
        """Numbers of a head that are rotated."""
        return int(self.head_size * self.rope.partial)

    @cached_property
    def rope(self) -> Rope:
        """The rotary settings, checked against ``rope_kinds`` and ``partial_rotation``."""
        rope = self.read_rope()
        if rope.kind not in ("default", "dynamic", *self.rope_kinds):
            known = ", ".join(("default", "dynamic", *self.rope_kinds))
            raise UnsupportedError(
                f"config.json: the rotary scaling is {rope.kind!r}; llama.cpp's {self.gguf_name} knows "
                f"{known}"
            )
        if rope.partial != 1 and not self.partial_rotation:
            raise UnsupportedError(
                f"config.json: partial_rotary_factor is {rope.partial:g}; llama.cpp's "
                f"{self.gguf_name} turns whole heads"
            )
        return rope

    def read_rope(self) -> Rope:
        """Return the rotary settings of config.json."""
        usual, config = dict(self.usual_rope), self.config
        theta, partial = usual.pop("rope_theta", 10000.0), usual.pop("partial_rotary_factor", 1.0)
        if "rope_parameters" not in config and "rope_scaling" not in config:
            config = config.replaced(rope_scaling=usual)
        return config.rope(default_theta=theta, default_partial=partial)

    # -- metadata ---------------------------------------------------------------------------------

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        self.check()
        length = self.config.integer("max_position_embeddings")
        window = self.window()
        if window is not None and window < length:
            warnings.warn(
                f"the model attends to the last {window} tokens only, and llama.cpp's {self.gguf_name} to "
                f"all; the file is made for contexts of up to {window} tokens, where this is the same",
                ConversionWarning,
                stacklevel=2,
            )
        return {
            "context_length": length if window is None else min(length, window),
            "embedding_length": self.config.integer("hidden_size"),
            "block_count": self.n_layers,
            "feed_forward_length": self.config.integer("intermediate_size"),
            "attention.head_count": self.n_heads,
            "attention.head_count_kv": self.n_heads_kv,
            "attention.key_length": self.head_size,
            "attention.value_length": self.head_size,
            self.epsilon[0]: self.config.number(self.epsilon[1]),
            **self.rope_values(length),
        }

    def rope_values(self, length: int) -> dict[str, Value]:
        """Return the metadata of the rotation; ``length``: of the context, in tokens."""
        return rope_metadata(self.rope, self.n_rotated, length)

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express. A family adds its own."""
        key, names = self.activation
        self.config.expect(key, *names)
        for setting in ("attention_bias", "mlp_bias"):
            self.config.expect(setting, False, *([True] if setting in self.biases else []))

    def window(self) -> int | None:
        """Return the sliding window of an architecture that has none in llama.cpp, or None.

        The file's context length then is the window: that far, both are the same model.
        """
        return None

    def layer_types(self, usual: Sequence[str]) -> Sequence[str]:
        """Return each layer's kind, ``usual`` where config.json says none.

        Raises:
            CheckpointError: there are more or fewer, or others than ``usual`` could have.
        """
        types = self.config.get("layer_types", usual)
        if not isinstance(types, list) or len(types) != self.n_layers or set(types) - self.kinds:
            raise CheckpointError(
                f"config.json: layer_types must say {' or '.join(sorted(self.kinds))} for each of "
                f"{self.n_layers} layers, not {types!r:.60}"
            )
        return types

    def expect_usual_heads(self) -> None:
        """Refuse a head size other than hidden size / heads, which llama.cpp's architecture assumes."""
        self.config.expect("head_dim", self.config.integer("hidden_size") // self.n_heads)

    # -- tensors ----------------------------------------------------------------------------------

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from self.embeddings()
        name, source = self.last_norm[0], f"{self.prefix}{self.last_norm[1]}"
        self.expect_shape(f"{source}.weight", (self.config.integer("hidden_size"),))
        yield from self.norm(name, source)
        for name, factors in rope_factors(self.rope, self.n_rotated).items():
            yield self.constant(name, factors)
        for i in range(self.n_layers):
            yield from self.parts(self.layer, f"blk.{i}.", f"{self.prefix}layers.{i}.")

    def parts(self, layer: Mapping[str, str], ours: str, theirs: str) -> Iterator[Target]:
        """Yield parts of a layer: llama.cpp's names and the checkpoint's, which follow these prefixes."""
        for name, source in layer.items():
            yield from self.part(name, f"{ours}{name}", f"{theirs}{source}")

    def part(self, name: str, target: str, source: str) -> Iterator[Target]:
        """Yield one part of a layer: its weight, and its bias where there is one."""
        shape = self.shapes.get(name, (self.config.integer("hidden_size"),))
        self.expect_shape(f"{source}.weight", shape)
        if name.endswith("_norm"):
            yield from self.norm(target, source)
            return
        rows = self.rows.get(name)
        yield self.take(f"{target}.weight", f"{source}.weight", rows=rows)
        if self.has_bias(name):
            self.expect_shape(f"{source}.bias", shape[:1])
            yield self.take(f"{target}.bias", f"{source}.bias", rows=rows)

    def norm(self, target: str, source: str) -> Iterator[Target]:
        """Yield the weight of a norm, and what else a family's norms have."""
        yield self.take(f"{target}.weight", f"{source}.weight", add=self.added_to_norms)

    def has_bias(self, name: str) -> bool:
        """Whether a part of a layer has a bias."""
        return any(
            name in parts and bool(self.config.get(setting)) for setting, parts in self.biases.items()
        )

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer, by its name in ``layer``.

        Parts that are not listed are vectors of the hidden size.
        """
        width, inner = self.config.integer("hidden_size"), self.config.integer("intermediate_size")
        n_q, n_kv = self.n_heads * self.head_size, self.n_heads_kv * self.head_size
        return {
            "attn_q": (n_q, width),
            "attn_k": (n_kv, width),
            "attn_v": (n_kv, width),
            "attn_qkv": (n_q + 2 * n_kv, width),
            "attn_output": (width, n_q),
            "attn_q_norm": (self.head_size,),
            "attn_k_norm": (self.head_size,),
            "ffn_gate": (inner, width),
            "ffn_up": (inner, width),
            "ffn_down": (width, inner),
        }

    @cached_property
    def rows(self) -> Mapping[str, Rows]:
        """The order of rows of each part whose rows are reordered, by its name in ``layer``."""
        if not self.rotates_pairs:
            return {}
        return {
            "attn_q": rotary_rows(self.n_heads, self.head_size),
            "attn_k": rotary_rows(self.n_heads_kv, self.head_size),
        }
