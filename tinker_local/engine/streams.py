"""What batch invariance asks of a machine and a model: the CPU, and a stream of cells for each sequence."""

from __future__ import annotations

from tinker_local.engine.devices import ACCELERATOR, kinds
from tinker_local.engine.llama import KV_BYTES, Model, stream_cells
from tinker_local.engine.memory import main_memory
from tinker_local.errors import BadRequestError
from tinker_local.options import KvType

_USUAL, _FEWEST, _MOST = 8, 4, 32  # streams
_USUAL_SHARE, _LARGEST_SHARE = 8, 4  # of main memory, as divisors
_N_BATCH_BESIDE_BLAS = 24  # ggml-blas takes over multiplications from 32 rows on


def refuse_devices(names: str | None) -> None:
    """Raise BadRequestError where layers would be computed by something other than the CPU."""
    found = [name for name, kind in kinds().items() if kind != ACCELERATOR]
    if found and (names is None or names.strip().casefold() != "none"):
        raise BadRequestError(
            f"batch_invariant: GPUs ({', '.join(found)}) choose their kernels by the size of the batch; "
            "say devices='none' to compute on the CPU"
        )


def invariant_shape(model: Model, n_ctx: int, n_batch: int, kv_type: KvType) -> tuple[int, int]:
    """Return the tokens of a batch and the number of streams for ``n_ctx`` tokens each.

    There are as many streams as fit an eighth of main memory, but at least 8 where these fit a quarter,
    and from 4 to 32.

    Raises:
        BadRequestError: the model's memory cannot step back.
    """
    if model.is_recurrent:
        raise BadRequestError(
            f"batch_invariant: {model.path.name} is a recurrent or hybrid model, whose states cannot "
            "give back a token; the mode cannot be had with it"
        )
    stream = int(model.kv_numbers * KV_BYTES[kv_type] * stream_cells(n_ctx))
    memory = main_memory()
    n_streams = max(_USUAL, memory // _USUAL_SHARE // stream)
    n_streams = min(n_streams, memory // _LARGEST_SHARE // stream)
    most = _MOST
    if any(kind == ACCELERATOR for kind in kinds().values()):
        n_batch, most = _N_BATCH_BESIDE_BLAS, _USUAL
    return n_batch // 8 * 8, max(_FEWEST, min(most, n_streams // 4 * 4))
