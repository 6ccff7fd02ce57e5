"""LoRA adapters: their numbers are those of a model with the adapter merged in.

Everything is float32 without flash attention, so that the two differ only in the order of additions:
by 3e-5 at most as measured, and 1e-4 is the bound. The adapters move log-probabilities by more than 1.
"""

from __future__ import annotations

import asyncio
import gc
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.random_adapter import EMBEDDING, RandomAdapter, random_adapter
from tests.random_model import ARCHITECTURES, Architecture, Quantization, write_random_model
from tinker_local import BadRequestError, ModelInput, NotFoundError, SamplingClient, ServiceClient
from tinker_local import SamplingParams as Params
from tinker_local.cli import app
from tinker_local.llama.adapter import load_adapter
from tinker_local.llama.model import load_model

TOLERANCE = 1e-4
GELU_TOLERANCE = 2e-3  # of gemma3: on a CPU llama.cpp looks GELU up in a table of float16
EXACT = {"n_ctx": 512, "n_threads": 2, "kv_type": "f32", "flash_attn": False}
PROMPT = [int(token) for token in np.random.default_rng(3).integers(0, 256, 100)]


@dataclass(frozen=True)
class Case:
    """A base in a directory of its own, and an adapter for it."""

    directory: Path
    architecture: Architecture
    base: Path
    adapter: RandomAdapter
    adapter_path: Path

    @property
    def tolerance(self) -> float:
        return GELU_TOLERANCE if self.architecture == "gemma3" else TOLERANCE

    def merged(self, scale: float) -> Path:
        path = self.directory / f"merged{scale}.gguf"
        return write_random_model(path, self.architecture, added=self.adapter.added(scale))


def make_case(directory: Path, architecture: Architecture = "llama", **details: float) -> Case:
    base = write_random_model(directory / "base.gguf", architecture)
    adapter = random_adapter(base, **details)  # type: ignore[arg-type]
    return Case(directory, architecture, base, adapter, adapter.write(directory / "adapter.gguf"))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("adapters"), request.param)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def exact() -> Iterator[ServiceClient]:
    with ServiceClient(**EXACT) as service:  # type: ignore[arg-type]
        yield service


def open_adapter(service: ServiceClient, case: Case, scale: float = 1.0) -> SamplingClient:
    return service.create_sampling_client(str(case.adapter_path), str(case.base), lora_scale=scale)


def open_model(service: ServiceClient, path: Path) -> SamplingClient:
    return service.create_sampling_client(base_model=str(path))


def scores(client: SamplingClient, prompt: list[int] = PROMPT) -> np.ndarray:
    return np.array(client.compute_logprobs(ModelInput.from_ints(prompt)).result(60)[1:], float)


def assert_same(ours: np.ndarray, theirs: np.ndarray, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0])
def test_an_adapter_has_the_numbers_of_a_merged_model(
    case: Case, exact: ServiceClient, scale: float
) -> None:
    ours = scores(open_adapter(exact, case, scale))
    assert_same(ours, scores(open_model(exact, case.merged(scale))), case.tolerance)
    assert np.abs(ours - scores(open_model(exact, case.base))).max() > 1


def test_samples_are_those_of_a_merged_model(case: Case, exact: ServiceClient) -> None:
    params = Params(max_tokens=30, temperature=1.0, seed=5, stop=[])
    prompt = ModelInput.from_ints(PROMPT[:20])
    ours, merged = open_adapter(exact, case), open_model(exact, case.merged(1.0))
    first, second = (client.sample(prompt, 3, params).result(60) for client in (ours, merged))
    for mine, other in zip(first.sequences, second.sequences, strict=True):
        assert mine.tokens == other.tokens
        assert_same(np.array(mine.logprobs), np.array(other.logprobs), case.tolerance)


def test_scale_0_is_the_base(case: Case, exact: ServiceClient) -> None:
    assert (scores(open_adapter(exact, case, 0)) == scores(open_model(exact, case.base))).all()


