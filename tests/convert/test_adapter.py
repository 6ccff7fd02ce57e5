"""From an adapter's directory to a GGUF adapter or a merged model: every number, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from convert import CheckpointError, ConversionError, UnsupportedError, convert_adapter, convert_checkpoint
from tests.convert.expected import expected_arrays, numbers, read_gguf
from tests.random_checkpoints.adapters import ALPHA, RANK, START, added, random_factors, write_adapter
from tests.random_checkpoints.plain import CONFIG, Tensors, write_llama
from tinker_local import ModelInput, ServiceClient

Arrays = dict[str, NDArray[Any]]
Q0 = f"{START}model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(tmp_path: Path) -> tuple[Path, Tensors]:
    tensors = write_llama(tmp_path / "base", dtype="F32")
    return tmp_path / "base", tensors


def products(path: Path) -> Arrays:
    """Return what llama.cpp adds to each weight: alpha / rank B A (of experts, each)."""
    fields, tensors = read_gguf(path)
    alpha, made = fields["adapter.lora.alpha"], {}
    for name in tensors:
        if name.endswith(".lora_a"):
            a, b = numbers(tensors[name]), numbers(tensors[f"{name[:-1]}b"])
            made[name.removesuffix(".lora_a")] = alpha / b.shape[-1] * b @ a
    return made


def check_products(path: Path, factors: Tensors, scale: float = ALPHA / RANK) -> None:
    found, expected = products(path), expected_arrays(added(factors, scale), CONFIG)
    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        assert np.allclose(found[name], delta, rtol=1e-5, atol=1e-6), name


def test_every_number(base: tuple[Path, Tensors], tmp_path: Path) -> None:
    factors = random_factors(base[1])
    given = write_adapter(tmp_path / "lora", factors, base_model_name_or_path="Org/Tiny")
    path = convert_adapter(given, base[0], tmp_path / "lora.gguf")
    check_products(path, factors)
    fields, tensors = read_gguf(path)
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["general.architecture"] == "llama"
    assert fields["adapter.lora.alpha"] == ALPHA
    assert fields["general.base_model.0.name"] == "Tiny"
    assert fields["general.base_model.0.organization"] == "Org"
    assert len(fields["general.source.sha256"]) == 64
    a = numbers(tensors["blk.0.ffn_down.weight.lora_a"])
    assert np.array_equal(a, factors[f"{START}model.layers.0.mlp.down_proj.lora_A.weight"])


@pytest.mark.parametrize("outtype", ["f32", "q8_0", "q4_0"])
def test_a_gguf_file_as_the_base(base: tuple[Path, Tensors], tmp_path: Path, outtype: str) -> None:
    given = write_adapter(tmp_path / "lora", random_factors(base[1]))
    file = convert_checkpoint(base[0], tmp_path / "base.gguf", outtype=outtype, verify=False)
    one = convert_adapter(given, file, tmp_path / "one.gguf")
    other = convert_adapter(given, base[0], tmp_path / "other.gguf")
    a, b = products(one), products(other)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)
    weights = read_gguf(file)[0]["general.source.sha256"]
    assert read_gguf(one)[0]["general.base_model.0.source.sha256"] == weights


def test_alpha_and_rank_of_each_module(base: tuple[Path, Tensors], tmp_path: Path) -> None:
    factors = random_factors(base[1], head=False)
    factors |= {key: value for key, value in random_factors(base[1], rank=2).items() if "q_proj" in key}
    given = write_adapter(
        tmp_path / "lora",
        factors,
        lora_alpha=3,
        rank_pattern={"q_proj": 2},
        alpha_pattern={r"layers\.1\.mlp\.down_proj": 7.5},
        use_rslora=True,
    )
    path = convert_adapter(given, base[0], tmp_path / "lora.gguf")
    expected = {}
    for name, delta in added(factors, 1.0).items():
        alpha = 7.5 if "layers.1.mlp.down_proj" in name else 3
        expected[name] = np.float32(alpha / (2 if "q_proj" in name else RANK) ** 0.5) * delta
    arrays, found = expected_arrays(expected, CONFIG), products(path)
    assert found.keys() == arrays.keys()
    for name, delta in arrays.items():
        assert np.allclose(found[name], delta, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("how", ["orthogonal", "mica", "eva", "Gaussian", True, False, None])
def test_starts_that_leave_the_base_alone(base: tuple[Path, Tensors], tmp_path: Path, how: Any) -> None:
    factors = {name: array for name, array in random_factors(base[1], head=False).items() if Q0 in name}
    given = write_adapter(tmp_path / "lora", factors, init_lora_weights=how)
    check_products(convert_adapter(given, base[0], tmp_path / "lora.gguf"), factors)


@pytest.mark.parametrize("outtype", ["f32", "bf16", "q8_0"])
@pytest.mark.parametrize("tied", [False, True])
def test_merged(tmp_path: Path, outtype: str, tied: bool) -> None:
    tensors = write_llama(tmp_path / "base", dtype="BF16", tie_word_embeddings=tied)
    factors = random_factors(tensors)
    given = write_adapter(tmp_path / "lora", factors)
    path = convert_adapter(given, tmp_path / "base", tmp_path / "m.gguf", merge=True, outtype=outtype)
    if tied:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    merged = {name: array.astype(np.float32) for name, array in tensors.items()}
    for name, delta in added(factors).items():
        merged[name] = merged[name] + delta
    found = read_gguf(path)[1]
    expected = expected_arrays(merged, CONFIG)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        near = {"f32": 1e-5, "bf16": 1e-2, "q8_0": 2e-2}[outtype] * np.abs(array).max()
        assert np.abs(numbers(found[name]) - array).max() <= near, name


def test_merged_in_a_quantizers_type_and_in_parts(base: tuple[Path, Tensors], tmp_path: Path) -> None:
    given = write_adapter(tmp_path / "lora", random_factors(base[1]))
    path = convert_adapter(given, base[0], tmp_path / "m.gguf", merge=True, outtype="q4_0")
    assert read_gguf(path)[0]["general.file_type"] == 2
    first = convert_adapter(
        given, base[0], tmp_path / "n.gguf", merge=True, outtype="auto", split_size=200_000
    )
    assert first.name.startswith("n-00001-of-")


def test_a_tied_base_gets_an_output_matrix(tmp_path: Path) -> None:
    """The adapter changes what the model says, and leaves what it reads as it is."""
    tensors = write_llama(tmp_path / "tied", dtype="F32", tie_word_embeddings=True)
    factors = {k: v for k, v in random_factors(tensors).items() if "unembed" in k}
    given = write_adapter(tmp_path / "lora", factors)
    base = convert_checkpoint(tmp_path / "tied", tmp_path / "base-f32.gguf", outtype="f32")
    adapter = convert_adapter(given, base, tmp_path / "lora.gguf")
    assert (tmp_path / "base-untied-f32.gguf").exists()
    whole = convert_adapter(given, tmp_path / "tied", tmp_path / "m.gguf", merge=True, outtype="f32")
    scores = []
    with ServiceClient(kv_type="f32", flash_attn=False, n_ctx=256, prefix_cache=False) as service:
        prompt = ModelInput.from_ints(list(range(32, 64)))
        for client in (
            service.create_sampling_client(str(adapter), base_model=str(base)),
            service.create_sampling_client(base_model=str(whole)),
            service.create_sampling_client(base_model=str(base)),
        ):
            scores.append(np.array(client.compute_logprobs(prompt).result()[1:]))
    assert np.abs(scores[0] - scores[1]).max() < 1e-4
    assert np.abs(scores[0] - scores[2]).max() > 0.1


def test_an_embedding_is_changed_on_its_own_side(tmp_path: Path) -> None:
    """PEFT's factors of ``embed_tokens`` change the lookup; the output if ``ensure_weight_tying``."""
    tensors = write_llama(tmp_path / "tied", dtype="F32", tie_word_embeddings=True)
    n_tokens, width = tensors["model.embed_tokens.weight"].shape
    rng = np.random.default_rng(0)
    a = rng.standard_normal((RANK, n_tokens), np.float32)
    b = rng.standard_normal((width, RANK), np.float32)
    key = f"{START}model.embed_tokens.lora_embedding_"
    given = write_adapter(tmp_path / "lora", {f"{key}A": a, f"{key}B": b})
    delta = np.float32(ALPHA / RANK) * (b @ a).T
    embedding = tensors["model.embed_tokens.weight"]

    merged = read_gguf(
        convert_adapter(given, tmp_path / "tied", tmp_path / "m.gguf", merge=True, outtype="f32")
    )
    assert np.allclose(numbers(merged[1]["token_embd.weight"]), embedding + delta, atol=1e-5)
    assert np.array_equal(numbers(merged[1]["output.weight"]), embedding)
    lora = read_gguf(convert_adapter(given, tmp_path / "tied", tmp_path / "lora.gguf"))[1]
    assert lora.keys() == {"token_embd.weight.lora_a", "token_embd.weight.lora_b"}
    found = numbers(lora["token_embd.weight.lora_a"]) @ numbers(lora["token_embd.weight.lora_b"]).T
    assert np.allclose(found * ALPHA / RANK, delta, atol=1e-5)

    write_adapter(tmp_path / "lora", {f"{key}A": a, f"{key}B": b}, ensure_weight_tying=True)
    both = convert_adapter(given, tmp_path / "tied", tmp_path / "b.gguf", merge=True, outtype="f32")
    assert np.allclose(numbers(read_gguf(both)[1]["output.weight"]), embedding + delta, atol=1e-5)


