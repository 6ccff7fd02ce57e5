"""Compiled kernels: log-probabilities and samples from rows of logits; attention, products, GELU.

The work is done in C++ with the GIL released. Logits are read where they lie; only a row that is
edited is copied, and nothing else the size of the vocabulary is allocated. Ids and draws are the
same to the last bit for any number of threads and any SIMD path. Log-probabilities are within 2e-6
(absolute or relative) of float64 for logits up to 100 in size.

module.cpp               the door from Python: checks arguments, releases the GIL, calls the rest
reference.py             the same functions in plain numpy, for the tests

score_rows.hpp           log-probabilities of each row: `score_rows`
sample_rows.hpp          one token drawn from each row: `sample_rows`
logit_edits.hpp          biases and penalties of a few ids of a row
distribution.hpp         softmax(row / temperature), cut to top_k, to top_p and to min_p
cut.hpp                  where the sorted order of a row is cut, found without sorting
row.hpp                  a row of logits, summarised by blocks of 256
philox.hpp               random numbers by (seed, sample, position)

attention.hpp            what attention is computed of
seen_cells.hpp .cpp      which cells each token sees, in order of position
kv_caches.hpp .cpp       which position each cell holds
graph_state.hpp          what is kept for a context from one graph to the next
graph_callback.hpp .cpp  the door from llama.cpp's graphs: a table of the operations computed here
graph_attention.hpp .cpp  one of them, flash attention: a node in parts for several threads
product.hpp              what a matrix product is computed of, and in which order it is summed
graph_products.hpp .cpp  matrix products, of experts too: a node in parts for several threads
product_rows.hpp         which activations each matrix multiplies, and where the results go
product_forms.hpp        forms of activations that kernels want
activation.hpp           GELU in two forms
graph_activations.hpp .cpp  activations, likewise
ggml.hpp .cpp            ggml's structures in memory, and whether the installed ggml has the same
abort_flag.hpp           a flag that ends what llama.cpp computes or loads
mapped_ranges.hpp .cpp   memory of files: zeros where it can no longer be read, instead of SIGBUS

simd_path.hpp            the functions that are compiled once for each instruction set
block_kernels.hpp        those over blocks of logits, written once over sixteen lanes
exponential_kernels.hpp  exponentials, over which softmax is computed
attention_sums.hpp       softmax of attention, block by block, and the order of its sums
attention_kernels.hpp    its products, likewise
product_kernels.hpp      matrix products with plain weights, likewise
packed_product_kernels.hpp  those with packed weights, in integers, by two headers:
group_product_kernels.hpp   weights in groups of 32
super_block_product_kernels.hpp  K types
tiled_packed_kernels.hpp  the same products of many rows, in AMX's tiles
activation_kernels.hpp   activations, likewise
weight_kernels.hpp       the types of weights in GGUF files
simd_*.cpp               the sixteen lanes in AVX-512, AVX2, AVX-VNNI, NEON and plain C++
simd_amx.cpp             AVX-512 with AMX's tiles for products with bfloat16 weights, and packed ones
simd_amx_attention.cpp, amx_attention.hpp  attention in tiles, over cells of float16
tiles.hpp, tile_shapes.hpp  AMX's instructions, and what configures the tiles
avx512_tiles.hpp         what goes into the tiles and comes out, with AVX-512
bfloat_table.hpp         small integers as numbers of bfloat16
bfloat_parts.hpp         numbers as sums of two of bfloat16
avx512.hpp, avx512_transpose.hpp  what AMX shares with AVX-512
x86.hpp, octets.hpp      what two of them share each; small_tiles.hpp what three do
avx2_path.hpp            what AVX2 and AVX-VNNI share; avx2.hpp tests that emulate tiles, too
cpu.hpp                  which of them this CPU has
pool.hpp                 threads that share the rows of a call
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinker_local.kernels import _kernels

__all__ = [
    "GGML_FUNCTIONS",
    "AbortFlag",
    "Draws",
    "GraphState",
    "LogitEdits",
    "LogitsError",
    "MappedRange",
    "ScoredRows",
    "graph_callback",
    "largest",
    "philox",
    "request_amx",
    "sample_rows",
    "score_rows",
    "simd_path",
    "simd_paths",
    "use_simd_path",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]


class LogitsError(ValueError):
    """A row of logits is not a distribution: it holds NaN or +inf, or is all -inf.

    `row` is its index in the logits; of several such rows, that of the first request.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)
        self.row = row
        self.reason = reason

    def __str__(self) -> str:
        return f"row {self.row} of the logits {self.reason}"


