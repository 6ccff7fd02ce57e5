"""Memory stays near a block of rows, whatever the size of the tensors."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from convert.architectures import Target
from convert.gguf_output import GgufOutput, Planned
from convert.safetensors_file import read_tensors
from tests.random_checkpoints.plain import CONFIG, write_llama, write_raw

SHAPE = (1 << 15, 1 << 10)
N_BYTES = 2 << 25  # of a bfloat16 tensor of this shape
ROOM = 24 << 20

PEAK = """
import resource, sys
from convert.convert import convert_checkpoint
import convert.architectures.llama, convert.vocabulary
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert_checkpoint(sys.argv[1], sys.argv[2], outtype=sys.argv[3], verify=False)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_zeros(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write bfloat16 zeros: a hole, where the file system knows them."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    write_raw(path, text, b"")
    with path.open("r+b") as file:
        file.truncate(8 + len(text) + end)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0])
def test_arrays(tmp_path: Path, kind: Kind) -> None:
    write_zeros(tmp_path / "x.safetensors", {"x": SHAPE})
    tensors = read_tensors(tmp_path / "x.safetensors")
    target = Target("x", SHAPE, ("x",), lambda: iter([tensors["x"].array()]), is_matrix=True)
    output = GgufOutput.plan({"general.architecture": "llama"}, [Planned(target, kind)])
    output.write_heads([tmp_path / "x.gguf"])
    tracemalloc.start()
    output.write_data([tmp_path / "x.gguf"], tensors, lambda n: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < N_BYTES / 4


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize("outtype", ["f32", "bf16", "q8_0"])
def test_the_whole_process(tmp_path: Path, outtype: str) -> None:
    hidden, inner = SHAPE[1], SHAPE[0]
    settings = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 2}
    tiny = write_llama(tmp_path / "tiny", intermediate_size=7)  # for its other files
    sizes = {64: hidden, 7: inner, 32: hidden // 2, CONFIG["vocab_size"]: CONFIG["vocab_size"]}
    shapes = {name: tuple(sizes[n] for n in array.shape) for name, array in tiny.items()}
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(CONFIG | settings))
    write_zeros(tmp_path / "tiny" / "model.safetensors", shapes)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "tiny"), str(tmp_path / "x.gguf"), outtype]
    before, peak = map(int, subprocess.run(command, check=True, capture_output=True).stdout.split())
    assert (tmp_path / "x.gguf").stat().st_size > 3 * N_BYTES
    assert (peak - before) * 1024 < ROOM
