"""``asample`` and ``retrieve_future``: the answers are those of the client in this process."""

from __future__ import annotations

from typing import Any

from tests.serve.caller import Caller
from tests.serve.conftest import TINY
from tinker_local import ModelInput, SamplingClient, SamplingParams
from tinker_local.serve.tinker_api.protobuf import encode_response


def open_session(caller: Caller, **model: str) -> str:
    session = caller.post("/api/v1/create_session", {"tags": [], "sdk_version": "0.38.0"}).json()[
        "session_id"
    ]
    asked = {"session_id": session, "sampling_session_seq_id": 0, **(model or {"base_model": TINY})}
    return str(caller.post("/api/v1/create_sampling_session", asked).json()["sampling_session_id"])


def sample(caller: Caller, session: str, seq_id: int, tokens: list[int], **fields: Any) -> Any:
    body = {
        "sampling_session_id": session,
        "seq_id": seq_id,
        "num_samples": 1,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": tokens}]},
        "sampling_params": {"max_tokens": 4, "temperature": 1.0, "top_k": -1, "top_p": 1.0, "seed": 7},
        "type": "sample",
    }
    return caller.post("/api/v1/asample", body | fields)


def test_a_sample_is_that_of_the_client_in_this_process(
    caller: Caller, tiny_client: SamplingClient
) -> None:
    session = open_session(caller)
    accepted = sample(caller, session, 0, [1, 2, 3], num_samples=2, prompt_logprobs=True).json()
    assert accepted["sample_sequence_ids"] == [f"{session}.0.0", f"{session}.0.1"]
    answer = caller.post("/api/v1/retrieve_future", {"request_id": accepted["request_id"]})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-protobuf"
    params = SamplingParams(max_tokens=4, seed=7)
    expected = tiny_client.sample(ModelInput.from_ints([1, 2, 3]), 2, params, include_prompt_logprobs=True)
    assert answer.body == encode_response(expected.result())
