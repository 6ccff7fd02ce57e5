"""Seconds from the start of a Python process to the first sampled token: our client and the bare loop.

    python -m tests.benchmarks.startup [--type q4_0] [--random 8b|moe] [--rounds N] [--profile]

Each time is that of a fresh process with a warm disk cache: import, load the model, make a context of 8,192
cells, evaluate a prompt of 16 tokens, take the most probable token. The bare loop imports only
``llama_cpp`` and numpy. A build of llama.cpp with AMX does not repack weights there: it would use AMX then,
which may end the process. The imports alone are timed too. Memory is what is resident after the token, as
a multiple of the file. ``--profile`` prints the time of each part in one process, and the slowest imports.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.requantized import chosen_model, command_line
from tests.benchmarks.timing import alternate
from tinker_local.llama.machine import default_threads

ROOT = Path(__file__).parents[2]
N_CTX = 8192
PROMPT = list(range(1000, 1016))

MARKS = """
import sys, time
start = time.perf_counter()
def mark(name):
    global start
    if "--profile" in sys.argv:
        print(f"  {time.perf_counter() - start:6.3f}  {name}")
    start = time.perf_counter()
"""
OURS = (
    MARKS
    + f"""
import tinker_local as tinker
mark("import tinker_local")
service = tinker.ServiceClient(n_ctx={N_CTX})
client = service.create_sampling_client(base_model=sys.argv[1])
mark("create_sampling_client")
params = tinker.SamplingParams(max_tokens=1, temperature=0)
response = client.sample(tinker.ModelInput.from_ints({PROMPT}), 1, params).result()
mark("sample one token")
token = response.sequences[0].tokens[0]
"""
)
BARE = (
    MARKS
    + f"""
import ctypes
import llama_cpp, numpy as np
mark("import llama_cpp, numpy")
quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, None)
model_params = llama_cpp.llama_model_default_params()
model_params.use_extra_bufts = b"AMX_INT8 = 1" not in llama_cpp.llama_print_system_info()
model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), model_params)
mark("load the model")
params = llama_cpp.llama_context_default_params()
params.n_ctx, params.n_batch, params.n_ubatch = {N_CTX}, 512, 512
params.n_threads = params.n_threads_batch = {default_threads()}
context = llama_cpp.llama_init_from_model(model, params)
mark("make the context")
prompt = (llama_cpp.llama_token * {len(PROMPT)})(*{PROMPT})
assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(prompt, {len(PROMPT)})) == 0
n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (n_vocab,))
token = int(logits.argmax())
mark("decode one token")
"""
)
LAST_WORDS = """
print("token", token, flush=True)
mark("print")
"""
MEMORY = """
print(open("/proc/self/statm").read().split()[1])
"""
IMPORT_OURS, IMPORT_BARE = "import tinker_local", "import llama_cpp, numpy"


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def seconds_to_import(code: str) -> float:
    """Return the seconds from the start of a process that only imports to its end."""
    start = time.perf_counter()
    run(code)
    return time.perf_counter() - start


def memory_over_file(code: str, path: Path) -> float:
    """Return what is resident after the first token, over the size of the file (Linux)."""
    pages = int(run(code + MEMORY, str(path)))
    return pages * os.sysconf("SC_PAGE_SIZE") / path.stat().st_size


def seconds_to_token(code: str, path: Path) -> float:
    """Return the seconds from the start of a process until its first token arrives here."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", code + LAST_WORDS, str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
    assert line.startswith("token "), line
    return seconds


def measure(path: Path, rounds: int) -> None:
    print(f"{'seconds, ' + path.name:40s} {'ours':>8s} {'bare':>8s} {'extra':>8s} {'goal':>8s}")
    tokens = alternate(lambda: seconds_to_token(OURS, path), lambda: seconds_to_token(BARE, path), rounds)
    extra = statistics.median(ours - bare for ours, bare in tokens.times)
    print(f"{'process to first token':40s} {tokens.ours:8.3f} {tokens.other:8.3f} {extra:8.3f}  + 0.3")
    imports = alternate(
        lambda: seconds_to_import(IMPORT_OURS), lambda: seconds_to_import(IMPORT_BARE), rounds
    )
    extra = statistics.median(ours - bare for ours, bare in imports.times)
    nothing = statistics.median(seconds_to_import("pass") for _ in range(rounds))
    print(f"{'process that imports only':40s} {imports.ours:8.3f} {imports.other:8.3f} {extra:8.3f}")
    print(f"{'the import (less an empty process)':40s} {imports.ours - nothing:8.3f}", end="")
    print(f" {imports.other - nothing:8.3f} {'':8s}    0.4")
    ours, bare = (memory_over_file(code, path) for code in (OURS, BARE))
    print(f"{'memory / file':40s} {ours:8.2f} {bare:8.2f}")


def profile(path: Path) -> None:
    for name, code in (("ours", OURS), ("bare", BARE)):
        print(f"{name}, seconds:")
        print(run(code, str(path), "--profile"), end="")
    print("slowest imports of tinker_local, seconds with what they import in turn:")
    report = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", IMPORT_OURS],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    lines = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)", report)
    slowest = sorted(lines, key=lambda line: -int(line[1]))[:25]
    for own, total, _, module in slowest:
        print(f"  {int(total) / 1e6:6.3f}  {module} (itself {int(own) / 1e6:.3f})")


def main() -> None:
    parser = command_line(__doc__, takes_random=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    path = chosen_model(arguments)
    measure(path, arguments.rounds)
    if arguments.profile:
        profile(path)


if __name__ == "__main__":
    main()
