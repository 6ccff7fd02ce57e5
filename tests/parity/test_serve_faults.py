"""``tinker-local serve`` is killed while the SDK's requests run, and started again: nothing is lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serve.tiny_store import TINY, write_tiny_store
from tinker_local import ModelInput, SamplingParams, ServiceClient

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
    pytest.mark.filterwarnings("ignore:DEPRECATED:FutureWarning"),
]

tinker = pytest.importorskip("tinker")
SETTINGS = {"n_ctx": 512, "n_threads": 1, "prefix_cache": False, "batch_invariant": True}


@contextmanager
def serving(store: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; gives its process and its address."""
    command = [sys.executable, "-m", "tinker_local.cli", "serve", "--port", str(port), "--n-ctx", "512"]
    command += ["--models-dir", str(store), "--n-threads", "1", "--no-prefix-cache", "--batch-invariant"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"TINKER_BASE_URL=(\S+)", process.stdout.readline())
        assert found
        yield process, found[1]
    finally:
        process.kill()
        process.wait()


def test_kills(tmp_path: Path) -> None:
    """Each time with requests that wait, that run, and that were answered; their tokens are the same."""
    store = write_tiny_store(tmp_path)
    prompts = [[1, 2, n % 50, 3] for n in range(60)]

    def params(n: int) -> dict[str, Any]:
        return {"max_tokens": 20 + n % 40, "stop": [], "seed": n}

    with ServiceClient(models_dir=store, **SETTINGS) as service:  # type: ignore[arg-type]
        here = service.create_sampling_client(base_model=TINY)
        futures = [
            here.sample(ModelInput.from_ints(prompt), 4, SamplingParams(**params(n)))
            for n, prompt in enumerate(prompts)
        ]
        expected = [[(s.tokens, s.logprobs) for s in future.result().sequences] for future in futures]
    port = 0
    client: Any = None
    asked: list[Any] = []
    unfinished: list[int] = []
    for kill in (True, True, False):
        with serving(store, port) as (process, url):
            port = int(url.rpartition(":")[2])
            if client is None:
                remote = tinker.ServiceClient(base_url=url, api_key="tml-local")
                client = remote.create_sampling_client(base_model=TINY).result()
                asked = [
                    client.sample(
                        tinker.ModelInput.from_ints(prompt), 4, tinker.SamplingParams(**params(n))
                    )
                    for n, prompt in enumerate(prompts)
                ]
            if kill:
                deadline = time.monotonic() + 60
                enough = min(len(asked), n_done(asked) + 5)
                while n_done(asked) < enough:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
                os.kill(process.pid, signal.SIGKILL)
                unfinished.append(len(asked) - n_done(asked))
                continue
            answers = [future.result(timeout=180) for future in asked]
    found = [[(s.tokens, s.logprobs) for s in answer.sequences] for answer in answers]
    assert found == expected
    assert unfinished[0] > 10


def n_done(futures: list[Any]) -> int:
    return sum(future.done() for future in futures)
