"""The unmodified SDK ``tinker`` against ``tinker_local.serve``: answers have the bits of the client here.

``test_the_sdk_calls_nothing_that_is_not_served`` and those beside it read the SDK's source. They fail when
a new version asks for what is not there. tests/README.md says how to run all with another version.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import inspect
import multiprocessing
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve.tiny_store import CHECKPOINT, TINY, write_tiny_store
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient, TensorData
from tinker_local.serve import Server, app
from tinker_local.serve.tinker_api import protobuf, sampling

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:DEPRECATED:FutureWarning"),
]

tinker = pytest.importorskip("tinker")

TOKENS = [1, 2, 3, 4, 5]
KEY = "tml-local"
PACKAGE = Path(tinker.__file__).parent


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceClient]:
    directory = write_tiny_store(tmp_path_factory.mktemp("store"))
    with ServiceClient(models_dir=directory, n_ctx=512, n_threads=1, prefix_cache=False) as service:
        yield service


@pytest.fixture(scope="module")
def here(service: ServiceClient) -> SamplingClient:
    return service.create_sampling_client(base_model=TINY)


@pytest.fixture(scope="module")
def server(service: ServiceClient) -> Iterator[Server]:
    with Server(app(service), drain_seconds=1) as server:
        yield server


@pytest.fixture(scope="module")
def remote(server: Server) -> Any:
    return tinker.ServiceClient(base_url=server.url, api_key=KEY)


@pytest.fixture(scope="module")
def client(remote: Any) -> Any:
    return opened(remote, base_model=TINY)


def since(version: str) -> pytest.MarkDecorator:
    """Skip a test of what older SDKs than this do not have."""
    found = tuple(map(int, tinker.__version__.split(".")[:2]))
    wanted = tuple(map(int, version.split(".")))
    return pytest.mark.skipif(found < wanted, reason=f"tinker {tinker.__version__} does not have it")


def opened(remote: Any, **names: str) -> Any:
    """Return a client; SDKs before 0.38 return it at once, later ones a future of it."""
    made = remote.create_sampling_client(**names)
    return made.result() if hasattr(made, "result") else made


def same(theirs: Any, ours: Any) -> bool:
    """Whether two responses have the same numbers, bit for bit; cached prefixes and names aside."""
    for field in dataclasses.fields(theirs):
        if field.name.startswith("_") or field.name in ("prompt_cache_hit_tokens", "sequence_id"):
            continue
        a, b = getattr(theirs, field.name), getattr(ours, field.name)
        assert same_value(a, b), f"{field.name}: {a} and {b}"
    return True


def same_value(a: Any, b: Any) -> bool:
    if a is None and isinstance(b, np.ndarray):  # the SDK takes no numbers for none asked for
        return b.size == 0
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_value, a, b))
    if dataclasses.is_dataclass(a) and hasattr(a, "to_numpy"):
        sparse = (a.sparse_crow_indices, a.sparse_col_indices)
        return sparse == (b.sparse_crow_indices, b.sparse_col_indices) and same_value(
            np.array(a.data), np.array(b.data)
        )
    if dataclasses.is_dataclass(a) and hasattr(a, "token_ids"):
        return same_value(a.token_ids, b.token_ids) and same_value(a.logprobs, b.logprobs)
    return same(a, b) if dataclasses.is_dataclass(a) else bool(a == b)


DENSE = {"data": [5, -1, 7, 8], "dtype": "int64", "shape": [4, 1]}
SPARSE = {
    "data": [5, 6, 7],
    "dtype": "int64",
    "shape": [4, 2],
    "sparse_crow_indices": [0, 2, 2, 2, 3],
    "sparse_col_indices": [0, 1, 1],
}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_samples": 5},
        {"include_prompt_logprobs": True},
        {"include_prompt_logprobs": True, "prompt_logprobs_last_n": 2, "topk_prompt_logprobs": 3},
        {"topk_prompt_logprobs": 3, "topk_sample_logprobs": 2},
        {"prompt_alt_tokens_k": 3},
        {"target_prompt_logprobs": DENSE},
        {"target_prompt_logprobs": SPARSE, "include_prompt_logprobs": True, "prompt_alt_tokens_k": 1},
    ],
)
def test_every_argument_of_sample(client: Any, here: SamplingClient, arguments: dict[str, Any]) -> None:
    theirs, ours = dict(arguments), dict(arguments)
    if targets := arguments.get("target_prompt_logprobs"):
        theirs["target_prompt_logprobs"] = tinker.TensorData(**targets)
        ours["target_prompt_logprobs"] = TensorData(**targets)
    n = theirs.pop("num_samples", 1), ours.pop("num_samples", 1)
    if new := theirs.keys() - inspect.signature(client.sample).parameters.keys():
        pytest.skip(f"tinker {tinker.__version__} has no {', '.join(new)}")
    params = {"max_tokens": 8, "seed": 11, "temperature": 1.2, "top_k": 50, "top_p": 0.95}
    found = client.sample(
        tinker.ModelInput.from_ints(TOKENS), n[0], tinker.SamplingParams(**params), **theirs
    ).result()
    expected = here.sample(ModelInput.from_ints(TOKENS), n[1], SamplingParams(**params), **ours).result()
    assert same(found, expected)
    if hasattr(found.sequences[0], "sequence_id"):  # not in 0.25
        assert len({sequence.sequence_id for sequence in found.sequences}) == n[0]


@pytest.mark.parametrize("stop", [None, [], "a", ["b", "c"], [65, 66]])
@pytest.mark.parametrize("max_tokens", [0, 1, 30, None])
def test_stops_and_lengths(client: Any, here: SamplingClient, stop: Any, max_tokens: int | None) -> None:
    params: Any = {"max_tokens": max_tokens, "seed": 3, "stop": stop, "temperature": 2.0}
    if max_tokens == 0:
        params["stop"] = None
    found = client.sample(tinker.ModelInput.from_ints(TOKENS), 2, tinker.SamplingParams(**params)).result()
    assert same(found, here.sample(ModelInput.from_ints(TOKENS), 2, SamplingParams(**params)).result())


def test_compute_logprobs(client: Any, here: SamplingClient) -> None:
    found = client.compute_logprobs(tinker.ModelInput.from_ints(TOKENS)).result()
    assert found == here.compute_logprobs(ModelInput.from_ints(TOKENS)).result()
    assert found[0] is None


def test_several_chunks(client: Any, here: SamplingClient) -> None:
    chunked = tinker.ModelInput.from_ints(TOKENS[:2]).append_int(3)
    chunked = chunked.append(tinker.EncodedTextChunk(tokens=TOKENS[3:]))
    found = client.sample(chunked, 1, tinker.SamplingParams(max_tokens=4, seed=1)).result()
    expected = here.sample(ModelInput.from_ints(TOKENS), 1, SamplingParams(max_tokens=4, seed=1))
    assert same(found, expected.result())


def test_checkpoints(remote: Any, service: ServiceClient) -> None:
    expected = service.create_sampling_client(CHECKPOINT).compute_logprobs(ModelInput.from_ints(TOKENS))
    for names in ({"model_path": CHECKPOINT}, {"model_path": CHECKPOINT, "base_model": TINY}):
        client = opened(remote, **names)
        assert client.get_base_model() == TINY
        found = client.compute_logprobs(tinker.ModelInput.from_ints(TOKENS)).result()
        assert found == expected.result()


def test_many_at_once(client: Any, here: SamplingClient) -> None:
    async def theirs() -> list[Any]:
        prompts = [tinker.ModelInput.from_ints([1, n % 100]) for n in range(300)]
        params = [tinker.SamplingParams(max_tokens=3, seed=n) for n in range(300)]
        return await asyncio.gather(
            *[client.sample_async(p, 1, s) for p, s in zip(prompts, params, strict=True)]
        )

    found = asyncio.run(theirs())
    for n in range(0, 300, 37):
        params = SamplingParams(max_tokens=3, seed=n)
        assert same(found[n], here.sample(ModelInput.from_ints([1, n % 100]), 1, params).result())


def child(pickled: bytes, handle: str) -> list[Any]:
    """Sample in a process that was spawned; see below."""
    prompt = tinker.ModelInput.from_ints(TOKENS)
    clients = [pickle.loads(pickled), tinker.SamplingClient.from_sampler_handle(handle, api_key=KEY)]
    params = tinker.SamplingParams(max_tokens=4, seed=5)
    answers = [client.sample(prompt, 1, params).result().sequences[0] for client in clients]
    return [(answer.tokens, answer.logprobs) for answer in answers]


@since("0.33")
def test_pickles_and_handles_in_a_spawned_process(client: Any, here: SamplingClient) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(child, (pickle.dumps(client), client.get_sampler_handle()))
    params = SamplingParams(max_tokens=4, seed=5)
    expected = here.sample(ModelInput.from_ints(TOKENS), 1, params).result().sequences[0]
    assert found == [(expected.tokens, expected.logprobs)] * 2


def test_a_server_that_was_started_again(service: ServiceClient, here: SamplingClient) -> None:
    """Its address stays; sessions of the one before go on, and unfinished requests are sent again."""
    first = Server(app(service), drain_seconds=1).start()
    remote = tinker.ServiceClient(base_url=first.url, api_key=KEY)
    client = opened(remote, base_model=TINY)
    prompt, params = ModelInput.from_ints(TOKENS), SamplingParams(max_tokens=300, stop=[], seed=9)
    futures = [
        client.sample(
            tinker.ModelInput.from_ints(TOKENS),
            8,
            tinker.SamplingParams(**params.model_dump(include={"max_tokens", "stop", "seed"})),
        )
        for _ in range(4)
    ]
    client.compute_logprobs(tinker.ModelInput.from_ints(TOKENS)).result()
    first.stop()
    with Server(app(service), port=first.port, drain_seconds=1):
        for future in futures:
            assert same(future.result(timeout=120), here.sample(prompt, 8, params).result())


@since("0.27")
def test_cancellation_reaches_the_engine(client: Any, service: ServiceClient) -> None:
    before = service.get_telemetry().counters
    params = tinker.SamplingParams(max_tokens=400, stop=[])
    future = client.sample(tinker.ModelInput.from_ints(TOKENS), 300, params)
    wait_until(lambda: service.get_telemetry().counters.requests > before.requests)
    time.sleep(0.2)  # the SDK cancels what it polls for
    future.cancel()
    wait_until(lambda: service.get_telemetry().counters.cancelled > before.cancelled)


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_queue_states(service: ServiceClient, monkeypatch: pytest.MonkeyPatch) -> None:
    may_load, open_it = threading.Event(), ServiceClient.create_sampling_client

    def slowly(self: ServiceClient, *args: Any, **kwargs: Any) -> SamplingClient:
        may_load.wait(30)
        return open_it(self, *args, **kwargs)

    monkeypatch.setattr(ServiceClient, "create_sampling_client", slowly)
    seen: list[tuple[str, str | None]] = []
    with Server(app(service), drain_seconds=1) as server:
        remote = tinker.ServiceClient(base_url=server.url, api_key=KEY)
        client = opened(remote, base_model=TINY)
        client.on_queue_state_change = lambda state, reason: seen.append((state.value, reason))
        future = client.compute_logprobs(tinker.ModelInput.from_ints(TOKENS))
        wait_until(lambda: seen)
        may_load.set()
        assert future.result()[0] is None
    assert seen[0] == ("paused_capacity", "loading the model")
    assert seen[1:] in ([("active", None)], [])  # SDKs before 0.38 do not tell the latter


def test_errors(client: Any, remote: Any) -> None:
    prompt, params = tinker.ModelInput.from_ints([10**6]), tinker.SamplingParams(max_tokens=1)
    began = time.monotonic()
    with pytest.raises(tinker.BadRequestError, match="the vocabulary has ids 0 to 399"):
        client.sample(prompt, 1, params).result()
    with pytest.raises(tinker.NotFoundError, match="there are: "):
        opened(remote, base_model="No/Such")
    with pytest.raises(tinker.BadRequestError, match="belongs to Tinker's service"):
        remote.create_lora_training_client(base_model=TINY).result()
    assert time.monotonic() - began < 20


def test_a_failed_request_is_told_at_once(service: ServiceClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> SamplingClient:
        raise MemoryError("no room")

    monkeypatch.setattr(ServiceClient, "create_sampling_client", fail)
    with Server(app(service), drain_seconds=1) as server:
        remote = tinker.ServiceClient(base_url=server.url, api_key=KEY)
        client = opened(remote, base_model=TINY)
        with pytest.raises(tinker.RequestFailedError, match="MemoryError: no room") as caught:
            client.compute_logprobs(tinker.ModelInput.from_ints(TOKENS)).result()
    assert caught.value.category.value == "server"


def test_records(remote: Any, client: Any) -> None:
    rest = remote.create_rest_client()
    models = remote.get_server_capabilities().supported_models
    assert {model.model_name: model.max_context_length for model in models}["Me/Tiny-F32"] == 2048
    (checkpoint,) = rest.list_user_checkpoints().result().checkpoints
    assert checkpoint.tinker_path == CHECKPOINT
    assert rest.list_checkpoints("run-1").result().checkpoints == [checkpoint]
    info = rest.get_weights_info_by_tinker_path(CHECKPOINT).result()
    assert (info.base_model, info.is_lora, info.lora_rank) == (TINY, True, 3)
    for run in (
        rest.get_training_run("run-1").result(),
        rest.get_training_run_by_tinker_path(CHECKPOINT).result(),
        *rest.list_training_runs().result().training_runs,
    ):
        assert (run.training_run_id, run.base_model, run.lora_rank) == ("run-1", TINY, 3)
    sampler = rest.get_sampler(client._sampling_session_id).result()
    assert (sampler.base_model, sampler.model_path) == (TINY, None)


# -- the SDK's source ---------------------------------------------------------------------------


def paths_of_the_sdk() -> set[str]:
    """Return every path that the SDK's code has, with ``x`` for what it fills in."""
    found = set[str]()
    for file in PACKAGE.rglob("*.py"):
        if file.stem.endswith("_test"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values]
                found.add("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    whole = {path for path in found if path.startswith("/api/v1/") and not path.endswith("/")}
    return {path for path in whole if " " not in path}


def test_the_sdk_calls_nothing_that_is_not_served(service: ServiceClient) -> None:
    paths = paths_of_the_sdk()
    assert len(paths) > 30
    routes = app(service).routes
    unknown = {
        path
        for path in paths
        if not any(
            match.value == 2
            for route in routes
            for method in ("GET", "POST", "PUT", "DELETE")
            for match, _ in [
                route.matches({"type": "http", "path": path, "method": method, "root_path": ""})
            ]
        )
    }
    assert not unknown


def test_the_sdk_sends_no_field_that_is_not_read() -> None:
    assert set(tinker.types.SampleRequest.model_fields) <= sampling._FIELDS
    assert set(tinker.SamplingParams.model_fields) <= sampling._PARAMS


@since("0.33")
def test_the_answer_has_every_field_that_the_sdk_knows() -> None:
    messages = pytest.importorskip("tinker.proto.tinker_public_pb2")
    known = {
        "SampleResponse": {
            "sequences": 1,
            "prompt_logprobs": 2,
            "topk_prompt_logprobs": 3,
            "prompt_cache_hit_tokens": 4,
            "target_prompt_logprobs": 5,
            "prompt_alt_tokens": 6,
        },
        "SampledSequence": {"stop_reason": 1, "tokens": 2, "logprobs": 3, "topk_sampled_logprobs": 4},
        "TopkLogprobs": {"token_ids": 1, "logprobs": 2, "k": 3, "length": 4},
        "PromptAltTokens": {"tokens": 1, "logprobs": 2},
    }
    for name, fields in known.items():
        assert {
            f.name: f.number for f in getattr(messages, name).DESCRIPTOR.fields
        }.items() <= fields.items()
    assert dict(messages.SampleResponse.DESCRIPTOR.file.enum_types_by_name) is not None
    parsed = messages.SampleResponse.FromString(
        bytes.fromhex("0a1608011208010000002c0100001a08000000bf000000c012080000c07f000080bf20ac02")
    )
    assert (parsed.sequences[0].stop_reason, parsed.prompt_cache_hit_tokens) == (1, 300)
    assert protobuf.MEDIA_TYPE == "application/x-protobuf"
