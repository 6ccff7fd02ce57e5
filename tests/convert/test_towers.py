"""Vision towers: a checkpoint that reads images becomes a model's file and an mmproj file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from convert import CheckpointError, ConversionError, UnsupportedError, convert_adapter, convert_checkpoint
from convert.errors import ConversionWarning, VerificationError
from convert.files.mmproj import mmproj_path
from convert.model import ModelPlan
from convert.source.checkpoint import SourceCheckpoint
from convert.verification import tokenization, verify
from tests.convert.embeddings import opened, picture
from tests.convert.expected import read_gguf
from tests.libmtmd import needs_libmtmd
from tests.random_checkpoints.adapters import random_factors, write_adapter
from tests.random_checkpoints.plain import Tensors, write_llama, write_weights
from tests.random_checkpoints.vision import write_gemma3, write_qwen3vl

VISUAL, SIGLIP = "model.visual.", "model.vision_tower.vision_model."


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensors]:
    """A Qwen3-VL checkpoint, and its tensors."""
    directory = tmp_path_factory.mktemp("towers") / "qwen"
    return directory, write_qwen3vl(directory)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensors]:
    """A Gemma 3 checkpoint, and its tensors."""
    directory = tmp_path_factory.mktemp("towers") / "gemma"
    return directory, write_gemma3(directory)


@pytest.fixture(scope="module")
def qwen_file(qwen: tuple[Path, Tensors]) -> Path:
    return convert_checkpoint(qwen[0], qwen[0].with_name("qwen-f32.gguf"), outtype="f32", verify=False)


@pytest.fixture(scope="module")
def gemma_file(gemma: tuple[Path, Tensors]) -> Path:
    return convert_checkpoint(gemma[0], gemma[0].with_name("gemma-f32.gguf"), outtype="f32", verify=False)


def same(made: Any, numbers: np.ndarray[Any, Any]) -> bool:
    return bool(np.array_equal(made.data.reshape(numbers.shape), numbers))


def test_tensors_of_qwen3vl(qwen: tuple[Path, Tensors], qwen_file: Path) -> None:
    keys, made = read_gguf(mmproj_path(qwen_file))
    given = qwen[1]
    kernel = given[f"{VISUAL}patch_embed.proj.weight"]
    assert same(made["v.patch_embd.weight"], kernel[:, :, 0])
    assert same(made["v.patch_embd.weight.1"], kernel[:, :, 1])
    for name, source in {
        "v.position_embd.weight": "pos_embed.weight",
        "v.blk.2.attn_qkv.bias": "blocks.2.attn.qkv.bias",
        "v.blk.0.ffn_down.weight": "blocks.0.mlp.linear_fc2.weight",
        "v.post_ln.weight": "merger.norm.weight",
        "mm.2.bias": "merger.linear_fc2.bias",
        "v.deepstack.1.fc1.weight": "deepstack_merger_list.1.linear_fc1.weight",
    }.items():
        assert same(made[name], given[VISUAL + source]), name
    assert len(made) == sum(name.startswith(VISUAL) for name in given) + 1  # the kernel is two
    assert keys["general.type"] == "mmproj"
    assert keys["general.architecture"] == "clip"
    assert keys["clip.projector_type"] == "qwen3vl_merger"
    assert keys["clip.vision.is_deepstack_layers"] == [True, True, False]
    assert keys["clip.vision.image_size"] == 96
    assert keys["clip.vision.image_mean"] == pytest.approx([0.5, 0.4, 0.3])
    assert keys["clip.vision.image_max_pixels"] == 65536
    assert keys["clip.vision.projection_dim"] == 64
    assert read_gguf(qwen_file)[0]["qwen3vl.n_deepstack_layers"] == 2


def test_tensors_of_gemma3(gemma: tuple[Path, Tensors], gemma_file: Path) -> None:
    keys, made = read_gguf(mmproj_path(gemma_file))
    given, projector = gemma[1], "model.multi_modal_projector.mm_"
    assert same(made["mm.soft_emb_norm.weight"], given[f"{projector}soft_emb_norm.weight"] + np.float32(1))
    assert same(made["mm.input_projection.weight"], given[f"{projector}input_projection_weight"])
    for name, source in {
        "v.patch_embd.weight": "embeddings.patch_embedding.weight",
        "v.blk.1.attn_out.weight": "encoder.layers.1.self_attn.out_proj.weight",
        "v.blk.0.ln2.bias": "encoder.layers.0.layer_norm2.bias",
        "v.post_ln.bias": "post_layernorm.bias",
    }.items():
        assert same(made[name], given[SIGLIP + source]), name
    assert keys["clip.projector_type"] == "gemma3"
    assert keys["clip.vision.projector.scale_factor"] == 2


ORACLE = {
    "qwen": (
        (64, 96),
        [[0.37397, 1.09163, -0.67066], [0.39266, 1.3055, -0.97159]],
        [[-0.09313, 1.05276, 0.04952], [-1.19992, 1.514, 1.21029]],
    ),
    "gemma": (
        (56, 56),
        [[0.34941, 1.10298, -2.13556], [0.65262, 0.69692, -1.38651]],
        [[-1.81643, -0.19904, -0.08157], [-1.37648, 0.85247, -0.01485]],
    ),
}
"""By the model: an image's size, and what transformers 5.24 gives for it in float32: of the first and the
last embedding the first and the last numbers; those of Qwen3-VL end with deepstack's.
tests/parity/test_towers.py computes them anew, and says why libmtmd is no nearer."""


@needs_libmtmd
@pytest.mark.parametrize("name", ORACLE)
def test_embeddings_are_those_of_transformers(name: str, qwen_file: Path, gemma_file: Path) -> None:
    size, first, last = ORACLE[name]
    with opened(qwen_file if name == "qwen" else gemma_file) as encoder:
        embeddings = encoder.encode(picture(*size))[[0, -1]]
    assert embeddings[:, :3] == pytest.approx(np.array(first), abs=2e-3)
    assert embeddings[:, -3:] == pytest.approx(np.array(last), abs=2e-3)


@pytest.mark.parametrize(("outtype", "kind"), [("bf16", "BF16"), ("q8_0", "F16"), ("auto", "F32")])
def test_types(gemma: tuple[Path, Tensors], tmp_path: Path, outtype: str, kind: str) -> None:
    path = convert_checkpoint(gemma[0], tmp_path / "x.gguf", outtype=outtype, verify=False)
    keys, made = read_gguf(mmproj_path(path))
    assert made["v.blk.0.attn_q.weight"].tensor_type.name == kind
    for name in (
        "v.patch_embd.weight",
        "v.position_embd.weight",
        "v.blk.0.attn_q.bias",
        "v.post_ln.weight",
    ):
        assert made[name].tensor_type.name == "F32"
    assert gguf.LlamaFileType(keys["general.file_type"]).name.endswith(kind)


def test_a_pair_is_verified_and_quantized(qwen: tuple[Path, Tensors], tmp_path: Path) -> None:
    path = convert_checkpoint(qwen[0], tmp_path / "x.gguf", outtype="q4_0")
    assert read_gguf(mmproj_path(path))[1]["mm.0.weight"].tensor_type.name == "F16"
    assert read_gguf(path)[1]["blk.0.ffn_up.weight"].tensor_type.name == "Q4_0"
    assert sorted(tmp_path.iterdir()) == [mmproj_path(path), path]


def test_another_type_keeps_the_tower(qwen_file: Path, tmp_path: Path) -> None:
    path = convert_checkpoint(qwen_file, tmp_path / "x-q8_0.gguf", outtype="q8_0")
    assert mmproj_path(path).read_bytes() == mmproj_path(qwen_file).read_bytes()
    convert_checkpoint(qwen_file, path, outtype="q8_0", force=True, text_only=True)
    assert not mmproj_path(path).exists()


def test_all_that_was_found_is_said(
    qwen: tuple[Path, Tensors], qwen_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    differs = tokenization.TokenizationReport(9, (tokenization.Difference("a", [1], [2], "why"),), ())
    monkeypatch.setattr(tokenization, "check_tokenization", lambda *_, **__: differs)
    monkeypatch.setattr(verify, "load_tower", lambda *_: False)
    said = verify.run(str(qwen_file), str(qwen[0]), str(mmproj_path(qwen_file)))
    assert "the vision tower was not tried" in said
    assert said.endswith("1 of 9 hard texts have other tokens: why (1)")


@needs_libmtmd
def test_a_tower_that_libmtmd_refuses_is_not_published(
    qwen: tuple[Path, Tensors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ModelPlan.of_tower

    def wrong(checkpoint: SourceCheckpoint) -> ModelPlan | None:
        tower = right(checkpoint)
        assert tower
        return replace(tower, targets=[t for t in tower.targets if t.name != "mm.2.bias"])

    monkeypatch.setattr(ModelPlan, "of_tower", wrong)
    with pytest.raises(VerificationError, match=r"unable to find tensor mm\.2\.bias"):
        convert_checkpoint(qwen[0], tmp_path / "x.gguf", outtype="f32")
    assert not list(tmp_path.iterdir())


def plan(directory: Path) -> ModelPlan | None:
    return ModelPlan.of_tower(SourceCheckpoint.open(directory))


def test_text_only(qwen: tuple[Path, Tensors], tmp_path: Path) -> None:
    path = convert_checkpoint(qwen[0], tmp_path / "x.gguf", outtype="f32", verify=False, text_only=True)
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_without_a_tower_has_none(tmp_path: Path) -> None:
    write_llama(tmp_path)
    assert plan(tmp_path) is None


def test_the_text_part_alone_has_none(tmp_path: Path) -> None:
    given = write_qwen3vl(tmp_path)
    write_weights(tmp_path, {name: array for name, array in given.items() if VISUAL not in name})
    assert plan(tmp_path) is None


def test_an_unknown_tower_is_named(tmp_path: Path) -> None:
    write_llama(tmp_path, vision_config={"model_type": "new_eye"})
    with pytest.warns(ConversionWarning, match="vision tower of the kind 'new_eye'.* reads text only"):
        assert plan(tmp_path) is None


def test_names_of_transformers_4(tmp_path: Path) -> None:
    given = write_gemma3(tmp_path)
    renamed = {
        name.replace("model.vision_tower", "vision_tower")
        .replace("model.multi_modal", "multi_modal")
        .replace("model.language_model", "language_model.model"): array
        for name, array in given.items()
    }
    write_weights(tmp_path, renamed)
    made = plan(tmp_path)
    assert made
    assert len(made.targets) == sum("language_model" not in name for name in given)


def with_settings(directory: Path, where: str, values: dict[str, Any]) -> None:
    path = directory / where
    settings = json.loads(path.read_text(encoding="utf-8"))
    part = settings if where.startswith("pre") else settings["vision_config"]
    part.update(values)
    path.write_text(json.dumps(settings), encoding="utf-8")


@pytest.mark.parametrize(
    ("where", "values", "error", "said"),
    [
        ("config.json", {"hidden_act": "silu"}, UnsupportedError, "hidden_act is 'silu'"),
        ("config.json", {"spatial_merge_size": 3}, UnsupportedError, "spatial_merge_size is 3"),
        ("config.json", {"temporal_patch_size": 1}, UnsupportedError, "temporal_patch_size is 1"),
        ("config.json", {"out_hidden_size": 32}, UnsupportedError, "out_hidden_size is 32"),
        ("config.json", {"rope_parameters": {"rope_theta": 5.0}}, UnsupportedError, "the base 5.0"),
        ("config.json", {"num_heads": 5}, CheckpointError, r"hidden_size \(32\) must be a multiple"),
        ("config.json", {"num_heads": 16}, UnsupportedError, "heads have 2 numbers"),
        ("config.json", {"num_position_embeddings": 37}, CheckpointError, "37.* is no square"),
        ("config.json", {"patch_size": 0}, UnsupportedError, "patch_size is 0 pixels"),
        ("config.json", {"patch_size": [16, 8]}, CheckpointError, "patch_size must be an integer"),
        ("config.json", {"patch_size": 8}, CheckpointError, "by config.json it would be"),
        ("config.json", {"depth": 4}, CheckpointError, "no tensor model.visual.blocks.3"),
        ("config.json", {"depth": 10**9}, CheckpointError, "1000000000 layers"),
        ("config.json", {"depth": 2}, CheckpointError, "no place for: model.visual.blocks.2"),
        ("config.json", {"hidden_size": "x"}, CheckpointError, "hidden_size must be an integer"),
        ("config.json", {"deepstack_visual_indexes": [0, 3]}, CheckpointError, "name some of 3 layers"),
        ("config.json", {"deepstack_visual_indexes": [0, 0]}, CheckpointError, "name some of 3 layers"),
        ("config.json", {"deepstack_visual_indexes": "01"}, CheckpointError, "TypeError"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, CheckpointError, "image_mean must be 3"),
        ("preprocessor_config.json", {"image_std": [1, "x", 0]}, CheckpointError, "image_std must be 3"),
        ("preprocessor_config.json", {"image_std": [1, 0, 1]}, CheckpointError, "image_std must be 3"),
        ("preprocessor_config.json", {"do_normalize": False}, UnsupportedError, "do_normalize is False"),
        ("preprocessor_config.json", {"rescale_factor": 0.5}, UnsupportedError, "rescale_factor is 0.5"),
        ("preprocessor_config.json", {"size": {"longest_edge": -1}}, CheckpointError, "image_max_pixels"),
        ("preprocessor_config.json", {"size": 5}, CheckpointError, "size must be a table"),
    ],
    ids=str,
)
def test_settings_that_are_refused(
    qwen: tuple[Path, Tensors],
    tmp_path: Path,
    where: str,
    values: dict[str, Any],
    error: type[ConversionError],
    said: str,
) -> None:
    for path in qwen[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with_settings(tmp_path, where, values)
    with pytest.raises(error, match=said):
        plan(tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image_size": 60}, "must be a multiple of its patch_size"),
        ({"image_size": 42}, "cannot be pooled"),
        ({"image_size": 112}, "tensor .*position_embedding.* by config.json"),
        ({"intermediate_size": 64}, "mlp.fc1.weight has the shape"),
        ({"num_channels": 1}, "num_channels is 1"),
    ],
    ids=str,
)
def test_settings_of_siglip_that_are_refused(
    gemma: tuple[Path, Tensors], tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    for path in gemma[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with_settings(tmp_path, "config.json", values)
    with pytest.raises(ConversionError, match=said):
        plan(tmp_path)


def test_a_published_checkpoint_without_an_image_processor(tmp_path: Path) -> None:
    write_qwen3vl(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    made = plan(tmp_path)
    assert made
    assert made.metadata["clip.vision.image_mean"] == [0.5, 0.5, 0.5]
    assert "clip.vision.image_max_pixels" not in made.metadata


def test_the_processor_of_transformers_5_comes_first(tmp_path: Path) -> None:
    write_qwen3vl(tmp_path)
    nested = {"image_processor": {"image_mean": [0.1, 0.2, 0.3]}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested), encoding="utf-8")
    made = plan(tmp_path)
    assert made
    assert made.metadata["clip.vision.image_mean"] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("write", [write_qwen3vl, write_gemma3])
def test_an_adapter_of_the_text_part(write: Callable[[Path], Tensors], tmp_path: Path) -> None:
    base = write(tmp_path / "base")
    text = {name: array for name, array in base.items() if "language_model.layers" in name}
    write_adapter(tmp_path / "adapter", random_factors(text, head=False))
    path = convert_checkpoint(tmp_path / "base", tmp_path / "base.gguf", outtype="f32", verify=False)
    for given in (tmp_path / "base", path):
        made = convert_adapter(
            tmp_path / "adapter", given, tmp_path / f"on-{given.name}-lora.gguf", any_base=True
        )
        assert not mmproj_path(made).exists()
        assert "blk.1.attn_q.weight.lora_a" in read_gguf(made)[1]
    merged = convert_adapter(
        tmp_path / "adapter",
        tmp_path / "base",
        tmp_path / "merged.gguf",
        merge=True,
        outtype="f32",
        verify=False,
        any_base=True,
    )
    assert mmproj_path(merged).read_bytes()[-999:] == mmproj_path(path).read_bytes()[-999:]
    sums = [read_gguf(file)[1]["blk.0.attn_q.weight"].data.sum() for file in (path, merged)]
    assert sums[0] != sums[1]
