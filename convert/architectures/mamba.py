"""Mamba-2 layers, as several hybrid models have them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from convert.architectures.architecture import Architecture, Target, Value
from convert.errors import CheckpointError
from convert.source.config import Config
from convert.source.tensor import SourceTensor


@dataclass(frozen=True)
class Mamba:
    """The sizes of a model's recurrent layers.

    Attributes:
        n_heads, head_size: of the recurrence.
        n_groups: heads of a group share what is written and read.
        state_size: numbers a channel keeps.
        kernel: tokens that the convolution sees.
        has_bias: whether the convolution has a bias.
        has_norm: whether a norm follows the recurrence.
    """

    n_heads: int
    head_size: int
    n_groups: int
    state_size: int
    kernel: int
    has_bias: bool
    has_norm: bool = True

    @classmethod
    def named(cls, config: Config, inner: int, *, has_norm: bool = True) -> Mamba:
        """Return the sizes that settings named ``mamba_...`` give; ``inner`` is shared by the heads."""
        n_heads = config.integer("mamba_n_heads")
        return cls(
            n_heads,
            inner // n_heads,
            config.integer("mamba_n_groups"),
            config.integer("mamba_d_state"),
            config.integer("mamba_d_conv"),
            bool(config.get("mamba_conv_bias")),
            has_norm,
        )

    @property
    def inner(self) -> int:
        """Channels of the recurrence."""
        return self.n_heads * self.head_size

    def metadata(self) -> dict[str, Value]:
        """Return llama.cpp's keys of these sizes."""
        return {
            "ssm.conv_kernel": self.kernel,
            "ssm.inner_size": self.inner,
            "ssm.state_size": self.state_size,
            "ssm.time_step_rank": self.n_heads,
            "ssm.group_count": self.n_groups,
        }

    def targets(self, model: Architecture, ours: str, theirs: str) -> Iterator[Target]:
        """Yield a layer's tensors; all but its two projections stay float32."""
        yield model.take(f"{ours}ssm_in.weight", f"{theirs}in_proj.weight")
        yield model.take(f"{ours}ssm_out.weight", f"{theirs}out_proj.weight")
        n_channels = self.inner + 2 * self.n_groups * self.state_size
        for name, shape in (
            ("conv1d.weight", (n_channels, 1, self.kernel)),
            ("A_log", (self.n_heads,)),
            ("D", (self.n_heads,)),
            *([("norm.weight", (self.inner,))] if self.has_norm else []),
        ):
            model.expect_shape(f"{theirs}{name}", shape)
        kernel = model.tensor(f"{theirs}conv1d.weight")
        yield _reshaped(model, f"{ours}ssm_conv1d.weight", kernel, (n_channels, self.kernel))
        if self.has_bias:
            yield model.take(f"{ours}ssm_conv1d.bias", f"{theirs}conv1d.bias")
        else:  # llama.cpp adds one in any case
            yield model.constant(f"{ours}ssm_conv1d.bias", np.zeros(n_channels, np.float32))
        yield model.take(f"{ours}ssm_dt.bias", f"{theirs}dt_bias")
        decay = model.tensor(f"{theirs}A_log")
        yield model.compute(
            f"{ours}ssm_a",
            (*decay.shape, 1),
            (decay.name,),
            lambda: -np.exp(decay.array().astype(np.float32))[:, None],
            is_matrix=False,
        )
        skip = model.tensor(f"{theirs}D")
        yield _reshaped(model, f"{ours}ssm_d", skip, (*skip.shape, 1))
        if self.has_norm:
            norm = model.tensor(f"{theirs}norm.weight")
            grouped = (self.n_groups, norm.shape[0] // self.n_groups)
            yield _reshaped(model, f"{ours}ssm_norm.weight", norm, grouped)


def _reshaped(model: Architecture, name: str, tensor: SourceTensor, shape: tuple[int, ...]) -> Target:
    """Return a float32 tensor in another shape. Raises CheckpointError if the sizes differ."""
    if np.prod(shape) != np.prod(tensor.shape):
        raise CheckpointError(f"tensor {tensor.name} has shape {tensor.shape}, which is no {shape}")
    return model.compute(
        name, shape, (tensor.name,), lambda: tensor.array().reshape(shape), is_matrix=False
    )
