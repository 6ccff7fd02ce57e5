"""What Tinker's SDK asks besides samples: configuration, models, checkpoints, what is Tinker's alone."""

from __future__ import annotations

import json

import pytest

from tests.serve.caller import Caller
from tests.serve.tinker_calls import open_session
from tests.serve.tiny_store import CHECKPOINT, TINY


def test_configuration(caller: Caller) -> None:
    assert caller.post("/api/v1/client/config", {"sdk_version": "0.38.0"}).json() == {
        "sample_max_concurrent_requests": 2000
    }
    dynamic = caller.post("/api/v1/client/dynamic_config", {"sdk_version": "0.38.0"})
    assert dynamic.json() == {"sample_cancel_enabled": True}
    assert caller.post("/api/v1/session_heartbeat", {"session_id": "x"}).status == 200
    assert caller.post("/api/v1/sessions/x/finish", {"reason": {"type": "success"}}).status == 200


def test_capabilities(caller: Caller) -> None:
    models = caller.get("/api/v1/get_server_capabilities").json()["supported_models"]
    assert {
        "model_name": "Me/Tiny-F32",
        "max_context_length": 2048,
        "trainable": False,
        "sampleable": True,
    } in models
    assert not {"lora", "SmolLM2-135M-Instruct"} & {model["model_name"] for model in models}


def test_samplers(caller: Caller) -> None:
    for asked, base, path in (
        ({"base_model": TINY}, TINY, None),
        ({"model_path": CHECKPOINT}, TINY, CHECKPOINT),
        ({"model_path": CHECKPOINT, "base_model": "Tiny-F32"}, "Tiny-F32", CHECKPOINT),
        ({"base_model": "lora"}, TINY, None),
    ):
        session = open_session(caller, **asked)
        answer = caller.get(f"/api/v1/samplers/{session}").json()
        assert answer == {"sampler_id": session, "base_model": base, "model_path": path}


def test_checkpoints_and_training_runs(caller: Caller) -> None:
    found = caller.get("/api/v1/checkpoints?limit=5&offset=0").json()
    assert found["cursor"] == {"offset": 0, "limit": 5, "total_count": 1}  # no files of this machine
    (checkpoint,) = found["checkpoints"]
    assert (checkpoint["tinker_path"], checkpoint["checkpoint_type"]) == (CHECKPOINT, "sampler")
    of_run = caller.get("/api/v1/training_runs/run-1/checkpoints").json()
    assert of_run["checkpoints"] == [checkpoint]
    run = caller.get("/api/v1/training_runs/run-1").json()
    known = {name: run[name] for name in ("training_run_id", "base_model", "is_lora", "lora_rank")}
    assert known == {"training_run_id": "run-1", "base_model": TINY, "is_lora": True, "lora_rank": 3}
    assert run["last_sampler_checkpoint"] == checkpoint
    assert caller.get("/api/v1/training_runs").json()["training_runs"] == [run]
    assert caller.get("/api/v1/training_runs?offset=1").json()["training_runs"] == []
    assert caller.get("/api/v1/training_runs/run-2").status == 404
    assert caller.get("/api/v1/training_runs?limit=-1").status == 400
    info = caller.post("/api/v1/weights_info", {"tinker_path": CHECKPOINT}).json()
    assert info == {"base_model": TINY, "is_lora": True, "lora_rank": 3}


@pytest.mark.parametrize(
    "asked",
    [
        {"base_model": "/etc/passwd"},
        {"base_model": "../../etc/passwd"},
        {"base_model": "~/x"},
        {"base_model": "tests"},  # a directory here
        {"base_model": "README.md"},
        {"base_model": "a/b/c"},
        {"base_model": ".gguf"},
        {"base_model": "Me/../Me/Tiny-F32"},
        {"base_model": "tinker://run-1/sampler_weights/0007"},
        {"model_path": "tinker://run-1/sampler_weights/8"},
        {"model_path": "tinker://../../x"},
        {"model_path": "Me/Tiny", "base_model": "Me/Tiny"},
    ],
)
def test_what_is_not_in_the_store_is_not_found(caller: Caller, asked: dict[str, str]) -> None:
    body = {"session_id": "s", "sampling_session_seq_id": 0, **asked}
    answer = caller.post("/api/v1/create_sampling_session", body)
    assert answer.status in (400, 404)
    assert "directory" not in answer.json()["error"]["message"]
    if answer.status == 404:
        assert "there are: lora, Me/Tiny-F32" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "name", ["Tiny", "me/tiny", "Me/Tiny-F32", "Tiny-F32.gguf", "Me/Tiny:F32", "Me/Tiny:peft:8"]
)
def test_names_of_one_model(caller: Caller, name: str) -> None:
    assert open_session(caller, base_model=name)


def test_telemetry_is_counted_and_forgotten(caller: Caller) -> None:
    events = [{"event": "SESSION_START"}, {"event": 'x"} 1\nfake 2'}, 7]
    answer = caller.post("/api/v1/telemetry", {"events": events})
    assert answer.json() == {"status": "accepted"}
    text = caller.get("/metrics").body.decode()
    assert 'tinker_local_client_events_total{kind="SESSION_START"} 1' in text
    assert 'tinker_local_client_events_total{kind="other"} 2' in text
    assert "fake" not in text
    assert 'http_answers_total{route="/api/v1/telemetry",status="200"}' in text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "create_model"),
        ("POST", "forward_backward"),
        ("POST", "save_weights_for_sampler"),
        ("GET", "sessions"),
        ("PUT", "sessions/x/project"),
        ("DELETE", "training_runs/run-1/checkpoints/0007"),
        ("GET", "billing/usage/events"),
        ("POST", "auth/token"),
        ("GET", "whoami"),
    ],
)
def test_training_is_tinkers(caller: Caller, method: str, path: str) -> None:
    answer = caller.begin(method, f"/api/v1/{path}").result(10)
    assert answer.status == 400
    assert "belongs to Tinker's service" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"[" * 100_000, json.dumps("x").encode()])
def test_bodies_that_are_no_objects(caller: Caller, body: bytes) -> None:
    for path in ("asample", "retrieve_future", "create_sampling_session", "telemetry", "cancel_future"):
        assert caller.post(f"/api/v1/{path}", body).status == 400


def test_unknown_paths(caller: Caller) -> None:
    answer = caller.get("/api/v1/nothing")
    assert answer.status == 404
    assert answer.json()["error"]["message"] == "GET /api/v1/nothing: Not Found"
    assert caller.get("/api/v1/asample").status == 405
