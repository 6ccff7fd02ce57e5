"""BareLoop: ``llama_decode`` with nothing around it, the speed that our engine is measured against."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from tinker_local.llama.context import Context


class BareLoop:
    """Fills batches, decodes them and waits for the logits, but does nothing with these.

    Args:
        context: a context that nothing else uses; sequences from 0 on are overwritten.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    def score(self, tokens: NDArray[np.int32]) -> float:
        """Compute the logits of all positions of a prompt; return the seconds it took."""
        return self._prefill(tokens, scored=True)

    def sample(self, prompt: NDArray[np.int32], n_samples: int, n_steps: int) -> float:
        """Decode ``n_steps`` tokens of each of ``n_samples`` continuations; return the seconds it took.

        The time starts after prefill. The same token is fed each time, since nothing is sampled.
        """
        self._prefill(prompt, scored=False)
        for sequence in range(1, n_samples):
            self.context.copy_sequence(0, sequence, len(prompt))
        batch = self.context.batch
        batch.tokens[:n_samples] = prompt[-1]
        batch.sequences[:n_samples] = np.arange(n_samples)
        batch.flags[:n_samples] = 1
        begun = time.perf_counter()
        for position in range(len(prompt), len(prompt) + n_steps):
            batch.positions[:n_samples] = position
            self.context.decode(n_samples)
            self.context.logits(n_samples)
        return time.perf_counter() - begun

    def _prefill(self, tokens: NDArray[np.int32], *, scored: bool) -> float:
        """Empty the cache, decode a prompt in chunks; return the seconds of decoding.

        With ``scored`` the logits of all positions are computed, else only those of the last.
        """
        for sequence in range(self.context.n_sequences):
            self.context.remove_sequence(sequence)
        batch, seconds = self.context.batch, 0.0
        step = min(self.context.n_batch, self.context.n_rows if scored else self.context.n_batch)
        for start in range(0, len(tokens), step):
            part = tokens[start : start + step]
            n = len(part)
            batch.tokens[:n] = part
            batch.positions[:n] = np.arange(start, start + n)
            batch.sequences[:n] = 0
            batch.flags[:n] = scored
            batch.flags[n - 1] = 1
            begun = time.perf_counter()
            self.context.decode(n)
            self.context.logits(n if scored else 1)
            seconds += time.perf_counter() - begun
        return seconds
