"""llama.cpp must not use AMX, since some builds of it end the process there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tinker_local.llama import amx

pytestmark = pytest.mark.skipif(not amx._is_built_in(), reason="this llama.cpp was built without AMX")

SAY = "from tinker_local.llama import amx; print(amx._buffer_kinds(), amx.has_to_avoid_extra_buffers)"
ASK = "import ctypes; assert ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0; "  # arch_prctl: leave for AMX
COMPUTE = (
    "; import tinker_local as t; service = t.ServiceClient(n_ctx=256)"
    "; c = service.create_sampling_client(base_model='SmolLM2-135M-Instruct')"
    "; print(len(c.compute_logprobs(t.ModelInput.from_ints([1, 2, 3])).result()))"
)


def said(program: str) -> list[str]:
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert not child.stderr
    return child.stdout.splitlines()


def test_llama_cpp_gets_no_leave() -> None:
    assert said(SAY) == ["['CPU_REPACK'] False"]


def test_where_the_process_has_leave_extra_buffers_are_avoided() -> None:
    [kinds, n_scored] = said(ASK + SAY + COMPUTE)
    assert "AMX" in kinds
    assert kinds.endswith("True")
    assert n_scored == "3"


def test_signal_stack_is_as_it_was() -> None:
    stack = amx._Stack()
    with amx._small_signal_stack():
        pass
    assert amx.ctypes.CDLL(None).sigaltstack(None, amx.ctypes.byref(stack)) == 0
    assert stack.size != amx._SMALL
