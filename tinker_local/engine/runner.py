"""Runs a step: edits the KV cache, decodes a batch, and turns its logits into tokens and scores.

``Runner`` fills and decodes a batch. ``Readout`` reads its logits, and knows nothing of batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinker_local import kernels
from tinker_local.engine.image import Image
from tinker_local.engine.logit_rule import edits_of
from tinker_local.engine.sequence import ActiveRequest, Prompt, Sample
from tinker_local.engine.step import Chunk, Copy, Remove, Step
from tinker_local.errors import InternalServerError
from tinker_local.llama.aborting import new_abort_flag
from tinker_local.llama.context import ABORTED, Context, DecodeError
from tinker_local.llama.tower import EncodeAbortedError
from tinker_local.types import SampledToken


def _apply_edits(context: Context, edits: Sequence[Remove | Copy]) -> None:
    """Change a context's KV cache as a step asks."""
    for edit in edits:
        if isinstance(edit, Copy):
            context.copy_sequence(edit.source, edit.target, edit.end)
        else:
            context.remove_sequence(edit.sequence)


@dataclass(slots=True)
class _Parameters:
    """Parameters of n samples for the sampling kernel; arrays of shape (n,).

    Attributes:
        edits_logits: whether any of the samples changes logits.
    """

    temperature: NDArray[np.float32]
    top_k: NDArray[np.int32]
    top_p: NDArray[np.float32]
    min_p: NDArray[np.float32]
    seed: NDArray[np.uint64]
    sample: NDArray[np.uint64]
    position: NDArray[np.uint64]
    edits_logits: bool

    @classmethod
    def of(cls, samples: list[Sample]) -> _Parameters:
        requests = [sample.request for sample in samples]
        return cls(
            np.array([r.temperature for r in requests], np.float32),
            np.array([r.top_k for r in requests], np.int32),
            np.array([r.top_p for r in requests], np.float32),
            np.array([r.min_p for r in requests], np.float32),
            np.array([r.seed for r in requests], np.uint64),
            np.array([s.index for s in samples], np.uint64),
            np.array([s.length for s in samples], np.uint64),
            any(r.logit_rule is not None for r in requests),
        )


