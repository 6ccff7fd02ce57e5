"""Checks a tower's head, the part of a model that reads images, before libmtmd opens the file.

libmtmd ends the process on some wrong files (``GGML_ASSERT``); those are found here. Sources of the rules:
``tools/mtmd/clip.cpp`` (``load_hparams``, ``load_tensors``) and ``tools/mtmd/models`` of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from convert.gguf.arrays import Array
from convert.gguf.file import GgufFile
from convert.gguf.formats import NOT_FOR_WEIGHTS
from tinker_local.errors import BadRequestError
from tinker_local.gguf.file import read_head

Resampling = Literal["bicubic", "bilinear"]
_VISION = "clip.vision"
_LIMITS: dict[str, tuple[int, int]] = {
    "image_size": (1, 1 << 14),
    "patch_size": (1, 1 << 10),
    "embedding_length": (1, 1 << 16),
    "feed_forward_length": (1, 1 << 20),
    "block_count": (1, 512),
    "attention.head_count": (1, 1 << 12),
    "projection_dim": (1, 1 << 20),
}
_QWEN_PIXELS = (1 << 16, 1 << 24)  # of Qwen3-VL's processor; a file may have others


@dataclass(frozen=True, slots=True)
class TowerFile:
    """What a tower's head says of the images that it reads.

    Attributes:
        projector: libmtmd's name of its kind.
        image_size: pixels of a side, where all images are made a square of one size.
        align: sides are multiples of this, where images keep their shape; 0 where they do not.
        pixels: fewest and most pixels of an image that keeps its shape.
        resampling: how an image is resized.
        patch: pixels of the side of a patch, which attention sees as one.
        n_heads: heads of attention.
    """

    projector: str
    image_size: int
    align: int
    pixels: tuple[int, int]
    resampling: Resampling
    patch: int
    n_heads: int


def check_tower(path: Path) -> TowerFile:
    """Check a tower, and return what its head says.

    Raises:
        BadRequestError: it is no tower for images, one of a kind that is not known here, or libmtmd would
            end the process on it; the message says which setting or tensor is wrong.
    """
    head = read_head(path)
    for problem in _problems(head):
        raise BadRequestError(f"{path} cannot be used to read images: {problem}")
    projector, patch = _projector(head), head.number(f"{_VISION}.patch_size") or 0
    kind = _KINDS[projector]
    low, high = (
        head.number(f"{_VISION}.image_{end}_pixels") or usual
        for end, usual in zip(("min", "max"), _QWEN_PIXELS, strict=True)
    )
    align = patch * (head.number(f"{_VISION}.spatial_merge_size") or 2) if kind.keeps_shape else 0
    size, n_heads = (head.number(f"{_VISION}.{key}") or 0 for key in ("image_size", "attention.head_count"))
    return TowerFile(projector, size, align, (low, high), kind.resampling, patch, n_heads)


def _projector(head: GgufFile) -> str:
    return head.text("clip.projector_type") or head.text("clip.vision.projector_type") or ""


def _problems(head: GgufFile) -> Iterator[str]:
    if head.text("general.architecture") != "clip":
        yield f"its architecture is {head.text('general.architecture')}, not clip"
    projector = _projector(head)
    if projector not in _KINDS:
        yield f"its projector is {projector or 'missing'}; known are {', '.join(sorted(_KINDS))}"
    if head.metadata.get("clip.has_vision_encoder") is not True:
        yield "clip.has_vision_encoder is not true"
    for name, (low, high) in _LIMITS.items():
        number = head.number(f"{_VISION}.{name}")
        if number is None or not low <= number <= high:
            yield f"{_VISION}.{name} is {number}; it must be a uint32 from {low} to {high}"
    for name in ("image_mean", "image_std"):
        value = head.metadata.get(f"{_VISION}.{name}")
        if not isinstance(value, Array) or len(value) != 3:
            yield f"{_VISION}.{name} is no array of three numbers"
    n_embd, n_heads = (
        head.number(f"{_VISION}.{n}") or 1 for n in ("embedding_length", "attention.head_count")
    )
    if n_embd % n_heads:
        yield f"{_VISION}.attention.head_count is {n_heads}, and does not divide {n_embd}"
    for name, tensor in head.tensors.items():
        if tensor.type in NOT_FOR_WEIGHTS:
            yield f"its tensor {name} has a number format that llama.cpp cannot multiply with"
    yield from _KINDS[projector].problems(head)


def _wrong_qwen(head: GgufFile) -> Iterator[str]:
    if (merge := head.number(f"{_VISION}.spatial_merge_size")) not in (None, 2):
        yield f"{_VISION}.spatial_merge_size is {merge}, and libmtmd computes with 2"
    if "v.class_embd" in head.tensors:
        yield "it has a tensor v.class_embd, which its kind has not"
    for name in ("v.patch_embd.bias", "v.position_embd.weight"):
        if name not in head.tensors:
            yield f"it has no tensor {name}"


def _wrong_gemma(head: GgufFile) -> Iterator[str]:
    size, patch = (head.number(f"{_VISION}.{name}") or 1 for name in ("image_size", "patch_size"))
    merge = head.number(f"{_VISION}.projector.scale_factor") or 4
    side = size // patch
    if merge < 2 or side % merge:
        yield f"it joins {merge} x {merge} patches, which do not divide {side} x {side}"
    positions = head.tensors.get("v.position_embd.weight")
    if positions is None or positions.ne[1] != side * side:
        yield f"its tensor v.position_embd.weight has not {side * side} rows, one for each patch"


@dataclass(frozen=True, slots=True)
class _Kind:
    """What only towers of one kind have.

    Attributes:
        problems: what else libmtmd would end the process on.
        keeps_shape: whether images keep their shape; else all are made a square.
        resampling: see ``TowerFile``.
    """

    problems: Callable[[GgufFile], Iterator[str]]
    keeps_shape: bool
    resampling: Resampling


_KINDS = {
    "qwen3vl_merger": _Kind(_wrong_qwen, keeps_shape=True, resampling="bicubic"),
    "gemma3": _Kind(_wrong_gemma, keeps_shape=False, resampling="bilinear"),
}
"""By libmtmd's name of the projector. Another kind is another row."""
