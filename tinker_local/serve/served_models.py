"""ServedModels: the models of one ServiceClient, by the names that clients send."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tinker_local.errors import BadRequestError, NotFoundError, TinkerError, shown
from tinker_local.queue_state import QueueState, QueueStateObserver
from tinker_local.sampling_client import SamplingClient
from tinker_local.service_client import ServiceClient
from tinker_local.store.catalog import find_entry
from tinker_local.store.inventory import Holding, inventory
from tinker_local.store.known_model import choose
from tinker_local.store.mmproj import modalities
from tinker_local.store.model_store import ModelStore
from tinker_local.store.tuned import WORKS

_HUB = "https://huggingface.co/"
_MOST_NAMES = 1000
_LOOK_SECONDS = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelName:
    """What a client asks for.

    Attributes:
        base: name of a model, or of an adapter; None for the base that the checkpoint names.
        checkpoint: a ``tinker://`` path.
    """

    base: str | None = None
    checkpoint: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read the ``model`` of an OpenAI request: ``NAME``, ``tinker://...`` or ``NAME;tinker://...``."""
        base, semicolon, checkpoint = text.rpartition(";")
        if not semicolon:
            return cls(checkpoint=text) if text.startswith("tinker://") else cls(base=text)
        return cls(base, checkpoint)

    def __str__(self) -> str:
        return ";".join(filter(None, (self.base, self.checkpoint)))


@dataclass(frozen=True, slots=True)
class ListedModel:
    """What clients are told of a model or an adapter.

    Attributes:
        parent: of an adapter the model that it fits, "" if none is known; None of a model.
        reads: ``text``, ``images``, ``audio``; of an adapter what its model reads.
    """

    parent: str | None
    reads: tuple[str, ...]


class _Watch(QueueStateObserver):
    """Keeps the last state of a queue that it was told, and looks whether the model was replaced."""

    def __init__(self, client: SamplingClient) -> None:
        self.state: tuple[QueueState, str | None] = QueueState.ACTIVE, None
        self._weights, self._version = client.weights, client.weights.version()
        self._looked_at = time.monotonic()
        client.observe(self)

    def is_stale(self) -> bool:
        """Whether a file was replaced or is gone; looks once a second at most."""
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return False
        self._looked_at = time.monotonic()
        try:
            return self._weights.version() != self._version
        except TinkerError:
            return True

    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        self.state = queue_state, queue_state_reason


