"""The error for an unknown architecture: what the checkpoint is, the nearest family, what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import convert
from convert import UnsupportedError, convert_checkpoint
from convert.architectures import FAMILIES
from convert.architectures.nearest import describe_unknown
from tests.random_checkpoints.plain import write_llama
from tests.random_checkpoints.plans import Zeros, stored

PLANS = stored()


def describe(case: str, name: str, change: dict[str, tuple[int, ...] | None], **settings: Any) -> str:
    row = PLANS[case]
    shapes = {key: shape for key, shape in (row["shapes"] | change).items() if shape is not None}
    tensors = {key: Zeros(key, tuple(shape), "F32", Path(), 0) for key, shape in shapes.items()}
    return describe_unknown(name, row["settings"] | settings, tensors, FAMILIES)


@pytest.mark.parametrize(
    ("case", "family"),
    [
        ("glm4moe, norms of heads, biases, groups", "Glm4MoeForCausalLM"),
        ("lfm2, dense", "Lfm2ForCausalLM"),
        ("deepseek_sparse, DeepSeek-V3.2", "DeepseekV32ForCausalLM"),
        ("qwen3next, experts", "Qwen3NextForCausalLM"),
        ("apertus, xIELU", "ApertusForCausalLM"),
    ],
)
def test_the_nearest_family_and_what_differs(case: str, family: str) -> None:
    changes: dict[str, tuple[int, ...] | None] = {"model.layers.1.self_attn.sinks": (4,)}
    lacking = [key for key in PLANS[case]["shapes"] if key.endswith("o_proj.weight")]
    said = describe(case, "NovelForCausalLM", changes | dict.fromkeys(lacking), model_type="novel")
    assert f"nearest to {family}, but has besides: layers.N.self_attn.sinks" in said
    assert ("it lacks: layers.N.self_attn.o_proj.weight" in said) == bool(lacking)
    assert "NovelForCausalLM is not known. It is a novel with num_hidden_layers" in said


def test_inkling_names_what_llama_cpp_lacks() -> None:
    said = describe(
        "qwen3vl, experts", "InklingForConditionalGeneration", {}, model_type="inkling_mm_model"
    )
    assert "llama.cpp has no architecture that computes it" in said
    assert "https://github.com/ggml-org/llama.cpp/pull/25731" in said


def test_absurd_counts_end_soon() -> None:
    """Each family is asked for its names; a config.json may say that there are two billion layers."""
    said = describe("glm4moe, dense layer and experts", "NovelForCausalLM", {},
                    num_hidden_layers=2**31 - 1, n_routed_experts=2**31 - 1)  # fmt: skip
    assert "nearest to Glm4MoeForCausalLM" in said


def test_a_checkpoint_of_no_family(tmp_path: Path) -> None:
    write_llama(tmp_path / "m", architectures=["NovelForCausalLM"])
    with pytest.raises(
        UnsupportedError, match=r"config\.json: the architecture NovelForCausalLM .*Known are"
    ):
        convert_checkpoint(tmp_path / "m", tmp_path / "m.gguf")


def test_the_readme_lists_the_families() -> None:
    text = (Path(convert.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert [name for family in FAMILIES for name in family.names if f"`{name}`" not in text] == []
