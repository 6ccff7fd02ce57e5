"""Finds the pre-tokenizer of llama.cpp that splits texts as a tokenizer.json does.

llama.cpp's own converter goes by a hash of token ids, which a retrained vocabulary changes. Here the
source's pre-tokenizer is run on the hard corpus and compared with the definitions that llama.cpp's names
stand for (``src/llama-vocab.cpp``), in whatever way its expressions are written. What llama.cpp then does
is checked on the written file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers

from convert.vocabularies.hard_corpus import HARD_CORPUS
from convert.vocabularies.token_table import Limit

_SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SHORT_ASCII = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _words(short: str) -> str:
    return rf"{short}|{_LEAD}\p{{L}}+"


def _cased(upper: str, lower: str, short: str = "") -> str:
    """Words that end where a capital follows a small letter."""
    return f"{_LEAD}[{upper}]*[{lower}]+{short}|{_LEAD}[{upper}]+[{lower}]*{short}"


_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_UPPER_ASCII, _LOWER_ASCII = r"\p{L}&&[^a-z]", r"\p{L}&&[^A-Z]"
_UPPER_MARKS, _LOWER_MARKS = r"\p{L}\p{M}&&[^a-z]", r"\p{L}\p{M}&&[^A-Z]"
_NO_HAN = r"&&[^\p{Han}]"
_HAN_DONE = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ebef\U0002f800-\U0002fa1f"
)
"""The ideographs that llama.cpp knows (``unicode_cpt_is_han`` in ``src/unicode.cpp``)."""


def _llama3(short: str) -> str:
    return rf"{_words(short)}|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"


def _qwen2(short: str) -> str:
    return rf"{_words(short)}|\p{{N}}|{_SIGNS}|{_SPACES}"


def _qwen35(short: str) -> str:
    return rf"{short}|{_LEAD}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"


def _o200k(upper: str, lower: str, short: str) -> str:
    return rf"{_cased(upper, lower, short + '?')}|\p{{N}}{{1,3}}|{_PATHS}|{_SPACES}"


def _tekken(upper: str, lower: str) -> str:
    return rf"{_cased(upper, lower)}|\p{{N}}|{_PATHS}|{_SPACES}"


KIMI_K2 = (
    rf"\p{{Han}}+|{_cased(_UPPER + _NO_HAN, _LOWER + _NO_HAN, _SHORT + '?')}"
    rf"|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
)
_KIMI_K2_DONE = (
    rf"[{_HAN_DONE}]+|{_LEAD}[\p{{L}}&&[^{_HAN_DONE}]]+{_SHORT_ASCII}?|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
)
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES,
)


@dataclass(frozen=True)
class Split:
    """One of llama.cpp's pre-tokenizers.

    Attributes:
        name: ``tokenizer.ggml.pre``.
        steps: what it stands for: regular expressions that isolate their matches, one after the other.
        done: what llama.cpp does in their place, if it is something else.
        departs: how that differs.
        uses_gpt2: GPT-2's own expression follows.
        ignores_merges: a word that is a token is that token, whatever the merges say.
    """

    name: str
    steps: tuple[str, ...] = ()
    done: str | None = None
    departs: str = ""
    uses_gpt2: bool = False
    ignores_merges: bool = False

    def pre_tokenizer(self) -> Any:
        """Return the definition as an object of the ``tokenizers`` library."""
        return _pre_tokenizer(self.steps, self.uses_gpt2)

    def limits(self) -> list[Limit]:
        """Return where llama.cpp departs from the definition."""
        return [] if self.done is None else [Limit(f"llama.cpp {self.departs}", self._change)]

    def _change(self, tokenizer: Tokenizer) -> None:
        assert self.done is not None
        tokenizer.pre_tokenizer = _pre_tokenizer((self.done,), self.uses_gpt2)


@cache
def _pre_tokenizer(steps: tuple[str, ...], uses_gpt2: bool) -> Any:
    splits: list[Any] = [pre_tokenizers.Split(Regex(step), "isolated") for step in steps]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=uses_gpt2)
    return pre_tokenizers.Sequence([*splits, byte_level])


_LONG_S = "does not take 's with the long s (U+017F) for a contraction"
_LLAMA3 = (_llama3(_SHORT),), _llama3(_SHORT_ASCII), _LONG_S
_O200K = (_o200k(_UPPER, _LOWER, _SHORT),)

SPLITS: tuple[Split, ...] = (
    Split("gpt-2", uses_gpt2=True),
    Split("smollm", (r"\p{N}",), uses_gpt2=True),
    Split("llama-bpe", *_LLAMA3, ignores_merges=True),
    Split("dbrx", *_LLAMA3),
    Split("qwen2", (_qwen2(_SHORT),), _qwen2(_SHORT_ASCII), _LONG_S),
    Split("qwen35", (_qwen35(_SHORT),), _qwen35(_SHORT_ASCII), _LONG_S),
    Split("deepseek-v3", _DEEPSEEK_V3),
    Split(
        "granite-embed-multi-97m",  # unlike "gpt-4o" it keeps marks with their letters (Hindi, Thai)
        _O200K,
        _o200k(_UPPER_MARKS, _LOWER_MARKS, _SHORT_ASCII),
        "does not part words at capitals outside ASCII",
        ignores_merges=True,
    ),
    Split(
        "gpt-4o",
        _O200K,
        _o200k(_UPPER_ASCII, _LOWER_ASCII, _SHORT_ASCII),
        "parts combining marks from their letters, and does not part words at capitals outside ASCII",
    ),
    Split(
        "tekken",
        (_tekken(_UPPER, _LOWER),),
        _tekken(_UPPER_ASCII, _LOWER_ASCII),
        "parts combining marks from their letters, and does not part words at capitals outside ASCII",
        ignores_merges=True,
    ),
    Split(
        "kimi-k2",
        (KIMI_K2,),
        _KIMI_K2_DONE,
        "parts combining marks from their letters, does not part words at capitals, and takes some rare "
        "ideographs for letters",
    ),
)
"""llama.cpp's definitions, in order of preference."""


def find_split(pre_tokenizer: Any, ignores_merges: bool) -> tuple[Split, bool]:
    """Return llama.cpp's pre-tokenizer that splits as a tokenizer.json's does, and whether one does.

    Where none does it is the one that splits most texts so.

    Args:
        pre_tokenizer: the source's, an object of the ``tokenizers`` library; None if it has none.
        ignores_merges: the source's flag; of two that split alike the one with this flag is taken.
    """
    wanted = [_pieces(pre_tokenizer, text) for text in HARD_CORPUS]
    agree = {split.name: _agreement(wanted, split.pre_tokenizer()) for split in SPLITS}
    most = max(agree.values())
    found = [split for split in SPLITS if agree[split.name] == most]
    split = next((split for split in found if split.ignores_merges == ignores_merges), found[0])
    return split, most == len(HARD_CORPUS)


def _agreement(wanted: Iterable[list[str]], pre_tokenizer: Any) -> int:
    """Return the number of texts that are split alike."""
    return sum(
        _pieces(pre_tokenizer, text) == pieces for text, pieces in zip(HARD_CORPUS, wanted, strict=True)
    )


def _pieces(pre_tokenizer: Any, text: str) -> list[str]:
    return [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]
