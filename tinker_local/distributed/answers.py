"""Callable classes for Ray Data's ``map_batches``: a batch of rows in, the same rows with answers out.

Nothing here needs Ray. An actor makes one object, which loads the model; each call answers a batch. Calls
may overlap, so that the engine has work while a batch ends.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinker_local.batch import BatchRun, SampleTask, ScoreTask
from tinker_local.batch.item import Item
from tinker_local.batch.lines import Line
from tinker_local.distributed.model_files import ModelFiles, Pieces
from tinker_local.errors import BadRequestError, TinkerError
from tinker_local.sampling_client import SamplingClient
from tinker_local.service_client import ServiceClient

Batch = Mapping[str, Sequence[Any] | NDArray[Any]]


class Collected:
    """The answers of one batch, in memory: an output and a progress display that shows nothing.

    Attributes:
        lines: lines of the output.
        n_tokens: tokens sampled or scored.
    """

    def __init__(self, seed: int = 0) -> None:
        self.lines: list[bytes] = []
        self.n_done = self.n_failed = self.n_lines = self.n_tokens = 0
        self.seed, self.seconds = seed, 0.0

    def resume(self, items: Iterator[Item]) -> None:
        """Do nothing: each batch begins anew."""

    def write(self, line: bytes) -> None:
        """Keep the next line."""
        self.lines.append(line)

    def finish(self, last: int) -> None:
        """Do nothing: the lines are all there is."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def start(self, done: int) -> None:
        """Do nothing: the job shows the progress of all batches."""

    def count(self, done: int, n_tokens: int) -> None:
        """Count a line."""
        self.n_lines += 1
        self.n_tokens += n_tokens

    def show(self) -> None:
        """Show nothing."""

    def stop(self) -> None:
        """Do nothing: nothing is shown."""