@pytest.mark.parametrize(("rank", "alpha"), [(1, 8.0), (8, 4.0), (8, 0.0), (3, 32.0)])
def test_an_update_is_scaled_by_alpha_over_rank(
    tmp_path: Path, exact: ServiceClient, rank: int, alpha: float
) -> None:
    case = make_case(tmp_path, rank=rank, alpha=alpha)
    assert_same(scores(open_adapter(exact, case)), scores(open_model(exact, case.merged(1.0))))


def test_embedding_and_output_where_they_are_two(tmp_path: Path, exact: ServiceClient) -> None:
    base = write_random_model(tmp_path / "base.gguf", tied=False)
    adapter = random_adapter(base, chosen=lambda name: name in (EMBEDDING, "output.weight"))
    assert len(adapter.pairs) == 2
    path = adapter.write(tmp_path / "adapter.gguf")
    merged = write_random_model(tmp_path / "merged.gguf", tied=False, added=adapter.added(1.0))
    assert_same(
        scores(exact.create_sampling_client(str(path), str(base))), scores(open_model(exact, merged))
    )


@pytest.mark.parametrize("quantization", [Quantization.F16, Quantization.Q8_0, Quantization.Q4_0])
@pytest.mark.parametrize("flash_attn", [True, False])
def test_quantized_bases(tmp_path: Path, quantization: Quantization, flash_attn: bool) -> None:
    """No model can be merged exactly here; the update is: tiny scales move the numbers in proportion."""
    base = write_random_model(tmp_path / "base.gguf", quantization=quantization)
    path = random_adapter(base).write(tmp_path / "adapter.gguf")
    with ServiceClient(n_ctx=256, flash_attn=flash_attn) as service:
        plain = scores(open_model(service, base))
        zero, half, whole = (
            scores(service.create_sampling_client(str(path), str(base), lora_scale=scale))
            for scale in (0, 0.1, 0.2)
        )
    assert (zero == plain).all()
    moved = whole - plain
    assert np.abs(moved).max() > 0.05
    assert np.corrcoef(half - plain, moved)[0, 1] > 0.95


def test_base_and_adapters_are_open_at_once_over_the_same_weights(
    llama: Case, exact: ServiceClient
) -> None:
    other = random_adapter(llama.base, seed=9)
    other_path = other.write(llama.directory / "other.gguf")
    merged = write_random_model(llama.directory / "other-merged.gguf", added=other.added(2.0))
    expected = [scores(open_model(exact, path)) for path in (llama.base, llama.merged(1.0), merged)]
    clients = [
        open_model(exact, llama.base),
        open_adapter(exact, llama),
        exact.create_sampling_client(str(other_path), str(llama.base), lora_scale=2),
    ]
    assert len({id(client._engine.model) for client in clients}) == 1
    assert len({id(client._engine) for client in clients}) == 3
    for _ in range(2):
        for client, numbers in zip(clients, expected, strict=True):
            assert_same(scores(client), numbers)

    def ask(i: int) -> None:
        assert_same(scores(clients[i % 3], PROMPT[: 40 + i]), expected[i % 3][: 39 + i])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(60)))


def test_adapters_come_and_go_while_the_base_works(llama: Case) -> None:
    with ServiceClient(**EXACT) as service:  # type: ignore[arg-type]
        base = open_model(service, llama.base)
        expected = scores(base)
        with ThreadPoolExecutor(1) as pool:
            for scale in (0.25, 0.5, 0.75, 1.0):
                working = [pool.submit(scores, base) for _ in range(5)]
                with ServiceClient(**EXACT) as other:  # type: ignore[arg-type]
                    scores(open_adapter(other, llama, scale))
                for future in working:
                    assert_same(future.result(60), expected)


