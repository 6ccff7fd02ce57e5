"""Ctrl-C while a model is loaded, forks of a process with a client, and closing in the midst of a step."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.random_model import Shape, write_random_model
from tinker_local import ModelInput, RequestFailedError, SamplingParams, ServiceClient
from tinker_local.llama.context import ABORTED, DecodeError

ROOT = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="signals and forks of POSIX")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


INTERRUPTED = """
import gc, itertools, logging, os, signal, sys
import tinker_local as tinker

class Interrupt(logging.Handler):
    def __init__(self, moment, number):
        super().__init__()
        self.moment, self.number = moment, number

    def emit(self, record):
        if self.moment in record.getMessage():
            logger.removeHandler(self)
            os.kill(os.getpid(), self.number)

def leave(*_):
    raise SystemExit(143)

signal.signal(signal.SIGTERM, leave)
logger = logging.getLogger("tinker_local.llama")
logger.setLevel(logging.DEBUG)
service = tinker.ServiceClient(n_ctx=256, n_threads=1)
prompt, params = tinker.ModelInput.from_ints([1] * 9), tinker.SamplingParams(max_tokens=3, stop=[])
for moment, number in itertools.product(["print_info", "llama_context"], [signal.SIGINT, signal.SIGTERM]):
    logger.addHandler(Interrupt(moment, number))
    try:
        service.create_sampling_client(base_model=sys.argv[1])
        print("swallowed")
    except (KeyboardInterrupt, SystemExit) as error:
        print(type(error).__name__)
    client = service.create_sampling_client(base_model=sys.argv[1])
    print(len(client.sample(prompt, 1, params).result(60).sequences))
    service.close()
    del service, client
    gc.collect()  # the model as well, so that llama.cpp loads again
    service = tinker.ServiceClient(n_ctx=256, n_threads=1)
"""


@posix
def test_signals_while_llama_cpp_loads_and_talks(tiny: Path) -> None:
    """Python hears of them in the midst of a message of llama.cpp's, out of which no exception comes."""
    done = run(INTERRUPTED, tiny)
    expected = ["KeyboardInterrupt", "1", "SystemExit", "1"] * 2
    assert (done.returncode, done.stdout.split()) == (0, expected), done.stderr
    assert "Exception ignored" not in done.stderr


FORKED = """
import gc, os, sys
import tinker_local as tinker
service = tinker.ServiceClient(n_ctx=1024, n_threads=2, batch_invariant=sys.argv[2] != "usual")
client = service.create_sampling_client(base_model=sys.argv[1])
prompt, params = tinker.ModelInput.from_ints([1] * 100), tinker.SamplingParams(max_tokens=800, stop=[])
for child in sys.argv[3:]:
    client.compute_logprobs(prompt).result(60)
    futures = [client.sample(prompt, 1, params) for _ in range(4)]
    pid = os.fork()
    if pid == 0:
        exec(child)
        sys.exit(7)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(status, [future.cancel() for future in futures].count(True))
client.compute_logprobs(prompt).result(60)
"""
CHILDREN = {
    "falls off the end": "pass",
    "lets go of everything": "del client, service, futures; gc.collect()",
    "closes": "service.close()",
    "opens its own": (
        "own = tinker.ServiceClient(n_ctx=256, n_threads=2).create_sampling_client(base_model=sys.argv[1]);"
        "own.compute_logprobs(prompt).result(60)"
    ),
}


@posix
@pytest.mark.skipif(sys.platform != "linux", reason="forking is safe on Linux only")
@pytest.mark.parametrize("mode", ["batch_invariant", "usual"])
def test_a_forked_process_ends_as_any_other(tiny: Path, mode: str) -> None:
    """Its parent is computing; the child has none of its threads, and must not wait for them."""
    done = run(FORKED, tiny, mode, *CHILDREN.values())
    assert (done.returncode, done.stdout.split()) == (0, ["7", "4"] * len(CHILDREN)), done.stderr


def test_closing_does_not_wait_for_a_step(tmp_path: Path) -> None:
    """A step of 512 tokens through a wide model is left in its midst."""
    shape = Shape(n_embd=1024, n_ff=4096, n_layer=4, n_head=8)
    path = write_random_model(tmp_path / "wide.gguf", shape=shape)
    service = ServiceClient(n_ctx=2048, n_threads=1)
    client = service.create_sampling_client(base_model=str(path))
    context, started, codes = client._engine._loop._context, threading.Event(), list[int]()
    assert context is not None
    decode = context.decode

    def watched(n_tokens: int) -> None:
        started.set()
        try:
            decode(n_tokens)
        except DecodeError as error:
            codes.append(error.code)
            raise
        codes.append(0)

    context.decode = watched  # type: ignore[method-assign]
    future = client.sample(ModelInput.from_ints([5] * 512), 1, SamplingParams(max_tokens=9))
    assert started.wait(60)
    service.close()
    with pytest.raises(RequestFailedError, match="closed"):
        future.result(5)
    assert codes == [ABORTED]
