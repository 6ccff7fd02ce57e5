"""Files that weights are mapped from: whether they were written to, or lost, since they were opened.

A file that was deleted, or replaced by another of its name, does no harm: the mapped one exists as long as
it is mapped. A file that is written to in place does: weights would change during the computation. Where it
becomes shorter, or its disk fails, reading it would end the process (SIGBUS). On Linux the kernels give
zeros instead (``kernels.MappedRange``), and what was computed with them is thrown away.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinker_local.errors import RequestFailedError
from tinker_local.kernels import MappedRange


class MappedFiles:
    """Files that are mapped. Open descriptors identify them, whatever happens to their names."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [(path, os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))) for path in paths]
        self.close = weakref.finalize(self, _close, [descriptor for _, descriptor in self._files])
        self._states = [_state(descriptor) for _, descriptor in self._files]
        self._ranges: list[MappedRange] = []

    @property
    def n_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(size for _, size in self._states)

    @property
    def is_lost(self) -> bool:
        """Whether some of what is mapped could not be read."""
        return any(range.is_lost for range in self._ranges)

    def protect(self) -> None:
        """Have what is mapped now read as zeros where it can no longer be read; on Linux."""
        self._ranges = [MappedRange(*place) for place in _places([d for _, d in self._files])]

    def unprotect(self) -> None:
        """End this; to be called before the files are unmapped."""
        for range in self._ranges:
            range.forget()

    def check(self) -> None:
        """Check that nobody has written to them, and that they could be read; takes some microseconds.

        Raises:
            RequestFailedError: somebody has, or they could not; the message names the file.
        """
        for range in self._ranges:
            range.renew()
        for (path, descriptor), state in zip(self._files, self._states, strict=True):
            if _state(descriptor) != state:
                raise RequestFailedError(
                    f"{path} was written to after it was opened (it had {state[1]:,} bytes and has "
                    f"{_state(descriptor)[1]:,}), and cannot be used any more; call create_sampling_client "
                    "again. To replace a file safely, write another and rename it"
                )
        if self.is_lost:
            raise RequestFailedError(
                f"{self._files[0][0]} could not be read while it was in use; check its disk, then call "
                "create_sampling_client again"
            )

    def check_read(self) -> None:
        """Check that what was just computed could be read from the files; takes less than a microsecond.

        Raises:
            RequestFailedError: it could not; see ``check``.
        """
        if self.is_lost:
            self.check()


def _state(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_mtime_ns, status.st_size


def _places(descriptors: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where this process has mapped files: first address, and the one behind the last."""
    if sys.platform != "linux":  # there is no list of them
        return
    names = {os.readlink(f"/proc/self/fd/{descriptor}") for descriptor in descriptors}
    # Each line: START-END PERMISSIONS OFFSET DEVICE INODE NAME, a line break in the name as \012.
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        place, *_, name = line.split(maxsplit=5)
        if name.replace("\\012", "\n") in names:
            start, _, end = place.partition("-")
            yield int(start, 16), int(end, 16)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
