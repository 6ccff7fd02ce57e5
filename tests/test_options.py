"""Options from arguments, the environment and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.random_model import write_random_model
from tinker_local import BadRequestError, ModelInput, SamplingParams, ServiceClient
from tinker_local.llama.devices import device_pointers, devices
from tinker_local.llama.model import Model, load_model
from tinker_local.options import Options


def test_defaults() -> None:
    options = Options.resolve({}, {})
    assert options == Options()
    assert (options.n_ctx, options.n_threads, options.n_gpu_layers) == (None, None, -1)
    assert (options.kv_type, options.flash_attn, options.logprobs_mode) == ("f16", None, "sampling")
    assert (options.n_ubatch, options.kv_offload, options.devices) == (None, True, None)


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
        ({"n_threads_batch": 0}, "n_threads_batch is 0"),
        ({"n_gpu_layers": -2}, "n_gpu_layers is -2"),
        ({"n_ubatch": 191}, "n_ubatch is 191"),
        ({"devices": ""}, "devices is ''"),
        ({"kv_offload": "somewhere"}, "kv_offload is 'somewhere'"),
        ({"kv_type": "q3"}, "kv_type is 'q3'"),
        ({"logprobs_mode": "all"}, "logprobs_mode is 'all'"),
        ({"kv_type": "q8_0", "flash_attn": False}, "needs flash attention"),
        ({"batch_invariant": True, "flash_attn": False}, "leave out flash_attn=False"),
    ],
)
def test_impossible_values(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        ServiceClient(**given)


def test_the_environment_reaches_the_engine(monkeypatch: pytest.MonkeyPatch, model_path: Path) -> None:
    monkeypatch.setenv("TINKER_LOCAL_N_CTX", "96")
    with ServiceClient() as service:
        assert service.create_sampling_client(base_model=str(model_path)).n_ctx == 96


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


def numbers(path: Path, **options: Any) -> np.ndarray:
    """Return a long prompt's log-probabilities and those of more samples than run at a time."""
    tokens = ModelInput.from_ints(np.random.default_rng(1).integers(0, 256, 700).tolist())
    given = {"n_ctx": 2048, "kv_type": "f32", "flash_attn": False, **options}
    with ServiceClient(**given) as service:
        client = service.create_sampling_client(base_model=str(path))
        scores = client.compute_logprobs(tokens)
        params = SamplingParams(max_tokens=4, seed=1, stop=[])
        samples = client.sample(tokens, 70, params).result(60).sequences
        drawn = [value for sample in samples for value in sample.logprobs or []]
        return np.array([*scores.result(60)[1:], *drawn], float)


@pytest.fixture(scope="module")
def usual(tiny: Path) -> np.ndarray:
    return numbers(tiny)


@pytest.mark.parametrize(
    "options",
    [{"n_ubatch": 192}, {"n_ubatch": 301}, {"n_ubatch": 4096}, {"kv_offload": False}, {"devices": "none"}],
    ids=str,
)
def test_how_it_is_computed_does_not_change_the_numbers(
    tiny: Path, usual: np.ndarray, options: dict[str, Any]
) -> None:
    np.testing.assert_allclose(numbers(tiny, **options), usual, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("given", "n_batch"), [(None, 512), (192, 192), (1000, 1000)])
def test_n_ubatch_is_what_a_decode_takes(tiny: Path, given: int | None, n_batch: int) -> None:
    with ServiceClient(n_ctx=2048, n_ubatch=given) as service:
        client = service.create_sampling_client(base_model=str(tiny))
        assert client._engine._loop._context.n_batch == n_batch


@pytest.mark.parametrize("names", ["CPU", "CUDA99", "none,CUDA99", ","])
def test_unknown_devices_are_refused_with_a_list(tiny: Path, names: str) -> None:
    with (
        ServiceClient(devices=names) as service,
        pytest.raises(BadRequestError, match=r"there is no device .* There are: "),
    ):
        service.create_sampling_client(base_model=str(tiny))


def test_device_names() -> None:
    assert device_pointers(None) is None
    assert list(device_pointers("none")) == list(device_pointers(" None ")) == [None]
    for name, pointer in devices().items():
        assert list(device_pointers(f" {name.lower()} ")) == [pointer, None]
        with pytest.raises(BadRequestError, match="twice"):
            device_pointers(f"{name},{name}")


def test_weights_on_other_devices_are_other_weights(tiny: Path) -> None:
    assert load_model(tiny, -1, "none") is load_model(tiny, -1, "none")
    assert load_model(tiny, -1, "none") is not load_model(tiny, -1)


@pytest.mark.parametrize(("given", "n_ctx"), [({}, 100), ({"n_ctx": 150}, 150)])
def test_long_rope_starts_with_the_original_context(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], n_ctx: int
) -> None:
    """llama.cpp takes the factors for long texts wherever the context has room for one."""
    said = {
        "llama.rope.scaling.type": "longrope",
        "llama.rope.scaling.original_context_length": "100",
        "general.architecture": "llama",
    }
    monkeypatch.setattr(Model, "metadata", lambda _, key: said.get(key))
    with ServiceClient(**given) as service:
        assert service.create_sampling_client(base_model=str(tiny)).n_ctx == n_ctx
