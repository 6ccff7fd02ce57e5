"""Mistral Small 4: DeepSeek's latent attention, and experts of the softmax, without a bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from convert.architectures.architecture import Value
from convert.architectures.deepseek import DeepSeekV3
from convert.architectures.experts import SOFTMAX
from convert.architectures.ministral3 import Ministral3
from convert.source.config import Config
from convert.source.tensor import SourceTensor


class Mistral4(DeepSeekV3):
    """DeepSeek-V3 whose far queries grow, as Ministral 3's do."""

    names = ("Mistral4ForCausalLM", "Mistral3ForConditionalGeneration")
    text_types = ("mistral4",)
    gguf_name = "mistral4"
    scoring = ("softmax", SOFTMAX)
    is_corrected = False
    prefixes = Ministral3.prefixes
    heads = Ministral3.heads
    ignored = Ministral3.ignored
    defaults: ClassVar[Mapping[str, Any]] = {
        **DeepSeekV3.defaults,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "n_routed_experts": 128,
        "routed_scaling_factor": 1.0,
        "kv_lora_rank": 256,
        "q_lora_rank": 1024,
        "qk_nope_head_dim": 64,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 4,
        "first_k_dense_replace": 0,
        "max_position_embeddings": 1048576,
        "num_nextn_predict_layers": 0,
    }
    aliases: ClassVar[Mapping[str, str]] = {"num_local_experts": "n_routed_experts"}
    usual_rope: ClassVar[Mapping[str, Any]] = {
        **Ministral3.usual_rope,
        "rope_theta": 10000.0,
        "factor": 128.0,
        "original_max_position_embeddings": 8192,
    }

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        said = config.get("rope_parameters") or config.get("rope_scaling") or self.usual_rope
        super().__init__(config.replaced(rope_parameters=said, rope_scaling=None), tensors)
        self.said = said

    def metadata(self) -> dict[str, Value]:
        """Return the hyperparameters; keys without the leading ``{gguf_name}.``."""
        values = super().metadata()
        if not (beta := self.said.get("llama_4_scaling_beta")):
            return values
        return values | {
            "attention.temperature_scale": beta,
            "attention.temperature_length": self.said["original_max_position_embeddings"],
        }
