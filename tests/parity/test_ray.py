"""A real Ray: files of requests on actors that die, and the endpoints on replicas."""

from __future__ import annotations

import base64
import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.libmtmd import MISSING
from tests.network_guard.sitecustomize import LOG
from tests.processes_by_title import ACTOR, processes
from tests.random_model import Shape, write_random_model
from tests.random_tower import picture, write_random_pair, write_random_tower
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient
from tinker_local.batch import BatchRun, OutputFile, SampleTask
from tinker_local.batch.lines import read_lines
from tinker_local.batch.progress import BatchProgress
from tinker_local.distributed import Answers, ClusterJob, run_job
from tinker_local.distributed.cluster import serve_files
from tinker_local.distributed.input import open_input
from tinker_local.distributed.model_files import ModelFiles
from tinker_local.distributed.parquet import write_parquet
from tinker_local.weights import Weights

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.parity
N_LINES = 1000
PORT = 8765
ROUTER = "ray.serve.experimental.consistent_hash_router"
OPTIONS = {"n_ctx": 512, "batch_invariant": True}
SETTINGS = {
    "usage_stats_enabled": "0",
    "enable_metrics_collection": "0",
    "raylet_start_wait_time_s": "120",
    "worker_niceness": "0",
    "SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "120",
}
"""Patience, for machines that are busy."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads images, where libmtmd is there."""
    directory, shape = tmp_path_factory.mktemp("models"), Shape(n_layer=2)
    if MISSING:
        return write_random_model(directory / "tiny.gguf", shape=shape)
    write_random_tower(directory / "mmproj-tiny.gguf", "qwen3vl")
    return write_random_pair(directory, "qwen3vl", n_layer=2).rename(directory / "tiny.gguf")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine. Ray's daemons look for its names, which the guard would refuse."""
    from ray.cluster_utils import Cluster

    common = {"object_store_memory": 100 << 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(LOG, raising=False)
        for name, value in SETTINGS.items():
            patch.setenv(f"RAY_{name}", value)
        cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **common}
        )
        cluster.add_node(num_cpus=1, **common)
        ray.init(cluster.address, log_to_driver=False, logging_level="error")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


class Progress(BatchProgress):
    """Calls a function after some lines, and interrupts the job after some more."""

    def __init__(self, then: Callable[[], object], interrupt_at: int = 10**9) -> None:
        super().__init__("", None)
        self.then, self.interrupt_at, self.found = then, interrupt_at, None

    def show(self) -> None:
        self.found = self.found or self.then()
        if self.n_lines >= self.interrupt_at:
            raise KeyboardInterrupt


def kill_actor(*titles: bytes) -> int:
    """Kill a process by its title's beginning, by default one that answers lines; return its id, or 0."""
    for pid in processes(*titles or ACTOR)[:1]:
        os.kill(pid, signal.SIGKILL)
        return pid
    return 0


