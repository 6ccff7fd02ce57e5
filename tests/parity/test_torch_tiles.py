"""torch multiplies bfloat16 in tiles of AMX, too: neither spoils the other's, in the same threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from tests.kernels.test_products import normal, product, random_weights
from tinker_local import kernels
from tinker_local.llama.backend import start_backend

pytestmark = pytest.mark.parity
ROUNDS, N_THREADS = 40, 3


def test_torch_and_our_kernels_take_turns_in_a_thread() -> None:
    start_backend()
    if "amx" not in kernels.simd_paths():
        pytest.skip("no AMX here")
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(shape, generator=generator, dtype=torch.bfloat16) for shape in ((300, 1024), (1024, 70))
    )
    weights, inputs = random_weights(Type.BF16, (200, 1024)), normal(40, 1024)
    theirs, ours = left @ right, product(Type.BF16, weights, inputs)

    def both_are_equal(_: int) -> bool:
        found = left @ right
        return torch.equal(found, theirs) and np.array_equal(product(Type.BF16, weights, inputs), ours)

    with ThreadPoolExecutor(N_THREADS) as pool:
        assert all(pool.map(both_are_equal, range(ROUNDS * N_THREADS)))
