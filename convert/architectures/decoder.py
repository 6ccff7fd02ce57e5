"""Decoder-only models: token embeddings, and an output matrix that may be the same matrix."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import ClassVar

from convert.architectures.architecture import Architecture, Target
from convert.errors import ConversionWarning, UnsupportedError
from convert.source.config import Config
from convert.source.tensor import SourceTensor, are_equal

_LAYERS = ("layers.", "h.")


class DecoderOnly(Architecture):
    """A decoder-only model. The class variables say what its embeddings are called in checkpoints.

    A tied model may have its one matrix under either name, as in transformers. With two matrices that
    differ it is no tied model, whatever the config says; transformers 5 computes so, transformers 4 takes
    the embeddings for both.
    """

    prefixes: ClassVar[tuple[str, ...]] = ("model.",)
    """Possible prefixes of the decoder's tensors; the one whose token embeddings exist is used."""

    embedding: ClassVar[str] = "embed_tokens.weight"
    """The name of the token embeddings after the prefix."""

    heads: ClassVar[tuple[str, ...]] = ("lm_head.weight",)
    """Possible names of the output matrix; the first one that exists is used."""

    is_tied: ClassVar[bool] = False
    """transformers' default for a missing ``tie_word_embeddings``."""

    needs_output: ClassVar[bool] = False
    """Whether llama.cpp requires an output matrix even if it is the token embeddings once more."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """Parts of tensors' names in published checkpoints (``re``), and what transformers 5 calls them."""

    def __init__(self, config: Config, tensors: Mapping[str, SourceTensor]) -> None:
        super().__init__(config, {self._rename(name): tensor for name, tensor in tensors.items()})
        tensors = self._source
        if self._says_tied and self.has(self.head) and not self.has(self._embeddings):
            renamed = {self.head: self._embeddings}
            self._source = {renamed.get(name, name): tensor for name, tensor in tensors.items()}

    @cached_property
    def prefix(self) -> str:
        """The prefix of the decoder's tensors in this checkpoint."""
        found = [prefix for prefix in self.prefixes if self.has(f"{prefix}{self.embedding}")]
        found += [prefix for prefix in self.prefixes if self._has_layers(prefix)]
        return next(iter(found), self.prefixes[0])

    @property
    def head(self) -> str:
        """The name of the output matrix in this checkpoint."""
        return next(filter(self.has, self.heads), self.heads[0])

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the token embeddings."""
        return self._says_tied and not self._differ

    @property
    def copies(self) -> tuple[str, ...]:
        """Names of an output matrix in the file that is the token embeddings once more."""
        return tuple(filter(self.has, self.heads)) if self.tied else ()

    def embeddings(self) -> Iterator[Target]:
        """Yield the token embeddings, and the output matrix if it is a matrix of its own."""
        yield self.take("token_embd.weight", self._embeddings)
        if not self.tied:
            self._say_untied()
            yield self.take("output.weight", self.head)
        elif self.needs_output:
            yield self.take("output.weight", self._embeddings)

    @property
    def _embeddings(self) -> str:
        return f"{self.prefix}{self.embedding}"

    @property
    def _says_tied(self) -> bool:
        return bool(self.config.get("tie_word_embeddings", self.is_tied))

    @cached_property
    def _differ(self) -> bool:
        """Whether the file has an output matrix besides the embeddings, with other numbers. Reads both."""
        if not self.has(self.head):
            return False
        return not are_equal(self.tensor(self.head), self.tensor(self._embeddings))

    def _rename(self, name: str) -> str:
        for old, new in self.renamed.items():
            name = re.sub(old, new, name)
        return name

    def _has_layers(self, prefix: str) -> bool:
        starts = tuple(f"{prefix}{layers}" for layers in _LAYERS)
        return any(name.startswith(starts) for name in self.sources)

    def _say_untied(self) -> None:
        if not self.has_output:
            raise UnsupportedError(
                f"tensor {self.head} differs from {self._embeddings}; llama.cpp's {self.gguf_name} always "
                "uses the token embeddings as the output matrix"
            )
        if not self._says_tied:
            return
        warnings.warn(
            f"config.json says that the output matrix is the embedding (tie_word_embeddings), but tensor "
            f"{self.head} differs from {self._embeddings}; both are used, as in transformers 5",
            ConversionWarning,
            stacklevel=2,
        )
