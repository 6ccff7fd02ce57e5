"""Quantized checkpoints: each published format, unpacked to the numbers it stands for, in float64."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from convert import CheckpointError, UnsupportedError, convert_checkpoint
from convert.errors import ConversionWarning
from convert.source.config import Config
from convert.source.quantization.unpack import METHODS, unpack
from convert.source.safetensors_file import read_tensors
from convert.source.tensor import SourceTensor
from tests.convert.expected import expected_arrays, numbers, read_gguf
from tests.convert.test_packed import e2m1, e4m3
from tests.random_checkpoints.plain import CONFIG, Tensors, write_llama, write_safetensors, write_weights

Matrix = NDArray[Any]
Packed = tuple[Tensors, Matrix]
"""The tensors of a module, named from its name on, and the numbers they stand for in float64."""

RNG = np.random.default_rng(4)


def scales_of(*shape: int, dtype: Any = np.float32) -> Matrix:
    return np.asarray((0.5 + RNG.random(shape)) * 2.0**-5).astype(dtype)


def words(values: Matrix, bits: int) -> Matrix:
    """Join unsigned integers to 32-bit words along the last axis, the first one lowest, without gaps."""
    rows = []
    for row in values.reshape(-1, values.shape[-1]).tolist():
        total = sum(value << (bits * i) for i, value in enumerate(row))
        rows.append([total >> 32 * i & 0xFFFFFFFF for i in range(-(-len(row) * bits // 32))])
    return np.array(rows, np.uint32).view(np.int32).reshape(*values.shape[:-1], -1)


def each(groups: Matrix | list[int], table: Matrix) -> Matrix:
    """Return for each column the table's entry of its group, in float64."""
    return np.asarray(table).astype(np.float64)[:, groups]


# -- FP8 ----------------------------------------------------------------------------------------------


