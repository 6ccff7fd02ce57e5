"""Tuner: measures a model in several GGUF types, and chooses one for each kind of work."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from convert.convert import convert_checkpoint
from convert.errors import ConversionError
from tinker_local.engine.own_kernels import open_model
from tinker_local.errors import BadRequestError
from tinker_local.llama.machine import threads
from tinker_local.llama.model import Model
from tinker_local.options import Options
from tinker_local.service_client import ServiceClient
from tinker_local.store.known_model import KnownModel
from tinker_local.store.provenance import Provenance
from tinker_local.store.tuned import WORKS, Tuned, tuned_directory
from tinker_local.tokenizer import Tokenizer
from tinker_local.tuning import speed
from tinker_local.tuning.candidates import FLOATS, candidate
from tinker_local.tuning.quality import Quality, compare
from tinker_local.tuning.speed import RelativeSpeed

_WINDOW = 512  # tokens of the text per window; each window starts with an empty context
_SPELLED_OUT = "f16"  # reference type of a quantized source: keeps 11 significant bits of each weight


@dataclass(frozen=True, slots=True)
class TypeMeasurement:
    """Measurements of one type: a row of the table that ``models tune`` prints.

    Attributes:
        type: the GGUF type.
        is_source: True for the file that the other types are made from.
        n_bytes: size of the file.
        quality: KL divergence and perplexity; None where the type could not be made.
        speeds: speed by kind of work, as ``speed.measure`` names them.
        problem: why the type could not be made; None if it could.
    """

    type: str
    is_source: bool = False
    n_bytes: int = 0
    quality: Quality | None = None
    speeds: dict[str, RelativeSpeed] = field(default_factory=dict)
    problem: str | None = None


class Tuner:
    """Measures a model in several types: ``measure``, then ``choose``, then ``keep``.

    The source is the model's most exact file. Each type is made from it, timed alternately with it, and
    removed before the next one is made: the disk needs room for one file.

    Quality is measured against a reference: the source itself, or, where the source is quantized, its
    weights written out as f16, which llama.cpp computes with less rounding. The reference is a second file.

    Args:
        model: the model to tune.
        home: the models directory.
        options: how to run the model.
        text: the text that quality is measured on.
        max_tokens: most tokens of the text to use.
        rounds: timings of each kind of work, at least 2.

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
            raise BadRequestError(f"{model.name} is a result of tuning; give the name before the @")
        said = Provenance.of(self.source)
        if said.is_adapter:
            raise BadRequestError(f"{self.source} is an adapter, which has no type to tune; give its base")
        self.source_type = model.type or said.type or "unknown"
        self.reference_type = self.source_type if self.source_type in FLOATS else _SPELLED_OUT
        self._model = model
        self._home = home
        self._options = options.model_copy(update={"n_ctx": speed.N_CELLS, "prefix_cache": False})
        self._rounds = rounds
        self._open = open_model(self.source, options)
        self.windows = _windows(self._open, text, max_tokens)

    def measure(self, types: Sequence[str]) -> Iterator[TypeMeasurement]:
        """Yield a measurement of the source, then one of each type as it is finished.

        Raises:
            ConversionError: the reference cannot be made.
        """
        if self.reference_type == self.source_type:
            yield from self._measure_all(types, self._open)
            return
        with candidate(self.source, self.reference_type, self._home) as path:
            yield from self._measure_all(types, self._load(path))

    def choose(self, rows: Sequence[TypeMeasurement], max_kl: float) -> Tuned:
        """Return the best type for each kind of work."""
        types = {work: choose(rows, work, max_kl) for work in WORKS}
        chosen = {work: None if row.is_source else row.type for work, row in types.items()}
        return Tuned(tuned_directory(self._home, self._model), self._model.n_bytes, chosen)

    def keep(self, tuned: Tuned, rows: Sequence[TypeMeasurement], max_kl: float, *, files: bool) -> None:
        """Store the choice, with ``files`` also the chosen files; remove those of an earlier choice."""
        for old in tuned.directory.glob("*.gguf*"):
            old.unlink()
        if files:
            for type in filter(None, dict.fromkeys(tuned.types.values())):
                convert_checkpoint(self.source, tuned.directory / f"{type}.gguf", outtype=type)
        tuned.write(self.to_json(rows, max_kl))

    def to_json(self, rows: Sequence[TypeMeasurement], max_kl: float) -> dict[str, Any]:
        """Return the measurements and their circumstances in values that JSON has."""
        n_threads, n_threads_batch = threads(self._options)
        return {
            "model": self._model.name,
            "source": str(self.source),
            "reference": self.reference_type,
            "processor": platform.processor() or platform.machine(),
            "n_threads": n_threads,
            "n_threads_batch": n_threads_batch,
            "n_tokens": sum(map(len, self.windows)),
            "rounds": self._rounds,
            "max_kl": max_kl,
            "rows": [asdict(row) for row in rows],
        }

    def _measure_all(self, types: Sequence[str], reference: Model) -> Iterator[TypeMeasurement]:
        yield self._measure_type(self.source_type, self.source, reference, is_source=True)
        for type in dict.fromkeys(types):
            if type == self.source_type:
                continue
            try:
                with candidate(self.source, type, self._home) as path:
                    yield self._measure_type(type, path, reference)
            except ConversionError as error:
                yield TypeMeasurement(type, problem=str(error))

    def _measure_type(
        self, type: str, path: Path, reference: Model, *, is_source: bool = False
    ) -> TypeMeasurement:
        """Measure the quality, then the speed of one file."""
        quality = compare(reference, self._load(path), self.windows, self._options)
        text = [token for window in self.windows for token in window]
        text *= -(-speed.N_SCORED // len(text))
        with ServiceClient(**self._options.model_dump()) as service:
            client, source = (
                service.create_sampling_client(base_model=str(p)) for p in (path, self.source)
            )
            speeds = speed.measure(client, source, text, self._rounds)
        n_bytes = self._model.n_bytes if is_source else path.stat().st_size
        return TypeMeasurement(type, is_source, n_bytes, quality, speeds)

    def _load(self, path: Path) -> Model:
        return open_model(path, self._options)


def choose(rows: Sequence[TypeMeasurement], work: str, max_kl: float) -> TypeMeasurement:
    """Return the fastest type with a KL of at most ``max_kl``; among equally fast types, the most exact.

    The source may always be chosen. A type is equally fast if its ratio reaches the lower quartile of the
    fastest type's.
    """

    def kl(row: TypeMeasurement) -> float:
        return row.quality.kl if row.quality else float("inf")

    allowed = [row for row in rows if row.speeds and (row.is_source or kl(row) <= max_kl)]
    fastest = max(allowed, key=lambda row: row.speeds[work].ratio)
    as_fast = [row for row in allowed if row.speeds[work].ratio >= fastest.speeds[work].low]
    return min(as_fast, key=kl)


def _windows(model: Model, text: str, max_tokens: int) -> list[list[int]]:
    """Cut a text into windows of token ids, each beginning with BOS or what else the vocabulary adds."""
    tokenizer = Tokenizer(model)
    first = tokenizer.encode("")
    tokens = tokenizer.encode(text, add_special_tokens=False)[:max_tokens]
    size = min(_WINDOW, model.n_ctx_train) - len(first)
    windows = [first + tokens[start : start + size] for start in range(0, len(tokens), size)]
    windows = [window for window in windows if len(window) > 16] or windows[:1]
    if sum(map(len, windows)) < 32:
        raise BadRequestError(f"the text has only {len(tokens)} tokens; give a longer one, of at least 32")
    return windows