class Readout:
    """Turns rows of logits into drawn tokens and scores, and gives them to samples and prompts."""

    def __init__(self, context: Context) -> None:
        self._model, self._context = context.model, context
        self._step = Step()
        self._drawn_before: list[Sample] = []
        self._parameters = _Parameters.of([])

    def begin(self, step: Step) -> None:
        """Go to another step; its resumed prompts are read from their cached logits."""
        self._step = step
        for prompt in step.resumed:
            self._resume(prompt)

    @property
    def failed(self) -> dict[ActiveRequest, Exception]:
        """``Step.failed`` of the step that is read."""
        return self._step.failed

    def read(self, step: Step, logits: NDArray[np.float32]) -> None:
        """Read a decoded batch: first a row for each sample, then the rows of the chunks."""
        row = len(step.samples)
        drawing = [(sample, index) for index, sample in enumerate(step.samples)]
        for chunk in step.chunks:
            drawing += self.read_chunk(chunk, row, logits)
            row += chunk.n_rows
        self.draw(drawing, logits)

    def read_chunk(self, chunk: Chunk, row: int, logits: NDArray[np.float32]) -> list[tuple[Sample, int]]:
        """Score a chunk whose first row is ``row``; return the samples that can draw, with their rows."""
        sequence, last = chunk.sequence, row + chunk.n_rows - 1
        if isinstance(sequence, Prompt) and chunk.n_rows:
            if sequence.is_scored:
                first = chunk.stop - chunk.n_rows + 1
                self._score(sequence, first, logits[row : last + 1])
            if chunk.is_last or chunk.stop == sequence.snapshot_at:
                sequence.last_logits = logits[last].copy()
        return [(sample, last) for sample in sequence.drawing] if chunk.is_last else []

    def draw(self, drawing: list[tuple[Sample, int]], logits: NDArray[np.float32]) -> None:
        """Draw a token for each sample from its row."""
        if self.failed:
            drawing = [(sample, row) for sample, row in drawing if sample.owner not in self.failed]
        if not drawing:
            return
        samples = [sample for sample, _ in drawing]
        try:
            draws = self._draws(samples, [row for _, row in drawing], logits)
        except kernels.LogitsError as error:  # one row is no distribution; draw the others
            self._drawn_before = []
            self.failed.update({sample.owner: error for sample, row in drawing if row == error.row})
            self.draw(drawing, logits)
            return
        self._append(samples, draws)

    def _resume(self, prompt: Prompt) -> None:
        logits = prompt.last_logits
        if logits is None:
            return
        if prompt.n_computed < len(prompt.request.prompt):
            self._score(prompt, prompt.n_computed, logits[None])
        else:
            self.draw([(sample, 0) for sample in prompt.drawing], logits[None])

    def _score(self, prompt: Prompt, first: int, logits: NDArray[np.float32]) -> None:
        try:
            _score(prompt, first, logits, self._context.threads_for(len(logits)))
        except kernels.LogitsError as error:
            self.failed[prompt.owner] = error

    def _draws(self, samples: list[Sample], rows: list[int], logits: NDArray[np.float32]) -> kernels.Draws:
        parameters = self._draw_parameters(samples)
        return kernels.sample_rows(
            logits,
            rows=np.array(rows, np.int32),
            temperature=parameters.temperature,
            top_k=parameters.top_k,
            top_p=parameters.top_p,
            min_p=parameters.min_p,
            edits=edits_of([sample.edits for sample in samples]) if parameters.edits_logits else None,
            seed=parameters.seed,
            sample=parameters.sample,
            position=parameters.position,
            topk=max(sample.request.topk_sample_logprobs for sample in samples),
            n_threads=self._context.threads_for(len(rows)),
        )

    def _draw_parameters(self, samples: list[Sample]) -> _Parameters:
        if samples == self._drawn_before:  # each has drawn one token since
            self._parameters.position += np.uint64(1)
        else:
            self._drawn_before, self._parameters = samples, _Parameters.of(samples)
        return self._parameters

    def _append(self, samples: list[Sample], draws: kernels.Draws) -> None:
        self._step.n_sampled += len(samples)
        drawn = zip(
            samples,
            draws.tokens.tolist(),
            draws.logprobs.tolist(),
            draws.raw_logprobs.tolist(),
            strict=True,
        )
        for index, (sample, token, logprob, raw_logprob) in enumerate(drawn):
            request, top = sample.request, None
            if k := request.topk_sample_logprobs:
                assert draws.topk_ids is not None
                assert draws.topk_logprobs is not None
                top = draws.topk_ids[index, :k].copy(), draws.topk_logprobs[index, :k].copy()
                sample.tops.append(top)
            if request.raw_logprobs:
                logprob = raw_logprob
            sample.append(token, logprob, self._model.describe)
            if request.on_token is not None:
                self._tell(sample, SampledToken.of(token, logprob, top), request.on_token)

    def _tell(
        self, sample: Sample, token: SampledToken, on_token: Callable[[int, SampledToken], None]
    ) -> None:
        try:
            on_token(sample.index, token)
        except Exception as error:
            self.failed[sample.owner] = error