def write_lines(path: Path, items: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def answer_alone(model: Path, task: SampleTask, given: Path, out: Path) -> Path:
    """Write the output of one process."""
    with ServiceClient(**OPTIONS, n_threads=1) as service, given.open("rb", buffering=0) as source:
        client, sink = service.create_sampling_client(base_model=str(model)), OutputFile(out, {}, 1)
        BatchRun(client, task, sink, BatchProgress("", None)).run(read_lines(source))
        sink.close()
    return out


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_job_whose_actors_node_and_driver_die(
    cluster: Any,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Paths of images mean files of the driver, from where it was started; data URLs need none."""
    items: list[dict[str, Any]] = [{"prompt": f"{i % 10}: ab", "id": i} for i in range(N_LINES)]
    items[7] = {"prompt": "2026-11-28", "temperature": -1}
    if not MISSING:
        (tmp_path / "cat.png").write_bytes(picture(40, 40))
        url = f"data:image/png;base64,{base64.b64encode(picture(40, 40, 1)).decode()}"
        items[8:11] = [{"prompt": "Who?", "images": [name]} for name in ("cat.png", url, "no.png")]
    monkeypatch.chdir(tmp_path)
    given, task = (
        write_lines(tmp_path / "in.jsonl", items),
        SampleTask(SamplingParams(max_tokens=6), seed=1),
    )
    whole, n_failed = answer_alone(model, task, given, tmp_path / "whole"), 1 if MISSING else 2
    assert whole.read_bytes().count(b', "error": ') == n_failed
    job = ClusterJob(open_input(str(given)), task, Weights(model), OPTIONS, num_cpus=1)
    out = tmp_path / "out"

    def lose_a_node() -> bool:
        cluster.remove_node(next(iter(cluster.worker_nodes)))
        return [node["Alive"] for node in ray.nodes()].count(True) == 1

    for progress in (Progress(kill_actor, N_LINES // 2), Progress(lose_a_node)):
        sink = OutputFile(out, {}, 1)
        try:
            summary = run_job(job, sink, progress)
        except KeyboardInterrupt:
            n_first = progress.n_lines
        sink.close()
        assert progress.found
    assert [node["Alive"] for node in ray.nodes()].count(True) == 1
    assert "has left; others answer its lines: 1 nodes" in caplog.text
    assert out.read_bytes() == whole.read_bytes()
    assert (summary.n_lines, summary.n_before, summary.n_failed) == (N_LINES, n_first, n_failed)
    assert not (tmp_path / ".out.ahead").exists()
    again = run_job(job, sink := OutputFile(out, {}, 1), BatchProgress("", None))
    sink.close()
    assert (again.n_before, again.n_lines, again.n_failed) == (N_LINES, N_LINES, n_failed)
    write_parquet(out, tmp_path / "out.parquet")
    from pyarrow import parquet

    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [{k: v for k, v in row.items() if v is not None} for row in rows if row["line"] != 8] == [
        json.loads(line) for line in out.read_text().splitlines() if not line.startswith('{"line": 8,')
    ]


def test_rows_of_a_dataset(cluster: Any, model: Path) -> None:
    task = SampleTask(SamplingParams(max_tokens=3), seed=1)
    rows = [{"prompt": "ab" * (i % 3), "line": i} for i in range(1, 7)]
    dataset = ray.data.from_items(rows, override_num_blocks=1).map_batches(
        Answers,
        fn_constructor_args=(task, str(model)),
        fn_constructor_kwargs={**OPTIONS, "n_threads": 1},
        batch_size=4,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    answers = Answers(task, str(model), **OPTIONS, n_threads=1)
    for row in dataset.take_all():
        alone = answers({name: [row[name]] for name in ("prompt", "line")})
        assert row["error"] == alone["error"][0]
        if row["prompt"]:
            assert row["sequences"][0]["tokens"] == alone["sequences"][0][0]["tokens"]
            assert row["sequences"][0]["logprobs"] == alone["sequences"][0][0]["logprobs"]


def test_files_from_the_driver(cluster: Any, model: Path, tmp_path: Path) -> None:
    """A task that cannot see the driver's file gets it through the cluster."""
    files = ModelFiles.of(Weights(model))
    (file,) = files.model.parts
    driver = serve_files(ray, files.files)
    away = replace(files.model, parts=(replace(file, path=Path("/not/here/tiny.gguf")),))
    elsewhere = replace(files, model=away)

    def fetch(home: str) -> str:
        os.environ["TINKER_LOCAL_MODELS_DIR"] = home
        return str(elsewhere.at_hand(driver.piece).path)

    found = Path(ray.get(ray.remote(fetch).remote(str(tmp_path / "node"))))
    assert found.is_relative_to(tmp_path / "node")
    assert found.read_bytes() == model.read_bytes()


@pytest.fixture(scope="module")
def replicas(cluster: Any, model: Path) -> Iterator[str]:
    """Two replicas of the endpoints; yields their address."""
    pytest.importorskip("fastapi")
    from ray import serve

    from tinker_local.distributed.deployment import deployment

    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    endpoints = deployment([str(model)], num_replicas=2, num_cpus=1, **OPTIONS)
    serve.run(endpoints, name="tiny", route_prefix="/")
    yield f"http://127.0.0.1:{PORT}"
    serve.shutdown()


@pytest.fixture(scope="module")
def alone(model: Path) -> SamplingClient:
    return ServiceClient(**OPTIONS, n_threads=1).create_sampling_client(base_model=str(model))


def test_replicas_answer_alike(replicas: str, alone: SamplingClient) -> None:
    body = {"model": "tiny", "prompt": "ab", "max_tokens": 3, "seed": 1, "logprobs": 1}
    first, second = (post(replicas, body, f"s{i}") for i in range(2))
    assert first["choices"] == second["choices"]
    prompt = ModelInput.from_ints(alone.get_tokenizer().encode("ab"))
    ours = alone.sample(prompt, 1, SamplingParams(max_tokens=3, seed=1)).result().sequences[0]
    assert first["choices"][0]["logprobs"]["token_logprobs"] == ours.logprobs


def test_a_session_stays_with_the_replica_that_has_its_prefix(replicas: str) -> None:
    pytest.importorskip(ROUTER)

    def cached(first: int, session: str | None) -> int:
        body = {"model": "tiny", "prompt": [first, *range(2, 60)], "max_tokens": 1}
        return int(post(replicas, body, session)["usage"]["prompt_tokens_details"]["cached_tokens"])

    for number in range(1, 9):
        assert [cached(number, f"turn {number}") for _ in range(2)] == [0, 59]
    again = [[cached(number, None) for _ in range(2)] for number in range(20, 40)]
    assert [0, 0] in again, "20 pairs without a session met by chance, one in a million"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_the_sdk_on_replicas_of_which_one_is_killed(replicas: str, alone: SamplingClient) -> None:
    """Samples of the dead replica are sent again, and all have the bits of the client here."""
    tinker, _ = pytest.importorskip("tinker"), pytest.importorskip(ROUTER)
    made = tinker.ServiceClient(base_url=replicas, api_key="tml-local").create_sampling_client(
        base_model="tiny"
    )
    client = made.result() if hasattr(made, "result") else made
    prompts = [[1 + i % 30, 2, 3] for i in range(60)]
    given = {"max_tokens": 200, "seed": 3, "stop": []}
    params = tinker.SamplingParams(**given)
    sent = [client.sample(tinker.ModelInput.from_ints(tokens), 1, params) for tokens in prompts]
    sent[0].result(120)
    assert kill_actor(b"ray::ServeReplica:tiny")
    answers = [future.result(120).sequences[0] for future in sent]
    ours = [
        alone.sample(ModelInput.from_ints(tokens), 1, SamplingParams(**given)).result().sequences[0]
        for tokens in prompts[:30]
    ]
    for i, sequence in enumerate(answers):
        assert (sequence.tokens, sequence.logprobs) == (ours[i % 30].tokens, ours[i % 30].logprobs)
    keys, numbers = zip(*(sequence.sequence_id.split(".")[1:3] for sequence in answers), strict=True)
    assert keys[:30] == keys[30:], "equal prompts have one replica"
    assert max(map(int, numbers)) >= len(prompts), "none was sent again"


def post(address: str, body: object, session: str | None) -> Any:
    headers = {"Content-Type": "application/json"} | ({"X-Session-ID": session} if session else {})
    request = urllib.request.Request(f"{address}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)
