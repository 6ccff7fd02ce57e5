"""The tokens of one file, in llama.cpp's terms, before anything is known of the model around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gguf import TokenType

from convert.errors import CheckpointError

SPACE = "▁"
"""What SentencePiece writes for a space (U+2581)."""


@dataclass(frozen=True)
class Limit:
    """A condition under which llama.cpp cannot tokenize as the source does.

    Attributes:
        reason: what differs, for people.
        applies: whether a text meets the condition.
    """

    reason: str
    applies: Callable[[str], bool]


@dataclass(frozen=True)
class AddedToken:
    """A token that is found in the text before anything else happens to it."""

    text: str
    is_special: bool = True
    is_normalized: bool = False
    strips_left: bool = False
    strips_right: bool = False


@dataclass
class TokenTable:
    """What a tokenizer file says.

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
        before, after: ids put around a text, None if the file does not say.
        unk: the id for what is in no vocabulary.
        space_prefix: whether a space is put before a text ("llama").
        normalize: what the source makes of a text before it splits it, and llama.cpp does not.
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
    before: list[int] | None = None
    after: list[int] | None = None
    unk: int | None = None
    space_prefix: bool = False
    normalize: Callable[[str], str] | None = None
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

    def _is_merged(self, token_id: int) -> bool:
        """Whether it is a run of spaces that the merges give too: only a normal token is decoded to spaces."""
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