class ScoredRows(NamedTuple):
    """The numbers that `score_rows` returns for n rows. Fields not asked for are None."""

    logsumexp: Float64
    """[n]: log of the sum of exp(logits)."""
    target_logprobs: Float32 | None
    """[n]: log-probability of the target; NaN where it is -1."""
    topk_ids: Int32 | None
    """[n, topk]: the most likely ids, best first, ties by lower id."""
    topk_logprobs: Float32 | None
    """[n, topk]: their log-probabilities."""
    id_logprobs: Float32 | None
    """Shaped like `ids`: their log-probabilities; 0 where the id is -1."""
    alt_tokens: Int32 | None
    """[n, alt_k]: draws with replacement."""
    alt_logprobs: Float32 | None
    """[n, alt_k]: their log-probabilities, at temperature 1 whatever the temperature drawn at."""


class Draws(NamedTuple):
    """The tokens that `sample_rows` draws from n rows. Fields not asked for are None."""

    tokens: Int32
    """[n]: the tokens drawn."""
    logprobs: Float32
    """[n]: their log-probabilities under the distribution they were drawn from."""
    raw_logprobs: Float32
    """[n]: their log-probabilities under softmax(logits): temperature 1, no truncation."""
    topk_ids: Int32 | None
    """[n, topk]: the most likely ids, best first, ties by lower id."""
    topk_logprobs: Float32 | None
    """[n, topk]: their log-probabilities under softmax(logits)."""


class LogitEdits(NamedTuple):
    """Changes of the logits from which n requests draw, m in all.

    The logit x of an id becomes ``r(x + bias) - penalty``; r(y) is ``y / repetition`` where y is above 0,
    else ``y * repetition``. Of two edits of one id the later holds. The result is rounded to float32.
    """

    indptr: Int64
    """[n + 1]: those of request i are at places indptr[i] to indptr[i + 1] - 1 of the others."""
    ids: Int32
    """[m]: the ids."""
    bias: Float32
    """[m]: added to the logit."""
    repetition: Float32
    """[m], above 0: the repetition penalty of Keskar et al., "CTRL", 2019; 1 is none."""
    penalty: Float32
    """[m]: subtracted in the end."""


def philox(seed: int, sample: int, position: int) -> UInt64:
    """Return the block of four words at `position` of the stream (seed, sample): Philox4x64-10."""
    return _kernels.philox((position, 0, 0, 0), seed, sample)


def simd_paths() -> list[str]:
    """Return the instruction sets at hand, best first: of amx, avx512, avx_vnni, avx2, neon, portable."""
    return _kernels.simd_paths()


def simd_path() -> str:
    """Return the instruction set in use: the best, unless another was chosen."""
    return _kernels.simd_path()


def use_simd_path(name: str) -> None:
    """Choose an instruction set, for tests and benchmarks.

    Results do not depend on the choice, except with amx: products with bfloat16 weights are others there,
    and so is attention over a cache of float16.

    Raises:
        ValueError: `name` is not in `simd_paths()`.
    """
    _kernels.use_simd_path(name)


def request_amx() -> bool:
    """Ask Linux, once in a process, whether it may use AMX; return the answer.

    Where it may, amx is one of `simd_paths()` from then on, and in use unless another was chosen. Linux
    refuses without such a CPU, and where a thread's signal stack is too small for the registers.
    """
    return _kernels.request_amx()


class AbortFlag:
    """Ends what llama.cpp computes or loads: what is in progress, and all to come, as soon as it is set.

    Attributes:
        is_set: whether it was set.
        handle: the flag, for other kernels.
        callback: address of a `ggml_abort_callback`.
        progress_callback: address of a `llama_progress_callback`, which ends the loading of a model.
        data: address of what the callbacks are to be called with. It is good as long as the flag lives.
    """

    def __init__(self) -> None:
        self.is_set = False
        self.handle = _kernels.new_abort_flag()
        self.callback, self.progress_callback, self.data = _kernels.addresses_of_abort_flag(self.handle)

    def set(self) -> None:
        """Set it, from any thread, for good."""
        self.is_set = True
        _kernels.set_abort_flag(self.handle)


