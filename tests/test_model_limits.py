"""Models with states, and models that choose their keys: what holds of their numbers, and what is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.random_checkpoints.planned import write_planned
from tests.random_model import write_random_model
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient
from tinker_local.cli import app
from tinker_local.gguf.file import read_head
from tinker_local.gguf.limits import CHOSEN_KEYS, POOLED, STATES, STEPS, limits_of
from tinker_local.llama.model import load_model

SPARSE = {
    "deepseek_sparse, DeepSeek-V3.2": [CHOSEN_KEYS, STEPS],
    "deepseek_sparse, GLM-5, shared choices": [CHOSEN_KEYS, STEPS],
    "deepseek4, each kind of layer": [STATES, CHOSEN_KEYS, STEPS],
    "glm5_next, with vision": [STATES, CHOSEN_KEYS, STEPS, POOLED],
}
TOKENS: list[int] = np.random.default_rng(0).integers(0, 250, 120).tolist()
PARAMS = SamplingParams(max_tokens=60, seed=1, stop=[])


def open_client(path: Path, **options: object) -> SamplingClient:
    return ServiceClient(n_ctx=256, n_threads=1, **options).create_sampling_client(base_model=str(path))


@pytest.fixture(scope="module", params=SPARSE)
def sparse(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return write_planned(tmp_path_factory.mktemp("models") / "sparse.gguf", request.param)


def test_sampled_is_scored_where_keys_are_chosen(sparse: Path) -> None:
    """llama.cpp's flash attention is up to 3 nats off here."""
    is_pooled = POOLED in limits_of(read_head(sparse))
    for kv_type in ("f32",) if is_pooled else ("f16", "f32"):
        client = open_client(sparse, kv_type=kv_type)
        (sample,) = client.sample(ModelInput.from_ints(TOKENS), 1, PARAMS).result().sequences
        scores = client.compute_logprobs(ModelInput.from_ints([*TOKENS, *sample.tokens])).result()[120:]
        assert scores == (pytest.approx(sample.logprobs, abs=1e-4) if is_pooled else sample.logprobs)


def test_a_turn_goes_on_where_keys_are_chosen(sparse: Path) -> None:
    client, fresh = (
        open_client(sparse, kv_type="f32"),
        open_client(sparse, kv_type="f32", prefix_cache=False),
    )
    reply = client.sample(ModelInput.from_ints(TOKENS), 1, PARAMS).result().sequences[0].tokens
    prompt = ModelInput.from_ints([*TOKENS, *reply, 1, 2, 3])
    response = client.sample(prompt, 1, PARAMS).result()
    assert response.prompt_cache_hit_tokens == 120 + 60 - 1
    alone = fresh.sample(prompt, 1, PARAMS).result()
    assert response.sequences[0].tokens == alone.sequences[0].tokens
    assert response.sequences[0].logprobs == pytest.approx(alone.sequences[0].logprobs, abs=1e-4)


def test_what_is_said(sparse: Path, request: pytest.FixtureRequest) -> None:
    expected = SPARSE[request.node.callspec.params["sparse"]]
    assert list(limits_of(read_head(sparse))) == expected
    assert load_model(sparse, 0).is_recurrent == (STATES in expected)
    shown = ["models", "show", "sparse", "--models-dir", str(sparse.parent)]
    assert json.loads(CliRunner().invoke(app, [*shown, "--json"]).output)["limits"] == expected
    said = CliRunner().invoke(app, shown).output
    assert all(f"  limit        {limit}" in said for limit in expected)


@pytest.mark.parametrize("name", ["lfm2, dense", "qwen3next, experts", "kimi_linear, published names"])
def test_states_are_said(name: str, tmp_path: Path) -> None:
    path = write_planned(tmp_path / "model.gguf", name)
    assert list(limits_of(read_head(path))) == [STATES]
    assert load_model(path, 0).is_recurrent


@pytest.mark.parametrize(
    ("architecture", "limits"), [("llama", []), ("mamba", [STATES]), ("jamba", [STATES])]
)
def test_plain_models(architecture: str, limits: list[str], tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "model.gguf", architecture)  # type: ignore[arg-type]
    assert list(limits_of(read_head(path))) == limits
    assert load_model(path, 0).is_recurrent == bool(limits)


def test_doctor_says_it(tmp_path: Path) -> None:
    path = write_planned(tmp_path / "model.gguf", "deepseek_sparse, GLM-5")
    tried = json.loads(CliRunner().invoke(app, ["doctor", "--json", "--model", str(path)]).output)[
        "model tried"
    ]
    assert tried["limits"] == f"{CHOSEN_KEYS}; {STEPS}"
