"""Numbers against float64, memory against the bare model.

The real model serves a case by default and a few more as ``long``; random models of the real one's
type serve the rest.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bare_loop import BareLoop, log_softmax
from tests.long import few
from tests.random_model import Quantization, Shape, write_random_model
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient, Tokenizer

LENGTHS = (3, 63, 64, 100, 513, 520, 575, 576, 1000, 1100)


@pytest.mark.parametrize("length", few(1, [64, 300]))
def test_tokens_agree_with_one_bare_decode(
    tokenizer: Tokenizer, model_path: Path, english: str, length: int
) -> None:
    client = ServiceClient(n_ctx=1024).create_sampling_client(base_model=str(model_path))
    tokens = tokenizer.encode(english)[:length]
    bare = BareLoop(model_path, n_ctx=1024, n_sequences=64, own_kernels=True)
    expected = log_softmax(bare.prompt_logits(tokens))
    bare.close()
    response = client.sample(
        ModelInput.from_ints(tokens),
        1,
        SamplingParams(max_tokens=0),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=20,
    ).result()
    assert response.prompt_logprobs == client.compute_logprobs(ModelInput.from_ints(tokens)).result()

    ours = response.prompt_logprobs_np
    assert ours is not None
    targets = expected[np.arange(length - 1), tokens[1:]]
    assert np.abs(ours[1:] - targets).max() < 1e-5

    top = response.topk_prompt_logprobs_np
    assert top is not None
    order = np.argsort(-expected[: length - 1], axis=1, kind="stable")[:, :20]
    best = np.take_along_axis(expected[: length - 1], order, axis=1)
    assert np.abs(top.logprobs[1:] - best).max() < 1e-5
    differ = np.argwhere(top.token_ids[1:] != order)
    for row, column in differ:  # only among ties
        assert expected[row, top.token_ids[row + 1, column]] == best[row, column]


@pytest.mark.long
@pytest.mark.parametrize("length", [520])
def test_numbers_do_not_depend_on_chunks(
    tokenizer: Tokenizer, model_path: Path, english: str, length: int, chunked: SamplingClient
) -> None:
    """The engine reads prompts in chunks of at most 512 tokens; llama.cpp may take them whole."""
    tokens = tokenizer.encode(english)[length : 2 * length]  # nothing that an earlier case has left
    assert_equal_to_one_decode(chunked, model_path, tokens)


@pytest.mark.parametrize("length", LENGTHS)
def test_numbers_of_a_small_model_do_not_depend_on_chunks(
    small_path: Path, length: int, small: SamplingClient
) -> None:
    tokens = np.random.default_rng(length).integers(0, 256, length).tolist()
    assert_equal_to_one_decode(small, small_path, tokens)


def assert_equal_to_one_decode(client: SamplingClient, path: Path, tokens: list[int]) -> None:
    bare = BareLoop(path, n_ctx=2048, n_batch=2048, own_kernels=True)
    expected = log_softmax(bare.prompt_logits(tokens))[np.arange(len(tokens) - 1), tokens[1:]]
    bare.close()
    ours = np.array(client.compute_logprobs(ModelInput.from_ints(tokens)).result()[1:])
    gap = np.abs(ours - expected)
    assert gap.max() < 1e-5


@pytest.fixture(scope="module")
def chunked(model_path: Path) -> SamplingClient:
    return ServiceClient(n_ctx=2048).create_sampling_client(base_model=str(model_path))


@pytest.fixture(scope="module")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the real one's type, so that the same products are taken."""
    path = tmp_path_factory.mktemp("models") / "small.gguf"
    return write_random_model(path, shape=Shape(n_embd=256, n_layer=3), quantization=Quantization.Q4_1)


@pytest.fixture(scope="module")
def small(small_path: Path) -> SamplingClient:
    return ServiceClient(n_ctx=2048).create_sampling_client(base_model=str(small_path))


MEMORY = """
import sys
from tests.peak_memory import peak_bytes
from tinker_local import ModelInput, SamplingParams, ServiceClient

client = ServiceClient(n_ctx=8192).create_sampling_client(base_model=sys.argv[1])
n_tokens = int(sys.argv[2])
tokens = [n * n % 256 for n in range(n_tokens)]
client.sample(ModelInput.from_ints(tokens[:4]), 1, SamplingParams(max_tokens=2)).result()
before = peak_bytes()
response = client.sample(
    ModelInput.from_ints(tokens), 1, SamplingParams(max_tokens=1),
    include_prompt_logprobs=True, topk_prompt_logprobs=20,
).result()
assert response.topk_prompt_logprobs_np.token_ids.shape == (n_tokens, 20)
print((peak_bytes() - before) / 1e6)
"""


@pytest.mark.parametrize("n_tokens", few(1, [4000, 8000]))
def test_scoring_long_prompts_needs_little_memory(tmp_path: Path, n_tokens: int) -> None:
    """The full logits would be 0.8 or 1.6 GB, as with the real model's vocabulary."""
    shape = Shape(n_vocab=49152, n_embd=32, n_layer=1, n_ctx=8192)
    path = write_random_model(tmp_path / "tiny.gguf", shape=shape)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path), str(n_tokens)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 300, f"peak memory rose by {done.stdout} MB"
