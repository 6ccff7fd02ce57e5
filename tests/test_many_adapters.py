"""Ten adapters of one base in one process: the weights are in memory once."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.random_adapter import random_adapter
from tests.random_model import Shape, write_random_model

ROOT = Path(__file__).resolve().parents[1]
N_ADAPTERS, N_CTX = 10, 64
SHAPE = Shape(n_vocab=30_000, n_embd=512, n_layer=2, n_head=8, n_head_kv=8, n_ff=4096)
KV_BYTES = N_CTX * SHAPE.n_layer * 2 * SHAPE.n_embd * 2  # keys and values in float16

CHILD = """
    import json, sys
    from tests.benchmarks.memory import resident
    from tinker_local import ModelInput, SamplingParams, ServiceClient

    base, *adapters = sys.argv[1:]
    service = ServiceClient(n_ctx=64, n_threads=1, n_contexts=11)
    params = SamplingParams(max_tokens=2, temperature=0, stop=[])

    def use(client):
        client.sample(ModelInput.from_ints([1, 2, 3]), 1, params).result(100)

    clients = [service.create_sampling_client(base_model=base)]
    use(clients[0])
    sizes = [resident()]
    for path in adapters:
        clients.append(service.create_sampling_client(path, base))
        use(clients[-1])
        sizes.append(resident())
    for client in clients:
        use(client)
    models = {id(client._engine.model) for client in clients}
    print(json.dumps({"sizes": sizes, "models": len(models), "last": resident()}))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident set from /proc")
def test_memory_grows_by_adapters_and_caches_only(tmp_path: Path) -> None:
    base = write_random_model(tmp_path / "base.gguf", shape=SHAPE)
    chosen = [random_adapter(base, seed=seed) for seed in range(N_ADAPTERS)]
    adapters = [adapter.write(tmp_path / f"{n}.gguf") for n, adapter in enumerate(chosen)]
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(base), *map(str, adapters)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = json.loads(output)
    assert found["models"] == 1
    sizes = found["sizes"]
    weights = base.stat().st_size
    assert weights > 100e6
    assert sizes[0] > weights, "the weights are not resident, so this would show nothing"
    # besides its factors and its cache, a context has buffers: for 192 rows of logits, and to compute in
    buffers = 2 * 192 * SHAPE.n_vocab * 4
    allowed = adapters[0].stat().st_size + KV_BYTES + buffers
    assert allowed < weights / 2
    growth = [after - before for before, after in itertools.pairwise(sizes)]
    assert max(growth) < allowed
    assert found["last"] - sizes[-1] < allowed, "switching back to those before loads something"
