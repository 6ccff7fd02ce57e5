"""Images in prompts: encoded once, in the prefix cache as a whole, beside text in every way."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gate import Gate
from tests.random_tower import Kind, picture, write_random_pair, write_random_tower
from tinker_local import (
    BadRequestError,
    EncodedTextChunk,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    NotFoundError,
    RequestFailedError,
    SamplingClient,
    SamplingParams,
    ServiceClient,
    TensorData,
)
from tinker_local.kernels import AbortFlag
from tinker_local.llama.tower import EncodeAbortedError, Tower
from tinker_local.pixels import decode

GREEDY = SamplingParams(max_tokens=6, temperature=0, stop=[])
BEFORE, AFTER = list(range(40, 52)), [7, 8, 9, 10, 11]
N_TOKENS: dict[Kind, int] = {"qwen3vl": 54, "gemma3": 16}
"""Of a picture of 300 x 200 pixels."""


def prompt(*parts: list[int] | ImageChunk | ImageAssetPointerChunk) -> ModelInput:
    return ModelInput(chunks=[EncodedTextChunk(tokens=p) if isinstance(p, list) else p for p in parts])


def image(seed: int = 0, width: int = 300, height: int = 200) -> ImageChunk:
    return ImageChunk(data=picture(width, height, seed), format="png")


class Watched:
    """A client that gives the same bits under any load, and what it has computed."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch, **options: Any) -> None:
        service = ServiceClient(**({"n_ctx": 1024, "n_threads": 1, "batch_invariant": True} | options))
        self.client: SamplingClient = service.create_sampling_client(base_model=str(path))
        self.n_encoded = self.n_tokens = 0
        encode, context = Tower.encode, self.client._engine._loop._context
        decode, decode_embeddings = context.decode, context.decode_embeddings

        def count_encoded(tower: Tower, prepared: Any, abort: AbortFlag) -> Any:
            self.n_encoded += 1
            return encode(tower, prepared, abort)

        self._gate = Gate()

        def count(n_tokens: int) -> None:
            self._gate.pass_through()
            self.n_tokens += n_tokens
            decode(n_tokens)

        def count_embeddings(embeddings: Any, *rest: Any, **named: Any) -> None:
            self.n_tokens += len(embeddings)
            decode_embeddings(embeddings, *rest, **named)

        patch.setattr(Tower, "encode", count_encoded)
        patch.setattr(context, "decode", count)
        patch.setattr(context, "decode_embeddings", count_embeddings)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is submitted inside has all arrived before any of it is computed; count from then on."""
        with self._gate.closed(lambda: self.client.sample(prompt([1]), 1, SamplingParams(max_tokens=1))):
            yield
            self.n_tokens = -1

    def logprobs(self, given: ModelInput) -> list[float | None]:
        return self.client.compute_logprobs(given).result()


@pytest.fixture(scope="module", params=["qwen3vl", "gemma3"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def path(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_pair(tmp_path_factory.mktemp("pairs"), kind)


@pytest.fixture
def watched(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    watched = Watched(path, monkeypatch)
    yield watched
    watched.client._engine.close()


def test_a_tower_goes_with_its_clients(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ServiceClient(n_ctx=512, n_threads=1) as service:
        client = service.create_sampling_client(base_model=str(path))
        client.compute_logprobs(prompt(BEFORE, image(), AFTER)).result()
        other = ServiceClient(n_ctx=256, n_threads=1).create_sampling_client(base_model=str(path))
        assert other._engine._images is client._engine._images
        tower = weakref.ref(client._engine._images._tower)
        other._engine.close()
    del client, other, service
    gc.collect()
    assert tower() is None
    assert [record.msg for record in caplog.records if record.name == "tinker_local.llama"] == []


def test_scores_around_an_image(kind: Kind, watched: Watched) -> None:
    given, n = prompt(BEFORE, image(), AFTER), N_TOKENS[kind]
    stop = len(BEFORE) + n
    targets = np.full((stop + len(AFTER) - 1, 2), -1)
    targets[[stop - 1, stop]] = [[7, 99], [8, 98]]
    response = watched.client.sample(
        given, 2, GREEDY, True, topk_prompt_logprobs=3, prompt_alt_tokens_k=2,
        target_prompt_logprobs=TensorData.from_numpy(targets),
    ).result()  # fmt: skip
    logprobs, topk = response.prompt_logprobs, response.topk_prompt_logprobs
    alternatives, scored = response.prompt_alt_tokens, response.target_prompt_logprobs
    assert logprobs
    assert topk
    assert alternatives
    assert scored
    is_none = [p is None for p in logprobs]
    assert is_none == [True] + [False] * 11 + [True] * n + [False] * len(AFTER)
    assert [pairs is None for pairs in topk] == is_none
    assert ((alternatives.tokens.to_numpy() == -1).all(1) == np.array(is_none[1:])).all()
    assert scored.to_numpy()[stop - 1 : stop + 1, 0].tolist() == logprobs[stop : stop + 2]
    assert logprobs == watched.logprobs(given)
    assert response.sequences[0].tokens == response.sequences[1].tokens

    # The same, token by token: what was drawn is what scoring says.
    drawn = response.sequences[0]
    whole = watched.logprobs(prompt(BEFORE, image(), AFTER, drawn.tokens))
    assert whole[-len(drawn.tokens) :] == drawn.logprobs


def test_what_an_image_shows_counts(watched: Watched) -> None:
    """And where it stands, and how often: nothing of another prompt is taken for it."""
    prompts = [
        prompt(BEFORE, *images, AFTER)
        for images in ([], [image()], [image(1)], [image(), image()], [image(), image(1)])
    ]
    prompts += [prompt(image(), AFTER), prompt(BEFORE, image(width=96), AFTER)]
    found = [watched.logprobs(each)[-1] for each in prompts]
    assert len(set(found)) == len(prompts)
    assert all(value is not None and math.isfinite(value) for value in found)
    assert [watched.logprobs(each)[-1] for each in reversed(prompts)] == found[::-1]


def test_sixteen_questions_about_one_picture(kind: Kind, watched: Watched) -> None:
    before = list(range(60, 130))  # enough for states that cannot step back to be kept
    questions = [prompt(before, image(16), AFTER, [100 + i]) for i in range(16)]
    alone = []
    for question in questions:
        watched.client._engine._loop._scheduler.forget_prefixes()
        alone.append(watched.client.sample(question, 1, GREEDY).result().sequences[0])
    assert watched.n_encoded == 1
    watched.client._engine._loop._scheduler.forget_prefixes()
    with watched.held():
        futures = [watched.client.sample(question, 1, GREEDY) for question in questions]
    together = [future.result().sequences[0] for future in futures]
    assert [s.tokens for s in together] == [s.tokens for s in alone]
    assert [s.logprobs for s in together] == [s.logprobs for s in alone]
    assert GREEDY.max_tokens is not None
    own = len(AFTER) + 1 + GREEDY.max_tokens  # the text after the image may be computed again
    assert watched.n_tokens <= len(before) + N_TOKENS[kind] + 16 * own, "the image was computed again"


def test_a_prompt_that_ends_in_an_image(watched: Watched) -> None:
    given = prompt(BEFORE, image())
    first = watched.client.sample(given, 1, GREEDY).result().sequences[0]
    again = watched.client.sample(given, 3, GREEDY).result()
    assert [s.tokens for s in again.sequences] == [first.tokens] * 3
    longer = watched.client.sample(prompt(BEFORE, image(), first.tokens[:2]), 1, GREEDY).result()
    assert longer.sequences[0].tokens[:4] == first.tokens[2:]
    watched.client._engine._loop._scheduler.forget_prefixes()
    assert watched.client.sample(given, 1, GREEDY).result().sequences[0].logprobs == first.logprobs


def test_little_room(kind: Kind, path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait, are preempted and cancelled, and images are cut where they may be."""
    rng = np.random.default_rng(5)
    big = image(3, 640, 640)
    pool = [image(), image(1), big, image(2, 40, 60)]

    def some() -> ModelInput:
        texts = [rng.integers(0, 250, rng.integers(1, 40)).tolist() for _ in range(3)]
        first, second = rng.integers(0, len(pool), 2)
        return prompt(texts[0], pool[first], *([pool[second]] if rng.random() < 0.5 else []), texts[1])

    prompts = [some() for _ in range(10)]
    n_ctx = {"qwen3vl": 960, "gemma3": 192}[kind]
    params = SamplingParams(max_tokens=24, temperature=0.7, seed=3, stop=[])
    tight = Watched(path, monkeypatch, n_ctx=n_ctx, n_ubatch=192).client
    futures = [tight.sample(each, 2, params) for each in prompts]
    dropped = [tight.sample(each, 2, params) for each in prompts[:4]]
    for future in dropped:
        future.cancel()
    found = [future.result(120) for future in futures]
    tight._engine._loop._scheduler.check_integrity()
    for each, response in zip(prompts, found, strict=True):
        alone = watched.client.sample(each, 2, params).result()
        assert [s.tokens for s in alone.sequences] == [s.tokens for s in response.sequences]
        assert [s.logprobs for s in alone.sequences] == [s.logprobs for s in response.sequences]
    tight._engine.close()


