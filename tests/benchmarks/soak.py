"""Mixed clients of ``tinker-local serve`` for a long time, at low load: does its memory stay flat?

    python -m tests.benchmarks.soak [--minutes N] [--model FILE]

Each round has what real clients do: samples and log-probabilities by Tinker's SDK, some of them cancelled;
streams, half of which are left in the middle; broken bodies; connections that are opened and never used;
every twentieth round 300 requests at a time. The server's resident set is printed once a minute. Without
``--model`` the model is tiny, so that most of the work is the server's. Needs the package ``tinker``.
"""

from __future__ import annotations

import argparse
import random
import socket
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tinker

from tests.benchmarks.serve import KEY, open_stream, resident_mb, serving
from tests.random_model import Shape, write_random_model

FLOOD = 300
EVERY = 20  # rounds between two floods
PAUSE = 0.3  # seconds between two rounds
LAST_TOKEN = 200  # of the tiny model's vocabulary


class Clients:
    """What clients do in a round; counts it."""

    def __init__(self, url: str, model: Path) -> None:
        self._url, self._model, self._dice = url, model, random.Random(0)
        service: Any = tinker.ServiceClient(base_url=url, api_key=KEY)
        self._client = service.create_sampling_client(base_model=model.stem).result()
        self._idle: list[socket.socket] = []
        self.done: Counter[str] = Counter()

    def round(self, number: int) -> None:
        self._sample(FLOOD if number % EVERY == 0 else self._dice.randrange(1, 6))
        self._stream(is_left=bool(number % 2))
        self._say_nonsense()
        self._idle = [*self._idle[-20:], self._connect()]  # the oldest is closed

    def _prompt(self) -> tinker.ModelInput:
        tokens = [self._dice.randrange(1, LAST_TOKEN) for _ in range(self._dice.randrange(1, 60))]
        return tinker.ModelInput.from_ints(tokens)

    def _sample(self, n: int) -> None:
        params = tinker.SamplingParams(max_tokens=self._dice.randrange(1, 40))
        futures = [self._client.sample(self._prompt(), 2, params) for _ in range(n)]
        scores = self._client.compute_logprobs(self._prompt())
        for future in futures[::7]:
            future.cancel()
        for future in futures:
            try:
                future.result()
                self.done["samples"] += 1
            except (CancelledError, tinker.TinkerError):
                self.done["cancelled"] += 1
        assert scores.result()[0] is None

    def _stream(self, *, is_left: bool) -> None:
        with open_stream(self._url, self._model, self._dice.randrange(100)) as connection:
            n_read = 0
            while part := connection.recv(4096):
                n_read += len(part)
                if is_left:
                    self.done["streams left"] += 1
                    return
        assert n_read
        self.done["streams"] += 1

    def _say_nonsense(self) -> None:
        body = self._dice.randbytes(self._dice.randrange(200))
        with self._connect() as connection:
            head = (
                f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)
            assert b" 400 " in connection.recv(4096)
        self.done["broken bodies"] += 1

    def _connect(self) -> socket.socket:
        address = urlsplit(self._url)
        return socket.create_connection((address.hostname, address.port))


def soak(model: Path, minutes: float) -> None:
    with serving(model) as (url, pid):
        clients, start, number = Clients(url, model), time.monotonic(), 0
        next_line = start
        while (now := time.monotonic()) < start + 60 * minutes:
            if now >= next_line:
                done = ", ".join(f"{n} {what}" for what, n in clients.done.items())
                print(f"{(now - start) / 60:5.1f} min {resident_mb(pid):7.1f} MB  {done}", flush=True)
                next_line += 60
            clients.round(number)
            number += 1
            time.sleep(PAUSE)
        print(
            f"{(time.monotonic() - start) / 60:5.1f} min {resident_mb(pid):7.1f} MB at the end", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--model", type=Path, help="GGUF file; default: a tiny random model")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    with tempfile.TemporaryDirectory() as directory:
        model = arguments.model or write_random_model(
            Path(directory) / "Tiny-F32.gguf", shape=Shape(n_layer=2)
        )
        soak(model, arguments.minutes)


if __name__ == "__main__":
    main()
