"""A file of requests on a Ray cluster against one process with as many threads; faults; what a row costs.

python -m tests.benchmarks.cluster speed     2 actors with a thread each, 1 process with 2 threads, in turn
python -m tests.benchmarks.cluster faults    20,000 prompts on 4 actors of 4 nodes: an actor killed every 20
                                             s, a node removed, the driver killed and run again
python -m tests.benchmarks.cluster overhead  rows that need no model: what is left is ours and Ray's
python -m tests.benchmarks.cluster merge     shards of a large file

The machine's cores are shared with Ray's own processes, as on a user's laptop. Nodes are processes on
loopback (``ray.cluster_utils.Cluster``).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.processes_by_title import ACTOR, processes
from tests.random_model import Shape, write_random_model
from tinker_local import SamplingParams, ServiceClient
from tinker_local.batch import BatchRun, OutputFile, SampleTask, Shard, merge
from tinker_local.batch.lines import Line, read_lines
from tinker_local.batch.progress import BatchProgress
from tinker_local.distributed import ClusterJob, run_job
from tinker_local.distributed.input import open_input
from tinker_local.distributed.job import ROWS
from tinker_local.store.model_store import ModelStore
from tinker_local.weights import Weights

OPTIONS = {"n_ctx": 4096, "batch_invariant": True}
MEMORY = 2 << 30
ENVIRONMENT = {
    "RAY_usage_stats_enabled": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_worker_niceness": "0",
}


class Rate(BatchProgress):
    """When answers came, so that starting does not count.

    Attributes:
        arrivals: of each answer: the time in seconds, the tokens and the lines until then.
        actors: the job's actors while it ran, with the CPU seconds and the bytes of each.
    """

    def __init__(self) -> None:
        super().__init__("", None)
        self.arrivals: list[tuple[float, int, int]] = []
        self.actors: dict[int, tuple[float, int]] = {}
        self._looked = 0.0

    def count(self, done: int, n_tokens: int) -> None:
        super().count(done, n_tokens)
        self.arrivals.append((time.monotonic(), self.n_tokens, self.n_lines))

    def show(self) -> None:
        """Look at the actors once a second: to read ``/proc`` takes longer than a short answer."""
        if time.monotonic() - self._looked >= 1:
            self.actors |= used()
            self._looked = time.monotonic()

    @property
    def steady(self) -> float:
        """Tokens per second."""
        return self._slope(1)

    @property
    def seconds_a_line(self) -> float:
        """Seconds from one answer to the next."""
        return 1 / self._slope(2)

    def _slope(self, column: int) -> float:
        """Return how much a column of the arrivals grows in a second: the slope of a line through all.

        Answers of a block come at once. The growth from the first arrival to the last would count one block
        too many.
        """
        arrivals = np.array(self.arrivals)
        return float(np.polyfit(arrivals[:, 0] - arrivals[0, 0], arrivals[:, column], 1)[0])


@contextmanager
def nodes(n: int) -> Iterator[Any]:
    """Start Ray with this many nodes of one CPU; yield the cluster."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.update(ENVIRONMENT)
    size = {"num_cpus": 1, "memory": MEMORY, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    for _ in range(n - 1):
        cluster.add_node(**size)
    ray.init(cluster.address, log_to_driver=False, logging_level="error")
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def write_prompts(path: Path, n: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"{i % 97}: ab", "id": i}) + "\n" for i in range(n)))
    return path


def alone(model: Path, task: SampleTask, given: Path, out: Path, n_threads: int) -> Rate:
    service = ServiceClient(**OPTIONS, n_threads=n_threads)
    client, rate = service.create_sampling_client(base_model=str(model)), Rate()
    sink = OutputFile(out, {}, 1, force=True)
    with given.open("rb", buffering=0) as source:
        BatchRun(client, task, sink, rate).run(read_lines(source))
    sink.close()
    service.close()
    return rate


def on_cluster(job: ClusterJob, out: Path, *, force: bool = True) -> Rate:
    sink, rate = OutputFile(out, {}, 1, force=force), Rate()
    try:
        print(run_job(job, sink, rate), flush=True)
    finally:
        sink.close()
    return rate


def speed(n: int, rounds: int, max_tokens: int, name: str | None) -> None:
    with tempfile.TemporaryDirectory() as place:
        shape = Shape(n_layer=6, n_embd=256, n_ff=1024)
        model = (
            ModelStore(None).resolve(name)
            if name
            else write_random_model(Path(place) / "tiny.gguf", shape=shape)
        )
        given, task = (
            write_prompts(Path(place) / "in", n),
            SampleTask(SamplingParams(max_tokens=max_tokens), seed=1),
        )
        job = ClusterJob(open_input(str(given)), task, Weights(model), OPTIONS, num_cpus=1)
        ratios = []
        with nodes(2):
            for _ in range(rounds):
                before = time.process_time()
                one = alone(model, task, given, Path(place) / "one", 2)
                cpu = time.process_time() - before
                two = on_cluster(job, Path(place) / "two")
                assert (Path(place) / "one").read_bytes() == (Path(place) / "two").read_bytes()
                ratios.append(two.steady / one.steady)
                print(
                    f"1 process, 2 threads: {one.steady:,.0f} tokens/s; 2 actors: {two.steady:,.0f}; ratio "
                    f"{ratios[-1]:.2f}",
                    flush=True,
                )
                print(
                    f"CPU s: {cpu:.1f}; actors: {', '.join(f'{s:.1f}' for s, _ in two.actors.values())}"
                    f"; MB: {', '.join(str(n >> 20) for _, n in two.actors.values())}",
                    flush=True,
                )
        print(f"median ratio {sorted(ratios)[len(ratios) // 2]:.2f}; at least 0.9 is wanted")


