"""Pieces: what each token of a vocabulary stands for; GeneratedText: what of them a client may see."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from tinker_local.tokenizer import Tokenizer


class Pieces:
    """The bytes of tokens.

    The text of tokens is their bytes in a row, so that a stream adds up to what one answer has. Special
    tokens are left out, unless they are ``kept``.

    Args:
        tokenizer: the vocabulary.
        keeps_special: keep all special tokens.
        kept: names of special tokens to keep in any case.
        as_ids: write tokens as ``token_id:N``.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        keeps_special: bool = False,
        kept: Iterable[str] = (),
        as_ids: bool = False,
    ) -> None:
        self._tokenizer, self._as_ids = tokenizer, as_ids
        self._special = frozenset(tokenizer.all_special_ids)
        self._keeps_special, self._kept = keeps_special, {name.encode() for name in kept}

    def of(self, token: int) -> bytes:
        """Return the bytes of a token; of a special one its name."""
        return self._tokenizer.token_bytes(token)

    def is_special(self, token: int) -> bool:
        """Whether a token is no text."""
        return token in self._special

    def is_shown(self, token: int) -> bool:
        """Whether a token is part of the text."""
        return self._keeps_special or token not in self._special or self.of(token) in self._kept

    def name(self, token: int) -> str:
        """Return a token as a string; OpenAI writes what is no whole character as ``bytes:\\xe2``."""
        if self._as_ids:
            return f"token_id:{token}"
        piece = self.of(token)
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)

    def shown(self, tokens: Iterable[int]) -> list[bytes]:
        """Return for each token the bytes that it adds to the text."""
        return [self.of(token) if self.is_shown(token) else b"" for token in tokens]

    def prompt(self, tokens: Sequence[int]) -> list[bytes]:
        """Return the same for a prompt, without the space that SentencePiece puts before a text."""
        parts = self.shown(tokens)
        first = next((i for i, part in enumerate(parts) if part), 0)
        text = self._tokenizer.decode(list(tokens[: first + 1]), skip_special_tokens=True)
        if parts and parts[first].startswith(b" ") and not text.startswith(" "):
            parts[first] = parts[first][1:]
        return parts


class Offsets:
    """At which character of a text each of its parts begins; one that completes a character, at this."""

    def __init__(self) -> None:
        self._decoder, self._at = codecs.getincrementaldecoder("utf-8")("replace"), 0

    def next(self, part: bytes) -> int:
        """Return the place of the next part."""
        begin = self._at
        self._at += len(self._decoder.decode(part))
        return begin


class GeneratedText:
    """The text of one continuation, as its tokens come.

    Two kinds of bytes are held back: those of an unfinished character, and those with which a stop may
    begin. A stop is no part of the text, nor is what follows it in the same token.

    Args:
        pieces: the vocabulary.
        stops: texts that end the continuation.
        stop_ids: token ids that end it.
        keeps_stop: leave the stop in the text.
    """

    def __init__(
        self, pieces: Pieces, stops: Iterable[str], stop_ids: frozenset[int], *, keeps_stop: bool = False
    ) -> None:
        self._pieces, self._keeps_stop = pieces, keeps_stop
        self._stops = [stop.encode("utf-8", "surrogatepass") for stop in stops]
        self._stop_ids = stop_ids
        self._held, self._shown = bytearray(), bytearray()  # and for each byte of it 1 if it is text
        self._last = 0  # bytes of a last token that may have ended everything
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """Return the text that a token adds, of it and of what was held."""
        piece = self._pieces.of(token)
        may_end = token in self._stop_ids or self._pieces.is_special(token)
        if not (may_end or self._held or self._stops):  # as in most streams
            return self._decoder.decode(piece)
        self._last = len(piece) if may_end else 0
        self._held += piece
        self._shown += bytes([self._pieces.is_shown(token)]) * len(piece)
        found = self._stop_at()
        return self._taken(found if found >= 0 else len(self._held) - max(self._last, self._n_possible()))

    def end(self, *, stopped: bool) -> str:
        """Return the rest; ``stopped`` where a stop or an end-of-generation token ended it."""
        found = self._stop_at() if stopped else -1
        if self._keeps_stop or not stopped:
            n = len(self._held)
        else:
            n = found if found >= 0 else len(self._held) - self._last
        return self._taken(n) + self._decoder.decode(b"", final=True)

    def whole(self, tokens: Iterable[int], *, stopped: bool) -> str:
        """Return the text of all tokens."""
        return "".join([*map(self.add, tokens), self.end(stopped=stopped)])

    def _stop_at(self) -> int:
        places = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        return min(places, default=-1)

    def _n_possible(self) -> int:
        """Return how many of the last bytes may be the beginning of a stop."""
        longest = max(map(len, self._stops), default=1) - 1
        for n in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-n:]) for stop in self._stops):
                return n
        return 0

    def _taken(self, n: int) -> str:
        data = bytes(byte for byte, shown in zip(self._held[:n], self._shown[:n], strict=True) if shown)
        del self._held[:n], self._shown[:n]
        return self._decoder.decode(data)


__all__ = ["GeneratedText", "Offsets", "Pieces"]
