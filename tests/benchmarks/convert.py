"""Our converter against llama.cpp's on one checkpoint: seconds and peak memory of whole processes.

    python -m tests.benchmarks.convert CHECKPOINT [--script convert_hf_to_gguf.py] [--python PYTHON]
        [--type bf16] [--rounds 3]

Without ``--script`` only our converter is measured. ``--python`` names a Python with torch and
transformers, which llama.cpp's script needs. The two converters take turns. Peak memory is the resident set
of the largest process; it includes mapped files. At the end the tensors of both results are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """Duration of a process in seconds, and its peak memory in bytes."""

    seconds: float
    peak: int


def run(command: Sequence[str]) -> Run:
    """Run a command to its end; its output is discarded."""
    start = time.perf_counter()
    files = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=files)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0, f"{' '.join(command)} ended with {status}"
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(time.perf_counter() - start, usage.ru_maxrss * unit)


def describe(label: str, runs: list[Run]) -> None:
    seconds = statistics.median(run.seconds for run in runs)
    peak = statistics.median(run.peak for run in runs)
    print(f"{label:28s} {seconds:8.2f} s {peak / 1e6:8.0f} MB")


def count_differences(ours: Path, theirs: Path) -> tuple[int, int]:
    """Return the number of tensors in their file, and how many of them are missing or different in ours."""
    a, b = ({tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors} for path in (ours, theirs))
    different = [
        name
        for name, tensor in b.items()
        if name not in a
        or a[name].tensor_type != tensor.tensor_type
        or not np.array_equal(a[name].data, tensor.data)
    ]
    return len(b), len(different) + len(a.keys() - b.keys())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--script", type=Path, help="llama.cpp's convert_hf_to_gguf.py")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs it")
    parser.add_argument("--type", default="bf16")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        made = [Path(name) / f"{label}.gguf" for label in ("ours", "unverified", "theirs")]
        checkpoint = str(arguments.checkpoint)
        ours = [sys.executable, "-m", "convert", checkpoint, "--type", arguments.type, "--force", "-o"]
        commands = {
            "ours": [*ours, str(made[0])],
            "ours, --no-verify": [*ours, str(made[1]), "--no-verify"],
        }
        if arguments.script:
            theirs = [arguments.python, str(arguments.script), checkpoint, "--outtype", arguments.type]
            commands["convert_hf_to_gguf.py"] = [*theirs, "--outfile", str(made[2])]
        runs: dict[str, list[Run]] = {label: [] for label in commands}
        for number in range(arguments.rounds + 1):
            for label, command in commands.items():
                result = run(command)
                if number:  # the first warms up
                    runs[label].append(result)
        for label, results in runs.items():
            describe(label, results)
        if arguments.script:
            ratios = [
                b.seconds / a.seconds
                for a, b in zip(runs["ours"], runs["convert_hf_to_gguf.py"], strict=True)
            ]
            print(f"{statistics.median(ratios):.1f} times as fast (median of {arguments.rounds} pairs)")
            n_tensors, n_different = count_differences(made[0], made[2])
            print(f"{n_tensors} tensors, {n_different} of them different")


if __name__ == "__main__":
    main()
