"""Continued: the text that sampled tokens add to a prompt."""

from __future__ import annotations

from tinker_local.tokenizer import Tokenizer


class Continued:
    """A prompt, which returns the text that sampled tokens add to it."""

    def __init__(self, tokenizer: Tokenizer, tokens: list[int]) -> None:
        self.tokens = tokens
        self.text = tokenizer.decode(tokens, skip_special_tokens=True)
        self._tokenizer = tokenizer

    def by(self, sampled: list[int]) -> str:
        """Return the text that the sampled tokens add, its leading space included."""
        whole = self._tokenizer.decode([*self.tokens, *sampled], skip_special_tokens=True)
        return whole[len(self.text) :]


__all__ = ["Continued"]
