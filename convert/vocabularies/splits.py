"""Which of llama.cpp's pre-tokenizers splits texts as a tokenizer.json does.

llama.cpp's own converter goes by a hash of token ids, which a retrained vocabulary changes. Here the source's
pre-tokenizer is run on the hard corpus and compared with the definitions that llama.cpp's names stand for
(``src/llama-vocab.cpp``), whatever way its expressions are written. What llama.cpp then computes is checked on
the written file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, pre_tokenizers

from convert.errors import UnsupportedError
from convert.hard_corpus import HARD_CORPUS
from convert.vocabularies.token_table import Limit

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LEAD = r"[^\r\n\p{L}\p{N}]?"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def _cased(suffix: str = "", without: str = "") -> str:
    """Words that end where a capital follows a small letter."""
    upper, lower = f"[{_UPPER}{without}]", f"[{_LOWER}{without}]"
    return f"{_LEAD}{upper}*{lower}+{suffix}|{_LEAD}{upper}+{lower}*{suffix}"


LLAMA3 = rf"{_CONTRACTION}|{_LEAD}\p{{L}}+|\p{{N}}{{1,3}}|{_MARKS}|{_SPACES}"
QWEN2 = rf"{_CONTRACTION}|{_LEAD}\p{{L}}+|\p{{N}}|{_MARKS}|{_SPACES}"
QWEN35 = rf"{_CONTRACTION}|{_LEAD}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
TEKKEN = rf"{_cased()}|\p{{N}}|{_PATHS}|{_SPACES}"
O200K = rf"{_cased(_CONTRACTION + '?')}|\p{{N}}{{1,3}}|{_PATHS}|{_SPACES}"
_NO_HAN = r"&&[^\p{Han}]"
KIMI_K2 = rf"\p{{Han}}+|{_cased(_CONTRACTION + '?', _NO_HAN)}|\p{{N}}{{1,3}}|{_MARKS}|{_SPACES}"
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES,
)


def _category(*first: str) -> Callable[[str], bool]:
    return lambda text: any(unicodedata.category(character).startswith(first) for character in text)


def _has_cased(text: str) -> bool:
    return any(character > "\x7f" and unicodedata.category(character) in ("Lu", "Lt") for character in text)


def _has_rare_han(text: str) -> bool:
    return any(character in "々〇〆" or "\u2e80" <= character <= "\u2fdf" for character in text) or any(
        character >= "\U0002ebf0" and unicodedata.name(character, "").startswith("CJK")
        for character in text
    )


LONG_S = Limit("llama.cpp does not take 'ſ for the contraction 's", lambda text: "'ſ" in text)
MARKS = Limit(
    "llama.cpp's pre-tokenizer of this kind parts combining marks from their letters", _category("M")
)
CASE = Limit(
    "llama.cpp's pre-tokenizer of this kind does not part words at capitals outside ASCII", _has_cased
)
HAN = Limit("llama.cpp counts some ideographs as other letters", _has_rare_han)
ALL_CASE = Limit(
    "llama.cpp's pre-tokenizer of this kind does not part words at capitals", _category("Lu", "Lt")
)


@dataclass(frozen=True)
class Split:
    """One of llama.cpp's pre-tokenizers.

    Attributes:
        name: ``tokenizer.ggml.pre``.
        steps: what it stands for: regular expressions that isolate their matches, one after the other.
        uses_gpt2: GPT-2's own expression follows.
        ignores_merges: a word that is a token is that token, whatever the merges say.
        limits: where llama.cpp departs from the definition.
    """

    name: str
    steps: tuple[str, ...] = ()
    uses_gpt2: bool = False
    ignores_merges: bool = False
    limits: tuple[Limit, ...] = ()

    def pre_tokenizer(self) -> Any:
        """Return the definition as an object of the ``tokenizers`` library."""
        return _pre_tokenizer(self.steps, self.uses_gpt2)


@cache
def _pre_tokenizer(steps: tuple[str, ...], uses_gpt2: bool) -> Any:
    splits: list[Any] = [pre_tokenizers.Split(Regex(step), "isolated") for step in steps]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=uses_gpt2)
    return pre_tokenizers.Sequence([*splits, byte_level])


SPLITS: tuple[Split, ...] = (
    Split("gpt-2", uses_gpt2=True),
    Split("smollm", (r"\p{N}",), uses_gpt2=True),
    Split("llama-bpe", (LLAMA3,), ignores_merges=True, limits=(LONG_S,)),
    Split("dbrx", (LLAMA3,), limits=(LONG_S,)),
    Split("qwen2", (QWEN2,), limits=(LONG_S,)),
    Split("qwen35", (QWEN35,), limits=(LONG_S,)),
    Split("deepseek-v3", DEEPSEEK_V3),
    # the plain "gpt-4o" parts marks from letters, which breaks up Hindi, Thai, Arabic with its vowels, ...
    Split("granite-embed-multi-97m", (O200K,), ignores_merges=True, limits=(LONG_S, CASE)),
    Split("gpt-4o", (O200K,), limits=(LONG_S, CASE, MARKS)),
    Split("tekken", (TEKKEN,), ignores_merges=True, limits=(CASE, MARKS)),
    Split("kimi-k2", (KIMI_K2,), limits=(LONG_S, ALL_CASE, MARKS, HAN)),
)
"""In order of preference."""


def find_split(path: Path, pre_tokenizer: Any, ignores_merges: bool) -> Split:
    """Return llama.cpp's pre-tokenizer that splits as a tokenizer.json's does.

    Args:
        path: the file, for the message.
        pre_tokenizer: the source's, an object of the ``tokenizers`` library.
        ignores_merges: the source's flag; of two that split alike the one with this flag is taken.

    Raises:
        UnsupportedError: none does; the message has the nearest and the first text on which it differs.
    """
    wanted = [_pieces(pre_tokenizer, text) for text in HARD_CORPUS]
    agree: dict[str, int] = {}
    found: list[Split] = []
    for split in SPLITS:
        given = (_pieces(split.pre_tokenizer(), text) for text in HARD_CORPUS)
        agree[split.name] = _agreement(wanted, given)
        if agree[split.name] == len(HARD_CORPUS):
            found.append(split)
    if found:
        return next((split for split in found if split.ignores_merges == ignores_merges), found[0])
    nearest = max(SPLITS, key=lambda split: agree[split.name])
    first = agree[nearest.name]
    raise UnsupportedError(
        f"{path}: no pre-tokenizer of llama.cpp splits texts as this file's does. The nearest, {nearest.name}, "
        f"splits {HARD_CORPUS[first]!r} into {_pieces(nearest.pre_tokenizer(), HARD_CORPUS[first])}, "
        f"the file into {wanted[first]}"
    )


def _agreement(wanted: Iterable[list[str]], given: Iterable[list[str]]) -> int:
    """Return how many texts from the first on are split alike."""
    count = 0
    for one, other in zip(wanted, given, strict=True):
        if one != other:
            break
        count += 1
    return count


def _pieces(pre_tokenizer: Any, text: str) -> list[str]:
    return [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]