def test_clients_of_the_same_adapter_and_scale_share_an_engine(llama: Case, exact: ServiceClient) -> None:
    assert open_adapter(exact, llama)._engine is open_adapter(exact, llama)._engine
    assert open_adapter(exact, llama, 0.5)._engine is not open_adapter(exact, llama)._engine
    again = asyncio.run(
        exact.create_sampling_client_async(str(llama.adapter_path), str(llama.base), lora_scale=0.5)
    )
    assert again._engine is open_adapter(exact, llama, 0.5)._engine


def test_an_adapter_lives_as_long_as_what_uses_it(llama: Case) -> None:
    model = load_model(llama.base, -1)
    adapter = load_adapter(model, llama.adapter_path)
    assert load_adapter(model, llama.directory / "." / "adapter.gguf") is adapter
    freed = adapter._free
    del model
    gc.collect()
    assert adapter.model._free.alive
    del adapter
    gc.collect()
    assert not freed.alive


def test_pickled_clients_open_the_adapter_again(llama: Case, exact: ServiceClient) -> None:
    client = open_adapter(exact, llama, -0.5)
    copy = pickle.loads(pickle.dumps(client))
    assert "adapter.gguf" in repr(copy)
    assert "-0.5 * " in repr(copy)
    assert copy._engine is not client._engine
    assert (scores(copy) == scores(client)).all()


def test_a_whole_model_by_its_path(llama: Case, exact: ServiceClient) -> None:
    client = exact.create_sampling_client(model_path=str(llama.base))
    assert client._engine is open_model(exact, llama.base)._engine


def test_the_command_line(llama: Case) -> None:
    common = ["--model", str(llama.base), "--adapter", str(llama.adapter_path), "--n-ctx", "128"]
    runner = CliRunner()
    plain, scaled, zero = (
        runner.invoke(app, ["logprobs", "Some text.", *arguments])
        for arguments in (common[:2] + common[4:], common, [*common, "--lora-scale", "0"])
    )
    assert plain.exit_code == scaled.exit_code == zero.exit_code == 0
    assert plain.output == zero.output != scaled.output
    sampled = runner.invoke(app, ["sample", "Some text.", *common, "--max-tokens", "3"])
    assert sampled.exit_code == 0
    refused = runner.invoke(app, ["sample", "Hi", *common[:2], "--lora-scale", "2"])
    assert refused.exit_code == 1
    assert "no adapter" in refused.output


def test_arguments_that_do_not_go_together(llama: Case, exact: ServiceClient) -> None:
    create, adapter, base = exact.create_sampling_client, str(llama.adapter_path), str(llama.base)
    with pytest.raises(ValueError, match="model_path or base_model"):
        create()
    with pytest.raises(BadRequestError, match="give base_model"):
        create(model_path=adapter)
    with pytest.raises(BadRequestError, match="a whole model; leave out base_model"):
        create(model_path=base, base_model=base)
    with pytest.raises(BadRequestError, match="no adapter to scale"):
        create(base_model=base, lora_scale=0.5)
    with pytest.raises(BadRequestError, match="tinker://"):
        create(model_path="tinker://run/weights/1", base_model=base)
    with pytest.raises(NotFoundError, match=r"nowhere\.gguf"):
        create(model_path="nowhere.gguf", base_model=base)
    with pytest.raises(BadRequestError, match=r"adapter\.gguf is an adapter"):
        create(base_model=adapter)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -float("inf"), 1e39, "1", True, None])
def test_impossible_scales(llama: Case, exact: ServiceClient, scale: object) -> None:
    with pytest.raises(BadRequestError, match="lora_scale is"):
        open_adapter(exact, llama, scale)  # type: ignore[arg-type]


def test_an_adapter_file_that_changed_is_read_again(tmp_path: Path, exact: ServiceClient) -> None:
    case = make_case(tmp_path)
    model = load_model(case.base, -1)
    first = load_adapter(model, case.adapter_path)
    random_adapter(case.base, rank=5).write(case.adapter_path)
    assert load_adapter(model, case.adapter_path) is not first