class ServedModels:
    """Opens each model when it is first asked for, in a thread, once; again when its files were replaced.

    Clients name what is in the store, or was named when the server began. Paths are refused, so that nobody
    learns from afar which files there are.

    Args:
        service: opens the models.
        named: names or paths that the server was started with; a path is served under its file's name.

    Raises:
        NotFoundError, BadRequestError: one of ``named`` is not here.

    Used on one event loop.
    """

    def __init__(self, service: ServiceClient, named: Iterable[str] = ()) -> None:
        self._service = service
        self._store = ModelStore(service.options.models_dir)
        self._files: dict[str, Path] = {}  # of those that were named by paths
        self._openings: dict[ModelName, asyncio.Task[SamplingClient]] = {}
        self._watches: dict[ModelName, _Watch] = {}
        self._first = [ModelName(self._served(name)) for name in named]

    def open_first(self) -> None:
        """Begin to open what the server was started with."""
        for name in self._first:
            self._opening(name)

    def begin_opening(self, name: ModelName) -> None:
        """Begin to open a model; see ``open``."""
        self._opening(name)

    async def default(self) -> ModelName:
        """Return the model of a request that names none: the first of ``named``, else the only one.

        Raises:
            BadRequestError: there are several, and none is the obvious one.
        """
        if self._first:
            return self._first[0]
        opened = [name for name, opening in self._openings.items() if _is_good(opening)]
        if len(opened) == 1:
            return opened[0]
        holdings = await asyncio.to_thread(lambda: self.holdings)
        names = [public_name(holding.name) for holding in holdings if not holding.is_adapter]
        if len(names) != 1:
            raise BadRequestError(
                f"model is missing, and there are {len(names)} here; name one, or start the server with "
                f"--model: {', '.join(names) or 'none'}"
            )
        return ModelName(names[0])

    def queue_state(self, name: ModelName) -> tuple[QueueState, str | None] | None:
        """Return whether requests to a model wait, and why; None if it is not open."""
        return self._watches[name].state if name in self._watches else None

    def ready(self, name: ModelName) -> SamplingClient | None:
        """Return a client that is open already."""
        opening = self._openings.get(name)
        return opening.result() if opening is not None and self._is_usable(name, opening) else None

    async def open(self, name: ModelName) -> SamplingClient:
        """Return the client of a model, once it is loaded. All who wait at a time wait for one loading.

        Raises:
            NotFoundError: there is no such model; the message lists those that are here.
            BadRequestError: a file cannot be used, or base and checkpoint do not fit.
            InternalServerError: there is no memory for it.
        """
        return await asyncio.shield(self._opening(name))

    def _opening(self, name: ModelName) -> asyncio.Task[SamplingClient]:
        opening = self._openings.get(name)
        if opening is None or (opening.done() and not self._is_usable(name, opening)):
            self._forget_some()
            opening = asyncio.create_task(asyncio.to_thread(self._open, name))
            opening.add_done_callback(partial(self._opened, name))
            self._openings[name] = opening
        return opening

    def _opened(self, name: ModelName, opening: asyncio.Task[SamplingClient]) -> None:
        if _is_good(opening):
            logger.info("opened %s", name)
            self._watches[name] = _Watch(opening.result())
        elif not opening.cancelled():  # those who wait get the error, too
            logger.warning("%s cannot be opened: %s", shown(str(name)), opening.exception())

    def _is_usable(self, name: ModelName, opening: asyncio.Task[SamplingClient]) -> bool:
        """Whether a model was opened, and its files are still those that were opened."""
        return _is_good(opening) and not (name in self._watches and self._watches[name].is_stale())

    def _forget_some(self) -> None:
        """Keep the table of names short: a client may spell one in many ways."""
        done = [name for name, opening in self._openings.items() if opening.done()]
        for name in done[: max(0, len(self._openings) - _MOST_NAMES)]:
            del self._openings[name]
            self._watches.pop(name, None)

    def check(self, name: ModelName) -> None:
        """Look whether a model is here, without opening it; reads files.

        Raises:
            NotFoundError, BadRequestError: it is not.
        """
        if not (name.base or name.checkpoint):
            raise BadRequestError(f"model is empty; there are: {', '.join(self.names()) or 'none'}")
        if name.checkpoint:
            if not name.checkpoint.startswith("tinker://"):
                raise BadRequestError(f"{shown(name.checkpoint)} is no tinker:// path")
            if name.checkpoint not in {holding.name for holding in self.holdings}:
                raise NotFoundError(self._missing(name.checkpoint))
        if name.base:
            self.resolve(name.base)

    def resolve(self, name: str) -> Path:
        """Return the file of a model or an adapter by its name, as the store does, but for paths.

        Hugging Face's ``ORG/NAME`` may be followed by ``:TYPE``, for one of several files; transformers
        and Tinker's SDK leave that out when they look for the tokenizer.

        Raises:
            NotFoundError: there is none of this name.
        """
        plain = name.removesuffix(".gguf")
        if plain in self._files:
            return self._files[plain]
        head, _, type = plain.partition(":")
        if not _is_name(head):
            raise NotFoundError(self._missing(name))
        if head.rpartition("@")[2] in WORKS:
            return self._store.resolve(head)
        for candidate in (f"{head}-{type}", head) if type else (head,):
            if found := self._store.find(candidate):
                return choose(candidate, found).require()
        raise NotFoundError(self._missing(name))

    @property
    def holdings(self) -> list[Holding]:
        """What is in the store and can be used; reads files."""
        return [holding for holding in inventory(self._store) if not holding.problem]

    def names(self) -> list[str]:
        """Return the names of models, adapters and checkpoints, Hugging Face's where there is one."""
        return list(
            dict.fromkeys([*self._files, *(public_name(holding.name) for holding in self.holdings)])
        )

    def listed(self) -> dict[str, ListedModel]:
        """Return for each of ``names`` what clients are told of it; reads files."""
        holdings = self.holdings
        models = [holding for holding in holdings if not holding.is_adapter]
        found = {name: ListedModel(None, modalities(path)) for name, path in self._files.items()}
        for holding in holdings:
            base = next(filter(holding.fits, models), None)
            parent = (public_name(base.name) if base else "") if holding.is_adapter else None
            found.setdefault(public_name(holding.name), ListedModel(parent, (base or holding).reads))
        return found

    def base_name(self, name: ModelName) -> str | None:
        """Return the name of the model, of an adapter its base; None if nothing says it. Reads files."""
        asked = name.checkpoint or name.base
        for holding in self.holdings:
            if holding.is_adapter and asked in (holding.name, *holding.aliases):
                return (name.checkpoint and name.base) or holding.base_name
        return name.base

    def _open(self, name: ModelName) -> SamplingClient:
        self.check(name)
        base = str(self.resolve(name.base)) if name.base else None
        if name.checkpoint:
            return self._service.create_sampling_client(name.checkpoint, base)
        return self._service.create_sampling_client(base)  # which may be an adapter

    def _served(self, given: str) -> str:
        """Return the name under which a model is served that the server was started with."""
        path = self._store.resolve(given)
        if not Path(given).expanduser().is_file():
            return given
        self._files[path.stem] = path
        return path.stem

    def _missing(self, name: str) -> str:
        entry = find_entry(name)
        said = f"; get it: {entry.how_to_get}" if entry else ""
        return (
            f"no model is called {shown(name)} here; there are: {', '.join(self.names()) or 'none'}{said}"
        )


def _is_good(opening: asyncio.Task[SamplingClient]) -> bool:
    return opening.done() and not opening.cancelled() and opening.exception() is None


def public_name(name: str) -> str:
    """Return the name that clients see: ``ORG/NAME`` on Hugging Face, if the catalogue knows it."""
    entry = find_entry(name)
    if entry and entry.source.startswith(_HUB):
        return entry.source.removeprefix(_HUB)
    return name


def _is_name(text: str) -> bool:
    """Whether a text can be ORG/NAME, and no path."""
    parts = text.split("/")
    return (
        len(parts) <= 2
        and all(part and not part.startswith((".", "~")) for part in parts)
        and "\\" not in text
    )


__all__ = ["ListedModel", "ModelName", "ServedModels", "public_name"]
