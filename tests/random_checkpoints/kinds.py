# ruff: noqa: RUF001 - the families' own token texts
"""The tokenizers of the real families, each in a few words: how a text is split, which tokens are added."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokenizers import normalizers

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BREAKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"

LLAMA3 = rf"{_CONTRACTIONS}|{_LEAD}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BREAKS}"
QWEN2 = rf"{_CONTRACTIONS}|{_LEAD}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BREAKS}"
QWEN35 = rf"{_CONTRACTIONS}|{_LEAD}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_BREAKS}"
CL100K = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
TEKKEN = (
    rf"{_LEAD}{_UPPER}*{_LOWER}+|{_LEAD}{_UPPER}+{_LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BREAKS}"
)
O200K = (
    rf"{_LEAD}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_LEAD}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BREAKS}"
)
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_NOT_HAN = r"&&[^\p{Han}]]"
KIMI = (
    rf"[\p{{Han}}]+|{_LEAD}{_UPPER[:-1]}{_NOT_HAN}*{_LOWER[:-1]}{_NOT_HAN}+{_CONTRACTIONS}?"
    rf"|{_LEAD}{_UPPER[:-1]}{_NOT_HAN}+{_LOWER[:-1]}{_NOT_HAN}*{_CONTRACTIONS}?|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BREAKS}"
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Kind:
    """How one family's tokenizer is made.

    Attributes:
        splits: regular expressions, each an isolating Split; empty for GPT-2's own in ByteLevel.
        special: added tokens that are special, in order of their ids.
        added: added tokens that are not special.
        first: the special tokens have the lowest ids, else the highest.
        bos: added in front of a text, if any; ``bos_token`` of the config where it is not.
        generation_eos: ids of generation_config.json, as texts.
    """

    special: tuple[str, ...]
    eos: str
    bos: str | None = None
    adds_bos: bool = False
    pad: str | None = None
    unk: str | None = None
    splits: tuple[str, ...] = ()
    normalizer: Any = None
    digits: bool = False
    ignore_merges: bool = False
    first: bool = False
    added: tuple[str, ...] = ()
    strips: frozenset[str] = frozenset()
    generation_eos: tuple[str, ...] = ()
    chat_template: str | None = None
    tokenizer_class: str = "PreTrainedTokenizerFast"
    sentencepiece: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


_LLAMA3_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
_HARMONY = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
    "<|endofprompt|>",
)
_KIMI_SPECIAL = (
    "[BOS]",
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
    "[EOT]",
    "[UNK]",
    "[PAD]",
)
_PHI3_STRIPS = ("<|assistant|>", "<|placeholder1|>", "<|end|>", "<|system|>", "<|user|>")
_PHI4_STRIPS = ("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>")

KINDS: dict[str, Kind] = {
    "gpt2": Kind(("<|endoftext|>",), "<|endoftext|>", bos="<|endoftext|>", tokenizer_class="GPT2Tokenizer"),
    "llama3": Kind(
        _LLAMA3_SPECIAL,
        "<|eot_id|>",
        bos="<|begin_of_text|>",
        adds_bos=True,
        splits=(LLAMA3,),
        ignore_merges=True,
        generation_eos=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    ),
    "qwen2": Kind(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        pad="<|endoftext|>",
        splits=(QWEN2,),
        normalizer=normalizers.NFC(),
        added=("<think>", "</think>", "<tool_call>"),
        generation_eos=("<|im_end|>", "<|endoftext|>"),
        chat_template=CHATML,
        tokenizer_class="Qwen2Tokenizer",
        config={"add_bos_token": False},
    ),
    "qwen35": Kind(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        pad="<|endoftext|>",
        splits=(QWEN35,),
        normalizer=normalizers.NFC(),
        added=("<think>", "</think>"),
        generation_eos=("<|im_end|>", "<|endoftext|>"),
        chat_template=CHATML,
        tokenizer_class="Qwen2Tokenizer",
    ),
    "deepseek-v3": Kind(
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"),
        "<｜end▁of▁sentence｜>",
        bos="<｜begin▁of▁sentence｜>",
        adds_bos=True,
        pad="<｜▁pad▁｜>",
        splits=DEEPSEEK,
        normalizer=normalizers.Sequence([]),
        first=True,
        added=("<｜User｜>", "<｜Assistant｜>"),
        tokenizer_class="LlamaTokenizerFast",
        config={"add_bos_token": True, "add_eos_token": False, "legacy": True},
    ),
    "gpt-oss": Kind(
        _HARMONY,
        "<|return|>",
        bos="<|startoftext|>",
        pad="<|endoftext|>",
        splits=(O200K,),
        ignore_merges=True,
        generation_eos=("<|return|>", "<|endoftext|>", "<|call|>"),
    ),
    "smollm": Kind(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"),
        "<|im_end|>",
        bos="<|im_start|>",
        pad="<|im_end|>",
        unk="<|endoftext|>",
        digits=True,
        first=True,
        chat_template=CHATML,
        tokenizer_class="GPT2Tokenizer",
    ),
    "olmo2": Kind(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"),
        "<|endoftext|>",
        bos="<|endoftext|>",
        pad="<|pad|>",
        unk="<|endoftext|>",
        splits=(CL100K,),
        added=("|||PHONE_NUMBER|||", "|||EMAIL_ADDRESS|||"),
        tokenizer_class="GPT2Tokenizer",
    ),
    "phi-4": Kind(
        ("<|endoftext|>", "<|fim_prefix|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"),
        "<|im_end|>",
        bos="<|endoftext|>",
        pad="<|endoftext|>",
        splits=(CL100K,),
        strips=frozenset(_PHI4_STRIPS),
        tokenizer_class="GPT2Tokenizer",
    ),
    "nemotron-h": Kind(
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<SPECIAL_10>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        bos="<s>",
        unk="<unk>",
        splits=(TEKKEN,),
        first=True,
        ignore_merges=True,
        generation_eos=("</s>", "<|im_end|>"),
        chat_template=CHATML,
    ),
    "tekken": Kind(
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "<pad>"),
        "</s>",
        bos="<s>",
        adds_bos=True,
        pad="<pad>",
        unk="<unk>",
        splits=(TEKKEN,),
        first=True,
        ignore_merges=True,
    ),
    "kimi-k2": Kind(
        _KIMI_SPECIAL,
        "[EOS]",
        bos="[BOS]",
        pad="[PAD]",
        unk="[UNK]",
        splits=(KIMI,),
        ignore_merges=True,
        generation_eos=("<|im_end|>",),
        tokenizer_class="TikTokenTokenizer",
    ),
    "llama2": Kind(
        ("<unk>", "<s>", "</s>"), "</s>", bos="<s>", adds_bos=True, unk="<unk>", sentencepiece="prepend",
        first=True, tokenizer_class="LlamaTokenizer",
        config={"add_bos_token": True, "add_eos_token": False},
    ),
    "mistral": Kind(
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), "</s>", bos="<s>", adds_bos=True, unk="<unk>",
        sentencepiece="first", first=True, tokenizer_class="LlamaTokenizer",
    ),
    "phi-3": Kind(
        ("<unk>", "<s>", "</s>", "<|endoftext|>", *_PHI3_STRIPS), "<|endoftext|>", bos="<s>",
        pad="<|endoftext|>", unk="<unk>", sentencepiece="prepend", first=True,
        strips=frozenset(("</s>", *_PHI3_STRIPS)), generation_eos=("<|endoftext|>", "<|end|>"),
        tokenizer_class="LlamaTokenizer", config={"add_bos_token": False, "add_eos_token": False},
    ),
    "gemma": Kind(
        ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>", bos="<bos>", adds_bos=True, pad="<pad>", unk="<unk>", sentencepiece="never", first=True,
        added=("\n\n", "\n\n\n", "▁▁", "▁▁▁", "<table>", "</table>"),
        generation_eos=("<eos>", "<end_of_turn>"), tokenizer_class="GemmaTokenizer",
    ),
    "yi": Kind(
        ("<unk>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>",
        bos="<|startoftext|>", pad="<unk>", unk="<unk>", sentencepiece="never", first=True,
        chat_template=CHATML, tokenizer_class="LlamaTokenizer", config={"add_bos_token": False},
    ),
}  # fmt: skip
