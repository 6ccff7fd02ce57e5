"""Tries an untrusted model or adapter in a process of its own, which may crash without ending ours.

``python -m tinker_local.isolated MEMORY FILE [BASE]`` is that process: it tries the file and prints a line
of JSON. ``setrlimit`` limits its memory; on Windows, which has none, only its time is limited.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convert.files.parts import parts_of
from tinker_local.errors import BadRequestError, TinkerError
from tinker_local.gguf.file import is_adapter

SECONDS = 300.0
"""Seconds that a trial may take, by default."""
MEMORY = 4 << 30
"""Bytes that a trial may take, by default, beside the sizes of the files."""

_TEXTS = (
    "Hello, world!\n",
    " \t\r\n 0123456789 <|endoftext|></s>",
    "é漢字\U0001f600\u0301" * 20,
    "a" * 2000,
)
_PROMPT, _STEPS, _N_CTX = 16, 4, 256
_TELLING = ("ASSERT", "error", "what()", "failed", "fatal")


@dataclass(frozen=True, slots=True)
class Trial:
    """A file that passed: it was opened, its vocabulary was used, and tokens were decoded.

    Attributes:
        n_vocab: number of token ids.
        n_decoded: number of tokens decoded.
    """

    n_vocab: int
    n_decoded: int


def try_isolated(
    path: Path, base: Path | None = None, *, seconds: float = SECONDS, memory: int = MEMORY
) -> Trial:
    """Open a model, or an adapter on its base, in a process of its own; tokenize and decode a few tokens.

    All tensors are read and checked for NaN and infinity.

    Args:
        path: the GGUF file, the first if there are several.
        base: the model that an adapter is for.
        seconds: the process is ended after this time.
        memory: bytes of address space it may take, beside what the files take.

    Raises:
        BadRequestError: the file is refused, ended its process, or took too long or too much; the message
            says which.
    """
    files = [str(file) for file in (path, base) if file]
    command = [sys.executable, "-m", "tinker_local.isolated", str(memory), *files]
    packages = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, packages)),
        "GGML_NO_BACKTRACE": "1",
        "OMP_NUM_THREADS": "1",
    }
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, timeout=seconds, errors="replace", check=False
        )
    except subprocess.TimeoutExpired:
        raise BadRequestError(f"{path} could not be checked within {seconds:g} s") from None
    found = _answer(done.stdout)
    if "refused" in found:
        raise BadRequestError(str(found["refused"]))
    if done.returncode or not found:
        raise BadRequestError(f"{path} cannot be used: trying it {_how_it_ended(done)}")
    return Trial(int(str(found["n_vocab"])), int(str(found["n_decoded"])))


def _answer(output: str) -> dict[str, object]:
    """Return the line of JSON that the process printed, {} if it ended before."""
    with suppress(IndexError, ValueError):
        found = json.loads(output.splitlines()[-1])
        return found if isinstance(found, dict) else {}
    return {}


def _how_it_ended(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in _TELLING)] or lines
    said = "; ".join(telling[-2:]) or "no reason given"
    if done.returncode < 0:
        return f"ended the process by {signal.Signals(-done.returncode).name} ({said})"
    return f"failed with status {done.returncode} ({said})"


def _try(path: Path, base: Path | None) -> Trial:
    """Do everything that a damaged file can make fail."""
    from tinker_local.llama.adapter import load_adapter
    from tinker_local.llama.context import Context
    from tinker_local.llama.context_plan import ContextPlan
    from tinker_local.llama.model import Model
    from tinker_local.tokenizer import Tokenizer

    if is_adapter(path) and base is None:
        raise BadRequestError(f"{path} is an adapter; give its base model as well")
    model = Model(base or path, 0, check_data=True)
    adapter = load_adapter(model, path) if base else None
    tokenizer = Tokenizer(model)
    for text in _TEXTS:
        ids = tokenizer.encode(text)
        tokenizer.decode(ids)
    tokenizer.convert_ids_to_tokens(list(range(model.n_vocab)))
    plan = ContextPlan(
        n_ctx=_N_CTX, n_sequences=1, n_batch=_PROMPT, n_rows=_PROMPT, n_threads=1, adapter=adapter
    )
    context = Context(model, plan)
    position = 0
    for n in (min(_PROMPT, context.n_ctx), *[1] * min(_STEPS, max(0, context.n_ctx - _PROMPT))):
        for i in range(n):
            context.batch.tokens[i] = (7919 * (position + i)) % model.n_vocab
            context.batch.positions[i], context.batch.flags[i] = position + i, 1
        context.decode(n)
        if not np.isfinite(context.logits(n)).all():
            raise BadRequestError(f"{path} cannot be used: its logits are not finite numbers")
        position += n
    context.close()
    return Trial(model.n_vocab, position)


def _limit_memory(memory: int, files: list[Path]) -> None:
    """Limit the address space: what is in use, ``memory``, and twice the files (mapped, perhaps copied)."""
    try:
        import resource
    except ImportError:
        return
    in_use = 0
    with suppress(OSError, ValueError):
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    total = in_use + memory + 2 * sum(file.stat().st_size for file in files)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (total, total))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _main() -> None:
    memory, files = int(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    try:
        _limit_memory(memory, [part for file in files for part in parts_of(file)])
        found = _try(files[0], files[1] if len(files) > 1 else None)
        answer: dict[str, object] = {"n_vocab": found.n_vocab, "n_decoded": found.n_decoded}
    except TinkerError as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {"refused": f"{files[0]} cannot be used: it needs more memory than a trial may take"}
    gc.collect()
    print(f"\n{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    _main()
