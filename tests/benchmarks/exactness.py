"""How far log-probabilities are from float32: ours, and llama.cpp's, on the same file.

    python -m tests.benchmarks.exactness [--type q4_0] [--random wide] [--tokens N]

Float32 is the same weights in an F32 file, computed by llama.cpp with a float32 cache and no flash
attention. The text is the LICENSE. Prints the mean and the largest distance of the log-probabilities of its
tokens, with the usual float16 cache. Without ``--type``: a row for each type of file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.requantized import ALL_TYPES, chosen_model, command_line, requantize
from tinker_local import kernels
from tinker_local.llama.backend import start_backend
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.model import load_model
from tinker_local.options import KvType
from tinker_local.tokenizer import Tokenizer


def logprobs(
    path: Path, tokens: NDArray[np.int32], kv_type: KvType = "f16", *, is_own: bool
) -> NDArray[np.float32]:
    """Score tokens in one pass: by llama.cpp alone, or with our kernels."""
    n = len(tokens)
    plan = ContextPlan(
        n_ctx=n,
        n_sequences=1,
        n_batch=n,
        n_rows=n,
        n_threads=2,
        kv_type=kv_type,
        flash_attn=kv_type == "f16",
        own_attention=is_own,
        own_products=is_own,
    )
    context = Context(load_model(path, 0, repack=not is_own), plan)
    batch = context.batch
    batch.tokens[:n], batch.positions[:n], batch.sequences[:n], batch.flags[:n] = tokens, range(n), 0, 1
    context.decode(n)
    return kernels.score_rows(context.logits(n - 1), targets=tokens[1:]).target_logprobs


def distances(path: Path, n_tokens: int) -> list[NDArray[np.float32]]:
    """Return how far each token's log-probability is from float32: ours, and llama.cpp's."""
    text = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
    tokens = np.array(Tokenizer(load_model(path, 0)).encode(text)[:n_tokens], np.int32)
    with tempfile.TemporaryDirectory() as directory:
        in_float32 = Path(directory) / "f32.gguf"
        requantize(path, in_float32, "f32")
        exact = logprobs(in_float32, tokens, "f32", is_own=False)
    return [np.abs(logprobs(path, tokens, is_own=is_own) - exact) for is_own in (True, False)]


def main() -> None:
    """Print the table."""
    parser = command_line(__doc__, takes_random=True)
    parser.set_defaults(type=None)
    parser.add_argument("--tokens", type=int, default=1024)
    given = parser.parse_args()
    start_backend()
    print("mean and largest distance from float32: ours, llama.cpp's")
    for kind in [given.type] if given.type else ALL_TYPES:
        given.type = kind
        ours, theirs = distances(chosen_model(given), given.tokens)
        print(
            f"{kind:8s} {ours.mean():.5f} {ours.max():.4f}   {theirs.mean():.5f} {theirs.max():.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
