"""BenchReport: all that is measured, and what follows from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinker_local.bench.bare_loop import BareLoop
from tinker_local.bench.memory import memory_read, weight_bytes
from tinker_local.bench.speed import SAMPLES, Speed, measure_speed
from tinker_local.bench.threads import ThreadSpeed, measure_threads, recommended_threads, thread_counts
from tinker_local.bench.types import CANDIDATES, KNOWN, TypeSpeed, measure_types
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.devices import ACCELERATOR, kinds
from tinker_local.llama.machine import default_threads
from tinker_local.llama.model import load_adapter, load_model
from tinker_local.sampling_client import SamplingClient
from tinker_local.store.provenance import Provenance

_ROUNDS = 5
_SHARES = {"speed": 0.6, "threads": 0.15, "types": 0.2}  # of the time; the rest is for starting
_N_CELLS, _N_STATES = 4096, 8
_WORK = {"score": "scoring", "sample": "one sample", "batch": "many samples"}
_BUSY = 0.5  # of the CPUs
_BETTER = 1.1  # times as fast: what is worth a word


@dataclass(frozen=True)
class BenchReport:
    """What this machine does with a model.

    Attributes:
        type: number format of the model's file, if it is known.
        n_threads: that it was measured with.
        on_cpu: whether all was computed by the CPU.
        load: processes that wanted to compute in the minute before; None where the system does not say.
        speeds: ours and the bare loop's.
        weight_bytes: that a decoded token needs.
        bandwidth: of them in bytes per second, when one sample is decoded by the bare loop.
        memory_read: bytes per second that can be read; None where a device computes.
        threads: other numbers of threads; none where a device computes.
        types: other number formats; likewise.
    """

    type: str | None
    n_threads: int
    on_cpu: bool
    load: float | None
    speeds: list[Speed]
    weight_bytes: int
    bandwidth: float
    memory_read: float | None
    threads: list[ThreadSpeed]
    types: list[TypeSpeed]

    @property
    def recommended_threads(self) -> int | None:
        """The number of threads to use, None if it was not measured."""
        return recommended_threads(self.threads) if self.threads else None

    @property
    def recommended_types(self) -> dict[str, str]:
        """The fastest number format for each kind of work."""
        return {
            work: max(self.types, key=lambda found: float(getattr(found, work))).type
            for work in _WORK
            if self.types
        }

    @property
    def recommendations(self) -> list[str]:
        """What to do, in words."""
        said = []
        if self.load is not None and self.load > _BUSY * (os.cpu_count() or 1):
            said.append(
                f"Other programs were computing (load {self.load:.1f}): measure again without them."
            )
        if best := self.recommended_threads:
            same = best == default_threads()
            set_it = "the default" if same else f"--n-threads {best} or TINKER_LOCAL_N_THREADS={best}"
            said.append(f"threads: {best} ({set_it})")
        here = next((found for found in self.types if found.type == _layer_type(self.type)), None)
        for work, best_type in self.recommended_types.items():
            found = next(found for found in self.types if found.type == best_type)
            line = f"type for {_WORK[work]}: {best_type}"
            if here is not None and here is not found:
                times = getattr(found, work) / getattr(here, work)
                if times < _BETTER:
                    line = f"type for {_WORK[work]}: {here.type}, as it is"
                else:
                    line += f", whose layers are {times:.1f} times as fast as {here.type}'s"
            said.append(line)
        if self.types:
            said.append("Fewer bits cost quality, and the output matrix was not measured.")
        return said


def measure(client: SamplingClient, seconds: float, say: Callable[[str], None]) -> BenchReport:
    """Measure all of it in about ``seconds``.

    Args:
        client: opened without a prefix cache, else what is measured is there already.
        seconds: how long; a slow model takes longer.
        say: is told what is done next.
    """
    weights, options = client.weights, client.options
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    model = load_model(weights.path, options.n_gpu_layers, options.devices)
    n_threads = options.n_threads or default_threads()
    adapter = load_adapter(model, weights.adapter_path) if weights.adapter_path else None
    plan = ContextPlan(
        n_ctx=_N_CELLS,
        n_sequences=_N_STATES if model.is_recurrent else max(SAMPLES),
        n_batch=options.n_ubatch or 512,
        n_rows=512,
        n_threads=n_threads,
        kv_type=options.kv_type,
        flash_attn=options.flash_attn,
        kv_offload=options.kv_offload,
        adapter=adapter,
        lora_scale=weights.lora_scale,
    )
    context = Context(model, plan)
    bare = BareLoop(context)
    on_cpu = not any(kind != ACCELERATOR for kind in kinds().values()) or (
        options.n_gpu_layers == 0 or (options.devices or "").casefold() == "none"
    )
    kind = Provenance.of(weights.path).type
    try:
        say("scoring and sampling, ours and the bare loop in turn ...")
        speeds = measure_speed(client, bare, _SHARES["speed"] * seconds, _ROUNDS)
        n_bytes = weight_bytes(weights.path)
        bandwidth = n_bytes * next(speed.bare for speed in speeds if speed.n_samples == 1)
        threads: list[ThreadSpeed] = []
        types: list[TypeSpeed] = []
        read = None
        if on_cpu:
            say("memory and numbers of threads ...")
            read = memory_read(n_threads)
            tokens = np.arange(64, dtype=np.int32) % model.n_vocab
            threads = measure_threads(bare, tokens, thread_counts(), _SHARES["threads"] * seconds, _ROUNDS)
            say("layers of this shape in other types ...")
            own = _layer_type(kind)
            tried = [name for name in KNOWN if name in CANDIDATES or name == own]
            types = measure_types(weights.path, tried, n_threads, _SHARES["types"] * seconds, _ROUNDS)
    finally:
        context.close()
    return BenchReport(kind, n_threads, on_cpu, load, speeds, n_bytes, bandwidth, read, threads, types)


def _layer_type(kind: str | None) -> str | None:
    """Return what most matrices of a file of this type are: those of q4_k_m are q4_k."""
    return kind and kind.removesuffix("_l").removesuffix("_m").removesuffix("_s")