def test_images_that_cannot_be_read(kind: Kind, watched: Watched, tmp_path: Path) -> None:
    data = picture(300, 200)
    cases: list[tuple[ImageChunk | ImageAssetPointerChunk, str]] = [
        (ImageChunk(data=b"", format="png"), "0 bytes cannot be read as png"),
        (ImageChunk(data=data[:500], format="png"), "500 bytes cannot be read as png"),
        (ImageChunk(data=data, format="jpeg"), "cannot be read as jpeg"),
        (ImageChunk(data=data, format="png", expected_tokens=3), f"takes {N_TOKENS[kind]} tokens"),
        (ImageAssetPointerChunk(location="https://a.b/c.png", format="png"), "nothing is fetched"),
        (ImageChunk(data=picture(2001, 10), format="png"), "at most 200 times"),
    ]
    for chunk, message in cases:
        with pytest.raises(BadRequestError, match=message):
            watched.client.sample(prompt(BEFORE, chunk), 1, GREEDY)
    with pytest.raises(NotFoundError, match="no image"):
        watched.client.sample(prompt(ImageAssetPointerChunk(location="no.png", format="png")), 1, GREEDY)
    targets = TensorData.from_numpy(np.full((N_TOKENS[kind], 1), 5))
    with pytest.raises(BadRequestError, match="which are an image"):
        watched.client.sample(prompt([1], image()), 1, GREEDY, target_prompt_logprobs=targets)
    (tmp_path / "a b.png").write_bytes(data)
    for location in (str(tmp_path / "a b.png"), (tmp_path / "a b.png").as_uri()):
        chunk = ImageAssetPointerChunk(location=location, format="png", expected_tokens=N_TOKENS[kind])
        found = watched.logprobs(prompt(BEFORE, chunk, AFTER))
        assert found == watched.logprobs(prompt(BEFORE, image(), AFTER))