class Runner:
    """Computes steps on a context.

    What goes wrong for one request (a batch that cannot be computed, logits that are no distribution, its
    own callback) is noted in ``Step.failed``, and the others go on.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._readout = Readout(context)
        self._encoding: tuple[Future[Any], kernels.AbortFlag] | None = None

    def abort_encode(self, future: Future[Any] | None = None) -> None:
        """End the encode of an image soon, or only that for the request of a future; from any thread."""
        if (encoding := self._encoding) is not None and future in (None, encoding[0]):
            encoding[1].set()

    def run(self, step: Step) -> None:
        """Edit the KV cache, decode all tokens of a step in one batch, then an image, draw and score.

        Raises:
            DecodeError, EncodeAbortedError: the step was aborted.
        """
        _apply_edits(self._context, step.edits)
        self._readout.begin(step)
        image = step.image
        text = step.text if image else step
        if text.samples or text.chunks:
            self._compute(text)
        if image:
            self._compute_image(image)

    def _compute_image(self, chunk: Chunk) -> None:
        """Encode an image if that was not done yet, and decode a chunk of it."""
        assert chunk.placed is not None
        image, sequence = chunk.placed.image, chunk.sequence
        cells = slice(chunk.start - chunk.placed.start, chunk.stop - chunk.placed.start)
        positions = image.offsets[:, cells] + sequence.request.position(chunk.placed.start)
        future = sequence.owner.request.future
        try:
            embeddings = self._embeddings(image, future)[cells]
            self._context.decode_embeddings(
                embeddings, positions, sequence.id, chunk.n_rows, is_causal=image.is_causal
            )
        except InternalServerError as error:
            if isinstance(error, DecodeError) and error.code == ABORTED:
                raise
            if isinstance(error, EncodeAbortedError) and not future.cancelled():
                raise
            self._readout.failed[sequence.owner] = error
        else:
            self._readout.read(Step(chunks=[chunk]), self._context.logits(chunk.n_rows))

    def _embeddings(self, image: Image, future: Future[Any]) -> NDArray[np.float32]:
        """Return an image's embeddings for a request, unless it is cancelled or the context aborted."""
        abort = new_abort_flag()
        self._encoding = future, abort
        if future.cancelled() or self._context.is_aborted:  # before there was a flag
            abort.set()
        try:
            return image.embeddings(abort)
        finally:
            self._encoding = None

    def _compute(self, step: Step) -> None:
        """Decode a step's tokens, all together or, if that fails, each request's alone."""
        try:
            n_rows = self._decode(step)
        except DecodeError as error:
            self._compute_apart(step, error)
        else:
            self._readout.read(step, self._context.logits(n_rows))

    def _decode(self, step: Step) -> int:
        n_tokens, n_rows = _fill(self._context, step)
        self._context.decode(n_tokens)
        return n_rows

    def _compute_apart(self, step: Step, error: DecodeError) -> None:
        """Find out whose tokens cannot be computed: everyone's, where states may have moved on."""
        if error.code == ABORTED:
            raise error
        failed = self._readout.failed
        parts = {sequence.owner: step.part_of(sequence.owner) for sequence in step.sequences}
        if len(parts) == 1 or self._context.model.is_recurrent:
            failed.update(dict.fromkeys(parts, error))
            return
        # What the failed batch may have left in the cells is removed; then each request is decoded alone.
        for sequence in step.sequences:
            self._context.truncate_sequence(sequence.id, sequence.position)
        for request, part in parts.items():
            try:
                n_rows = self._decode(part)
            except DecodeError as own_error:
                failed[request] = own_error
            else:
                self._readout.read(part, self._context.logits(n_rows))


def _fill(context: Context, step: Step) -> tuple[int, int]:
    """Write a step into the context's batch; return its numbers of tokens and flagged rows."""
    # Samples come first, a token and a row each. So row i of the logits belongs to sample i.
    batch, n = context.batch, len(step.samples)
    batch.tokens[:n] = [sample.drawn[-1] for sample in step.samples]
    batch.positions[:n] = [sample.position for sample in step.samples]
    batch.sequences[:n] = [sample.id for sample in step.samples]
    batch.flags[:n] = 1
    # Then the chunks, whose last tokens want rows.
    n_rows = n
    for chunk in step.chunks:
        end = n + chunk.stop - chunk.start
        batch.tokens[n:end] = chunk.tokens
        batch.positions[n:end] = chunk.sequence.position + np.arange(chunk.stop - chunk.start)
        batch.sequences[n:end] = chunk.sequence.id
        batch.flags[n:end] = 0
        batch.flags[end - chunk.n_rows : end] = 1
        n, n_rows = end, n_rows + chunk.n_rows
    return n, n_rows


def _score(prompt: Prompt, first: int, logits: NDArray[np.float32], n_threads: int) -> None:
    """Answer what is asked at a prompt's positions from ``first`` on, each by the row before it."""
    request = prompt.request
    stop = min(first + len(logits), len(request.prompt))
    if stop > first and request.prompt[stop - 1] < 0:  # an image follows the last token
        stop -= 1
    if stop <= first:  # only the row after the last token
        return
    ids, indptr = request.targets.rows(first, stop) if request.targets else (None, None)
    found = kernels.score_rows(
        logits[: stop - first],
        targets=request.prompt[first:stop],
        topk=request.topk_prompt_logprobs,
        ids=ids,
        ids_indptr=indptr,
        alt_k=request.prompt_alt_tokens_k,
        alt_temperature=request.temperature,
        seed=request.seed,
        positions=np.arange(first, stop, dtype=np.uint64) if request.prompt_alt_tokens_k else None,
        n_threads=n_threads,
    )
    prompt.scores.logprobs[first:stop] = found.target_logprobs
    if found.topk_ids is not None:
        prompt.scores.topk_ids[first:stop] = found.topk_ids
        prompt.scores.topk_logprobs[first:stop] = found.topk_logprobs
    if request.targets and prompt.target_logprobs is not None:
        prompt.target_logprobs[request.targets.span(first, stop)] = found.id_logprobs
    if prompt.alternatives is not None and found.alt_tokens is not None:
        prompt.alternatives.tokens[first - 1 : stop - 1] = found.alt_tokens
        prompt.alternatives.logprobs[first - 1 : stop - 1] = found.alt_logprobs
