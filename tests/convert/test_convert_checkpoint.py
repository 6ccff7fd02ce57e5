"""From a model directory to a GGUF file: every tensor, every type, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from convert import CheckpointError, ConversionError, UnsupportedError, convert_checkpoint
from convert.gguf.file_types import FILE_TYPES, NEED_A_MATRIX
from convert.quantize import quantize
from tests.convert.expected import expected_arrays, numbers, read_gguf
from tests.random_checkpoints.plain import CONFIG, Tensors, write_llama, write_weights
from tinker_local import ModelInput, SamplingParams, ServiceClient

MXFP4 = gguf.GGMLQuantizationType.MXFP4
DOWN_0 = "blk.0.ffn_down.weight"
DIRECT = ("f32", "bf16", "f16", "q8_0")


@pytest.mark.parametrize("n_shards", [1, 3])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
@pytest.mark.parametrize("outtype", [*DIRECT, "auto"])
def test_every_tensor(tmp_path: Path, dtype: str, outtype: str, n_shards: int) -> None:
    written = write_llama(tmp_path / "tiny", dtype=dtype, n_shards=n_shards)
    path = convert_checkpoint(
        tmp_path / "tiny", tmp_path / "tiny.gguf", outtype=outtype, verify=n_shards == 3
    )
    fields, tensors = read_gguf(path)
    kind = {"auto": dtype.replace("F64", "F32")}.get(outtype, outtype.upper())
    assert fields["general.file_type"] == FILE_TYPES[kind.lower()].number
    expected = expected_arrays(written, CONFIG)
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        stored = gguf.GGMLQuantizationType["F32" if array.ndim == 1 else kind]
        assert tensors[name].tensor_type == stored
        assert tuple(tensors[name].shape[::-1]) == array.shape
        exact = gguf.quants.quantize(array.astype(np.float32), stored)
        assert np.array_equal(tensors[name].data.view(np.uint8).ravel(), exact.view(np.uint8).ravel())


@pytest.mark.parametrize("outtype", [type for type in FILE_TYPES if type not in DIRECT])
def test_types_of_the_quantizer(tmp_path: Path, outtype: str) -> None:
    settings = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1}
    written = write_llama(tmp_path / "tiny", **settings)
    path = convert_checkpoint(
        tmp_path / "tiny", tmp_path / "tiny.gguf", outtype=outtype.upper(), verify=False
    )
    fields, tensors = read_gguf(path)
    assert fields["general.file_type"] == FILE_TYPES[outtype].number
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    expected = expected_arrays(written, CONFIG | settings)
    assert tensors.keys() == expected.keys()
    for name, array in expected.items():
        near, wide = numbers(tensors[name]), array.astype(np.float32)
        if array.ndim == 1:
            assert np.array_equal(near, wide)
        else:
            worst = 0.9 if outtype.startswith("tq") else 0.6  # three values only
            assert 0 < np.abs(near - wide).mean() < worst * np.abs(wide).mean()
    assert path.stat().st_size < sum(a.size for a in expected.values()) * FILE_TYPES[outtype].bits / 8 + 2e4


def test_the_hash_takes_no_tokens_place(tmp_path: Path) -> None:
    """Vocabularies have tokens of many dashes, and dashes stand for the hash until it is known."""
    write_llama(tmp_path / "tiny")
    dashes, file = "-" * 64, tmp_path / "tiny" / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"word0"', f'"{dashes}"'), encoding="utf-8")
    fields, _ = read_gguf(convert_checkpoint(tmp_path / "tiny", tmp_path / "tiny.gguf"))
    assert dashes in fields["tokenizer.ggml.tokens"]
    assert set(fields["general.source.sha256"]) <= set("0123456789abcdef")


def test_samples_and_scores_alike_from_every_precision(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny", dtype="BF16")
    with ServiceClient(kv_type="f32", flash_attn=False, n_ctx=256, models_dir=tmp_path) as service:
        prompt = ModelInput.from_ints(list(range(32, 64)))
        scores = []
        for outtype in ("f32", "bf16"):
            convert_checkpoint(tmp_path / "tiny", tmp_path / f"tiny-{outtype}.gguf", outtype=outtype)
            client = service.create_sampling_client(base_model=f"tiny-{outtype}")
            response = client.sample(prompt, 1, SamplingParams(max_tokens=4, stop=[])).result()
            assert len(response.sequences[0].tokens) == 4
            scores.append(np.array(client.compute_logprobs(prompt).result()[1:], float))
    assert np.abs(scores[0] - scores[1]).max() < 0.2
    assert scores[0].std() > 0.1


@pytest.mark.parametrize("outtype", ["f32", "q4_0"])
def test_parts(tmp_path: Path, outtype: str) -> None:
    written = write_llama(tmp_path / "tiny")
    limit = 100_000
    path = convert_checkpoint(tmp_path / "tiny", tmp_path / "tiny.gguf", outtype=outtype, split_size=limit)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) > 2
    assert path == parts[0] == tmp_path / f"tiny-00001-of-{len(parts):05d}.gguf"
    assert max(part.stat().st_size for part in parts) <= limit
    fields, tensors = read_gguf(*parts)
    assert (fields["split.no"], fields["split.count"]) == (0, len(parts))
    assert fields["split.tensors.count"] == len(tensors)
    assert tensors.keys() == expected_arrays(written, CONFIG).keys()
    with ServiceClient(n_ctx=256, models_dir=tmp_path) as service:
        client = service.create_sampling_client(base_model="tiny")
        assert len(client.compute_logprobs(ModelInput.from_ints([32, 33])).result()) == 2
    with pytest.raises(ConversionError, match="is there already"):
        convert_checkpoint(tmp_path / "tiny", tmp_path / "tiny.gguf")
    convert_checkpoint(tmp_path / "tiny", tmp_path / "tiny.gguf", force=True)
    assert sorted(tmp_path.glob("*.gguf")) == [tmp_path / "tiny.gguf"]


def test_metadata(tmp_path: Path) -> None:
    directory = tmp_path / "models--org--tiny" / "snapshots" / "abc"
    written = write_llama(directory)
    card = "---\nlanguage: en\nlicense: apache-2.0 # free\nbase_model:\n- base/big\n---\n# A model\n"
    (directory / "README.md").write_text(card)
    fields, _ = read_gguf(convert_checkpoint(directory, tmp_path / "x.gguf"))
    lines = [
        f"{name} BF16 {'x'.join(map(str, array.shape))} {hashlib.sha256(array.tobytes()).hexdigest()}\n"
        for name, array in sorted(written.items())
    ]
    assert {key: fields[key] for key in fields if key.startswith("general.")} == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "tiny",
        "general.organization": "org",
        "general.license": "apache-2.0",
        "general.source.huggingface.repository": "org/tiny",
        "general.source.sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
        "general.file_type": 32,
        "general.quantization_version": 2,
        "general.base_model.count": 1,
        "general.base_model.0.name": "big",
        "general.base_model.0.organization": "base",
        "general.base_model.0.repo_url": "https://huggingface.co/base/big",
    }


def test_the_hash_is_of_the_weights_alone(tmp_path: Path) -> None:
    hashes = {}
    for label, options in {"one": {}, "three": {"n_shards": 3}, "other": {"seed": 1}}.items():
        write_llama(tmp_path / label, **options)  # type: ignore[arg-type]
        for outtype in ("f32", "q4_0"):
            path = convert_checkpoint(
                tmp_path / label, tmp_path / f"{label}-{outtype}.gguf", outtype=outtype, verify=False
            )
            hashes[label, outtype] = read_gguf(path)[0]["general.source.sha256"]
    assert len(set(hashes.values())) == 2
    assert len({value for (label, _), value in hashes.items() if label != "other"}) == 1


def test_another_type_of_a_gguf_file(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny")
    bf16 = convert_checkpoint(tmp_path / "tiny", tmp_path / "tiny-bf16.gguf")
    direct = convert_checkpoint(tmp_path / "tiny", tmp_path / "direct.gguf", outtype="q8_0")
    seen: list[tuple[int, int]] = []
    again = convert_checkpoint(
        bf16, tmp_path / "again.gguf", outtype="q8_0", on_progress=lambda *n: seen.append(n)
    )
    assert seen
    assert seen[-1][0] == seen[-1][1] == bf16.stat().st_size
    fields, tensors = read_gguf(again)
    others, expected = read_gguf(direct)
    ignored = ("GGUF.", "general.name")
    assert {k: v for k, v in fields.items() if not k.startswith(ignored)} == {
        k: v for k, v in others.items() if not k.startswith(ignored)
    }
    assert all(np.array_equal(tensors[name].data, expected[name].data) for name in expected)
    for source, options, said in (
        (bf16, {"outtype": "auto"}, "has a type already"),
        (bf16, {"outtype": "q8_0", "split_size": 10**6}, "cannot be split"),
        (bf16, {"outtype": "q9"}, "'q9' is not known; there are auto, f32"),
        (bf16, {"outtype": "q8_0", "output": bf16, "force": True}, "is the source itself"),
    ):
        with pytest.raises(ConversionError, match=said):
            convert_checkpoint(source, **{"output": tmp_path / "x.gguf", **options})  # type: ignore[arg-type]


def test_a_broken_gguf_file(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny")
    good = convert_checkpoint(tmp_path / "tiny", tmp_path / "good.gguf").read_bytes()
    for content, said in ((good[:-4096], "bounds|corrupted"), (good[:300], ""), (b"GGUF" + bytes(99), "")):
        (tmp_path / "bad.gguf").write_bytes(content)
        with pytest.raises(ConversionError, match=rf"llama.cpp cannot make q4_0 of .*bad.gguf: .*({said})"):
            convert_checkpoint(tmp_path / "bad.gguf", tmp_path / "x.gguf", outtype="q4_0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.gguf", "good.gguf", "tiny"]


@pytest.mark.parametrize("outtype", NEED_A_MATRIX)
def test_types_that_need_more(tmp_path: Path, outtype: str) -> None:
    write_llama(tmp_path / "tiny")
    with pytest.raises(UnsupportedError, match="needs an importance matrix"):
        convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf", outtype=outtype)


def rename(tensors: Tensors, old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


def with_value(tensors: Tensors, name: str, value: float) -> None:
    tensors[name] = tensors[name].astype(np.float32)
    tensors[name].flat[-1] = value


NORM, DOWN = "model.norm.weight", "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda t: t.pop(DOWN), CheckpointError, f"no tensor {DOWN}"),
        (lambda t: t.pop("lm_head.weight"), CheckpointError, "no tensor lm_head.weight"),
        (lambda t: t.update(extra=t[NORM]), CheckpointError, "no place for: extra"),
        (lambda t: rename(t, DOWN, "x"), CheckpointError, DOWN),
        (lambda t: t.update({DOWN: t[DOWN].T}), CheckpointError, rf"{DOWN} has the shape \(96, 64\)"),
        (lambda t: t.update({NORM: t[NORM][:-2]}), CheckpointError, rf"{NORM} has the shape \(62,\)"),
        (lambda t: with_value(t, DOWN, np.nan), CheckpointError, f"{DOWN} cannot be stored: it holds nan"),
        (lambda t: with_value(t, NORM, np.inf), CheckpointError, f"{NORM} cannot be stored: it holds inf"),
        (lambda t: with_value(t, DOWN, -7e4), CheckpointError, "-70000, which is too large for f16"),
    ],
)
def test_tensors_that_are_wrong(
    tmp_path: Path, change: Callable[[Tensors], Any], error: type[Exception], said: str
) -> None:
    tensors = write_llama(tmp_path / "tiny")
    change(tensors)
    write_weights(tmp_path / "tiny", tensors)
    with pytest.raises(error, match=said):
        convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf", outtype="f16")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_what_is_no_part_of_the_computation_may_be_there(tmp_path: Path) -> None:
    tensors = write_llama(tmp_path / "tiny")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    write_weights(tmp_path / "tiny", tensors)
    _, made = read_gguf(convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf"))
    assert len(made) == len(tensors) - 1


def test_tied_embeddings(tmp_path: Path) -> None:
    tensors = write_llama(tmp_path / "tiny", tie_word_embeddings=True)
    _, made = read_gguf(convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf"))
    assert "output.weight" not in made
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    write_weights(tmp_path / "tiny", tensors)
    convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf", force=True)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        (
            {"architectures": ["Nobody"]},
            UnsupportedError,
            "Nobody is not known.*LlamaForCausalLM",
        ),
        ({"hidden_act": "gelu"}, UnsupportedError, "hidden_act is 'gelu'"),
        ({"attn_logit_softcapping": 30.0}, UnsupportedError, "attn_logit_softcapping"),
        ({"num_hidden_layers": -1}, CheckpointError, "num_hidden_layers must be"),
        ({"num_hidden_layers": 10**30}, CheckpointError, "num_hidden_layers must be"),
        ({"num_attention_heads": 0}, CheckpointError, "num_attention_heads must be"),
        ({"num_attention_heads": 10**9}, CheckpointError, r"q_proj.*by config.json it would be \(0, 64\)"),
        ({"head_dim": 10**8}, CheckpointError, r"q_proj.*by config.json it would be \(400000000, 64\)"),
        ({"head_dim": 3}, CheckpointError, r"q_proj.*by config.json it would be \(12, 64\)"),
        ({"num_hidden_layers": 3}, CheckpointError, r"no tensor model\.layers\.2\."),
        ({"num_hidden_layers": 1}, CheckpointError, r"no place for: model\.layers\.1\."),
        (
            {"hidden_size": 128},
            CheckpointError,
            r"has the shape \(64,\); by config.json it would be \(128,\)",
        ),
        ({"rms_norm_eps": "small"}, CheckpointError, "rms_norm_eps must be a number"),
        ({"rms_norm_eps": float("nan")}, CheckpointError, "rms_norm_eps must be a number"),
        ({"max_position_embeddings": None}, CheckpointError, "max_position_embeddings must be"),
    ],
)
def test_settings_that_are_wrong(
    tmp_path: Path, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    write_llama(tmp_path / "tiny")
    config = tmp_path / "tiny" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    with pytest.raises(error, match=said):
        convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_vocabulary_of_another_model(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny")
    write_llama(tmp_path / "other", vocab_size=400)
    (tmp_path / "other" / "tokenizer.json").replace(tmp_path / "tiny" / "tokenizer.json")
    with pytest.raises(CheckpointError, match="not of the same model"):
        convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("source", "said"),
    [("org/name", r"there is no .*name"), ("file.txt", "neither a model directory nor a GGUF file")],
)
def test_sources_that_are_none(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "file.txt").write_text("hello")
    with pytest.raises(ConversionError, match=said):
        convert_checkpoint(tmp_path / source)


def test_a_name_of_hugging_face_says_how_to_get_it() -> None:
    with pytest.raises(ConversionError, match="hf download org/name"):
        convert_checkpoint("org/name")


def test_tensors_that_the_quantizer_leaves_alone(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny", hidden_size=256, intermediate_size=512, num_hidden_layers=1)
    source = convert_checkpoint(tmp_path / "tiny", tmp_path / "x-q4_0.gguf", outtype="q4_0")
    quantize(source, tmp_path / "y.gguf", FILE_TYPES["q5_1"], kept=[(DOWN_0, 2)])
    (_, before), (_, after) = read_gguf(source), read_gguf(tmp_path / "y.gguf")
    assert np.array_equal(after[DOWN_0].data, before[DOWN_0].data)
    assert after["blk.0.ffn_up.weight"].tensor_type == gguf.GGMLQuantizationType.Q5_1


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("split_size", [None, 200_000])
def test_an_output_matrix_of_its_own_type(tmp_path: Path, tied: bool, split_size: int | None) -> None:
    write_llama(tmp_path / "tiny", hidden_size=256, intermediate_size=256, tie_word_embeddings=tied)
    path = convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf", split_size=split_size)
    again = convert_checkpoint(path, tmp_path / "y.gguf", outtype="Q4_0+F16")
    types = {name: tensor.tensor_type.name for name, tensor in read_gguf(again)[1].items()}
    assert types.pop("token_embd.weight" if tied else "output.weight") == "F16"
    assert {type for name, type in types.items() if not name.endswith("norm.weight")} == {"Q4_0"}
    with pytest.raises(UnsupportedError, match=r"'q4_0\+q4_k_m' has no output matrix that we know"):
        convert_checkpoint(path, tmp_path / "z.gguf", outtype="q4_0+q4_k_m")
    direct = convert_checkpoint(tmp_path / "tiny", tmp_path / "d.gguf", outtype="q4_0+f16")
    assert {n: t.tensor_type for n, t in read_gguf(direct)[1].items()} == {
        n: t.tensor_type for n, t in read_gguf(again)[1].items()
    }


def test_mxfp4_stays(tmp_path: Path) -> None:
    write_llama(tmp_path / "tiny", hidden_size=256, intermediate_size=512, num_hidden_layers=1)
    whole = convert_checkpoint(tmp_path / "tiny", tmp_path / "x.gguf")
    quantize(whole, tmp_path / "m.gguf", FILE_TYPES["q8_0"], kept=[(DOWN_0, int(MXFP4))])
    again = convert_checkpoint(tmp_path / "m.gguf", tmp_path / "n.gguf", outtype="q4_k_m")
    (_, before), (_, after) = read_gguf(tmp_path / "m.gguf"), read_gguf(again)
    assert before[DOWN_0].tensor_type == after[DOWN_0].tensor_type == MXFP4
    assert np.array_equal(before[DOWN_0].data, after[DOWN_0].data)
