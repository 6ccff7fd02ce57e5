"""Our attention in the usual mode: when it is used, and a request's bits in a cache full of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.random_checkpoints.planned import write_planned
from tests.random_model import write_random_model
from tinker_local import ModelInput, SamplingParams, ServiceClient
from tinker_local.engine import engine, own_kernels
from tinker_local.llama.devices import ACCELERATOR
from tinker_local.llama.model import load_model
from tinker_local.options import Options


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "small.gguf")


@pytest.mark.parametrize(
    ("options", "is_known", "kinds", "flash_attn", "own_attention"),
    [
        ({}, True, {}, True, True),
        ({"flash_attn": True}, True, {}, True, True),
        ({"flash_attn": False}, True, {}, False, False),
        ({}, False, {}, None, False),
        ({}, True, {"BLAS": ACCELERATOR}, True, True),
        ({}, True, {"CUDA0": 1}, None, False),
        ({"n_gpu_layers": 0}, True, {"CUDA0": 1}, None, False),
        ({"devices": "none"}, True, {"CUDA0": 1}, True, True),
    ],
)
def test_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
    path: Path,
    options: dict[str, Any],
    is_known: bool,
    kinds: dict[str, int],
    flash_attn: bool | None,
    own_attention: bool,
) -> None:
    model = load_model(path, 0)
    monkeypatch.setattr(own_kernels, "graph_callback", lambda: 1 if is_known else None)
    monkeypatch.setattr(own_kernels, "kinds", lambda: kinds)
    given = Options(**options)
    plan = own_kernels.with_own_kernels(engine._plan(model, given), model, given)
    assert (plan.flash_attn, plan.own_attention) == (flash_attn, own_attention)


@pytest.mark.parametrize(
    ("options", "flash_attn", "own_attention"),
    [
        ({}, False, True),
        ({"flash_attn": True}, True, True),
        ({"flash_attn": False}, False, False),
        ({"kv_type": "q8_0"}, True, True),
    ],
)
def test_models_that_choose_keys_attend_in_steps(
    options: dict[str, Any], flash_attn: bool, own_attention: bool, tmp_path: Path
) -> None:
    model = load_model(write_planned(tmp_path / "sparse.gguf", "deepseek_sparse, GLM-5"), 0)
    assert model.chooses_keys
    given = Options(**options)
    plan = own_kernels.with_own_kernels(engine._plan(model, given), model, given)
    assert (plan.flash_attn, plan.own_attention) == (flash_attn, own_attention)


def test_a_request_alone_has_the_same_bits_in_a_full_cache(path: Path) -> None:
    rng = np.random.default_rng(0)
    prompt, *others = (ModelInput.from_ints(rng.integers(0, 256, n).tolist()) for n in (150, *[90] * 12))

    def answer(*before: ModelInput) -> tuple[list[int], list[float] | None]:
        with ServiceClient(n_ctx=512, n_threads=1) as service:
            client = service.create_sampling_client(base_model=str(path))
            for other in before:
                client.sample(other, 2, SamplingParams(max_tokens=5, seed=1)).result()
            (sequence,) = client.sample(prompt, 1, SamplingParams(max_tokens=60, seed=0)).result().sequences
        return sequence.tokens, sequence.logprobs

    expected = answer()
    assert answer(*others) == expected
    assert answer(*others[3:7]) == expected


@pytest.mark.parametrize(
    ("options", "is_known", "path", "kinds", "attention", "products"),
    [
        ({}, True, "avx2", {}, "ours", "ours"),
        ({"batch_invariant": True}, True, "neon", {}, "ours", "ours"),
        ({}, True, "amx", {}, "ours", "ours"),
        ({}, True, "avx512", {}, "ours", "ours"),
        ({}, True, "avx_vnni", {}, "ours", "ours"),
        ({}, True, "neon", {}, "ours", "llama.cpp's: it is as fast here, or was not measured"),
        (
            {},
            True,
            "avx2",
            {"BLAS": ACCELERATOR},
            "ours",
            "llama.cpp's: it is as fast here, or was not measured",
        ),
        ({}, False, "avx2", {}, *["llama.cpp's: how it lays out its graphs is not known here"] * 2),
        (
            {},
            True,
            "avx2",
            {"CUDA0": 1},
            *["llama.cpp's: ours are for CPUs, and there are GPUs (CUDA0)"] * 2,
        ),
    ],
)
def test_whose_kernels(
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    is_known: bool,
    path: str,
    kinds: dict[str, int],
    attention: str,
    products: str,
) -> None:
    monkeypatch.setattr(own_kernels, "graph_callback", lambda: 1 if is_known else None)
    monkeypatch.setattr(own_kernels, "kinds", lambda: kinds)
    monkeypatch.setattr(own_kernels.kernels, "simd_path", lambda: path)
    assert own_kernels.whose_kernels(Options(**options)) == {"attention": attention, "products": products}
