"""Random towers in the form that libmtmd reads, made in a moment: the part of a model that reads images.

qwen3vl  images of any shape, 32 x 32 pixels a token; for the text model ``qwen3vl``
gemma3   images of 128 x 128 pixels, 16 tokens; for ``gemma3``
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.libmtmd import require_libmtmd
from tests.random_model import N_DEEPSTACK, Shape, write_random_model

Kind = Literal["qwen3vl", "gemma3"]
WIDTH, INNER, N_LAYERS, N_TEXT = 32, 48, 2, Shape().n_embd
SPECIAL: Mapping[Kind, tuple[str, ...]] = {
    "qwen3vl": ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    "gemma3": ("<start_of_image>", "<end_of_image>"),
}
"""The last tokens of the vocabulary."""
_IN_TEMPLATE: Mapping[Kind, str] = {
    "qwen3vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "gemma3": "<start_of_image>",
}
_TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{{ 'IMAGE' if part.type == 'image' else part.text }}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
_SIDES: Mapping[Kind, tuple[int, int]] = {
    "qwen3vl": (128, 16),
    "gemma3": (128, 8),
}  # of an image, of a patch


def write_random_pair(directory: Path, kind: Kind, *, n_layer: int = 3) -> Path:
    """Write a text model and its tower; return the model's path."""
    require_libmtmd()
    path = write_random_model(
        directory / f"{kind}.gguf",
        kind,
        Shape(n_layer=n_layer),
        said={"tokenizer.chat_template": _TEMPLATE.replace("IMAGE", _IN_TEMPLATE[kind])},
        special=SPECIAL[kind],
    )
    write_random_tower(directory / f"mmproj-{kind}.gguf", kind)
    return path


def write_random_tower(path: Path, kind: Kind, changed: Mapping[str, Any] | None = None) -> Path:
    """Write a tower; ``changed`` has other values of its settings, None for none."""
    size, patch = _SIDES[kind]
    settings: dict[str, Any] = {
        "clip.has_vision_encoder": True,
        "clip.projector_type": {"qwen3vl": "qwen3vl_merger", "gemma3": "gemma3"}[kind],
        "clip.use_gelu": True,
        "clip.vision.image_size": size,
        "clip.vision.patch_size": patch,
        "clip.vision.embedding_length": WIDTH,
        "clip.vision.feed_forward_length": INNER,
        "clip.vision.block_count": N_LAYERS,
        "clip.vision.attention.head_count": 2,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.projection_dim": N_TEXT,
        "clip.vision.image_mean": [0.5] * 3,
        "clip.vision.image_std": [0.5] * 3,
    }
    if kind == "qwen3vl":
        settings |= {
            "clip.vision.spatial_merge_size": 2,
            "clip.vision.image_min_pixels": 4096,
            "clip.vision.image_max_pixels": 1 << 18,
            "clip.vision.is_deepstack_layers": [i < N_DEEPSTACK for i in range(N_LAYERS)],
        }
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    for key, value in (settings | dict(changed or {})).items():
        if value is not None:
            _add(writer, key, value)
    for name, shape in _tensors(kind, (size // patch) ** 2, patch):
        writer.add_tensor(name, _numbers(name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    add.get(type(value), writer.add_array)(key, value)


def _tensors(kind: Kind, n_positions: int, patch: int) -> list[tuple[str, tuple[int, ...]]]:
    matrices = [(f"v.blk.{i}.ffn_up", INNER, WIDTH) for i in range(N_LAYERS)]
    matrices += [(f"v.blk.{i}.ffn_down", WIDTH, INNER) for i in range(N_LAYERS)]
    norms = [(f"v.blk.{i}.{name}", WIDTH) for i in range(N_LAYERS) for name in ("ln1", "ln2")]
    norms += [("v.post_ln", WIDTH)]
    kernel = (WIDTH, 3, patch, patch)
    found: list[tuple[str, tuple[int, ...]]] = [
        ("v.patch_embd.weight", kernel),
        ("v.patch_embd.bias", (WIDTH,)),
        ("v.position_embd.weight", (n_positions, WIDTH)),
    ]
    if kind == "gemma3":
        parts = ("attn_q", "attn_k", "attn_v", "attn_out")
        matrices += [(f"v.blk.{i}.{name}", WIDTH, WIDTH) for i in range(N_LAYERS) for name in parts]
        found += [("mm.input_projection.weight", (WIDTH, N_TEXT)), ("mm.soft_emb_norm.weight", (WIDTH,))]
    else:
        found += [("v.patch_embd.weight.1", kernel)]
        matrices += [(f"v.blk.{i}.attn_qkv", 3 * WIDTH, WIDTH) for i in range(N_LAYERS)]
        matrices += [(f"v.blk.{i}.attn_out", WIDTH, WIDTH) for i in range(N_LAYERS)]
        matrices += [("mm.0", 4 * WIDTH, 4 * WIDTH), ("mm.2", N_TEXT, 4 * WIDTH)]
        for i in range(N_DEEPSTACK):
            norms += [(f"v.deepstack.{i}.norm", 4 * WIDTH)]
            matrices += [(f"v.deepstack.{i}.fc1", 4 * WIDTH, 4 * WIDTH)]
            matrices += [(f"v.deepstack.{i}.fc2", N_TEXT, 4 * WIDTH)]
    for name, rows, columns in matrices:
        found += [(f"{name}.weight", (rows, columns)), (f"{name}.bias", (rows,))]
    return found + [(f"{name}.{part}", (n,)) for name, n in norms for part in ("weight", "bias")]


def _numbers(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    rng = np.random.default_rng(sum(name.encode()) + len(name))
    numbers = rng.standard_normal(shape, np.float32)
    if len(shape) == 1:
        return 0.1 * numbers + np.float32("norm" in name or ".ln" in name or "_ln" in name)
    return numbers * np.float32(np.prod(shape[1:]) ** -0.5)


def picture(width: int, height: int, seed: int = 0, image_format: str = "png") -> bytes:
    """Return the file of a picture: random colours that run into each other."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    file = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, image_format)
    return file.getvalue()
