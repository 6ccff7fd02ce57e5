"""Who waits is said."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.random_model import write_random_model
from tinker_local import ModelInput, QueueState, QueueStateObserver, SamplingParams, ServiceClient


class Observer(QueueStateObserver):
    def __init__(self) -> None:
        self.seen: list[tuple[QueueState, str | None]] = []
        self.active_again = threading.Event()

    def on_queue_state_change(self, queue_state: QueueState, queue_state_reason: str | None) -> None:
        self.seen.append((queue_state, queue_state_reason))
        if queue_state is QueueState.ACTIVE:
            self.active_again.set()
        raise RuntimeError("hurts nobody")


def test_an_observer_is_told_when_requests_wait(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "tiny.gguf")
    client = ServiceClient(n_ctx=256).create_sampling_client(base_model=str(path))
    observer = Observer()
    client._engine.observe(observer)
    prompt, params = ModelInput.from_ints([7] * 150), SamplingParams(max_tokens=50, stop=[])
    futures = [client.sample(prompt, 2, params) for _ in range(4)]
    for future in futures:
        future.result()
    client.sample(prompt, 1, SamplingParams(max_tokens=2)).result()
    assert observer.active_again.wait(10)
    state, reason = observer.seen[0]
    assert state is QueueState.PAUSED_CAPACITY
    assert reason is not None
    assert "wait for room" in reason
    assert observer.seen[-1] == (QueueState.ACTIVE, None)
