"""Options from arguments, the environment and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinker_local import BadRequestError, ServiceClient
from tinker_local.options import Options


def test_defaults() -> None:
    options = Options.resolve({}, {})
    assert options == Options()
    assert (options.n_ctx, options.n_threads, options.n_gpu_layers) == (None, None, -1)
    assert (options.kv_type, options.flash_attn, options.logprobs_mode) == ("f16", None, "sampling")


def test_arguments_come_before_the_environment() -> None:
    environment = {
        "TINKER_LOCAL_N_CTX": "1024",
        "TINKER_LOCAL_N_THREADS": "3",
        "TINKER_LOCAL_FLASH_ATTN": "0",
        "TINKER_LOCAL_KV_TYPE": "f32",
        "TINKER_LOCAL_MODELS_DIR": "/somewhere",
        "TINKER_LOCAL_LOGPROBS_MODE": "",
    }
    options = Options.resolve({"n_ctx": 64, "n_threads": None}, environment)
    assert (options.n_ctx, options.n_threads, options.flash_attn) == (64, 3, False)
    assert (options.kv_type, options.models_dir) == ("f32", Path("/somewhere"))
    assert options.logprobs_mode == "sampling"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n_ctx": 0}, "n_ctx is 0"),
        ({"n_ctx": "many"}, "n_ctx is 'many'"),
        ({"n_threads": -1}, "n_threads is -1"),
        ({"n_gpu_layers": -2}, "n_gpu_layers is -2"),
        ({"kv_type": "q3"}, "kv_type is 'q3'"),
        ({"logprobs_mode": "all"}, "logprobs_mode is 'all'"),
        ({"kv_type": "q8_0", "flash_attn": False}, "needs flash attention"),
    ],
)
def test_impossible_values(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        ServiceClient(**given)


def test_the_environment_reaches_the_engine(monkeypatch: pytest.MonkeyPatch, model_path: Path) -> None:
    monkeypatch.setenv("TINKER_LOCAL_N_CTX", "96")
    with ServiceClient() as service:
        assert service.create_sampling_client(base_model=str(model_path))._engine.n_ctx == 96
