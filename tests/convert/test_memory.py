"""Memory stays near a block of rows, whatever the size of the tensors."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind

from convert.gguf.output import GgufOutput, StoredTensor
from convert.gguf.target import Target
from convert.source.safetensors_file import read_tensors
from tests.convert.conftest import LARGE
from tests.long import few
from tests.random_checkpoints.plain import write_zeros

N_BYTES = 2 << 25  # of a bfloat16 tensor of this shape
ROOM = 24 << 20

PEAK = """
import sys
from tests.peak_memory import peak_bytes
from convert.convert import convert_checkpoint
import convert.architectures.llama, convert.vocabularies.vocabulary
before = peak_bytes()
convert_checkpoint(sys.argv[1], sys.argv[2], outtype=sys.argv[3], verify=False)
print(peak_bytes() - before)
"""


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0])
def test_arrays(tmp_path: Path, kind: Kind) -> None:
    write_zeros(tmp_path / "x.safetensors", {"x": LARGE})
    tensors = read_tensors(tmp_path / "x.safetensors")
    target = Target("x", LARGE, ("x",), lambda: iter([tensors["x"].array()]), is_matrix=True)
    output = GgufOutput.plan({"general.architecture": "llama"}, [StoredTensor(target, kind)])
    output.write_heads([tmp_path / "x.gguf"])
    tracemalloc.start()
    output.write_data([tmp_path / "x.gguf"], tensors, lambda n: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < N_BYTES / 4


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize("outtype", few(1, ["q8_0", "f32", "bf16"]))
def test_the_whole_process(large: Path, tmp_path: Path, outtype: str) -> None:
    command = [sys.executable, "-c", PEAK, str(large), str(tmp_path / "x.gguf"), outtype]
    growth = int(subprocess.run(command, check=True, capture_output=True).stdout)
    assert (tmp_path / "x.gguf").stat().st_size > 3 * N_BYTES
    assert growth < ROOM