def used() -> dict[int, tuple[float, int]]:
    """Return the CPU seconds and the bytes in memory of the actors that run."""
    found, ticks = {}, os.sysconf("SC_CLK_TCK")
    for pid in processes(*ACTOR):
        with suppress(OSError):
            said = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            seconds = (int(said[11]) + int(said[12])) / ticks
            found[pid] = seconds, int(said[21]) * resource.getpagesize()
    return found


def faults(n: int, max_tokens: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        model = write_random_model(Path(place) / "tiny.gguf", shape=Shape(n_layer=1))
        given, task = (
            write_prompts(Path(place) / "in", n),
            SampleTask(SamplingParams(max_tokens=max_tokens), seed=1),
        )
        one = alone(model, task, given, Path(place) / "one", 2)
        print(f"1 process: {one.steady:,.0f} tokens/s", flush=True)
        job = ClusterJob(open_input(str(given)), task, Weights(model), OPTIONS, num_cpus=1)
        out = Path(place) / "two"
        with nodes(4) as cluster:
            job = replace(job, address=cluster.address)
            driver = multiprocessing.get_context("spawn").Process(target=drive, args=(job, out))
            driver.start()
            while not (out.exists() and out.stat().st_size):
                time.sleep(0.1)
            driver.kill()
            driver.join()
            print(f"driver killed with {len(out.read_bytes().splitlines()):,} lines written", flush=True)
            over = threading.Event()
            killing = threading.Thread(target=kill_actors, args=(over,))
            killing.start()
            removing = threading.Timer(30, remove_node, (cluster,))
            removing.start()
            rate = on_cluster(job, out, force=False)
            over.set()
            killing.join()
            removing.join()
            print_nodes("at the end")
        is_equal = out.read_bytes() == (Path(place) / "one").read_bytes()
        print(f"{rate.steady:,.0f} tokens/s; equal to one process: {is_equal}")


def drive(job: ClusterJob, out: Path) -> None:
    os.environ.update(ENVIRONMENT)
    on_cluster(job, out)


def remove_node(cluster: Any) -> None:
    print_nodes("before")
    cluster.remove_node(next(iter(cluster.worker_nodes)))
    print_nodes("a node removed")


def print_nodes(when: str) -> None:
    import ray

    alive = [node["Alive"] for node in ray.nodes()]
    print(f"{when}: {alive.count(True)} of {len(alive)} nodes are alive", flush=True)


def kill_actors(over: threading.Event) -> None:
    while not over.wait(20):
        for pid in processes(*ACTOR)[:1]:
            os.kill(pid, signal.SIGKILL)
            print(f"killed actor {pid}", flush=True)


def overhead(n: int) -> None:
    """Answer rows of 500 bytes by errors, so that time and CPU are those of the way there and back."""
    with tempfile.TemporaryDirectory() as place:
        model = write_random_model(Path(place) / "tiny.gguf", shape=Shape(n_layer=1))
        given = Path(place) / "in"
        text = json.dumps({"prompt": "x" * 460, "temperature": -1}) + "\n"
        given.write_text(text * n)
        task = SampleTask(SamplingParams(), seed=1)
        one = alone(model, task, given, Path(place) / "one", 1)
        job = ClusterJob(open_input(str(given)), task, Weights(model), OPTIONS, num_cpus=1)
        with nodes(2):
            before = time.process_time()
            two = on_cluster(job, Path(place) / "two")
            cpu = time.process_time() - before
        size = (Path(place) / "two").stat().st_size / n
        for name, rate in (("1 process", one), ("2 actors", two)):
            print(f"{name}: {1e6 * rate.seconds_a_line:,.0f} µs a row")
        print(f"driver: {1e3 * cpu / (n / ROWS):,.1f} ms of CPU for a block of {ROWS}, starting included")
        print(f"{len(text)} bytes a row on the way to an actor, {size:,.0f} on the way back")


def merging(n: int, count: int, n_bytes: int) -> None:
    """Time ``merge`` against a bare copy of as many bytes, and show its memory."""
    with tempfile.TemporaryDirectory() as place:
        paths, task = [], SampleTask(SamplingParams())
        for number in range(1, count + 1):
            shard = Shard(number, count)
            paths.append(Path(place) / f"out.{number}")
            out = OutputFile(paths[-1], {"shard": str(shard)}, 1)
            text = "x" * n_bytes
            for line in range(number, n + 1, count):
                out.write(task.item(Line(line, b'{"prompt": "ab"}', 0)).answer_line({"text": text}))
            out.finish(n)
            out.close()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.monotonic()
        merge(paths, Path(place) / "out")
        seconds = time.monotonic() - begun
        size = (Path(place) / "out").stat().st_size
        begun = time.monotonic()
        with (Path(place) / "copy").open("wb") as copy:
            for path in paths:
                copy.write(path.read_bytes())
            copy.flush()
            os.fsync(copy.fileno())
        bare = time.monotonic() - begun
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(
            f"{count:,} shards, {n:,} lines, {size >> 20:,} MB: {seconds:.1f} s "
            f"({n / seconds:,.0f} lines/s), "
            f"{seconds / bare:.1f} times a bare copy; {grown >> 10} MB more memory, copy included"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "faults", "overhead", "merge"])
    parser.add_argument("--lines", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--model", help="of speed: a name or a path; by default a small random model")
    given = parser.parse_args()
    if given.what == "speed":
        speed(given.lines or 4000, given.rounds, given.max_tokens or 32, given.model)
    elif given.what == "faults":
        faults(given.lines or 20_000, given.max_tokens or 8)
    elif given.what == "overhead":
        overhead(given.lines or 100_000)
    else:
        merging(given.lines or 500_000, 256, 1000)


if __name__ == "__main__":
    main()
