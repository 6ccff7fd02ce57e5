"""Images by the cookbook's renderer, unmodified: on our client, and by the SDK against our server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convert import convert_checkpoint
from tests.libmtmd import needs_libmtmd
from tests.random_checkpoints.vision import QWEN_PROCESSOR, write_qwen3vl
from tinker_local import SamplingClient, SamplingParams, ServiceClient
from tinker_local.serve import Server, app

pytestmark = [
    pytest.mark.parity,
    needs_libmtmd,
    pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:DEPRECATED:FutureWarning"),
]

tinker = pytest.importorskip("tinker")
renderers = pytest.importorskip("tinker_cookbook.renderers")
transformers = pytest.importorskip("transformers")

NAME = "tiny-vision"
SIZES = [(64, 64), (80, 112), (48, 300), (250, 190)]
PARAMS: dict[str, Any] = {"max_tokens": 5, "temperature": 1.0, "seed": 3}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint")
    write_qwen3vl(directory, deepstack_visual_indexes=[1])
    return directory


@pytest.fixture(scope="module")
def service(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceClient]:
    store = tmp_path_factory.mktemp("store")
    convert_checkpoint(checkpoint, store / f"{NAME}.gguf", outtype="f32", verify=False)
    with ServiceClient(models_dir=store, n_ctx=512, n_threads=1, prefix_cache=False) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: ServiceClient) -> SamplingClient:
    return service.create_sampling_client(base_model=NAME)


@pytest.fixture(scope="module")
def prompts(checkpoint: Path) -> list[Any]:
    """What the renderer makes of a question about a picture: the SDK's chunks, with expected tokens."""
    settings = {key: value for key, value in QWEN_PROCESSOR.items() if "type" not in key}
    processor = transformers.Qwen2VLImageProcessorPil(**settings)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"))
    renderer = renderers.get_renderer("qwen3_vl_instruct", tokenizer, processor)
    images = [Image.effect_noise(size, 60).convert("RGB") for size in SIZES]
    return [
        renderer.build_generation_prompt(
            [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": image}, {"type": "text", "text": "What?"}],
                }
            ]
        )
        for image in images
    ]


def test_on_our_client(client: SamplingClient, prompts: list[Any]) -> None:
    for prompt in prompts:
        assert [type(c) for c in prompt.chunks].count(tinker.types.ImageChunk) == 1
        response = client.sample(prompt, 2, SamplingParams(**PARAMS), True).result()
        logprobs = response.prompt_logprobs
        assert logprobs is not None
        assert len(logprobs) == prompt.length, "as the SDK counts it"
        [image] = [c for c in prompt.chunks if isinstance(c, tinker.types.ImageChunk)]
        assert logprobs.count(None) == 1 + image.length
        assert all(len(sequence.tokens) <= 5 for sequence in response.sequences)


def test_the_sdk_against_the_server(
    service: ServiceClient, client: SamplingClient, prompts: list[Any]
) -> None:
    with Server(app(service), drain_seconds=1) as server:
        made = tinker.ServiceClient(base_url=server.url, api_key="tml-local").create_sampling_client(
            base_model=NAME
        )
        remote = made.result() if hasattr(made, "result") else made
        for prompt in prompts:
            theirs = remote.sample(prompt, 2, tinker.SamplingParams(**PARAMS), True).result()
            ours = client.sample(prompt, 2, SamplingParams(**PARAMS), True).result()
            assert theirs.prompt_logprobs == ours.prompt_logprobs
            assert [s.tokens for s in theirs.sequences] == [s.tokens for s in ours.sequences]
            assert [s.logprobs for s in theirs.sequences] == [s.logprobs for s in ours.sequences]


def test_what_is_not_on_the_server(service: ServiceClient) -> None:
    """A client cannot name files of the server's machine, unless it was started with --image-dir."""
    pointer = tinker.types.ImageAssetPointerChunk(
        location=str(Path(__file__)), format="png", expected_tokens=4
    )
    with Server(app(service), drain_seconds=1) as server:
        made = tinker.ServiceClient(base_url=server.url, api_key="tml-local").create_sampling_client(
            base_model=NAME
        )
        remote = made.result() if hasattr(made, "result") else made
        with pytest.raises(tinker.RequestFailedError, match="--image-dir DIRECTORY"):
            remote.sample(tinker.ModelInput(chunks=[pointer]), 1, tinker.SamplingParams(**PARAMS)).result()
