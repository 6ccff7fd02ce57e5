"""Batch invariance: the same bits alone, together, cached, and when sampled tokens are scored."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.requantized import requantize
from tests.long import as_long, few
from tests.random_adapter import random_adapter
from tests.random_checkpoints.planned import write_planned
from tests.random_checkpoints.plans import stored
from tests.random_model import Architecture, Quantization, Shape, write_random_model
from tinker_local import (
    BadRequestError,
    ModelInput,
    RequestFailedError,
    SampleResponse,
    SamplingClient,
    SamplingParams,
    ServiceClient,
)
from tinker_local.engine import own_kernels
from tinker_local.llama import devices

WIDE = Shape(n_embd=256, n_layer=3, n_ff=512)  # rows that quantized blocks of 256 fit into
N_VOCAB = Shape().n_vocab


@dataclass(frozen=True)
class Case:
    architecture: Architecture | str = "llama"  # or a case of ``stored()``
    kind: str = "F32"
    adapted: bool = False
    n_threads: int = 2  # that compute many requests at once

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
        if self.architecture in stored():
            return write_planned(path, self.architecture)
        if self.kind in ("Q4_K_M", "Q6_K"):
            source = write_random_model(directory / "source.gguf", self.architecture, WIDE)
            requantize(source, path, self.kind.lower())
            return path
        shape = Shape() if self.kind == "F32" else WIDE
        return write_random_model(path, self.architecture, shape, quantization=Quantization[self.kind])


HYBRIDS = (
    "mamba",
    "jamba",
    "qwen3next, experts",
    "lfm2, dense",
    "kimi_linear, published names",
    "granite_hybrid, experts",
    "falcon_h1, multipliers",
)
"""Recurrent and hybrid models: Mamba 1 and 2, short convolutions, delta nets of both kinds."""

CASES = [
    *(Case(kind=kind) for kind in ("F32", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K_M", "Q6_K")),
    Case("gemma3"),
    Case("gemma3", "Q4_0"),
    Case("qwen3moe"),
    Case(adapted=True),
    *(Case(name, n_threads=1) for name in (*HYBRIDS, "gemma3n, five layers")),
    *map(as_long, (Case(kind="F16"), Case("qwen3moe", "BF16"), Case("qwen3moe", "Q4_0"))),
    *map(as_long, (Case("jamba", "Q4_0"), Case("kimi_linear, published names"))),
    *map(as_long, (Case("gemma3n, shared caches"), Case("gemma3n, five layers", adapted=True))),
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
    crowded = case.client(tmp_path, n_threads=case.n_threads)
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


def test_with_products_of_llama_cpp_bits_depend_on_company(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above can find: the same comparison, as where our products were not measured."""
    monkeypatch.setattr(own_kernels, "_FASTER_PRODUCTS", ())
    case, asked = Case(kind="BF16"), requests(12, 200)
    options = {"batch_invariant": False, "n_ctx": 2048}
    alone = case.client(tmp_path, prefix_cache=False, **options)
    expected = [Asked.bits(request.submit(alone).result()) for request in asked]
    crowded = case.client(tmp_path, **options)
    futures = [request.submit(crowded) for request in asked]
    assert [Asked.bits(future.result()) for future in futures] != expected


@pytest.mark.parametrize(
    "options", few(1, [{}, {"kv_type": "f32"}, {"kv_type": "q8_0"}]), ids=["f16", "f32", "q8_0"]
)
def test_long_contexts(options: dict[str, Any], tmp_path: Path) -> None:
    """Where other attention kernels would take over: 64 queries, and 512 cells for one query."""
    clients = [
        Case(kind="BF16").client(tmp_path, n_ctx=640, **threads, **options)
        for threads in ({"n_threads": 1}, {"n_threads": 2, "n_threads_batch": 3})
    ]
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


def test_a_prompt_that_fills_the_context(tmp_path: Path) -> None:
    client = Case().client(tmp_path, n_ctx=100)
    tokens = np.random.default_rng(0).integers(0, 256, 98).tolist()
    params = SamplingParams(max_tokens=2, temperature=0, stop=[])
    sample = client.sample(ModelInput.from_ints(tokens), 3, params).result().sequences[2]
    scores = client.compute_logprobs(ModelInput.from_ints([*tokens, *sample.tokens])).result()
    assert scores[98:] == sample.logprobs


class TestRefusals:
    @pytest.mark.parametrize("name", ["deepseek_sparse, GLM-5", "deepseek4, each kind of layer"])
    def test_chosen_keys(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(BadRequestError, match="queries choose their keys"):
            Case(name).client(tmp_path)

    def test_gpus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(own_kernels, "kinds", lambda: {"CUDA0": 1})
        with pytest.raises(BadRequestError, match=r"GPUs \(CUDA0\).*devices='none'"):
            Case().client(tmp_path)
        Case().client(tmp_path, devices="none").compute_logprobs(ModelInput.from_ints([1, 2])).result()

    def test_an_unknown_ggml(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(own_kernels, "graph_callback", lambda: None)
        with pytest.raises(BadRequestError, match="does not know how"):
            Case().client(tmp_path)

    def test_products_that_are_left_to_llama_cpp(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As those of repacked weights are, and what an architecture multiplies besides weights."""
        load = own_kernels.load_model
        monkeypatch.setattr(own_kernels, "load_model", lambda *args, repack: load(*args))
        client = Case(kind="Q4_0").client(tmp_path)
        with pytest.raises(RequestFailedError, match="by its own"):
            client.compute_logprobs(ModelInput.from_ints([1, 2])).result()


def test_besides_blas_batches_stay_below_its_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Mac with Accelerate: batches of 24 tokens."""
    asked = requests(8, 100)
    expected = [Asked.bits(request.submit(Case().client(tmp_path)).result()) for request in asked[:3]]
    monkeypatch.setattr(own_kernels, "kinds", lambda: {"BLAS": devices.ACCELERATOR})
    client = Case().client(tmp_path)
    context = client._engine._loop._context
    assert context is not None
    assert context.n_batch == 24
    assert together(client, asked, 2)[:3] == expected
