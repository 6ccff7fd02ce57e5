"""Batch invariance: the same bits alone, together, cached, and when sampled tokens are scored."""

from __future__ import annotations

import gc
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.requantized import requantize
from tests.long import as_long, few
from tests.random_adapter import random_adapter
from tests.random_model import Architecture, Quantization, Shape, write_random_model
from tinker_local import (
    BadRequestError,
    ModelInput,
    SampleResponse,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)
from tinker_local.engine import engine, invariance
from tinker_local.engine.invariance import RULES, Rule
from tinker_local.engine.invariant_runner import InvariantRunner
from tinker_local.llama import context as llama_context
from tinker_local.llama import devices
from tinker_local.llama.context import Context

WIDE = Shape(n_embd=256, n_layer=3, n_ff=512)  # rows that quantized blocks of 256 fit into
N_VOCAB = Shape().n_vocab


@dataclass(frozen=True)
class Case:
    architecture: Architecture = "llama"
    kind: str = "F32"
    adapted: bool = False

    def __str__(self) -> str:
        return "-".join([self.architecture, self.kind, *["adapter"] * self.adapted])

    def client(self, directory: Path, **options: Any) -> SamplingClient:
        path = self.path(directory)
        base, adapter = str(path), None
        if self.adapted:
            adapter = str(random_adapter(path, rank=4, seed=3).write(directory / f"{self}.lora.gguf"))
        service = ServiceClient(**{"n_ctx": 256, "batch_invariant": True, **options})
        return service.create_sampling_client(adapter, base)

    def path(self, directory: Path) -> Path:
        path = directory / f"{self.architecture}-{self.kind}.gguf"
        if path.exists():
            return path
        if self.kind in ("Q4_K_M", "Q6_K"):
            source = write_random_model(directory / "source.gguf", self.architecture, WIDE)
            requantize(source, path, self.kind.lower())
            return path
        shape = Shape() if self.kind == "F32" else WIDE
        return write_random_model(path, self.architecture, shape, quantization=Quantization[self.kind])