def broken(factors: Tensors, what: str) -> tuple[Tensors, dict[str, Any]]:
    """Return an adapter that has something wrong with it, and its settings."""
    settings: dict[str, Any] = {}
    if what == "rank":
        settings["r"] = 8
    elif what == "partner":
        del factors[f"{Q0}.lora_B.weight"]
    elif what == "key":
        factors[f"{START}model.layers.0.self_attn.q_proj.lora_C.weight"] = np.ones((2, 2), np.float32)
    elif what == "module":
        factors |= {k.replace("layers.0", "layers.9"): v for k, v in factors.items() if Q0 in k}
    elif what == "shape":
        factors[f"{Q0}.lora_A.weight"] = np.ones((RANK, 32), np.float32)
    elif what == "magnitude":
        factors[f"{Q0}.lora_magnitude_vector"] = np.ones(64, np.float32)
    elif what == "whole module":
        factors[f"{START}lm_head.weight"] = np.ones((300, 64), np.float32)
    elif what == "factors":
        factors[f"{Q0}.lora_A.weight"] = np.ones((RANK + 1, 64), np.float32)
    elif what == "twice":
        factors[f"{Q0.removeprefix(START)}.lora_A.weight"] = factors[f"{Q0}.lora_A.weight"]
    elif what == "integers":
        factors[f"{Q0}.lora_A.weight"] = np.ones((RANK, 64), np.int32)
    elif what == "nan":
        factors[f"{Q0}.lora_A.weight"][0, 0] = np.nan
    else:
        settings = json.loads(what)
    return factors, settings


