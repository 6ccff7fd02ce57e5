"""Tuner: measures a model in other types, and chooses one for each kind of work."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from convert.convert import convert_checkpoint
from convert.errors import ConversionError
from tinker_local.errors import BadRequestError
from tinker_local.llama.machine import default_threads
from tinker_local.llama.model import Model, load_model
from tinker_local.options import Options
from tinker_local.service_client import ServiceClient
from tinker_local.store.known_model import KnownModel
from tinker_local.store.provenance import Provenance
from tinker_local.store.tuned import WORKS, Tuned, tuned_directory
from tinker_local.tokenizer import Tokenizer
from tinker_local.tuning import speed
from tinker_local.tuning.candidates import FLOATS, candidate
from tinker_local.tuning.quality import Quality, compare
from tinker_local.tuning.speed import Speed

_WINDOW = 512  # tokens of a text that are read from an empty context
_SPELLED_OUT = "f16"  # keeps the numbers of quantized matrices to 11 bits


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of a type.

    Attributes:
        type: its name; of the source itself the source's.
        is_source: whether this is the file that the others are made from.
        n_bytes: the file's size.
        quality: what it costs; None where it could not be made.
        speeds: by kind of work; see ``speed.measure``.
        problem: why it could not be made.
    """

    type: str
    is_source: bool = False
    n_bytes: int = 0
    quality: Quality | None = None
    speeds: dict[str, Speed] = field(default_factory=dict)
    problem: str | None = None


class Tuner:
    """Measures a model in several types.

    Each is made from the model's most exact file, measured in turns with that file, and removed before
    the next is made: the disk must hold one of them (and, for a quantized source, the reference). The
    reference of quality is the source; where that is quantized, the same numbers spelled out as f16,
    which llama.cpp computes with less rounding.

    Args:
        model: what to tune.
        home: the models directory.
        options: how to run it.
        text: what quality is measured on.
        max_tokens: how much of it is read.
        rounds: how many times each kind of work is timed, at least 2.

    Raises:
        NotFoundError, BadRequestError: the model cannot be used, or the text is too short.
    """

    def __init__(
        self,
        model: KnownModel,
        home: Path,
        options: Options,
        text: str,
        *,
        max_tokens: int = 2048,
        rounds: int = 5,
    ) -> None:
        self.source = model.require()
        if "@" in model.name and not Path(model.name).expanduser().exists():
            raise BadRequestError(f"{model.name} is the result of tuning; give the name before the @")
        said = Provenance.of(self.source)
        if said.is_adapter:
            raise BadRequestError(f"{self.source} is an adapter; it has the type of its base")
        self.source_type = model.type or said.type or "unknown"
        self.reference_type = self.source_type if self.source_type in FLOATS else _SPELLED_OUT
        self._model = model
        self._home = home
        self._options = options.model_copy(update={"n_ctx": speed.N_CELLS, "prefix_cache": False})
        self._rounds = rounds
        self._open = load_model(self.source, options.n_gpu_layers, options.devices)
        self.windows = _windows(self._open, text, max_tokens)

    def measure(self, types: Sequence[str]) -> Iterator[Row]:
        """Yield a row for the source, then one for each type as it is done.

        Raises:
            ConversionError: the reference cannot be made.
        """
        if self.reference_type == self.source_type:
            yield from self._measure(types, self._open)
            return
        with candidate(self.source, self.reference_type, self._home) as path:
            yield from self._measure(types, self._load(path))

    def choose(self, rows: Sequence[Row], max_kl: float) -> Tuned:
        """Return the best type for each kind of work."""
        types = {work: choose(rows, work, max_kl) for work in WORKS}
        chosen = {work: None if row.is_source else row.type for work, row in types.items()}
        return Tuned(tuned_directory(self._home, self._model), self._model.n_bytes, chosen)

    def keep(self, tuned: Tuned, rows: Sequence[Row], max_kl: float, *, files: bool) -> None:
        """Store the choice, with ``files`` also the files for it; those of an earlier choice go."""
        for old in tuned.directory.glob("*.gguf*"):
            old.unlink()
        if files:
            for type in filter(None, dict.fromkeys(tuned.types.values())):
                convert_checkpoint(self.source, tuned.directory / f"{type}.gguf", outtype=type)
        tuned.write(self.found(rows, max_kl))

    def found(self, rows: Sequence[Row], max_kl: float) -> dict[str, Any]:
        """Return what was measured and where, for JSON."""
        return {
            "model": self._model.name,
            "source": str(self.source),
            "reference": self.reference_type,
            "processor": platform.processor() or platform.machine(),
            "n_threads": self._options.n_threads or default_threads(),
            "n_tokens": sum(map(len, self.windows)),
            "rounds": self._rounds,
            "max_kl": max_kl,
            "rows": [asdict(row) for row in rows],
        }

    def _measure(self, types: Sequence[str], reference: Model) -> Iterator[Row]:
        yield self._row(self.source_type, self.source, reference, is_source=True)
        for type in dict.fromkeys(types):
            if type == self.source_type:
                continue
            try:
                with candidate(self.source, type, self._home) as path:
                    yield self._row(type, path, reference)
            except ConversionError as error:
                yield Row(type, problem=str(error))

    def _row(self, type: str, path: Path, reference: Model, *, is_source: bool = False) -> Row:
        quality = compare(reference, self._load(path), self.windows, self._options)
        text = [token for window in self.windows for token in window]
        text *= -(-speed.N_SCORED // len(text))
        with ServiceClient(**self._options.model_dump()) as service:
            client, source = (
                service.create_sampling_client(base_model=str(p)) for p in (path, self.source)
            )
            speeds = speed.measure(client, source, text, self._rounds)
        n_bytes = self._model.n_bytes if is_source else path.stat().st_size
        return Row(type, is_source, n_bytes, quality, speeds)

    def _load(self, path: Path) -> Model:
        return load_model(path, self._options.n_gpu_layers, self._options.devices)


def choose(rows: Sequence[Row], work: str, max_kl: float) -> Row:
    """Return the fastest row that costs at most ``max_kl``; of those as fast within noise, the most exact.

    The source may always be chosen. "As fast" is what lies within the quartiles of the fastest.
    """

    def kl(row: Row) -> float:
        return row.quality.kl if row.quality else float("inf")

    allowed = [row for row in rows if row.speeds and (row.is_source or kl(row) <= max_kl)]
    fastest = max(allowed, key=lambda row: row.speeds[work].ratio)
    as_fast = [row for row in allowed if row.speeds[work].ratio >= fastest.speeds[work].low]
    return min(as_fast, key=kl)


def _windows(model: Model, text: str, max_tokens: int) -> list[list[int]]:
    """Cut a text to windows, each with the tokens that the vocabulary puts before a text."""
    tokenizer = Tokenizer(model)
    first = tokenizer.encode("")
    tokens = tokenizer.encode(text, add_special_tokens=False)[:max_tokens]
    size = min(_WINDOW, model.n_ctx_train) - len(first)
    windows = [first + tokens[start : start + size] for start in range(0, len(tokens), size)]
    windows = [window for window in windows if len(window) > 16] or windows[:1]
    if sum(map(len, windows)) < 32:
        raise BadRequestError(f"the text has {len(tokens)} tokens, which says little; give a longer one")
    return windows