CASES = [
    *(Case(kind=kind) for kind in ("F32", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K_M", "Q6_K")),
    Case("gemma3"),
    Case("gemma3", "Q4_0"),
    Case("qwen3moe"),
    Case(adapted=True),
    *map(as_long, (Case(kind="F16"), Case("qwen3moe", "BF16"), Case("qwen3moe", "Q4_0"))),
    *map(as_long, (Case(kind="Q4_0", adapted=True), Case("gemma3", adapted=True))),
]


@dataclass(frozen=True)
class Asked:
    """A request, and its answer as bytes."""

    prompt: tuple[int, ...]
    n: int
    params: SamplingParams
    k: int

    def submit(self, client: SamplingClient) -> Any:
        return client.sample(
            ModelInput.from_ints(list(self.prompt)),
            self.n,
            self.params,
            include_prompt_logprobs=self.k > 0,
            topk_prompt_logprobs=self.k,
        )

    @staticmethod
    def bits(response: SampleResponse) -> list[Any]:
        """Everything in a response; floats are equal when they are in all bits, here without NaN."""
        sequences = [(s.tokens, s.logprobs, s.stop_reason) for s in response.sequences]
        return [sequences, response.prompt_logprobs, response.topk_prompt_logprobs]


def requests(n: int, longest: int, seed: int = 0) -> list[Asked]:
    """Mixed requests, many of which begin alike."""
    rng = np.random.default_rng(seed)
    shared = rng.integers(0, 256, longest).tolist()
    found = []
    for number in range(n):
        length = int(rng.choice([1, 2, 3, 5, 30, 64, 65, longest // 2, longest - 4]))
        own = rng.integers(0, 256, 1 + int(rng.integers(0, 4))).tolist()
        params = SamplingParams(
            max_tokens=int(rng.integers(1, 40)),
            temperature=float(rng.choice([0, 0.7, 1.0])),
            top_p=float(rng.choice([1.0, 0.9])),
            seed=number,
            stop=[],
        )
        k = int(rng.choice([0, 0, 3]))
        found.append(Asked((*shared[:length], *own), int(rng.choice([1, 1, 2, 8])), params, k))
    return found


def together(client: SamplingClient, asked: list[Asked], seed: int) -> list[list[Any]]:
    """Submit requests from several threads in any order, twice; the answers in the first order."""
    order = [*range(len(asked))] * 2
    random.Random(seed).shuffle(order)
    with ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda i: asked[i].submit(client), order))
    answers: dict[int, list[Any]] = {}
    for number, future in zip(order, futures, strict=True):
        bits = Asked.bits(future.result())
        assert answers.setdefault(number, bits) == bits, "twice the same request"
    return [answers[number] for number in range(len(asked))]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_bits_alone_and_together(case: Case, tmp_path: Path) -> None:
    asked = requests(8, 200)
    alone = case.client(tmp_path, n_threads=1, prefix_cache=False)
    expected = [request.submit(alone).result() for request in asked]
    crowded = case.client(tmp_path, n_threads=2)
    assert together(crowded, asked, 1) == [Asked.bits(response) for response in expected]
    n_scored = 0
    for request, response in zip(asked, expected, strict=True):
        if (request.params.temperature, request.params.top_p) == (1.0, 1.0):
            for sequence in response.sequences:
                whole = ModelInput.from_ints([*request.prompt, *sequence.tokens])
                scores = crowded.compute_logprobs(whole).result()[len(request.prompt) :]
                assert scores == sequence.logprobs
                n_scored += len(scores)
    assert n_scored > 50


def test_without_the_mode_bits_depend_on_company(tmp_path: Path) -> None:
    """What the tests above can find: the same comparison, with the mode switched off."""
    case, asked = Case(kind="BF16"), requests(12, 200)
    options = {"batch_invariant": False, "n_ctx": 2048}
    alone = case.client(tmp_path, prefix_cache=False, **options)
    expected = [Asked.bits(request.submit(alone).result()) for request in asked]
    crowded = case.client(tmp_path, **options)
    futures = [request.submit(crowded) for request in asked]
    assert [Asked.bits(future.result()) for future in futures] != expected


def test_accepted_drafts_are_not_computed_again(tmp_path: Path) -> None:
    client = Case().client(tmp_path)
    context = client._engine._loop._context
    assert context is not None
    n_decodes, decode = 0, context.decode

    def count(n_tokens: int) -> None:
        nonlocal n_decodes
        n_decodes += 1
        decode(n_tokens)

    context.decode = count  # type: ignore[method-assign]
    params = SamplingParams(max_tokens=60, temperature=0, stop=[])
    first = client.sample(ModelInput.from_ints([1, 2, 3]), 1, params).result().sequences[0].tokens
    assert len(first) == 60
    n_decodes = 0
    written = [1, 2, 3, *first, 9, 1, 2, 3]
    again = client.sample(ModelInput.from_ints(written), 1, params).result().sequences[0]
    assert len(again.tokens) == 60
    with_drafts = n_decodes
    scores = client.compute_logprobs(ModelInput.from_ints([*written, *again.tokens])).result()
    assert scores[len(written) :] == again.logprobs
    assert with_drafts < 60, "a greedy continuation of a tiny model soon repeats itself"


def test_lookups_go_with_their_requests(tmp_path: Path) -> None:
    client = Case().client(tmp_path)
    for number in range(10):
        client.sample(ModelInput.from_ints([number, 1, 2]), 2, SamplingParams(max_tokens=6)).result()
    gc.collect()
    runner = client._engine._loop._runner
    assert isinstance(runner, InvariantRunner)
    assert len(runner._lookups) <= 1  # the engine may still hold what was last


def test_stop_rules_hold_within_drafts(tmp_path: Path) -> None:
    client = Case().client(tmp_path)
    free = SamplingParams(max_tokens=60, temperature=0, stop=[])
    prompt = ModelInput.from_ints([5, 6, 7])
    whole = client.sample(prompt, 1, free).result().sequences[0]
    for at in (3, 17, 41):
        stopping = SamplingParams(max_tokens=60, temperature=0, stop=[whole.tokens[at]])
        cut = client.sample(prompt, 1, stopping).result().sequences[0]
        n = whole.tokens.index(whole.tokens[at]) + 1
        assert (cut.tokens, cut.logprobs) == (whole.tokens[:n], whole.logprobs[:n])
        assert cut.stop_reason == "stop"


def test_where_ggml_is_unknown_its_plain_kernel_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariance, "graph_callback", lambda: None)
    monkeypatch.setattr(engine, "graph_callback", lambda: None)
    test_long_contexts({}, tmp_path)


@pytest.mark.parametrize("options", few(1, [{}, {"kv_type": "f32"}]), ids=["f16", "f32"])
def test_long_contexts(options: dict[str, Any], tmp_path: Path) -> None:
    """Where other attention kernels would take over: 64 queries, and 512 cells for one query."""
    clients = [Case(kind="BF16").client(tmp_path, n_ctx=640, n_threads=n, **options) for n in (1, 2)]
    tokens = np.random.default_rng(0).integers(0, 256, 600).tolist()
    params = SamplingParams(max_tokens=30, seed=0, stop=[])
    samples = [
        client.sample(ModelInput.from_ints(tokens), n, params).result().sequences[0]
        for client, n in zip(clients, (1, 3), strict=True)
    ]
    assert samples[0].logprobs == samples[1].logprobs
    whole = ModelInput.from_ints([*tokens, *samples[0].tokens])
    assert clients[1].compute_logprobs(whole).result()[600:] == samples[0].logprobs
    clients[1].compute_logprobs(ModelInput.from_ints(tokens[:300])).result()
    assert clients[0].compute_logprobs(whole).result() == clients[1].compute_logprobs(whole).result()


def test_without_flash_attention_no_sequence_has_a_token_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits of a short text may agree by chance, and did on one machine."""
    monkeypatch.setattr(invariance, "RULES", RULES[:2])
    with pytest.raises(BadRequestError, match="depend on what is computed together"):
        Case().client(tmp_path, kv_type="f32")


def test_a_prompt_that_fills_the_context(tmp_path: Path) -> None:
    client = Case().client(tmp_path, n_ctx=100)
    tokens = np.random.default_rng(0).integers(0, 256, 98).tolist()
    params = SamplingParams(max_tokens=2, temperature=0, stop=[])
    sample = client.sample(ModelInput.from_ints(tokens), 3, params).result().sequences[2]
    scores = client.compute_logprobs(ModelInput.from_ints([*tokens, *sample.tokens])).result()
    assert scores[98:] == sample.logprobs


class TestRefusals:
    @pytest.mark.parametrize("architecture", ["mamba", "jamba"])
    def test_states(self, architecture: Architecture, tmp_path: Path) -> None:
        with pytest.raises(BadRequestError, match="recurrent or hybrid"):
            Case(architecture).client(tmp_path)

    def test_gpus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(invariance, "kinds", lambda: {"CUDA0": 1})
        with pytest.raises(BadRequestError, match=r"GPUs \(CUDA0\).*devices='none'"):
            Case().client(tmp_path)
        Case().client(tmp_path, devices="none").compute_logprobs(ModelInput.from_ints([1, 2])).result()

    def test_a_machine_that_breaks_the_promise(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        logits = Context.logits

        def other_kernel(context: Context, n_rows: int) -> Any:
            rows = logits(context, n_rows)
            return np.nextafter(rows, np.float32(1)) if n_rows >= 40 else rows

        monkeypatch.setattr(Context, "logits", other_kernel)
        with pytest.raises(BadRequestError, match="depend on what is computed together"):
            Case().client(tmp_path)

    def test_the_dearer_rule_where_the_cheap_one_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decode, logits, n = Context.decode, Context.logits, 0

        def remember(context: Context, n_tokens: int) -> None:
            nonlocal n
            n = n_tokens
            decode(context, n_tokens)

        def in_fours(context: Context, n_rows: int) -> Any:
            rows = logits(context, n_rows)
            return np.nextafter(rows, np.float32(1)) if n % 4 or n < 8 else rows

        monkeypatch.setattr(Context, "decode", remember)
        monkeypatch.setattr(Context, "logits", in_fours)
        client = Case().client(tmp_path)
        assert client._engine._loop._runner._rule == Rule(1, 8, 4)


def test_attention_that_goes_by_the_number_of_queries_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By llama.cpp's own kernels 64 queries or more are computed in another way than few."""
    monkeypatch.setattr(invariance, "graph_callback", lambda: None)
    monkeypatch.setattr(engine, "graph_callback", lambda: None)
    monkeypatch.setitem(llama_context._CACHE_TYPES, "bf16", 1)  # float16, as keys have it
    with pytest.raises(BadRequestError, match="depend on what is computed together"):
        Case().client(tmp_path)


def test_besides_blas_batches_stay_below_its_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Mac with Accelerate; every rule, in batches of 24 tokens."""
    asked = requests(8, 100)
    expected = [Asked.bits(request.submit(Case().client(tmp_path)).result()) for request in asked[:3]]
    monkeypatch.setattr(invariance, "kinds", lambda: {"BLAS": devices.ACCELERATOR})
    for rule in RULES:
        monkeypatch.setattr(invariance, "RULES", (rule,))
        client = Case().client(tmp_path)
        context = client._engine._loop._context
        assert context is not None
        assert context.n_batch == 24
        assert together(client, asked, 2)[:3] == expected


@given(st.sampled_from(RULES), st.integers(1, 32), st.integers(1, 16), st.integers(0, 8))
def test_the_smallest_batch(rule: Rule, width: int, length: int, spare: int) -> None:
    most = -(-width // 4) * 4 + spare
    w, n = rule.shape(width, length, most)
    assert width <= w <= most
    assert n >= length
    assert rule.allows(w, n)
    for other in range(width, most + 1):
        for tokens in range(length, n + 1):
            if other * tokens < w * n:
                assert not rule.allows(other, tokens)