@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        ("rank", CheckpointError, "have the rank 4; .*adapter_config.json says 8"),
        ("partner", CheckpointError, "is factor A of .*q_proj; the other is missing"),
        ("key", UnsupportedError, "no factors of a LoRA: .*lora_C"),
        ("module", CheckpointError, r"does not have: model\.layers\.9\.self_attn\.q_proj"),
        ("shape", CheckpointError, r"do not fit model\.layers\.0\.self_attn\.q_proj.*another model"),
        ("magnitude", UnsupportedError, "lora_magnitude_vector"),
        ("whole module", UnsupportedError, "lm_head.weight"),
        ("factors", CheckpointError, "are no factors of one product"),
        ("twice", CheckpointError, "is there again"),
        ("integers", CheckpointError, "has the dtype I32"),
        ("nan", CheckpointError, "it holds nan"),
        ('{"use_dora": true}', UnsupportedError, "use_dora is True"),
        ('{"bias": "all"}', UnsupportedError, "bias is 'all'"),
        ('{"modules_to_save": ["lm_head"]}', UnsupportedError, "modules_to_save"),
        (
            '{"init_lora_weights": "pissa"}',
            UnsupportedError,
            "'pissa', which changes the base's weights too",
        ),
        ('{"init_lora_weights": "pissa_niter_4"}', UnsupportedError, "'pissa_niter_4', which changes"),
        ('{"init_lora_weights": "olora"}', UnsupportedError, "'olora', which changes"),
        ('{"init_lora_weights": "corda"}', UnsupportedError, "'corda', which changes"),
        ('{"init_lora_weights": "lora_ga"}', UnsupportedError, "'lora_ga', which changes"),
        ('{"init_lora_weights": "loftq"}', UnsupportedError, "'loftq', which changes"),
        ('{"init_lora_weights": "other"}', UnsupportedError, "'other'; known are true, false, gaussian, "),
        ('{"peft_type": "LOHA"}', UnsupportedError, "peft_type is 'LOHA'"),
        ('{"lora_alpha": 0}', CheckpointError, "lora_alpha must be a number other than 0"),
        ('{"r": "4"}', CheckpointError, "r must be a whole number"),
        ('{"rank_pattern": [4]}', CheckpointError, "rank_pattern must be a table"),
        ('{"rank_pattern": {"(a+)+$": 4}}', UnsupportedError, "which is not evaluated"),
    ],
)
def test_what_is_wrong_is_said(
    base: tuple[Path, Tensors], tmp_path: Path, what: str, error: type[Exception], said: str
) -> None:
    factors, settings = broken(random_factors(base[1]), what)
    given = write_adapter(tmp_path / "lora", factors, **settings)
    for merge in (False, True):
        with pytest.raises(error, match=said):
            convert_adapter(given, base[0], tmp_path / "out" / "x.gguf", merge=merge)
    assert not (tmp_path / "out").exists()


