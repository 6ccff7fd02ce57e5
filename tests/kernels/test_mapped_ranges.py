"""Memory of a file that becomes shorter: zeros where it is registered; all else is left to others."""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tinker_local.kernels import MappedRange

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot become shorter there")

PAGE = mmap.PAGESIZE
sanitized = pytest.mark.skipif(
    "TINKER_LOCAL_KERNELS" in os.environ, reason="sanitizers have a handler of their own"
)


class Mapped:
    """A file of four pages of ones, mapped."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"\1" * 4 * PAGE)
        self.path = path
        with path.open("rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes: NDArray[np.uint8] = np.frombuffer(self.memory, np.uint8)
        self.begin = self.bytes.ctypes.data

    def protect(self) -> MappedRange:
        return MappedRange(self.begin, self.begin + 4 * PAGE)


@pytest.fixture
def mapped(tmp_path: Path) -> Mapped:
    return Mapped(tmp_path / "file")


@pytest.fixture
def protected(mapped: Mapped) -> Iterator[MappedRange]:
    place = mapped.protect()
    yield place
    place.forget()


def test_what_is_gone_is_zeros(mapped: Mapped, protected: MappedRange, tmp_path: Path) -> None:
    other = Mapped(tmp_path / "other")
    beside = other.protect()
    assert mapped.bytes.sum() == 4 * PAGE
    os.truncate(mapped.path, PAGE + 5)
    assert not protected.is_lost, "nobody has read it"
    assert mapped.bytes[PAGE : PAGE + 5].tolist() == [1] * 5
    assert not protected.is_lost
    assert mapped.bytes[3 * PAGE] == 0
    assert protected.is_lost
    assert mapped.bytes.sum() == PAGE + 5
    assert (beside.is_lost, int(other.bytes.sum())) == (False, 4 * PAGE)
    beside.forget()


def test_a_range_that_is_registered_again(mapped: Mapped, protected: MappedRange) -> None:
    os.truncate(mapped.path, 0)
    assert mapped.bytes.sum() == 0
    assert protected.is_lost
    protected.forget()
    assert not protected.is_lost
    again = mapped.protect()
    assert not again.is_lost
    again.forget()
    again.forget()


def test_there_is_an_end_of_ranges() -> None:
    places = [MappedRange(PAGE * 2 * n, PAGE * (2 * n + 1)) for n in range(1, 1100)]
    assert not any(place.is_lost for place in places)
    for place in places:
        place.forget()


def end_of_child(work: Callable[[], object]) -> int:
    """Return how a forked process ends: its exit code, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@sanitized
@pytest.mark.parametrize("order", ["below", "above", "above and below", "none"])
def test_other_memory_is_left_to_others(mapped: Mapped, tmp_path: Path, order: str) -> None:
    """faulthandler reports, and the process ends by the signal, whoever was there first."""
    strange, report = Mapped(tmp_path / "strange"), tmp_path / "report"
    for each in (mapped, strange):
        os.truncate(each.path, 0)

    def read() -> None:
        faulthandler.disable()
        if order == "below":
            faulthandler.enable(report.open("w"))
        place = mapped.protect()
        if order.startswith("above"):
            faulthandler.enable(report.open("w"))
        if order == "above and below":
            place.renew()
        if order != "above":  # faulthandler knows no addresses: what comes first to it is an end
            assert mapped.bytes.sum() == 0
        (tmp_path / "so far so good").touch()
        strange.bytes.sum()

    assert end_of_child(read) == -signal.SIGBUS
    assert (tmp_path / "so far so good").exists()
    assert (report.exists() and "Bus error" in report.read_text()) == (order != "none")


@sanitized
def test_a_handler_that_was_removed_is_renewed(mapped: Mapped) -> None:
    os.truncate(mapped.path, 0)

    def read() -> None:
        place = mapped.protect()
        faulthandler.disable()
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        place.renew()
        assert mapped.bytes.sum() == 0

    assert end_of_child(read) == 0


@sanitized
def test_a_signal_that_somebody_sends_is_no_fault(mapped: Mapped) -> None:
    def send() -> None:
        faulthandler.disable()
        mapped.protect()
        os.kill(os.getpid(), signal.SIGBUS)

    assert end_of_child(send) == -signal.SIGBUS
