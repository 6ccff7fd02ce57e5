"""The ``general.*`` keys of a GGUF file: name, licence, origin and type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from convert.gguf.file_types import FileType
from convert.gguf.head import Value
from convert.source.model_card import read_model_card

_QUANTIZATION_VERSION = 2  # GGML_QNT_VERSION


def general_metadata(
    directory: Path,
    architecture: str,
    name: str,
    type: FileType,
    fitting: Callable[[str], str] = str,
    kind: str = "model",
) -> dict[str, Value]:
    """Return the entries; licence and base model are the model card's.

    Args:
        architecture: llama.cpp's name.
        name: ``NAME`` or ``ORG/NAME``; the latter is taken for a repository on Hugging Face.
        fitting: makes ``general.name`` of a name; llama.cpp recognises some models by it.
        kind: ``general.type``.
    """
    card = read_model_card(directory)
    organisation, _, plain = name.rpartition("/")
    values: dict[str, Value] = {
        "general.architecture": architecture,
        "general.type": kind,
        "general.name": fitting(plain),
        "general.organization": organisation,
        "general.license": card.get("license", ""),
        "general.license.name": card.get("license_name", ""),
        "general.license.link": card.get("license_link", ""),
        "general.source.huggingface.repository": name if organisation else "",
        "general.file_type": type.number,
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    if base := card.get("base_model"):
        organisation, _, plain = base.rpartition("/")
        values |= {
            "general.base_model.count": 1,
            "general.base_model.0.name": plain,
            "general.base_model.0.organization": organisation,
            "general.base_model.0.repo_url": f"https://huggingface.co/{base}" if organisation else "",
        }
    return {key: value for key, value in values.items() if value != ""}
