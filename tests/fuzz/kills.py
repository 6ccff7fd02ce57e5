"""Conversions that are killed (SIGKILL) at random moments, and run again.

    python -m tests.fuzz.kills [--count N] [--seed S]

After each kill everything that the store shows must be sound, and as it should be; the next run has to
finish the job, with the same bytes as a run that nobody disturbed, and clear away what the other left.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.random_checkpoints.adapters import random_factors, write_adapter
from tests.random_checkpoints.plain import write_llama

ROOT = Path(__file__).resolve().parents[2]
PATH = "tinker://run:train:0/sampler_weights/x"
SHAPE = {"hidden_size": 256, "intermediate_size": 1024}
_PREPARE = """
import sys, numpy
from pathlib import Path
import convert.convert, convert.adapter, convert.untied
from convert.files.models_directory import models_directory
from tinker_local import ServiceClient
home, source = models_directory(), Path(sys.argv[1])
output = home / "Org" / "Made-x.gguf"
print("ready", flush=True)
"""
JOBS = {
    "direct": "convert.convert_checkpoint(source, output)",
    "parts": "convert.convert_checkpoint(source, output, split_size=400_000, verify=False)",
    "parts again": (
        "convert.convert_checkpoint(source, output, split_size=400_000, verify=False, force=True)"
    ),
    "quantized": "convert.convert_checkpoint(source, output, outtype='q4_0')",
    "first use": f"ServiceClient(n_ctx=64).create_sampling_client({PATH!r})",
}
SECONDS = 120


@dataclass
class Report:
    """``outcomes``: what the store had after each kill; ``problems``: what was wrong."""

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        yield from (f"{count:5}  {outcome}" for outcome, count in self.outcomes.most_common())
        yield from self.problems


class Kills:
    """Attributes:
    jobs: the names of those that are run, in turn.
    places: for each job a store as it is before it.
    durations: seconds that each takes undisturbed.
    expected: the files that it leaves, by path, with hashes.
    """

    def __init__(self, directory: Path, jobs: Sequence[str]) -> None:
        self.directory, self.jobs = directory, jobs
        self.source = directory / "source"
        tensors = write_llama(self.source, tie_word_embeddings=True, **SHAPE)
        write_adapter(directory / "adapter", random_factors(tensors), base_model_name_or_path="Org/Base")
        self.places, self.durations, self.expected = {}, {}, {}
        for job in jobs:
            self.places[job] = self._prepared(job)
            home = self._copied(job)
            start, process = self._started(job, home)
            said = process.communicate(timeout=SECONDS)[1]
            assert process.returncode == 0, said
            self.durations[job] = time.monotonic() - start
            self.expected[job] = _models(home)

    def run(self, count: int, seed: int) -> Report:
        report = Report()
        for number in range(count):
            rng = random.Random(f"{seed}:{number}")
            job = self.jobs[number % len(self.jobs)]
            delay = rng.random() * self.durations[job]
            try:
                report.outcomes[f"{job}: {self._kill(job, delay)}"] += 1
            except AssertionError as error:
                report.problems.append(f"case {number} ({job}, after {delay:.3f} s): {error}")
        return report

    def _kill(self, job: str, delay: float) -> str:
        home = self._copied(job)
        _, process = self._started(job, home)
        time.sleep(delay)
        process.kill()
        process.communicate()
        state = self._check(job, home)
        process = self._started(job, home)[1]
        said = process.communicate(timeout=SECONDS)[1]
        assert process.returncode == 0 or "is there already" in said, f"the next run failed: {said[-500:]}"
        assert _models(home) == self.expected[job], f"the next run left {sorted(_models(home))}"
        left = [path.name for path in home.rglob(".*") if path.name != ".lock"]
        assert not left or state == "finished", f"the next run left {left}"
        return state

    def _check(self, job: str, home: Path) -> str:
        """Check what the store shows, and say what state it is in."""
        from tinker_local.gguf.adapter_check import check_adapter
        from tinker_local.gguf.file import is_adapter, read_head
        from tinker_local.gguf.model_check import check_model
        from tinker_local.gguf.parts import ModelFiles
        from tinker_local.store.keeper import StoreKeeper
        from tinker_local.store.model_store import ModelStore

        store = ModelStore(home)
        for model in store.files():
            path = model.require()
            if is_adapter(path):
                check_adapter(read_head(path), ModelFiles.read(home / "Org/Base-bf16.gguf"))
            else:
                check_model(path)
            for file in model.files:
                name = str(file.relative_to(home))
                assert _models(home)[name] == self.expected[job].get(name), f"{name} has other bytes"
        working = any(path.name.endswith(".part") for path in home.rglob(".*"))
        state = "finished" if _models(home) == self.expected[job] else "in work" if working else "not begun"
        if state != "in work":  # else the next run has to clear it away itself
            for verdict in StoreKeeper(store).verify():
                assert not verdict.problems, f"{verdict.name}: {verdict.problems}"
        return state

    def _prepared(self, job: str) -> Path:
        import convert

        home = self.directory / f"before {job}"
        (home / "Org").mkdir(parents=True)
        if job == "first use":
            base = home / "Org" / "Base-bf16.gguf"
            convert.convert_checkpoint(self.source, base, verify=False, name="Org/Base")
            shutil.copytree(
                self.directory / "adapter", home / "tinker" / "run%3Atrain%3A0" / "sampler_weights" / "x"
            )
        if job == "parts again":
            convert.convert_checkpoint(
                self.source, home / "Org" / "Made-x.gguf", split_size=400_000, verify=False
            )
        return home

    def _copied(self, job: str) -> Path:
        home = self.directory / "home"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self.places[job], home)
        return home

    def _started(self, job: str, home: Path) -> tuple[float, subprocess.Popen[str]]:
        environment = os.environ | {
            "TINKER_LOCAL_MODELS_DIR": str(home),
            "HF_HUB_CACHE": str(home / "no hub"),
            "TINKER_LOCAL_N_THREADS": "1",
        }
        process = subprocess.Popen(
            [sys.executable, "-c", _PREPARE + JOBS[job], str(self.source)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        return time.monotonic(), process


def _models(home: Path) -> dict[str, str]:
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in home.rglob("*.gguf")
        if not any(part.startswith(".") for part in path.relative_to(home).parts)
    }


def kills(count: int, seed: int, jobs: Sequence[str] = tuple(JOBS)) -> Report:
    """Kill so many conversions, in a directory of its own."""
    with tempfile.TemporaryDirectory() as name:
        return Kills(Path(name), jobs).run(count, seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.kills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    report = kills(given.count, given.seed)
    print("\n".join(report.lines()))
    sys.exit(bool(report.problems))


if __name__ == "__main__":
    main()
