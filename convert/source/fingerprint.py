"""A hash of the weights that a file was made from. It does not depend on the file's type or the shards."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from convert.source.tensor import SourceTensor

_CHUNK = 1 << 20  # bytes read at once


class Fingerprint:
    """SHA-256 over the tensors that are given to it, computed on a thread of its own.

    It is the SHA-256 of one line a tensor, sorted by name: ``NAME DTYPE SHAPE SHA-256-OF-ITS-BYTES``,
    the shape as ``4096x1024``. Names, formats and bytes are those of the checkpoint; tensors that do
    not go into the file are not part of it.
    """

    LENGTH = 64
    """Hexadecimal digits of the hash."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "fingerprint")
        self._lines: dict[str, Future[str]] = {}

    def __enter__(self) -> Fingerprint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, tensor: SourceTensor) -> None:
        """Hash a tensor in the background; a tensor that is given twice counts once."""
        if tensor.name not in self._lines:
            self._lines[tensor.name] = self._thread.submit(_line, tensor)

    def wait(self) -> None:
        """Wait until the tensors so far are hashed, while the page cache still holds them."""
        for line in reversed(self._lines.values()):
            line.result()
            break  # there is one thread: the others are done before it

    def digest(self) -> str:
        """Return the hash of all tensors."""
        lines = [self._lines[name].result() for name in sorted(self._lines)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _line(tensor: SourceTensor) -> str:
    data, buffer = hashlib.sha256(), bytearray(_CHUNK)
    view, left = memoryview(buffer), tensor.n_bytes
    with tensor.file.open("rb", buffering=0) as file:
        file.seek(tensor.offset)
        while left:
            n = file.readinto(view[: min(left, _CHUNK)])
            if not n:
                raise OSError(f"{tensor.file} has become shorter while it was read")
            data.update(view[:n])
            left -= n
    shape = "x".join(map(str, tensor.shape))
    return f"{tensor.name} {tensor.dtype} {shape} {data.hexdigest()}\n"
