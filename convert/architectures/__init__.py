"""The model families that can be converted, a module each. A new family is one file here and a line below.

architecture.py  what a family says, and what its table of tensors is written with
decoder.py       embeddings and output matrix, which all decoders have
transformer.py   the plain decoder: attention and MLP in every layer; most families start from it
mixture.py       the plain decoder with experts
nearest.py       what to say of an architecture that is not known
experts.py       experts as stacks of matrices
mamba.py         recurrent layers
hyper_connections.py  residual streams that mix
rotary.py        scaled rotary positions
llama.py, qwen.py, gemma.py ...  the families
"""

from __future__ import annotations

from convert.architectures.apertus import Apertus
from convert.architectures.architecture import Architecture, Target
from convert.architectures.deepseek import DeepSeekV3, KimiK25
from convert.architectures.deepseek4 import DeepSeekV4
from convert.architectures.deepseek_sparse import DeepSeekV32, GlmMoeDsa
from convert.architectures.ernie4_5 import Ernie45, Ernie45Moe
from convert.architectures.exaone4 import Exaone4
from convert.architectures.falcon_h1 import FalconH1
from convert.architectures.gemma import Gemma, Gemma2, Gemma3
from convert.architectures.gemma3n import Gemma3n
from convert.architectures.gemma4 import Gemma4
from convert.architectures.glm4moe import Glm4Moe
from convert.architectures.glm5_next import Glm5Next
from convert.architectures.gpt2 import Gpt2
from convert.architectures.gptoss import GptOss
from convert.architectures.granite import Granite, GraniteMoe
from convert.architectures.granite_hybrid import GraniteHybrid
from convert.architectures.hunyuan import HunYuan, HunYuanMoe
from convert.architectures.kimi_linear import KimiLinear
from convert.architectures.lfm2 import Lfm2, Lfm2Moe
from convert.architectures.llama import Llama, Mistral, SmolLM3
from convert.architectures.llama4 import Llama4
from convert.architectures.minimax_m2 import MiniMaxM2
from convert.architectures.ministral3 import Ministral3
from convert.architectures.mistral4 import Mistral4
from convert.architectures.nemotron_h import NemotronH, NemotronHOmni
from convert.architectures.olmo2 import Olmo2, Olmo3, Olmoe
from convert.architectures.phi3 import Phi3
from convert.architectures.qwen import Qwen2, Qwen3
from convert.architectures.qwen2moe import Qwen2Moe
from convert.architectures.qwen3moe import Qwen3Moe
from convert.architectures.qwen3next import Qwen3Next
from convert.architectures.qwen3vl import Qwen3VL, Qwen3VLMoe
from convert.architectures.qwen35 import Qwen35, Qwen35Moe
from convert.architectures.seed_oss import SeedOss
from convert.architectures.starcoder2 import Starcoder2
from convert.errors import UnsupportedError

FAMILIES: tuple[type[Architecture], ...] = (
    Apertus,
    DeepSeekV3,
    DeepSeekV32,
    DeepSeekV4,
    Ernie45,
    Ernie45Moe,
    Exaone4,
    FalconH1,
    Gemma,
    Gemma2,
    Gemma3,
    Gemma3n,
    Gemma4,
    Glm4Moe,
    Glm5Next,
    GlmMoeDsa,
    Gpt2,
    GptOss,
    Granite,
    GraniteHybrid,
    GraniteMoe,
    HunYuan,
    HunYuanMoe,
    KimiK25,
    KimiLinear,
    Lfm2,
    Lfm2Moe,
    Llama,
    Llama4,
    MiniMaxM2,
    Ministral3,
    Mistral,
    Mistral4,
    NemotronH,
    NemotronHOmni,
    Olmo2,
    Olmo3,
    Olmoe,
    Phi3,
    Qwen2,
    Qwen2Moe,
    Qwen3,
    Qwen35,
    Qwen35Moe,
    Qwen3Moe,
    Qwen3Next,
    Qwen3VL,
    Qwen3VLMoe,
    SeedOss,
    SmolLM3,
    Starcoder2,
)


def is_known(name: str) -> bool:
    """Whether a family converts an entry of config.json's ``architectures``."""
    return any(name in family.names for family in FAMILIES)


def find_architecture(name: str, text_type: object = None) -> type[Architecture]:
    """Return the class for an entry of config.json's ``architectures``.

    Args:
        text_type: ``model_type`` of the text part, which decides between families that share a name.

    Raises:
        UnsupportedError: no family has this name; the message lists those there are.
    """
    families = [family for family in FAMILIES if name in family.names]
    if families:
        return next((f for f in families if text_type in f.text_types), families[0])
    known = ", ".join(sorted(name for family in FAMILIES for name in family.names))
    raise UnsupportedError(f"config.json: the architecture {name} is not known; known are {known}")


__all__ = ["FAMILIES", "Architecture", "Target", "find_architecture", "is_known"]