class MappedRange:
    """Memory that is mapped from a file: read as zeros from where it can no longer be read.

    Otherwise such a read ends the process (SIGBUS): the file became shorter, or its disk failed. Our
    handler leaves all other addresses to the handler that was there before. Not on Windows.

    Args:
        begin: address of the first byte, at the beginning of a page.
        end: address behind the last byte, at the end of a page.
    """

    def __init__(self, begin: int, end: int) -> None:
        self._number = _kernels.protect_range(begin, end)

    @property
    def is_lost(self) -> bool:
        """Whether some of it was read as zeros."""
        return _kernels.is_range_lost(self._number)

    def renew(self) -> None:
        """Install the handler of SIGBUS again, where somebody has replaced or removed it."""
        if self._number >= 0:
            _kernels.renew_handler()

    def forget(self) -> None:
        """End the protection; to be called before the memory is unmapped."""
        number, self._number = self._number, -1
        _kernels.forget_range(number)


class GraphState:
    """What our kernels keep of one context's graphs; for `cb_eval_user_data`.

    Attributes:
        address: for llama.cpp; valid as long as this object lives.

    Args:
        products: whether matrix products are computed here. A row's bits do not depend then on what is
            computed with it.
        of_all_types: whether those with rare types of packed weights are too, which no kernel here reads
            (IQ2_XXS, say). Theirs takes much longer than llama.cpp's.
        of_results: whether products without weights are computed here, such as those of attention without
            flash attention.
    """

    def __init__(
        self, *, products: bool = False, of_all_types: bool = True, of_results: bool = False
    ) -> None:
        self._state = _kernels.new_graph_state(products, of_all_types, of_results)
        self.address = _kernels.address_of_graph_state(self._state)

    @property
    def n_left(self) -> int:
        """Attentions and products that our kernels were not given, or cannot compute, so far."""
        return _kernels.n_left(self._state)

    def begin_decode(self, abort: AbortFlag | None = None) -> None:
        """Forget the graphs of earlier decodes; before each decode, in the thread that decodes.

        Args:
            abort: ends the graphs of this decode after any product or attention, where llama.cpp itself
                asks no flag. What was not computed is left as it was. Keep the flag until the decode ends.
        """
        _kernels.begin_decode(self._state, None if abort is None else abort.handle)


GGML_FUNCTIONS = (
    "init",
    "free",
    "new_tensor_4d",
    "set_name",
    "flash_attn_ext",
    "set_rows",
    "cast",
    "mul_mat",
    "mul_mat_id",
    "gelu",
    "gelu_quick",
    "geglu",
    "geglu_swapped",
    "geglu_split",
    "geglu_quick_split",
    "get_type_traits",
    "custom_4d",
)
"""Functions of ggml's that ``graph_callback`` calls, without the prefix ``ggml_``."""


def graph_callback(addresses: dict[str, int]) -> int | None:
    """Return the address of a callback that puts our kernels into llama.cpp's graphs (`cb_eval`).

    Its `cb_eval_user_data` is the address of a `GraphState`.
    None where the ggml whose functions these are lays out its tensors in a way that is not known here.

    Args:
        addresses: of ``GGML_FUNCTIONS``, by name.
    """
    return _kernels.graph_callback(addresses)


def largest(logits: Float32, n_threads: int = 1) -> float:
    """Return the largest of float32 [R, V].

    Does little but read the memory once: the yardstick by which benchmarks measure the other functions.
    """
    return _kernels.largest(logits, n_threads)


def _raise_for(fault: Any) -> None:
    if fault is not None:
        raise LogitsError(*fault)


