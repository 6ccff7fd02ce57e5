"""The compiled module: results are tuples that begin with what is wrong with a row, or None."""

from typing import Any

import numpy as np
import numpy.typing as npt

def score_rows(
    logits: object,
    rows: object,
    targets: object,
    topk: int,
    ids: object,
    ids_indptr: object,
    alt_k: int,
    alt_temperature: float,
    seed: int,
    positions: object,
    n_threads: int,
) -> tuple[Any, ...]: ...
def sample_rows(
    logits: object,
    rows: object,
    temperature: object,
    top_k: object,
    top_p: object,
    seed: object,
    sample: object,
    position: object,
    topk: int,
    n_threads: int,
) -> tuple[Any, ...]: ...
def largest(logits: object, n_threads: int) -> float: ...
def philox(counter: tuple[int, int, int, int], key0: int, key1: int) -> npt.NDArray[np.uint64]: ...
def simd_paths() -> list[str]: ...
def simd_path() -> str: ...
def use_simd_path(name: str) -> None: ...
def graph_callback(
    init: int, free: int, new_tensor_4d: int, set_name: int, flash_attn_ext: int, custom_4d: int
) -> int | None: ...
def new_abort_flag() -> object: ...
def set_abort_flag(flag: object) -> None: ...
def addresses_of_abort_flag(flag: object) -> tuple[int, int, int]: ...