class LineAnswers:
    """Answers lines of a file of requests: what ``--ray`` runs in each actor.

    Args:
        task: sampling or scoring.
        files: the model, and perhaps an adapter.
        pieces: where a node gets files that it lacks; None: nowhere.
        options: of ``ServiceClient``.

    Raises:
        BadRequestError, NotFoundError: the model cannot be opened here.
    """

    def __init__(
        self,
        task: SampleTask | ScoreTask,
        files: ModelFiles,
        pieces: Pieces | None,
        options: Mapping[str, Any],
    ) -> None:
        self._task = task
        weights = files.at_hand(pieces)
        adapter = str(weights.adapter_path) if weights.adapter_path else None
        self._client = ServiceClient(**options).create_sampling_client(
            adapter, str(weights.path), lora_scale=weights.lora_scale
        )

    def __call__(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Answer a batch.

        Args:
            batch: ``line``: numbers in the input; ``data``: the lines; ``is_cut``: whether more followed.

        Returns:
            One row: ``answers``, all lines of the output; ``n_tokens``, ``n_failed``: counts.
        """
        columns = batch["line"], batch["data"], batch["is_cut"]
        lines = (Line(int(n), bytes(data), 0, bool(cut)) for n, data, cut in zip(*columns, strict=True))
        collected = Collected()
        summary = BatchRun(self._client, self._task, collected, collected).run(lines)
        return {
            "answers": np.array([b"".join(collected.lines)], object),
            "n_tokens": np.array([summary.n_tokens]),
            "n_failed": np.array([summary.n_failed]),
        }


class Answers:
    """Answers rows: the columns of a row are the keys of a line in a file of requests.

    ``ray.data.Dataset.map_batches`` takes the class, and makes an object in each actor:

    >>> dataset.map_batches(
    ...     Answers,
    ...     fn_constructor_kwargs={"task": SampleTask(SamplingParams(max_tokens=64)), "n_threads": 8},
    ...     num_cpus=8,
    ...     batch_size=128,
    ...     compute=ray.data.ActorPoolStrategy(size=4),
    ... )

    A row needs ``prompt``, ``messages`` or ``tokens``. To sample, it needs ``seed`` too, or ``line``: its
    seed then follows from that number and the task's seed. A row that is tried again gives the same tokens.
    A value that is None counts as absent. ``adapter`` names a LoRA for the row; the model stays loaded.
    ``images`` has paths that each node can read, data URLs, or the bytes of files.

    Args:
        task: sampling or scoring.
        model: name or path of the model; None: the base that ``adapter`` names.
        adapter: name or path of a LoRA for rows that name none.
        lora_scale: factor on what a LoRA adds.
        options: of ``ServiceClient``. Give ``n_threads=num_cpus``: Ray's CPUs are only counted.

    Raises:
        BadRequestError, NotFoundError: the model cannot be opened.
    """

    def __init__(
        self,
        task: SampleTask | ScoreTask,
        model: str | None = None,
        adapter: str | None = None,
        *,
        lora_scale: float = 1.0,
        **options: Any,
    ) -> None:
        self._task, self._model, self._adapter, self._scale = task, model, adapter, lora_scale
        self._service = ServiceClient(**options)
        self._clients = {adapter: self._open(adapter)}

    def _open(self, adapter: str | None) -> SamplingClient:
        scale = 1.0 if adapter is None else self._scale
        return self._service.create_sampling_client(adapter, self._model, lora_scale=scale)

    def __call__(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Answer a batch of rows.

        Returns:
            The batch's columns and those of the answers, as in the lines of an output. Rows that could not
            be answered have a text in ``error`` and None in the other new columns.
        """
        names = list(batch)
        rows = [
            {name: value for name, value in zip(names, values, strict=True) if value is not None}
            for values in zip(*batch.values(), strict=True)
        ]
        answers: list[dict[str, Any]] = [{} for _ in rows]
        adapters = [row.pop("adapter", self._adapter) for row in rows]
        for adapter in dict.fromkeys(adapters):
            chosen = [i for i, other in enumerate(adapters) if other == adapter]
            for i, answer in zip(chosen, self._answer([rows[i] for i in chosen], adapter), strict=True):
                answers[i] = answer
        new = dict.fromkeys(name for answer in answers for name in answer) | {"error": None}
        columns = {
            name: _column(
                [answer.get(name, row.get(name)) for row, answer in zip(rows, answers, strict=True)]
            )
            for name in new
        }
        return {name: _column(values) for name, values in batch.items()} | columns

    def _answer(self, rows: Sequence[Mapping[str, Any]], adapter: str | None) -> list[dict[str, Any]]:
        """Return the new columns of rows with one adapter."""
        try:
            if adapter not in self._clients:
                self._clients[adapter] = self._open(adapter)
        except TinkerError as error:
            return [{"error": str(error)} for _ in rows]
        collected = Collected()
        BatchRun(self._clients[adapter], self._task, collected, collected).run(map(self._line, rows))
        return [
            {name: value for name, value in json.loads(line).items() if name not in (*row, "line", "input")}
            for row, line in zip(rows, collected.lines, strict=True)
        ]

    def _line(self, row: Mapping[str, Any]) -> Line:
        """Return a row as a line of a file of requests; of columns without a meaning only the name."""
        if isinstance(self._task, SampleTask) and "seed" not in row and "line" not in row:
            raise BadRequestError("a row to sample from needs a column seed, or line; add one of them")
        asked = {
            name: value if name in self._task.known else None
            for name, value in row.items()
            if name != "line"
        }
        images = asked.get("images")
        if isinstance(images, list | np.ndarray):
            asked["images"] = list(map(_location, images))
        return Line(int(row.get("line", 0)), json.dumps(asked, default=_listed).encode(), 0)


def _location(image: Any) -> Any:
    """Return the bytes of an image as a data URL, and anything else as it is."""
    if not isinstance(image, bytes):
        return image
    return f"data:image/;base64,{base64.b64encode(image).decode()}"


def _listed(value: Any) -> Any:
    """Return numpy's arrays and numbers as Python's; of other values the type, for the row's error."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return {"a value of type": type(value).__name__}


def _column(values: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """Return values as an array, whatever they are: numpy would look into lists."""
    if isinstance(values, np.ndarray):
        return values
    column = np.empty(len(values), object)
    column[:] = values
    return column
