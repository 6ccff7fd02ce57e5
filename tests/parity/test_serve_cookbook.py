"""tinker-cookbook, unmodified, with the server's address in the environment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parity.official_tokenizer import official_tokenizer
from tests.serve.tiny_store import write_tiny_store
from tinker_local import ModelInput, SamplingParams, ServiceClient
from tinker_local.serve import Server, app

pytestmark = pytest.mark.parity

pytest.importorskip("tinker_cookbook")

NAME = "Qwen/Qwen3-4B-Instruct-2507"  # as the README has it; SmolLM2's chats are ChatML as well
COOKBOOK = """
import asyncio, json, sys
import tinker
from tinker_cookbook.completers import TinkerTokenCompleter
from tinker_cookbook.supervised.nll_evaluator import SamplerNLLEvaluator

client = tinker.ServiceClient().create_sampling_client(base_model="Me/Tiny").result()
prompt = tinker.ModelInput.from_ints([1, 2, 3])
completer = TinkerTokenCompleter(client, max_tokens=6, temperature=0.0)
completed = asyncio.run(completer(prompt, []))
datum = tinker.Datum(
    model_input=tinker.ModelInput.from_ints([1, 2, 3, 4]),
    loss_fn_inputs={
        "target_tokens": tinker.TensorData(data=[2, 3, 4, 5], dtype="int64", shape=[4]),
        "weights": tinker.TensorData(data=[0.0, 1.0, 1.0, 1.0], dtype="float32", shape=[4]),
    },
)
nll = asyncio.run(SamplerNLLEvaluator([datum], name="text")(client))
print(json.dumps([completed.tokens, completed.logprobs, nll]))
"""


@pytest.fixture
def service(tmp_path: Path, model_path: Path) -> Iterator[ServiceClient]:
    store = write_tiny_store(tmp_path / "store")
    (store / "Qwen").mkdir()
    (store / f"{NAME}.gguf").symlink_to(model_path)
    with ServiceClient(models_dir=store, n_ctx=1024, prefix_cache=False) as service:
        yield service


@pytest.fixture(autouse=True)
def server(service: ServiceClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(app(service), drain_seconds=1) as server:
        monkeypatch.setenv("TINKER_BASE_URL", server.url)
        monkeypatch.setenv("TINKER_API_KEY", "tml-local")
        yield server


def test_completers_and_evaluators(service: ServiceClient) -> None:
    here = service.create_sampling_client(base_model="Me/Tiny")
    ran = subprocess.run([sys.executable, "-c", COOKBOOK], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    tokens, logprobs, nll = json.loads(ran.stdout.splitlines()[-1])
    params = SamplingParams(max_tokens=6, temperature=0, stop=[])
    expected = here.sample(ModelInput.from_ints([1, 2, 3]), 1, params).result().sequences[0]
    assert (tokens, logprobs) == (expected.tokens, expected.logprobs)
    scored = here.compute_logprobs(ModelInput.from_ints([1, 2, 3, 4, 5])).result()
    assert nll["text/nll"] == pytest.approx(-sum(filter(None, scored[2:])) / 3, rel=1e-6)


def test_a_script_of_the_cookbook(
    service: ServiceClient, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its chat, from its command line; the tokenizer comes from the user's cache."""
    cache = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    official_tokenizer(model_path).save_pretrained(cache / "snapshots" / "0")
    (cache / "snapshots" / "0" / "config.json").write_text('{"model_type": "llama"}')
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    script = [sys.executable, "-m", "tinker_cookbook.chat_app.tinker_chat_cli", f"base_model={NAME}"]
    said = "What is the capital of France?\nquit\n"
    ran = subprocess.run(
        [*script, "temperature=0.0", "max_tokens=40"],
        input=said,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Paris" in ran.stdout.partition("Assistant:")[2]
    assert service.get_telemetry().counters.tokens_out > 0
