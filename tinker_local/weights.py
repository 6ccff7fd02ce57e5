"""Which files a client computes with: a model, and perhaps an adapter on it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinker_local import checks
from tinker_local.engine.context_limit import ContextLimit
from tinker_local.engine.engine import Engine
from tinker_local.engine.gguf_file import is_adapter
from tinker_local.errors import BadRequestError
from tinker_local.model_store import ModelStore, check_gguf
from tinker_local.options import Options


@dataclass(frozen=True, slots=True)
class Weights:
    """A model, and perhaps a LoRA on it.

    Attributes:
        path: the model's GGUF file.
        adapter_path: the LoRA's GGUF file.
        lora_scale: factor of what the LoRA adds, on top of its own alpha / rank.
    """

    path: Path
    adapter_path: Path | None = None
    lora_scale: float = 1.0

    @classmethod
    def find(
        cls,
        store: ModelStore,
        model_path: str | os.PathLike[str] | None,
        base_model: str | os.PathLike[str] | None,
        lora_scale: float,
    ) -> Weights:
        """Return what the arguments of ``create_sampling_client`` mean; see there.

        Raises:
            ValueError: neither ``model_path`` nor ``base_model`` is given.
            NotFoundError: there is no such model or file.
            BadRequestError: a file is of another kind, or the arguments do not go together.
        """
        if not model_path and not base_model:
            raise ValueError("create_sampling_client needs model_path or base_model")
        scale = checks.lora_scale(lora_scale)
        base = store.resolve(os.fspath(base_model)).resolve() if base_model else None
        given = _file(os.fspath(model_path)) if model_path else None
        if given and is_adapter(given):
            if base is None:
                raise BadRequestError(
                    f"model_path is the adapter {given}; base_model must say which model it is for"
                )
            return cls(base, given, scale)
        if given and base:
            raise BadRequestError(f"model_path is {given}, a whole model; leave out base_model ({base})")
        if scale != 1:
            raise BadRequestError(f"lora_scale is {scale}, and there is no adapter that it could scale")
        path = given or base
        assert path is not None
        return cls(path)

    def open(self, options: Options, limit: ContextLimit) -> Engine:
        """Open them; ``limit`` says how many contexts stay in memory.

        Raises:
            NotFoundError: a file is gone.
            BadRequestError: llama.cpp does not accept a file, or the LoRA is for another model.
        """
        adapter = self.adapter_path and check_gguf(self.adapter_path)
        return Engine.open(check_gguf(self.path), options, adapter, self.lora_scale, limit)

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` takes: paths as strings."""
        adapter = self.adapter_path and str(self.adapter_path)
        return {"path": str(self.path), "adapter_path": adapter, "lora_scale": self.lora_scale}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Weights:
        """Return what ``to_json`` was called on.

        Raises:
            KeyError, TypeError: it was not.
        """
        adapter = state["adapter_path"]
        scale = checks.lora_scale(state["lora_scale"])
        return cls(Path(state["path"]), None if adapter is None else Path(adapter), scale)

    def __str__(self) -> str:
        if self.adapter_path is None:
            return str(self.path)
        return f"{self.path} + {self.lora_scale:g} * {self.adapter_path}"


def _file(name: str) -> Path:
    if name.startswith("tinker://"):
        raise BadRequestError(
            f"model_path is {name!r}: weights on Tinker's service cannot be opened by this version; "
            "give the path of a GGUF file, of an adapter or of a whole model"
        )
    return check_gguf(Path(name).expanduser()).resolve()


__all__ = ["Weights"]
