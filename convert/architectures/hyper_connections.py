"""Manifold-constrained hyper-connections: residual streams that each layer reads, writes and mixes."""

from __future__ import annotations

from collections.abc import Iterator

from convert.architectures.architecture import Architecture, Target, Value
from convert.source.config import Config

RENAMED = {r"\.hc_(attn|ffn)_(fn|base|scale)$": r".\1_hc.\2"}
"""Published names, and those of transformers 5, for ``renamed``."""


def stream_metadata(config: Config) -> dict[str, Value]:
    """Return llama.cpp's keys. Raises UnsupportedError for other than its four streams."""
    config.expect("hc_mult", 4)
    return {
        "hyper_connection.count": config.integer("hc_mult"),
        "hyper_connection.sinkhorn_iterations": config.integer("hc_sinkhorn_iters"),
        "hyper_connection.epsilon": config.number("hc_eps"),
    }


def layer_streams(model: Architecture, ours: str, theirs: str) -> Iterator[Target]:
    """Yield what mixes the streams around a layer's attention and around its MLP."""
    for part in ("attn", "ffn"):
        yield from stream_targets(model, f"{ours}hc_{part}_", f"{theirs}{part}_hc.")


def stream_targets(model: Architecture, ours: str, theirs: str) -> Iterator[Target]:
    """Yield what mixes the streams in one place; all of it stays float32."""
    for part in ("fn", "base", "scale"):
        yield model.take(f"{ours}{part}.weight", f"{theirs}{part}", is_matrix=False)
