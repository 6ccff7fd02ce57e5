"""Which parts of llama.cpp's graphs our kernels compute, and what batch invariance needs of them.

Our kernels (``llama/graph_callback.py``) are for CPUs. There, attention is ours unless ``flash_attn`` is
False. Products of weights are ours too where they were measured to be faster than llama.cpp's.

Batch invariance is what both give together. llama.cpp chooses its kernels by shape, and kernels add in
different orders. Ours have one order each: a product's number depends on its row and the weights alone, a
query's attention on what it sees, in order of position. The rest of a graph goes row by row in llama.cpp
too: norms, rotations, activations, the choice of experts. So with all products and attention ours, the bits
of a request depend on nothing but the request.

States of recurrent and hybrid models go token by token as well, in llama.cpp's fused operations. A graph
that multiplies states in chunks has products that are not ours, and batch invariance refuses it. Gemma 3n's
AltUp multiplies results, too, but a matrix of each token by another: llama.cpp's products are exact there.

A model that chooses its keys makes its mask within the graph, where our attention cannot read it. GPUs and
BLAS choose by shape, and have kernels of their own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tinker_local import kernels
from tinker_local.errors import BadRequestError
from tinker_local.gguf.limits import CHOSEN_KEYS
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.devices import ACCELERATOR, kinds
from tinker_local.llama.graph_callback import graph_callback
from tinker_local.llama.model import Model, load_model
from tinker_local.llama.tower import TowerPlan
from tinker_local.options import Options

# SIMD paths; ``tests/benchmarks/graphs.py`` measures it.
_FASTER_PRODUCTS = ("amx", "avx512", "avx_vnni", "avx2")
_N_BATCH_BESIDE_BLAS = 24  # ggml-blas takes over multiplications from 32 rows on


def has_only_cpus(options: Options) -> bool:
    """Whether there is no GPU, which could be given work even if it holds no layer."""
    devices = (options.devices or "").strip().casefold()
    return devices == "none" or not _gpus()


def _can_compute(options: Options) -> bool:
    """Whether our kernels can compute at all: CPUs do, and llama.cpp's graphs are known."""
    return has_only_cpus(options) and graph_callback() is not None


def own_attention(options: Options) -> bool:
    """Whether our kernel computes attention: on CPUs, unless the user wants it in steps."""
    return options.flash_attn is not False and _can_compute(options)


def own_products(options: Options) -> bool:
    """Whether our kernels compute products of weights; they need weights that are not repacked."""
    if options.batch_invariant:
        return True
    are_faster = kernels.simd_path() in _FASTER_PRODUCTS and not _has_blas()
    return are_faster and _can_compute(options)


def whose_kernels(options: Options) -> dict[str, str]:
    """Return, for people, who computes attention and products of weights with these options, and why."""
    if graph_callback() is None:
        theirs = "llama.cpp's: how it lays out its graphs is not known here"
    elif not has_only_cpus(options):
        theirs = f"llama.cpp's: ours are for CPUs, and there are GPUs ({', '.join(_gpus())})"
    else:
        theirs = "llama.cpp's"
    attention = products = "ours" if own_attention(options) else theirs
    if not own_products(options):
        products = theirs if attention == theirs else f"{theirs}: it is as fast here, or was not measured"
    return {"attention": attention, "products": products}


def open_model(path: Path, options: Options) -> Model:
    """Open a GGUF file, or share its model, with weights as whoever multiplies them wants them.

    Raises:
        BadRequestError: see ``load_model``.
    """
    repack = not own_products(options)
    return load_model(path, options.n_gpu_layers, options.devices, repack=repack)


def with_own_kernels(plan: ContextPlan, model: Model, options: Options) -> ContextPlan:
    """Return a plan in which our kernels compute what they can."""
    plan = replace(plan, own_products=own_products(options))
    if _goes_in_steps(model, options):
        return replace(plan, flash_attn=False, own_attention=_can_compute(options))
    is_own = own_attention(options)
    return replace(plan, flash_attn=is_own or plan.flash_attn, own_attention=is_own)


def _goes_in_steps(model: Model, options: Options) -> bool:
    """Whether a model attends without flash attention, which would round what it chooses its keys by.

    MiniMax-M3 chooses within flash attention: without it, queries attend to all keys.
    """
    is_free = options.flash_attn is None and options.kv_type != "q8_0"  # whose values need flash attention
    return is_free and model.chooses_keys and model.metadata("general.architecture") != "minimax-m3"


def tower_plan(options: Options, n_threads: int) -> TowerPlan:
    """Return how an image tower computes, with our kernels where they can."""
    is_own = own_attention(options)
    return TowerPlan(
        n_threads=n_threads,
        use_gpu=not has_only_cpus(options),
        flash_attn=is_own or options.flash_attn,
        own_kernels=_can_compute(options),
        own_products=own_products(options),
    )


def check_batch_invariant(options: Options) -> None:
    """Refuse batch invariance where our kernels cannot compute.

    Raises:
        BadRequestError: a GPU would compute layers, or the installed ggml is not known.
    """
    if not has_only_cpus(options):
        raise BadRequestError(
            f"batch_invariant: GPUs ({', '.join(_gpus())}) choose their kernels by the size of the batch; "
            "pass devices='none' to compute on the CPU"
        )
    if graph_callback() is None:
        raise BadRequestError(
            "batch_invariant: this tinker-local does not know how the installed llama-cpp-python lays out "
            "its graphs; install the version that tinker-local asks for"
        )


def batch_invariant_plan(plan: ContextPlan, model: Model) -> ContextPlan:
    """Return a plan that fails where a product or attention is not ours.

    Raises:
        BadRequestError: the model chooses its keys.
    """
    if model.chooses_keys:
        raise BadRequestError(
            f"batch_invariant: {model.path.name} cannot be exact: {CHOSEN_KEYS}; open it without "
            "batch_invariant"
        )
    plan = replace(plan, batch_invariant=True)
    if not _has_blas():
        return plan
    most = _N_BATCH_BESIDE_BLAS
    n_sequences = min(plan.n_sequences, most)  # llama.cpp plans for a token of each
    return replace(
        plan, n_batch=min(plan.n_batch, most), n_rows=min(plan.n_rows, most), n_sequences=n_sequences
    )


def _gpus() -> list[str]:
    return [name for name, kind in kinds().items() if kind != ACCELERATOR]


def _has_blas() -> bool:
    return any(kind == ACCELERATOR for kind in kinds().values())