def fp8(name: str, scale: str, shape: Callable[[int, int], tuple[int, ...]], *others: str) -> Any:
    """Return a packer: FP8 values, and scales of a shape that follows from the matrix's."""

    def pack(n_out: int, n_in: int) -> Packed:
        codes = (
            RNG.integers(0, 120, (n_out, n_in), np.uint8) | RNG.integers(0, 2, (n_out, n_in), np.uint8) << 7
        )
        exact = np.array([e4m3(byte) for byte in range(256)])[codes]
        scales = scales_of(*shape(n_out, n_in))
        grid = scales.reshape(scales.shape if scales.ndim == 2 else (-1, 1)).astype(np.float64)
        rows, columns = (-(-n // len_) for n, len_ in zip((n_out, n_in), grid.shape, strict=True))
        if name == "blocks":
            rows, columns = BLOCK
        wide = grid.repeat(rows, 0)[:n_out].repeat(columns, 1)[:, :n_in]
        tensors: Tensors = {"weight": codes.view(ml_dtypes.float8_e4m3fn), scale: scales}
        return tensors | {other: scales_of(1) for other in others}, exact * wide

    return pack


BLOCK = (40, 48)


def fp8_with_exponents(n_out: int, n_in: int) -> Packed:
    tensors, _ = fp8("tensor", "weight_scale_inv", lambda *_: (1, 1))(n_out, n_in)
    tensors["weight_scale_inv"] = np.array([[124]], np.uint8)
    return tensors, tensors["weight"].astype(np.float64) * 2.0**-3


# -- compressed-tensors -------------------------------------------------------------------------------


def ints(bits: int, group: int, symmetric: bool = True, ordered: bool = False) -> Any:
    """Return a packer of compressed-tensors' ``pack-quantized``."""

    def pack(n_out: int, n_in: int) -> Packed:
        size, half = group or n_in, 1 << (bits - 1)
        values = RNG.integers(-half, half, (n_out, n_in))
        n_groups = n_in // size
        groups = np.arange(n_in) // size
        scales = scales_of(n_out, n_groups, dtype=ml_dtypes.bfloat16)
        tensors: Tensors = {"weight_packed": words(values + half, bits), "weight_scale": scales}
        tensors["weight_shape"] = np.array([n_out, n_in])
        zeros = np.zeros((n_out, n_groups), np.int64)
        if not symmetric:
            zeros = RNG.integers(-half, half, (n_out, n_groups))
            tensors["weight_zero_point"] = np.ascontiguousarray(words((zeros + half).T.copy(), bits).T)
        if ordered:
            groups = RNG.permutation(groups)
            tensors["weight_g_idx"] = groups.astype(np.int32)
        return tensors, (values - each(groups, zeros)) * each(groups, scales)

    return pack


def int8(n_groups: int, symmetric: bool = True) -> Any:
    """Return a packer of compressed-tensors' ``int-quantized``."""

    def pack(n_out: int, n_in: int) -> Packed:
        values = RNG.integers(-128, 128, (n_out, n_in), np.int8)
        groups, scales = np.arange(n_in) // (n_in // n_groups), scales_of(n_out, n_groups)
        tensors: Tensors = {"weight": values, "weight_scale": scales}
        zeros = np.zeros((n_out, n_groups), np.int8)
        if not symmetric:
            zeros = tensors["weight_zero_point"] = RNG.integers(-128, 128, (n_out, n_groups), np.int8)
        return tensors, (values.astype(np.float64) - each(groups, zeros)) * each(groups, scales)

    return pack


def mxfp8(n_out: int, n_in: int) -> Packed:
    tensors, _ = fp8("tensor", "weight_scale_inv", lambda *_: (1, 1))(n_out, n_in)
    exponents = RNG.integers(118, 124, (n_out, n_in // 32), np.uint8)
    tensors["weight_scale_inv"] = exponents
    scales = 2.0 ** (exponents.astype(np.float64) - 127)
    return tensors, tensors["weight"].astype(np.float64) * each(np.arange(n_in) // 32, scales)


def mxfp4(n_out: int, n_in: int) -> Packed:
    codes = RNG.integers(0, 16, (n_out, n_in), np.uint8)
    exponents = RNG.integers(118, 124, (n_out, n_in // 32), np.uint8)
    exact = np.array([e2m1(code) for code in range(16)])[codes]
    tensors: Tensors = {"weight_packed": codes[:, ::2] | codes[:, 1::2] << 4, "weight_scale": exponents}
    return tensors, exact * each(np.arange(n_in) // 32, 2.0 ** (exponents.astype(np.float64) - 127))


def modelopt_nvfp4(n_out: int, n_in: int) -> Packed:
    """As compressed-tensors' but for the names, and the scale of the tensor, which is a factor."""
    given, exact = nvfp4(n_out, n_in)
    factor = np.array(1 / 16, np.float32)
    named = {"weight": given["weight_packed"], "weight_scale": given["weight_scale"]}
    return named | {"weight_scale_2": factor, "input_scale": scales_of(1)}, exact


def nvfp4(n_out: int, n_in: int) -> Packed:
    codes = RNG.integers(0, 16, (n_out, n_in), np.uint8)
    scales = RNG.integers(40, 70, (n_out, n_in // 16), np.uint8).view(ml_dtypes.float8_e4m3fn)
    exact = np.array([e2m1(code) for code in range(16)])[codes]
    tensors: Tensors = {"weight_packed": codes[:, ::2] | codes[:, 1::2] << 4, "weight_scale": scales}
    tensors["weight_global_scale"] = np.array([16], np.float32)
    return tensors, exact * each(np.arange(n_in) // 16, scales) / 16


# -- GPTQ and AWQ -------------------------------------------------------------------------------------


def gptq(bits: int, group: int = 32, added: int = 1, ordered: bool | None = False) -> Any:
    """Return a packer of GPTQ; ``ordered`` None: without ``g_idx``."""

    def pack(n_out: int, n_in: int) -> Packed:
        size, most = group if group > 0 else n_in, 1 << bits
        values = RNG.integers(0, most, (n_in, n_out))
        zeros = RNG.integers(added, most, (n_in // size, n_out))
        scales = scales_of(n_in // size, n_out, dtype=np.float16)
        groups = np.arange(n_in) // size
        if ordered:
            groups = RNG.permutation(groups)
        tensors: Tensors = {
            "qweight": np.ascontiguousarray(words(values.T.copy(), bits).T),
            "qzeros": words(zeros - added, bits),
            "scales": scales,
            "bias": np.zeros(n_out, np.float16),
        }
        if ordered is not None:
            tensors["g_idx"] = groups.astype(np.int32)
        return tensors, (values.T - each(groups, zeros.T)) * each(groups, scales.T)

    return pack


def awq(n_out: int, n_in: int) -> Packed:
    size, order = 32, [0, 2, 4, 6, 1, 3, 5, 7]
    values, zeros = RNG.integers(0, 16, (n_in, n_out)), RNG.integers(0, 16, (n_in // size, n_out))
    scales, groups = scales_of(n_in // size, n_out, dtype=np.float16), np.arange(n_in) // size
    packed = [
        words(array.reshape(len(array), -1, 8)[:, :, order].reshape(len(array), -1), 4)
        for array in (values, zeros)
    ]
    tensors: Tensors = {"qweight": packed[0], "qzeros": packed[1], "scales": scales}
    return tensors, (values.T - each(groups, zeros.T)) * each(groups, scales.T)


# -- bitsandbytes -------------------------------------------------------------------------------------


def codes4(kind: str, nested: bool = False, storage: Any = np.uint8) -> Any:
    """Return a packer of NF4 or FP4, perhaps with double quantization."""

    def pack(n_out: int, n_in: int) -> Packed:
        table = np.sort(RNG.standard_normal(16)).astype(np.float32)
        codes = RNG.integers(0, 16, n_out * n_in, np.uint8)
        n_blocks = n_out * n_in // 64
        largest = scales_of(n_blocks)
        state: dict[str, Any] = {
            "quant_type": kind,
            "blocksize": 64,
            "dtype": "bfloat16",
            "shape": [n_out, n_in],
        }
        tensors: Tensors = {
            "weight": (codes[::2] << 4 | codes[1::2]).view(storage)[:, None],
            "weight.quant_map": table,
        }
        if nested:
            small = RNG.integers(0, 256, n_blocks, np.uint8)
            map_ = np.linspace(-1, 1, 256, dtype=np.float32)
            of_blocks = scales_of(-(-n_blocks // 16))
            state |= {"nested_blocksize": 16, "nested_dtype": "float32", "nested_offset": 0.0421875}
            tensors |= {"weight.nested_quant_map": map_, "weight.nested_absmax": of_blocks}
            tensors["weight.absmax"] = small
            largest = map_[small] * of_blocks.repeat(16)[:n_blocks] + np.float32(
                0.0421875
            )  # float32, as there
        else:
            tensors["weight.absmax"] = largest
        said = np.frombuffer(json.dumps(state).encode(), np.uint8)
        tensors[f"weight.quant_state.bitsandbytes__{kind}"] = said
        exact = table.astype(np.float64)[codes] * largest.astype(np.float64).repeat(64)
        return tensors, exact.reshape(n_out, n_in)

    return pack


def llm_int8(n_out: int, n_in: int) -> Packed:
    values, scales = RNG.integers(-127, 128, (n_out, n_in), np.int8), scales_of(n_out)
    tensors: Tensors = {"weight": values, "SCB": scales, "weight_format": np.array(0, np.uint8)}
    return tensors, values * scales.astype(np.float64)[:, None] / 127


# -- all of them --------------------------------------------------------------------------------------


def compressed(**weights: Any) -> dict[str, Any]:
    group = {"weights": {"type": "int", "symmetric": True} | weights, "targets": ["Linear"]}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


def by_bits(bits: int, **settings: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": bits, "group_size": 32} | settings


NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True}
W4 = {"num_bits": 4, "group_size": 32}
FORMATS: dict[str, tuple[dict[str, Any], Any]] = {
    "FP8, blocks": (
        {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(BLOCK)},
        fp8("blocks", "weight_scale_inv", lambda n, m: (-(-n // BLOCK[0]), -(-m // BLOCK[1]))),
    ),
    "FP8, a tensor, static": (
        {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"},
        fp8("tensor", "weight_scale_inv", lambda *_: (), "activation_scale"),
    ),
    "FP8, AutoFP8": (
        {"quant_method": "fp8"},
        fp8("tensor", "weight_scale", lambda *_: (1,), "input_scale"),
    ),
    "FP8, ModelOpt": (
        {"quant_method": "modelopt", "quant_algo": "FP8"},
        fp8("tensor", "weight_scale", lambda *_: (), "input_scale"),
    ),
    "FP8, rows": (
        {"quant_method": "fbgemm_fp8"},
        fp8("rows", "weight_scale", lambda n, _: (n, 1), "input_scale_ub"),
    ),
    "MXFP8": ({"quant_method": "mxfp8"}, mxfp8),
    "NVFP4, ModelOpt": ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, modelopt_nvfp4),
    "FP8, exponents": ({"quant_method": "fp8"}, fp8_with_exponents),
    "compressed, FP8 rows": (
        compressed(num_bits=8, type="float", strategy="channel"),
        fp8("rows", "weight_scale", lambda n, _: (n, 1)),
    ),
    "compressed, FP8 blocks": (
        compressed(num_bits=8, type="float", strategy="block", block_structure=list(BLOCK)),
        fp8("blocks", "weight_scale", lambda n, m: (-(-n // BLOCK[0]), -(-m // BLOCK[1]))),
    ),
    "compressed, INT8": (compressed(num_bits=8, strategy="channel"), int8(1)),
    "compressed, INT8, zeros": (compressed(num_bits=8, symmetric=False), int8(1, symmetric=False)),
    "compressed, INT8 groups": (compressed(num_bits=8, group_size=32), int8(2)),
    "compressed, 4 bits": (compressed(**W4), ints(4, 32)),
    "compressed, 4 bits, groups of 16, zeros": (
        compressed(num_bits=4, group_size=16, symmetric=False),
        ints(4, 16, symmetric=False),
    ),
    "compressed, 4 bits, ordered": (compressed(**W4, actorder="group"), ints(4, 32, ordered=True)),
    "compressed, 4 bits, ordered, zeros": (
        compressed(**W4, symmetric=False, actorder="group"),
        ints(4, 32, symmetric=False, ordered=True),
    ),
    "compressed, 8 bits, rows": (compressed(num_bits=8, strategy="channel"), ints(8, 0)),
    "compressed, 2 bits": (compressed(num_bits=2, group_size=32), ints(2, 32)),
    "compressed, MXFP4": (compressed(num_bits=4, type="float", group_size=32), mxfp4),
    "compressed, NVFP4": (compressed(num_bits=4, type="float", group_size=16), nvfp4),
    "GPTQ, 4 bits": (by_bits(4), gptq(4)),
    "GPTQ, 4 bits, ordered": (by_bits(4, desc_act=True), gptq(4, ordered=True)),
    "GPTQ, 4 bits, no index": (by_bits(4), gptq(4, ordered=None)),
    "GPTQ, 4 bits, v2": (by_bits(4, checkpoint_format="gptq_v2"), gptq(4, added=0)),
    "GPTQ, 8 bits, one group": (by_bits(8, group_size=-1), gptq(8, group=-1)),
    "GPTQ, 3 bits": (by_bits(3), gptq(3)),
    "GPTQ, 2 bits": (by_bits(2), gptq(2)),
    "AWQ": ({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}, awq),
    "NF4": (NF4, codes4("nf4")),
    "NF4, double": (NF4, codes4("nf4", nested=True)),
    "NF4, in bfloat16": (NF4, codes4("nf4", storage=ml_dtypes.bfloat16)),
    "FP4": (NF4, codes4("fp4")),
    "NF4, before methods had names": ({"load_in_4bit": True}, codes4("nf4")),
    "LLM.int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, llm_int8),
}


def write_packed(directory: Path, settings: Mapping[str, Any], pack: Any, **more: Any) -> Tensors:
    """Write a Llama with the matrices of its layers packed; return its numbers."""
    more |= {"num_hidden_layers": 1, "quantization_config": dict(settings)}
    exact = write_llama(directory, dtype="F32", **more)
    stored: Tensors = {"model.layers.0.self_attn.k_scale": np.ones(1, np.float32)}
    for name, array in list(exact.items()):
        if name.endswith("_proj.weight"):
            tensors, numbers_ = pack(*array.shape)
            exact[name] = numbers_.astype(np.float32)  # one product, rounded once
            stored |= {f"{name.removesuffix('weight')}{part}": tensor for part, tensor in tensors.items()}
        else:
            stored[name] = array
    write_weights(directory, stored)
    return exact


@pytest.mark.parametrize("form", FORMATS)
def test_the_numbers(tmp_path: Path, form: str) -> None:
    """A product of value and scale is rounded once, to float32."""
    settings, pack = FORMATS[form]
    stored, exact = {}, {}
    for name, (n_out, n_in) in {"x": (96, 64), "y": (64, 96)}.items():
        tensors, numbers_ = pack(n_out, n_in)
        stored |= {f"{name}.{part}": tensor for part, tensor in tensors.items()}
        exact[f"{name}.weight"] = numbers_.astype(np.float32)
    write_safetensors(tmp_path / "m.safetensors", stored)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        made = unpack(read_tensors(tmp_path / "m.safetensors"), Config({"quantization_config": settings}))
    assert {name for name in made if not name.endswith(".bias")} == exact.keys()
    for name, array in exact.items():
        assert made[name].shape == array.shape
        assert made[name].array().dtype == np.float32
        assert np.array_equal(made[name].array(), array), name
    kept = {name for tensor in made.values() for name in tensor.sources}
    assert kept == stored.keys()


@pytest.mark.parametrize(
    "form",
    [
        "FP8, blocks",
        "compressed, INT8",
        "compressed, 4 bits",
        "GPTQ, 4 bits, ordered",
        "AWQ",
        "NF4, double",
    ],
)
def test_a_dense_model(tmp_path: Path, form: str) -> None:
    exact = write_packed(tmp_path / "m", *FORMATS[form])
    made = convert_checkpoint(tmp_path / "m", tmp_path / "m.gguf", outtype="f32", verify=False)
    found, expected = read_gguf(made)[1], expected_arrays(exact, CONFIG)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(numbers(found[name]), array), name


def test_blocks_larger_than_any_matrix(tmp_path: Path) -> None:
    """A hostile size takes no memory."""
    values = np.ones((4, 6), ml_dtypes.float8_e4m3fn)
    scales = np.array([[1.0], [2.0]], np.float32)
    write_safetensors(tmp_path / "m.safetensors", {"x.weight": values, "x.weight_scale_inv": scales})
    config = Config({"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 10**12]}})
    made = unpack(read_tensors(tmp_path / "m.safetensors"), config)["x.weight"].array()
    assert made.tolist() == [[1.0] * 6] * 2 + [[2.0] * 6] * 2


def test_every_method_is_tried() -> None:
    tried = {settings.get("quant_method") for settings, _ in FORMATS.values()}
    assert tried | {"mxfp4"} >= METHODS.keys()  # gpt-oss's has tests of its own


def test_experts_in_one_fp8_tensor(tmp_path: Path) -> None:
    """As transformers 5 saves them: (experts, outputs, inputs), with blocks, or one scale an expert."""
    values = RNG.integers(0, 120, (3, 96, 64), np.uint8).view(ml_dtypes.float8_e4m3fn)
    for shape, block in (((3, 3, 2), (32, 32)), ((3, 1, 1), (96, 64))):
        scales = scales_of(*shape)
        name = "model.layers.0.mlp.experts.gate_up_proj"
        write_safetensors(tmp_path / "m.safetensors", {name: values, f"{name}_scale_inv": scales})
        config = Config({"quantization_config": {"quant_method": "fp8", "weight_block_size": list(block)}})
        tensor = unpack(read_tensors(tmp_path / "m.safetensors"), config)[name]
        wide = scales.repeat(block[0], 1).repeat(block[1], 2).astype(np.float64)
        exact = (values.astype(np.float64) * wide).astype(np.float32)
        assert all(np.array_equal(tensor.at(i), exact[i]) for i in range(3))
        assert np.array_equal(tensor.array(), exact)


STATE = "weight.quant_state.bitsandbytes__nf4"
INT4, ORDERED, GPTQ = "compressed, 4 bits", "compressed, 4 bits, ordered", "GPTQ, 4 bits"
OTHERS = ("aqlm", "hqq", "quanto")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *(({"quant_method": name}, f"'{name}', which is not read; read are awq, ") for name in OTHERS),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "'W4A8_AWQ'; of modelopt are read"),
        ({"quant_method": "nvfp4"}, "'nvfp4', which is not read"),
        ({}, "None, which is not read"),
        (by_bits(4, checkpoint_format="marlin"), "4 bits in the format 'marlin'"),
        (by_bits(5), "5 bits in the format 'gptq'"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "4 bits in the version 'gemv'"),
        (compressed(**W4) | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24-bitmask"),
        (compressed(**W4) | {"transform_config": {"config_groups": {"u": {}}}}, "transform_config turns"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedError, match=said):
        unpack({}, Config({"quantization_config": settings}))


def test_packed_integers_of_other_sizes(tmp_path: Path) -> None:
    tensors, _ = ints(4, 32)(8, 64)
    write_safetensors(tmp_path / "m.safetensors", {f"x.{name}": tensor for name, tensor in tensors.items()})
    config = Config({"quantization_config": compressed(num_bits=3, group_size=32)})
    with pytest.raises(UnsupportedError, match="num_bits 3 and type 'int'"):
        unpack(read_tensors(tmp_path / "m.safetensors"), config)


def test_weights_that_are_not_compressed_yet(tmp_path: Path) -> None:
    weights = {"x.weight": np.ones((2, 2), np.float32), "x.weight_scale": np.ones((2, 1), np.float32)}
    write_safetensors(tmp_path / "m.safetensors", weights)
    config = Config({"quantization_config": compressed(num_bits=8)})
    with pytest.raises(UnsupportedError, match=r"x\.weight is F32 with a scale .*save_compressed=True"):
        unpack(read_tensors(tmp_path / "m.safetensors"), config)


def read_all(tensors: Mapping[str, SourceTensor], config: Config) -> None:
    for tensor in unpack(tensors, config).values():
        tensor.array()


def without(part: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__delitem__(part)


def replaced(part: str, array: Matrix) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__setitem__(part, array)


@pytest.mark.parametrize(
    ("form", "change", "said"),
    [
        ("FP8, blocks", without("weight"), r"weight_scale_inv but not x\.weight"),
        ("FP8, blocks", replaced("weight_scale_inv", np.ones((2, 2, 2), np.float32)), "block of 40x48"),
        (INT4, without("weight_scale"), r"but not x\.weight_scale"),
        (INT4, replaced("weight_shape", np.array([96, 96])), r"says \(96, 96\)"),
        (INT4, replaced("weight_shape", np.array([1])), "does not hold the two sizes"),
        (INT4, replaced("weight_zero_point", np.ones((1, 1), np.int32)), "is there"),
        (ORDERED, replaced("weight_g_idx", np.full(64, 2, np.int32)), "outside of the 2"),
        (ORDERED, replaced("weight_g_idx", np.zeros(63, np.int32)), "each of 64 columns"),
        ("compressed, INT8", replaced("weight_scale", np.ones((5, 1), np.float32)), "does not fit"),
        ("compressed, NVFP4", replaced("weight_scale", np.ones((5, 1), np.float32)), "NVFP4 has"),
        ("compressed, NVFP4", replaced("weight_global_scale", np.zeros(1, np.float32)), "is no scale"),
        (GPTQ, without("qzeros"), r"but not x\.qzeros"),
        (GPTQ, replaced("scales", np.ones((3, 96), np.float16)), "do not go together with 4 bits"),
        (GPTQ, replaced("g_idx", np.full(64, -1, np.int32)), "outside of the 2 there are"),
        (GPTQ, replaced("qzeros", np.full((2, 12), -1, np.int32)), "which 4 bits cannot hold"),
        ("AWQ", replaced("qzeros", np.ones((2, 11), np.int32)), "do not go together"),
        ("NF4", without("weight.absmax"), r"but not x\.weight\.absmax"),
        ("NF4", replaced("weight.absmax", np.ones(5, np.float32)), "5 blocks, which do not make 96x64"),
        ("NF4", replaced("weight.absmax", np.ones(96, np.uint8)), "which do not make 96x64"),
        ("NF4", replaced(STATE, np.frombuffer(b"{", np.uint8)), "not JSON"),
        ("NF4", replaced(STATE, np.zeros(5000, np.uint8)), "JSON in bytes"),
        ("LLM.int8", replaced("SCB", np.ones(3, np.float32)), "a number for each row"),
        ("LLM.int8", replaced("weight_format", np.array(1, np.uint8)), "names a layout of a kernel"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(
    tmp_path: Path, form: str, change: Callable[[Tensors], None], said: str
) -> None:
    settings, pack = FORMATS[form]
    tensors, _ = pack(96, 64)
    change(tensors)
    write_safetensors(tmp_path / "m.safetensors", {f"x.{name}": tensor for name, tensor in tensors.items()})
    with pytest.raises(CheckpointError, match=said):
        read_all(read_tensors(tmp_path / "m.safetensors"), Config({"quantization_config": settings}))


def test_rounded_activations_are_said(tmp_path: Path) -> None:
    both = compressed(num_bits=8)
    both["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8, "dynamic": True}
    for settings in (both, {"quant_method": "fp8", "activation_scheme": "dynamic"}):
        with pytest.warns(ConversionWarning, match="activations are rounded as well"):
            unpack({}, Config({"quantization_config": settings}))
