"""Our client against the alternatives, llama-cpp-python and transformers, on the same weights.

    python -m tests.benchmarks.peers [--rounds N] [--only score|samples|transformers]

score         a prompt of 512 tokens with top-20 at each position: llama-cpp-python's ``Llama`` with
              ``logits_all``, ``echo`` and ``logprobs=20``, half a minute each time; on all three files
samples       8 continuations of 64 tokens after 128: ``Llama``, one after the other (it finds the prompt
              in its cache after the first), on the Q4_1 and the BF16 file
transformers  both kinds of work in bfloat16, against ours on the BF16 file (needs torch and accelerate)

Each pair takes turns in one process, with the same threads. Prints median tokens/s, the median ratio of
neighbouring runs, and the goal for that ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import llama_cpp

from tests.benchmarks.requantized import TYPES, default_model
from tests.benchmarks.timing import alternate
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient
from tinker_local.llama.machine import default_threads

TEXT = Path(__file__).parents[2] / "LICENSE"
N_CTX = 2048
N_SCORED, N_PROMPT, N_SAMPLES, N_NEW, TOP = 512, 128, 8, 64, 20
TEMPERATURE, TOP_K, TOP_P = 0.8, 50, 0.95


Work = Callable[[], float]


def report(name: str, n_tokens: int, goal: float, ours: Work, other: Work, rounds: int) -> None:
    pairs = alternate(ours, other, rounds)
    rates = f"{n_tokens / pairs.ours:8.1f} {n_tokens / pairs.other:8.1f}"
    print(f"{name:52s} {rates} {pairs.ratio:8.2f} {goal:6.1f}", flush=True)


def open_ours(path: Path) -> tuple[SamplingClient, list[int]]:
    """Return a client without a prefix cache, and token ids of some English."""
    client = ServiceClient(n_ctx=N_CTX, prefix_cache=False).create_sampling_client(base_model=str(path))
    return client, client.get_tokenizer().encode(TEXT.read_text(encoding="utf-8"))


def score_ours(client: SamplingClient, tokens: list[int]) -> float:
    prompt, params = ModelInput.from_ints(tokens), SamplingParams(max_tokens=0)
    start = time.perf_counter()
    response = client.sample(
        prompt, 1, params, include_prompt_logprobs=True, topk_prompt_logprobs=TOP
    ).result()
    seconds = time.perf_counter() - start
    assert response.topk_prompt_logprobs_np is not None
    return seconds


def sample_ours(client: SamplingClient, tokens: list[int]) -> float:
    params = SamplingParams(
        max_tokens=N_NEW, temperature=TEMPERATURE, top_k=TOP_K, top_p=TOP_P, stop=[], seed=0
    )
    start = time.perf_counter()
    response = client.sample(ModelInput.from_ints(tokens), N_SAMPLES, params).result()
    seconds = time.perf_counter() - start
    assert sum(len(sequence.tokens_np) for sequence in response.sequences) == N_SAMPLES * N_NEW
    return seconds


def open_llama(path: Path, *, logits_all: bool) -> llama_cpp.Llama:
    threads = default_threads()
    return llama_cpp.Llama(
        str(path),
        n_ctx=N_SCORED + 64 if logits_all else N_CTX,
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=logits_all,
        verbose=False,
    )


def score_llama(llama: llama_cpp.Llama, text: str, n_tokens: int) -> float:
    llama.reset()  # or it would find the prompt in its cache
    start = time.perf_counter()
    response: Any = llama.create_completion(text, max_tokens=1, echo=True, logprobs=TOP)
    seconds = time.perf_counter() - start
    assert response["usage"]["prompt_tokens"] == n_tokens
    return seconds


def sample_llama(llama: llama_cpp.Llama, tokens: list[int]) -> float:
    """Return the seconds for as many tokens as ours, scaled by time per token: theirs may stop early."""
    llama.reset()
    n_tokens = 0
    start = time.perf_counter()
    for seed in range(N_SAMPLES):
        response: Any = llama.create_completion(
            tokens,
            max_tokens=N_NEW,
            temperature=TEMPERATURE,
            top_k=TOP_K,
            top_p=TOP_P,
            min_p=0,
            seed=seed,
        )
        n_tokens += response["usage"]["completion_tokens"]
    return (time.perf_counter() - start) / n_tokens * N_SAMPLES * N_NEW


def compare_scoring(kind: str, rounds: int) -> None:
    client, text = open_ours(default_model(kind))
    llama = open_llama(default_model(kind), logits_all=True)
    tokens = text[:N_SCORED]
    words = client.get_tokenizer().decode(tokens)  # with ``echo`` it takes nothing but text
    report(
        f"score {N_SCORED} with top-{TOP}, {kind.upper()}: llama-cpp-python",
        N_SCORED,
        20,
        lambda: score_ours(client, tokens),
        lambda: score_llama(llama, words, len(tokens)),
        rounds,
    )


def compare_samples(kind: str, goal: float, rounds: int) -> None:
    client, text = open_ours(default_model(kind))
    llama = open_llama(default_model(kind), logits_all=False)
    tokens = text[:N_PROMPT]
    report(
        f"{N_SAMPLES} x {N_NEW} after {N_PROMPT}, {kind.upper()}: llama-cpp-python",
        N_SAMPLES * N_NEW,
        goal,
        lambda: sample_ours(client, tokens),
        lambda: sample_llama(llama, tokens),
        rounds,
    )


def open_transformers(path: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(default_threads())
    model = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.bfloat16
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    return model.eval()


def score_transformers(model: Any, tokens: list[int]) -> float:
    import torch

    with torch.inference_mode():
        start = time.perf_counter()
        ids = torch.tensor([tokens])
        logprobs = model(ids, use_cache=False).logits[0].float().log_softmax(-1)
        logprobs[:-1].gather(1, ids[0, 1:, None]).numpy()
        top = logprobs.topk(TOP)
        top.indices.numpy(), top.values.numpy()
        return time.perf_counter() - start


def sample_transformers(model: Any, tokens: list[int]) -> float:
    import torch

    with torch.inference_mode():
        start = time.perf_counter()
        ids = torch.tensor([tokens])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=TOP_K,
            top_p=TOP_P,
            num_return_sequences=N_SAMPLES,
            min_new_tokens=N_NEW,
            max_new_tokens=N_NEW,
            pad_token_id=0,
        )
        seconds = time.perf_counter() - start
    assert output.shape == (N_SAMPLES, len(tokens) + N_NEW)
    return seconds


def compare_transformers(rounds: int) -> None:
    missing = [name for name in ("torch", "transformers", "accelerate") if not find_spec(name)]
    if missing:
        print(f"transformers: left out, there is no {' and no '.join(missing)}")
        return
    path = default_model("bf16")
    client, text = open_ours(path)
    model = open_transformers(path)
    report(
        f"score {N_SCORED} with top-{TOP}, BF16: transformers",
        N_SCORED,
        1,
        lambda: score_ours(client, text[:N_SCORED]),
        lambda: score_transformers(model, text[:N_SCORED]),
        rounds,
    )
    report(
        f"{N_SAMPLES} x {N_NEW} after {N_PROMPT}, BF16: transformers",
        N_SAMPLES * N_NEW,
        2.5,
        lambda: sample_ours(client, text[:N_PROMPT]),
        lambda: sample_transformers(model, text[:N_PROMPT]),
        rounds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("score", "samples", "transformers"))
    arguments = parser.parse_args()
    print(f"{'tokens/s':52s} {'ours':>8s} {'other':>8s} {'ratio':>8s} {'goal':>6s}")
    if arguments.only in (None, "samples"):
        compare_samples("q4_1", 1.5, arguments.rounds)
        compare_samples("bf16", 2.5, arguments.rounds)
    if arguments.only in (None, "transformers"):
        compare_transformers(arguments.rounds)
    if arguments.only in (None, "score"):
        for kind in TYPES:
            compare_scoring(kind, arguments.rounds)


if __name__ == "__main__":
    main()
