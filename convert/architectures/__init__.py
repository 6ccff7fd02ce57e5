"""The model families that can be converted, a module each. A new family is one file here and a line below.

architecture.py  what a family says, and what its table of tensors is written with
decoder.py       embeddings and output matrix, which all decoders have
transformer.py   the plain decoder: attention and MLP in every layer; most families start from it
experts.py       mixtures of experts
rotary.py        scaled rotary positions
llama.py, qwen.py, gemma.py ...  the families
"""

from __future__ import annotations

from convert.architectures.architecture import Architecture, Target
from convert.architectures.deepseek import DeepSeekV3, KimiK25
from convert.architectures.gemma import Gemma2, Gemma3
from convert.architectures.gpt2 import Gpt2
from convert.architectures.gptoss import GptOss
from convert.architectures.llama import Llama, Mistral, SmolLM3
from convert.architectures.nemotron_h import NemotronH
from convert.architectures.olmo2 import Olmo2
from convert.architectures.phi3 import Phi3
from convert.architectures.qwen import Qwen2, Qwen3
from convert.architectures.qwen3moe import Qwen3Moe
from convert.architectures.qwen35 import Qwen35, Qwen35Moe
from convert.errors import UnsupportedError

FAMILIES: tuple[type[Architecture], ...] = (
    DeepSeekV3,
    Gemma2,
    Gemma3,
    Gpt2,
    GptOss,
    KimiK25,
    Llama,
    Mistral,
    NemotronH,
    Olmo2,
    Phi3,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Qwen35,
    Qwen35Moe,
    SmolLM3,
)


def find_architecture(name: str) -> type[Architecture]:
    """Return the class for an entry of config.json's ``architectures``.

    Raises:
        UnsupportedError: no family has this name; the message lists those there are.
    """
    for family in FAMILIES:
        if name in family.names:
            return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.names))
    raise UnsupportedError(f"config.json: the architecture {name} is not known; known are {known}")


__all__ = ["FAMILIES", "Architecture", "Target", "find_architecture"]
