"""Whether the files that weights are mapped from were written to after they were opened.

A file that was deleted, or replaced by another of its name, does no harm: the mapped one exists as long as
it is mapped. A file that is written to in place does: weights would change during the computation. Where it
becomes shorter, the system would end the process (SIGBUS).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

from tinker_local.errors import RequestFailedError


class MappedFiles:
    """Files that are mapped. Open descriptors identify them, whatever happens to their names."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [(path, os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))) for path in paths]
        self.close = weakref.finalize(self, _close, [descriptor for _, descriptor in self._files])
        self._states = [_state(descriptor) for _, descriptor in self._files]

    @property
    def n_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(size for _, size in self._states)

    def check(self) -> None:
        """Check that nobody has written to them; takes some microseconds.

        Raises:
            RequestFailedError: somebody has; the message names the file.
        """
        for (path, descriptor), state in zip(self._files, self._states, strict=True):
            if _state(descriptor) != state:
                raise RequestFailedError(
                    f"{path} was written to after it was opened (it had {state[1]:,} bytes and has "
                    f"{_state(descriptor)[1]:,}), and cannot be used any more; call create_sampling_client "
                    "again. To replace a file safely, write another and rename it"
                )


def _state(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_mtime_ns, status.st_size


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
