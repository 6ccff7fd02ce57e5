"""What Tinker's SDK sends."""

from __future__ import annotations

from typing import Any

from tests.serve.caller import Answer, Caller
from tests.serve.tiny_store import TINY


def open_session(caller: Caller, **model: Any) -> str:
    """Return the id of a new sampling session."""
    session = caller.post("/api/v1/create_session", {"tags": [], "sdk_version": "0.38.0"}).json()
    asked = {"session_id": session["session_id"], "sampling_session_seq_id": 0}
    asked |= model or {"base_model": TINY}
    return str(caller.post("/api/v1/create_sampling_session", asked).json()["sampling_session_id"])


def sample_body(session: str, seq_id: int, tokens: list[int], /, **fields: Any) -> dict[str, Any]:
    params = {"max_tokens": 4, "temperature": 1.0, "top_k": -1, "top_p": 1.0, "seed": 7}
    return {
        "sampling_session_id": session,
        "seq_id": seq_id,
        "num_samples": 1,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": tokens}]},
        "sampling_params": params,
        "prompt_logprobs": False,
        "topk_prompt_logprobs": 0,
        "topk_sample_logprobs": 0,
        "prompt_alt_tokens_k": 0,
        "record_stability_info": False,
        "type": "sample",
    } | fields


def sample(caller: Caller, session: str, seq_id: int, tokens: list[int], /, **fields: Any) -> Answer:
    return caller.post("/api/v1/asample", sample_body(session, seq_id, tokens, **fields))


def retrieve(caller: Caller, request_id: str) -> Answer:
    """Ask for an answer until it is there."""
    while (answer := poll(caller, request_id)).status == 408:
        pass
    return answer


def poll(caller: Caller, request_id: str) -> Answer:
    return caller.post("/api/v1/retrieve_future", {"request_id": request_id, "allow_metadata_only": False})
