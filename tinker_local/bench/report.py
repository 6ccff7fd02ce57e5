"""BenchReport: all measurements, and the settings they recommend."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinker_local.bench.bare_loop import BareLoop
from tinker_local.bench.memory import memory_read, weight_bytes
from tinker_local.bench.speed import SAMPLES, EngineSpeed, measure_speed
from tinker_local.bench.threads import ThreadSpeed, measure_threads, recommended_threads, thread_counts
from tinker_local.bench.types import CANDIDATES, KNOWN, TypeSpeed, measure_types
from tinker_local.engine.own_kernels import open_model, with_own_kernels
from tinker_local.llama.adapter import load_adapter
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.devices import ACCELERATOR, kinds
from tinker_local.llama.machine import default_threads, threads
from tinker_local.llama.model import load_model
from tinker_local.options import Options
from tinker_local.sampling_client import SamplingClient
from tinker_local.store.provenance import Provenance

_ROUNDS = 5
_SHARES = {"speed": 0.6, "threads": 0.15, "types": 0.2}  # of the given time; the rest goes to opening
_N_CELLS, _N_STATES = 4096, 8  # size of the bare context; sequences of a recurrent model
_WORK = {"score": "scoring", "sample": "one sample", "batch": "many samples"}  # names for people
_BUSY = 0.5  # load, as a share of the CPUs, from which on other programs disturb
_BETTER = 1.1  # ratio from which on a faster type is recommended


@dataclass(frozen=True)
class BenchReport:
    """Measurements of one model on this machine.

    Attributes:
        type: GGUF type of the model's file; None if unknown.
        n_threads: threads that computed one sample.
        n_threads_batch: threads that computed several tokens at once.
        on_cpu: whether the CPU computed everything.
        load: the system's load average of the minute before; None where the system has none.
        speeds: our engine and the bare loop, for each kind of work.
        weight_bytes: bytes of weights that decoding one token reads.
        bandwidth: bytes of weights per second that the bare loop reads while it decodes one sample.
        memory_read: bandwidth of main memory in bytes per second; None unless ``on_cpu``.
        threads: speed by number of threads; empty unless ``on_cpu``.
        types: speed by number format; empty unless ``on_cpu``.
    """

    type: str | None
    n_threads: int
    n_threads_batch: int
    on_cpu: bool
    load: float | None
    speeds: list[EngineSpeed]
    weight_bytes: int
    bandwidth: float
    memory_read: float | None
    threads: list[ThreadSpeed]
    types: list[TypeSpeed]

    @property
    def recommended_threads(self) -> tuple[int, int] | None:
        """The best ``n_threads`` and ``n_threads_batch``; None if threads were not measured."""
        return recommended_threads(self.threads) if self.threads else None

    @property
    def recommended_types(self) -> dict[str, str]:
        """The fastest number format by kind of work: ``score``, ``sample``, ``batch``."""
        return {
            work: max(self.types, key=lambda found: float(getattr(found, work))).type
            for work in _WORK
            if self.types
        }

    @property
    def recommendations(self) -> list[str]:
        """Advice for people, one line each."""
        advice = []
        if self.load is not None and self.load > _BUSY * (os.cpu_count() or 1):
            advice.append(
                f"Other programs were running (load {self.load:.1f}): close them and measure again."
            )
        if best := self.recommended_threads:
            advice.append(_thread_advice(*best))
        advice += [self._type_advice(work, best) for work, best in self.recommended_types.items()]
        if self.types:
            advice.append("Types with fewer bits lose quality; the output matrix was not measured.")
        return advice

    def _type_advice(self, work: str, best: str) -> str:
        """Return which type to use for a kind of work; the present one unless ``best`` is much faster."""
        by_type = {found.type: found for found in self.types}
        present = _layer_type(self.type)
        advice = f"type for {_WORK[work]}: "
        if present not in by_type or present == best:
            return advice + best
        times = getattr(by_type[best], work) / getattr(by_type[present], work)
        if times < _BETTER:
            return f"{advice}{present}, the present one"
        return f"{advice}{best}, whose layers are {times:.1f} times as fast as {present}'s"


def _thread_advice(one: int, several: int) -> str:
    """Return how many threads to use for one sample, and for several tokens at once."""
    default = default_threads()
    if one == several == default:
        return f"threads: {default}, the default"
    said = f"threads: --n-threads {one}"
    return said if several == one else f"{said} --n-threads-batch {several}"


def measure(client: SamplingClient, seconds: float, say: Callable[[str], None]) -> BenchReport:
    """Run all measurements in about ``seconds``.

    Args:
        client: the model; opened without a prefix cache, which would answer repeated prompts from memory.
        seconds: duration to aim at; a slow model takes longer.
        say: called with a line of text before each part.
    """
    path = client.weights.path
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    given = threads(client.options)
    on_cpu = _computes_on_cpu(client.options)
    kind = Provenance.of(path).type
    say("measuring scoring and sampling, our engine and bare llama.cpp in turn ...")
    with _bare_loop(client, own_kernels=False) as bare:
        speeds = measure_speed(client, bare, _SHARES["speed"] * seconds, _ROUNDS)
    n_bytes = weight_bytes(path)
    bandwidth = n_bytes * next(speed.bare for speed in speeds if speed.n_samples == 1)
    by_threads: list[ThreadSpeed] = []
    types: list[TypeSpeed] = []
    read = None
    if on_cpu:
        say("measuring memory and numbers of threads ...")
        read = memory_read(given[0])
        with _bare_loop(client, own_kernels=True) as bare:
            by_threads = measure_threads(bare, thread_counts(), _SHARES["threads"] * seconds, _ROUNDS)
        say("measuring layers of this shape in other types ...")
        own = _layer_type(kind)
        tried = [name for name in KNOWN if name in CANDIDATES or name == own]
        types = measure_types(path, tried, given, _SHARES["types"] * seconds, _ROUNDS)
    return BenchReport(kind, *given, on_cpu, load, speeds, n_bytes, bandwidth, read, by_threads, types)


@contextmanager
def _bare_loop(client: SamplingClient, *, own_kernels: bool) -> Iterator[BareLoop]:
    """Make a context for the bare loop, with the files and options of the client."""
    weights, options = client.weights, client.options
    model = (
        open_model(weights.path, options)
        if own_kernels
        else load_model(weights.path, options.n_gpu_layers, options.devices)
    )
    n_threads, n_threads_batch = threads(options)
    plan = ContextPlan(
        n_ctx=_N_CELLS,
        n_sequences=_N_STATES if model.is_recurrent else max(SAMPLES),
        n_batch=options.n_ubatch or 512,
        n_rows=512,
        n_threads=n_threads,
        n_threads_batch=n_threads_batch,
        kv_type=options.kv_type,
        flash_attn=options.flash_attn,
        kv_offload=options.kv_offload,
        adapter=load_adapter(model, weights.adapter_path) if weights.adapter_path else None,
        lora_scale=weights.lora_scale,
    )
    context = Context(model, with_own_kernels(plan, model, options) if own_kernels else plan)
    try:
        yield BareLoop(context)
    finally:
        context.close()


def _computes_on_cpu(options: Options) -> bool:
    """Whether all layers are computed by the CPU: there is no GPU, or the options leave it out."""
    if options.n_gpu_layers == 0 or (options.devices or "").casefold() == "none":
        return True
    return all(kind == ACCELERATOR for kind in kinds().values())


def _layer_type(kind: str | None) -> str | None:
    """Return the format of most matrices of a file type: ``q4_k`` for ``q4_k_m``."""
    return kind and kind.removesuffix("_l").removesuffix("_m").removesuffix("_s")