def score_rows(
    logits: Float32,
    *,
    rows: Int32 | None = None,
    targets: Int32 | None = None,
    topk: int = 0,
    ids: Int32 | None = None,
    ids_indptr: Int64 | None = None,
    alt_k: int = 0,
    alt_temperature: float = 1.0,
    seed: int = 0,
    positions: UInt64 | None = None,
    n_threads: int = 1,
) -> ScoredRows:
    """Return log-probabilities (natural logarithm, temperature 1) from n rows of logits.

    Each row is read from memory once: the sum of exponentials by blocks with their own largest
    entry taken out (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018),
    and the top-k from the few blocks whose largest entry reaches the k-th largest of those.

    Args:
        logits: float32 [R, V], C-contiguous; may be read-only.
        rows: int32 [n], indices into `logits` in any order; None means all rows.
        targets: int32 [n], the ids wanted in `target_logprobs`; -1 for none.
        topk: how many of the most likely ids, up to min(1024, V).
        ids: ids wanted in `id_logprobs`, -1 for none. int32 [n, K], or int32 [m] with
            `ids_indptr`.
        ids_indptr: int64 [n + 1]; the ids of row i are `ids[ids_indptr[i]:ids_indptr[i + 1]]`.
        alt_k: how many independent draws with replacement, without truncation. Draw j of row i
            uses the stream (seed, j) at `positions[i]`; see `sample_rows`.
        alt_temperature: what logits are divided by for these draws; 0 means the most likely id.
        seed: 64-bit key of these draws.
        positions: uint64 [n], wanted with `alt_k`.
        n_threads: how many threads may be used; little work uses fewer.

    Raises:
        LogitsError: a row holds NaN or +inf, or is all -inf.
        TypeError: an argument is no numpy array of the dtype named here.
        ValueError: a shape or a value is out of its range; the message names it.
    """
    fault, *fields = _kernels.score_rows(
        logits,
        rows,
        targets,
        topk,
        ids,
        ids_indptr,
        alt_k,
        alt_temperature,
        seed,
        positions,
        n_threads,
    )
    _raise_for(fault)
    return ScoredRows(*fields)


def sample_rows(
    logits: Float32,
    *,
    rows: Int32,
    temperature: Float32,
    top_k: Int32,
    top_p: Float32,
    seed: UInt64,
    sample: UInt64,
    position: UInt64,
    min_p: Float32 | None = None,
    edits: LogitEdits | None = None,
    topk: int = 0,
    n_threads: int = 1,
) -> Draws:
    """Draw one token from each of n rows of logits.

    The distribution is softmax(logits / temperature), cut to the `top_k` largest (ties by lower
    id) and renormalised, then to the smallest prefix of the sorted order whose probability
    reaches `top_p`, then to the ids at least `min_p` times as probable as the first, and
    renormalised. `edits` change the logits before all of this. The token is the first, in the order
    of ids, at which the sum of probabilities exceeds a uniform number: the top 53 bits of the first
    word of Philox4x64-10 with key (seed, sample) and counter (position, 0, 0, 0) (Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

    Requests next to each other with the same row and settings, and without edits, share the work.

    Args:
        logits: float32 [R, V], C-contiguous; may be read-only.
        rows: int32 [n], indices into `logits`, repeats allowed.
        temperature: float32 [n]; 0 takes the most likely id, the lowest on ties, and `logprobs`
            are then those of softmax(logits), edited but untruncated.
        top_k: int32 [n], at least 1; -1 means no such cut.
        top_p: float32 [n] in (0, 1]; 1 means no such cut.
        seed: uint64 [n].
        sample: uint64 [n], the index of the sample in its request.
        position: uint64 [n], the index of the token in its sequence.
        min_p: float32 [n] in [0, 1]; 0 means no such cut. None: 0 for all.
        edits: changes of the logits before the draw. What is returned "under softmax(logits)" is of
            the logits as they were given.
        topk: how many of the most likely ids to return, up to min(1024, V).
        n_threads: how many threads may be used; little work uses fewer.

    Raises:
        LogitsError: a row holds NaN or +inf, or is all -inf.
        TypeError: an argument is no numpy array of the dtype named here.
        ValueError: a shape or a value is out of its range; the message names it.
    """
    fault, *fields = _kernels.sample_rows(
        logits,
        rows,
        temperature,
        top_k,
        top_p,
        min_p,
        edits,
        seed,
        sample,
        position,
        topk,
        n_threads,
    )
    _raise_for(fault)
    return Draws(*fields)