def test_too_many_tokens(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Watched(path, monkeypatch, n_ctx=60).client
    with pytest.raises(BadRequestError, match="and the context holds 60"):
        small.sample(prompt(list(range(50)), image()), 1, GREEDY)
    small._engine.close()


def test_attention_in_steps_needs_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not fused, each patch of an image meets each other one."""
    path = write_random_pair(tmp_path, "qwen3vl", n_layer=2)
    service = ServiceClient(n_ctx=512, n_threads=1, flash_attn=False)
    client = service.create_sampling_client(base_model=str(path))
    assert len(client.compute_logprobs(prompt(BEFORE, image(), AFTER)).result()) == 12 + 54 + 5
    monkeypatch.setattr("tinker_local.llama.tower.available_memory", lambda: 2 * 4 * 2 * 256**2 - 1)
    with pytest.raises(BadRequestError, match="scores of attention over an image of 256 x 256 pixels"):
        client.compute_logprobs(prompt(BEFORE, image(1, 256, 256), AFTER))


def test_an_encode_in_progress_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its flag, its request, or its client; the next request encodes the image anew."""
    path, encode, begun = write_random_pair(tmp_path, "qwen3vl", n_layer=2), Tower.encode, threading.Event()
    larger = {"clip.vision.image_max_pixels": 1 << 22}
    write_random_tower(path.with_name("mmproj-qwen3vl.gguf"), "qwen3vl", larger)

    def tell(tower: Tower, *arguments: Any) -> Any:
        begun.set()
        return encode(tower, *arguments)

    monkeypatch.setattr(Tower, "encode", tell)
    client = ServiceClient(n_ctx=2048, n_threads=1).create_sampling_client(base_model=str(path))
    large, another = (image(seed, 1024, 1024) for seed in (5, 6))
    found = client._engine.find_image(large.data, large.format)
    tower = client._engine._images._tower
    start = time.perf_counter()
    right = tower.encode(tower.prepare(decode(large.data, "png")), AbortFlag())
    whole = time.perf_counter() - start

    flag = AbortFlag()
    timer = threading.Timer(whole / 20, flag.set)
    timer.start()
    start = time.perf_counter()
    with pytest.raises(EncodeAbortedError):
        found.embeddings(flag)
    assert time.perf_counter() - start < whole / 2
    timer.join()

    begun.clear()
    cancelled, other = (client.compute_logprobs(prompt(BEFORE, large, [end])) for end in (7, 8))
    assert begun.wait(60)
    begun.clear()
    start = time.perf_counter()
    assert cancelled.cancel()
    assert begun.wait(60), "the other request has the same image"
    assert time.perf_counter() - start < whole / 2
    assert other.result(60)[-1] is not None
    assert (found.embeddings(AbortFlag()) == right).all(), "what was aborted left nothing behind"

    begun.clear()
    closed = client.compute_logprobs(prompt(another))
    assert begun.wait(60)
    client._engine.close()
    with pytest.raises(RequestFailedError, match="closed"):
        closed.result(60)
    assert client._engine._images.find(another.data, another.format)._embeddings is None


def test_models_without_a_tower(tmp_path: Path) -> None:
    path = write_random_pair(tmp_path, "qwen3vl", n_layer=2)
    path.with_name("mmproj-qwen3vl.gguf").unlink()
    client = ServiceClient(n_ctx=256).create_sampling_client(base_model=str(path))
    with pytest.raises(BadRequestError, match="reads no images: there is no mmproj"):
        client.compute_logprobs(prompt(BEFORE, image()))
    path.with_name("mmproj-qwen3vl.gguf").write_bytes(path.read_bytes())
    with pytest.raises(BadRequestError, match="not clip"):
        client.compute_logprobs(prompt(BEFORE, image()))
