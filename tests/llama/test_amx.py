"""llama.cpp must not use AMX, since some builds of it end the process there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tinker_local.llama import amx

needs_amx = pytest.mark.skipif(not amx._is_built_in(), reason="this llama.cpp was built without AMX")

START = (
    "from tinker_local.llama.backend import start_backend; avoids = start_backend().avoids_extra_buffers; "
)
SAY = START + "from tinker_local.llama import amx; print(amx._buffer_kinds(), avoids)"
LIST = "from tinker_local.llama.devices import devices; devices(); "
DESCRIBE = "from tinker_local.llama.build import build; build(); "
ASK = "import ctypes; assert ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0; "  # arch_prctl: may use AMX
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


@needs_amx
@pytest.mark.parametrize("first", ["", LIST, DESCRIBE], ids=["start", "devices", "build"])
def test_llama_cpp_gets_no_permission(first: str) -> None:
    assert said(first + SAY) == ["['CPU_REPACK'] False"]


@needs_amx
def test_where_the_process_has_permission_extra_buffers_are_avoided() -> None:
    [kinds, n_scored] = said(ASK + SAY + COMPUTE)
    assert "AMX" in kinds
    assert kinds.endswith("True")
    assert n_scored == "3"


@needs_amx
def test_our_kernels_get_permission_unless_linux_refuses() -> None:
    path = "from tinker_local import kernels; print(kernels.request_amx(), kernels.simd_path())"
    assert said(START + path) == ["True amx"]
    refused = "from tinker_local.llama import amx\nwith amx._small_signal_stack(): start_backend()\n"
    assert said("from tinker_local.llama.backend import start_backend; " + refused + path) == [
        "False avx512"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="AMX is asked for on Linux alone")
def test_standard_error_is_as_it_was() -> None:
    program = (
        "import os; from tinker_local.llama import amx; os.write(2, b'before')\n"
        "with amx._no_standard_error(): os.write(2, b'within')\n"
        "os.write(2, b'after'); print(len(os.listdir('/proc/self/fd')))\n"
        "with amx._no_standard_error(): pass\n"
        "print(len(os.listdir('/proc/self/fd')))\n"
        "os.close(2)\n"
        "with amx._no_standard_error(): pass"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (child.returncode, child.stderr) == (0, "beforeafter")
    first, second = child.stdout.split()
    assert first == second, "no descriptor is left open"


@pytest.mark.skipif(sys.platform != "linux", reason="AMX is asked for on Linux alone")
def test_signal_stack_is_as_it_was() -> None:
    stack = amx._Stack()
    with amx._small_signal_stack():
        pass
    assert amx.ctypes.CDLL(None).sigaltstack(None, amx.ctypes.byref(stack)) == 0
    assert stack.size != amx._SMALL
