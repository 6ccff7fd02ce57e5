"""Gemma 3n: streams that take turns, embeddings for each layer, sparse activations, and shared caches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from convert.architectures.architecture import Target, Value
from convert.architectures.gemma import Gemma3
from convert.architectures.gemma4 import EMBEDDED, WHOLE
from convert.architectures.transformer import Transformer
from convert.errors import UnsupportedError
from convert.source.config import Config
from convert.source.tensor import Array, SourceTensor

STREAMS = {
    "altup_correct_coef": "altup.correction_coefs",
    "altup_predict_coef": "altup.prediction_coefs",
    "altup_router": "altup.modality_router",
    "altup_router_norm": "altup.router_norm",
}
LAUREL = {
    "laurel_l": "laurel.linear_left",
    "laurel_r": "laurel.linear_right",
    "laurel_post_norm": "laurel.post_laurel_norm",
}
CACHED = {"attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_k_norm": "self_attn.k_norm"}
PROJECTIONS = {"altup_proj": "altup_projections", "altup_unembd_proj": "altup_unembed_projections"}

FIXED: Mapping[str, Any] = {
    "altup_num_inputs": 4,
    "altup_active_idx": 0,
    "altup_correct_scale": True,
    "laurel_rank": 64,
    "hidden_size_per_layer_input": 256,
    "final_logit_softcapping": 30.0,
}
"""Settings that are constants in llama.cpp's ``gemma3n.cpp`` and ``llama-hparams.h``."""

N_SPARSE, SPARSITY = 10, 0.95
"""The first layers, and the share of their MLP's activations that are cut off."""

N_CACHED = 20
"""Layers with a cache of their own."""


class Gemma3n(Gemma3):
    """Its norms add nothing; queries and keys are normed, so that scores are not scaled."""

    names = ("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration")
    gguf_name = "gemma3n"
    layer = Gemma3.layer | STREAMS | LAUREL | EMBEDDED
    added_to_norms = 0.0
    full_every = 5
    ignored = (*Gemma3.ignored, "*audio_tower.*", "*embed_vision.*", "*embed_audio.*")
    without_lora = (
        "altup_proj.weight",
        "altup_unembd_proj.weight",
        "per_layer_model_proj.weight",
        "per_layer_token_embd.weight",
        "blk.*.altup_router.weight",
    )
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "sliding_window": 512,
        "num_kv_shared_layers": 15,
        **FIXED,
    }

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        sizes = config.get("intermediate_size", [])
        if isinstance(sizes, list) and len(set(sizes)) == 1:  # one for each layer, all the same
            config = config.replaced(intermediate_size=sizes[0])
        super().__init__(config, tensors)

    # -- settings ---------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        Transformer.check(self)
        for key, value in FIXED.items():
            self.config.expect(key, value)
        if isinstance(sizes := self.config.get("intermediate_size"), list):
            raise UnsupportedError(
                f"config.json: intermediate_size is {sizes!r:.60}; llama.cpp's gemma3n has MLPs of one size"
            )
        usual = [SPARSITY if i < N_SPARSE < self.n_layers else 0.0 for i in range(self.n_layers)]
        sparsity = self.config.get("activation_sparsity_pattern", usual)
        if sparsity != [SPARSITY if i < N_SPARSE else 0.0 for i in range(self.n_layers)]:
            raise UnsupportedError(
                f"config.json: activation_sparsity_pattern is {sparsity!r:.60}; llama.cpp's gemma3n cuts "
                f"off {SPARSITY} of the activations in the first {N_SPARSE} layers"
            )
        self.config.expect("num_kv_shared_layers", max(0, self.n_layers - N_CACHED))
        if self.n_layers > N_CACHED and self.slides[N_CACHED - 2 : N_CACHED] != [True, False]:
            raise UnsupportedError(
                f"config.json: layers share the caches of layers {N_CACHED - 2} and {N_CACHED - 1} in "
                "llama.cpp's gemma3n, which must be one with a window and one without (layer_types)"
            )

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``gemma3n.``."""
        return super().metadata() | {
            "attention.shared_kv_layers": self.config.integer("num_kv_shared_layers"),
            "embedding_length_per_layer_input": FIXED["hidden_size_per_layer_input"],
        }

    def caps(self) -> dict[str, Value]:
        """Return nothing: the cap is one of the constants."""
        return {}

    # -- tensors ----------------------------------------------------------------------------------

    def targets(self) -> Iterator[Target]:
        """Yield every tensor of the GGUF file."""
        yield from super().targets()
        for name, source in PROJECTIONS.items():
            each = range(FIXED["altup_num_inputs"] - 1)
            yield self.stack(f"{name}.weight", [f"{self.prefix}{source}.{i}.weight" for i in each])
        for name, source in WHOLE.items():
            if name == "per_layer_token_embd":
                yield self._padded(f"{name}.weight", f"{self.prefix}{source}.weight")
            else:
                yield self.take(f"{name}.weight", f"{self.prefix}{source}.weight")
        for i in range(self.n_layers):
            source = f"{self.prefix}layers.{i}.altup.correct_output_scale"
            yield self.take(f"blk.{i}.altup_correct_scale.weight", source)

    def part(self, name: str, target: str, source: str) -> Iterator[Target]:
        """Yield one part of a layer.

        llama.cpp wants keys and values of layers that read another's cache, too, and never uses them.
        """
        if name in CACHED and self._is_shared(source) and not self.has(f"{source}.weight"):
            yield self.constant(f"{target}.weight", np.zeros(self.shapes[name], np.float32))
        elif name in ("altup_correct_coef", "altup_predict_coef"):  # rows of four numbers
            self.expect_shape(f"{source}.weight", self.shapes[name])
            yield self.take(f"{target}.weight", f"{source}.weight", is_matrix=False)
        else:
            yield from super().part(name, target, source)

    def _is_shared(self, source: str) -> bool:
        """Whether a module is of a layer that reads another's cache."""
        layer = source.removeprefix(f"{self.prefix}layers.").partition(".")[0]
        return int(layer) >= self.n_layers - self.config.integer("num_kv_shared_layers")

    def _padded(self, name: str, source: str) -> Target:
        """Return the embeddings for each layer. Tokens of images and sounds have those of token 0."""
        n = self.tensor(self._embeddings).shape[0]
        if not self.has(source) or (n_own := self.tensor(source).shape[0]) == n:
            return self.take(name, source)
        tensor, width = self.tensor(source), self.n_layers * FIXED["hidden_size_per_layer_input"]
        self.expect_shape(source, (n_own, width))
        if n_own > n:
            return self.take(name, source, rows=np.arange(n))

        def pieces() -> Iterator[Array]:
            yield from tensor.pieces()
            yield np.repeat(next(iter(tensor.pieces()))[:1], n - n_own, axis=0)

        return self.compute(name, (n, width), tensor.sources, pieces)

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each part of a layer, by its name in ``layer``."""
        width, n, rank = self.config.integer("hidden_size"), FIXED["altup_num_inputs"], FIXED["laurel_rank"]
        embedded = FIXED["hidden_size_per_layer_input"]
        return {
            **super().shapes,
            "altup_correct_coef": (n, n),
            "altup_predict_coef": (n * n, n),
            "altup_router": (n, width),
            "laurel_l": (rank, width),
            "laurel_r": (width, rank),
            "inp_gate": (embedded, width),
            "proj": (width, embedded),
        }
