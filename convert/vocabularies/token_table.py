"""The tokens of one tokenizer file in llama.cpp's terms, independent of the model around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import tokenizers
from gguf import TokenType
from tokenizers import Tokenizer

from convert.errors import CheckpointError

SPACE = "▁"
"""SentencePiece's character for a space (U+2581)."""


@dataclass(frozen=True)
class Limit:
    """Something that the source does and llama.cpp's own tokenizer does not.

    tinker-local runs the source's tokenizer, so a limit concerns other programs that open the file. A text
    that has other ids in llama.cpp is put down to it if the source's tokenizer, changed to do as llama.cpp
    does, has the same ids; where the library cannot be changed so, if the text is such a one.

    Attributes:
        reason: what differs, for people.
        change: makes the source's tokenizer do as llama.cpp does.
        applies: whether it can matter to a text.
    """

    reason: str
    change: Callable[[Tokenizer], None] | None = None
    applies: Callable[[str], bool] = lambda _text: True


UNEQUAL = {
    "split": Limit("llama.cpp has no pre-tokenizer that splits texts as this vocabulary's does"),
    "merges": Limit("llama.cpp has no such pre-tokenizer for a vocabulary with tokens that no merge makes"),
    "spaces": Limit("llama.cpp writes spaces otherwise"),
    "normalizer": Limit("llama.cpp does not normalize texts"),
    "words": Limit("llama.cpp finds some added tokens within words, too"),
    "around": Limit("llama.cpp can put only BOS before a text and EOS after it"),
    "special": Limit("llama.cpp reads special tokens in a text as such (split_special_tokens)"),
}
"""What the source does and no setting of llama.cpp's own tokenizer can say."""
LITERAL_SPACE = Limit("llama.cpp takes a written ▁ for a space", applies=lambda text: SPACE in text)


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in the text before anything else happens to it.

    Attributes:
        text: what is looked for.
        is_special: it is no part of the text for people.
        is_normalized: it is looked for in the normalized text.
        strips_left, strips_right: it swallows the spaces beside it.
        is_word: it is found as a whole word only.
    """

    text: str
    is_special: bool = True
    is_normalized: bool = False
    strips_left: bool = False
    strips_right: bool = False
    is_word: bool = False

    @classmethod
    def of(cls, added: tokenizers.AddedToken) -> AddedToken:
        """Return the token that the library has."""
        return cls(
            added.content, added.special, added.normalized, added.lstrip, added.rstrip, added.single_word
        )

    def as_special(self) -> AddedToken:
        """Return the same token, as a special one."""
        return replace(self, is_special=True)

    def add_to(self, tokenizer: Tokenizer, *, plainly: bool = False) -> None:
        """Add it to a tokenizer of the library, or change it there.

        Args:
            plainly: to be found in the text as it is, and with nothing but itself.
        """
        added = tokenizers.AddedToken(
            self.text,
            special=self.is_special,
            normalized=self.is_normalized and not plainly,
            lstrip=self.strips_left and not plainly,
            rstrip=self.strips_right and not plainly,
            single_word=self.is_word and not plainly,
        )
        tokenizer.add_tokens([added])


@dataclass
class TokenTable:
    """The contents of a tokenizer file.

    Attributes:
        path: the file.
        model: ``tokenizer.ggml.model``: "gpt2" is byte-level BPE with merges, "llama" SentencePiece's BPE,
            which merges by score.
        pre: ``tokenizer.ggml.pre``.
        texts: the text of each id.
        kinds: the ids that are no normal tokens.
        scores: of each id ("llama").
        merges: the pairs in order of rank, a space between ("gpt2").
        added: added tokens by id.
        json: the tokenizer.json as the settings beside it change it; None if they do not.
        unk: the id for what is in no vocabulary.
        space_prefix: whether a space is put before a text ("llama").
        limits: where llama.cpp differs.
    """

    path: Path
    model: Literal["gpt2", "llama"]
    pre: str
    texts: dict[int, str]
    kinds: dict[int, TokenType] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    merges: list[str] = field(default_factory=list)
    added: dict[int, AddedToken] = field(default_factory=dict)
    json: str | None = None
    unk: int | None = None
    space_prefix: bool = False
    limits: list[Limit] = field(default_factory=list)

    def add(self, token_id: int, token: AddedToken) -> None:
        """Add a token, or say of one that is there that it is an added one.

        Raises:
            CheckpointError: the id has another text, or the text another id.
        """
        known = self.texts.setdefault(token_id, token.text)
        if known != token.text:
            raise CheckpointError(f"{self.path}: the id {token_id} is {known!r} and {token.text!r}")
        self.added[token_id] = token
        if token_id == self.unk and self.model == "llama":
            self.kinds[token_id] = TokenType.UNKNOWN
        elif token.is_special:
            self.kinds[token_id] = TokenType.CONTROL
        elif not self._is_merged(token_id):
            self.kinds[token_id] = TokenType.USER_DEFINED
        elif LITERAL_SPACE not in self.limits:
            self.limits.append(LITERAL_SPACE)

    def _is_merged(self, token_id: int) -> bool:
        """Whether it is a run of spaces that merges make too; only a normal one is decoded to spaces."""
        text = self.texts[token_id]
        return self.model == "llama" and text.strip(SPACE) == "" and token_id in self.scores


def check_ids(path: Path, ids: Mapping[str, object]) -> dict[int, str]:
    """Return the texts by id.

    Raises:
        CheckpointError: an id is no number of at least 0 or is given twice, or a text is no text.
    """
    texts: dict[int, str] = {}
    for text, token_id in ids.items():
        if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0:
            raise CheckpointError(f"{path}: the token {text!r} has the id {token_id!r}, which is no id")
        if token_id in texts:
            raise CheckpointError(f"{path}: {texts[token_id]!r} and {text!r} both have the id {token_id}")
        texts[token_id] = text
    return texts
