"""EXAONE 4: norms after each part; the large model has windows, and no positions outside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.transformer import ATTENTION, GATED_MLP, HEAD_NORMS, POST_NORMS, Transformer
from convert.errors import UnsupportedError

HYBRID = 64
"""The number of layers of the one size for which llama.cpp has windows."""


class Exaone4(Transformer):
    """Queries and keys are normed a head. With windows, the layers of full attention have no positions."""

    names = ("Exaone4ForCausalLM",)
    gguf_name = "exaone4"
    layer = ATTENTION | HEAD_NORMS | GATED_MLP | POST_NORMS
    rope_kinds = ("linear", "llama3", "yarn")
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 4096,
        "intermediate_size": 16384,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
    }

    def check(self) -> None:
        """Refuse what llama.cpp's architecture cannot express."""
        super().check()
        self.expect_usual_heads()
        if ("sliding_window" in self.config) != (self.n_layers == HYBRID):
            raise UnsupportedError(
                f"config.json: sliding_window is {self.config.get('sliding_window')!r} with "
                f"{self.n_layers} layers; llama.cpp's exaone4 has windows with {HYBRID} layers, and with "
                "no other number"
            )

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        values = super().metadata()
        if self.n_layers == HYBRID:
            values["attention.sliding_window"] = self.config.integer("sliding_window")
            values["attention.sliding_window_pattern"] = self.slides()
        return values

    def slides(self) -> list[bool]:
        """Return for each layer whether it has a sliding window; ``LLLG`` and 4 say the same."""
        said = self.config.get("sliding_window_pattern")
        every = len(said) if isinstance(said, str) else self.config.integer("sliding_window_pattern")
        usual = [
            "sliding_attention" if every and (i + 1) % every else "full_attention"
            for i in range(self.n_layers)
        ]
        return [kind == "sliding_attention" for kind in self.layer_types(usual)]