def test_files_that_are_missing(base: tuple[Path, Tensors], tmp_path: Path) -> None:
    given = write_adapter(tmp_path / "lora", random_factors(base[1]))
    (given / "adapter_model.safetensors").rename(given / "adapter_model.bin")
    with pytest.raises(UnsupportedError, match="as a pickle"):
        convert_adapter(given, base[0], tmp_path / "x.gguf")
    (given / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        convert_adapter(given, base[0], tmp_path / "x.gguf")
    (given / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match="it is no adapter"):
        convert_adapter(given, base[0], tmp_path / "x.gguf")
    with pytest.raises(ConversionError, match="there is no"):
        convert_adapter(tmp_path / "none", base[0], tmp_path / "x.gguf")


def test_an_adapter_that_names_another_base(base: tuple[Path, Tensors], tmp_path: Path) -> None:
    named = convert_checkpoint(
        base[0], tmp_path / "b.gguf", name="Org/Tiny-Base", outtype="f32", verify=False
    )
    factors = random_factors(base[1], head=False)
    given = write_adapter(tmp_path / "lora", factors, base_model_name_or_path="Org/Tiny")
    with pytest.raises(CheckpointError, match=r"trained on Org/Tiny; .* is Org/Tiny-Base"):
        convert_adapter(given, named, tmp_path / "x.gguf")
    convert_adapter(given, named, tmp_path / "x.gguf", any_base=True)
    write_adapter(given, factors, base_model_name_or_path="Other/tiny-base")
    convert_adapter(given, named, tmp_path / "y.gguf")


def test_types_and_outputs_that_cannot_be(base: tuple[Path, Tensors], tmp_path: Path) -> None:
    given, output = write_adapter(tmp_path / "lora", random_factors(base[1])), tmp_path / "x.gguf"
    file = convert_checkpoint(base[0], tmp_path / "b.gguf", outtype="f32", verify=False)
    with pytest.raises(UnsupportedError, match="stored as one of f32, f16, bf16, not q4_0"):
        convert_adapter(given, file, output, outtype="q4_0")
    with pytest.raises(UnsupportedError, match="leave out --split-size"):
        convert_adapter(given, file, output, split_size=1000)
    with pytest.raises(UnsupportedError, match=r"b\.gguf is a GGUF file; give the Hugging Face directory"):
        convert_adapter(given, file, output, merge=True)
    made = convert_adapter(given, file, output, outtype="f16")
    assert read_gguf(made)[1]["output.weight.lora_a"].tensor_type.name == "F16"
    with pytest.raises(CheckpointError, match="is no model"):
        convert_adapter(given, made, tmp_path / "y.gguf")
    with pytest.raises(ConversionError, match="is there already"):
        convert_adapter(given, file, output)
