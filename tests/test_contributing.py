"""The pages for contributors stay true: named files exist, links lead somewhere, the family converts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import convert.architectures
from convert import convert_checkpoint
from tests.conftest import ROOT
from tests.random_checkpoints.plain import write_llama
from tinker_local import ModelInput, ServiceClient

PAGES = [ROOT / ".github" / name for name in ("CONTRIBUTING.md", "SECURITY.md")]
PAGES.append(ROOT / "tests" / "parity" / "README.md")
CONTRIBUTING = PAGES[0].read_text(encoding="utf-8")
PLACES = (
    "",
    "tinker_local",
    "convert",
    "tinker_local/engine",
    "convert/architectures",
    "tests/convert",
    "tests/random_checkpoints",
)
FOREIGN = {"before.json"}

MULTIPLIERS = {
    "attention_multiplier": 0.2,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_named_files_exist() -> None:
    text = re.sub(r"```.*?```", "", CONTRIBUTING, flags=re.DOTALL)
    named = set(re.findall(r"`((?:[\w.]+/)*[\w.]+\.(?:py|hpp|cpp|md|toml)|(?:[\w.]+/)+)`", text))
    assert len(named) > 60
    for name in named - FOREIGN:
        if not name.startswith("src/"):  # llama.cpp's own
            assert any((ROOT / place / name).exists() for place in PLACES), name


def test_named_modules_and_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)`", CONTRIBUTING):
        assert f"\n{target}:" in makefile, target
    for module in re.findall(r"`(?:python -m )?(tests\.[\w.]+)", CONTRIBUTING):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module


def test_the_family_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    match = re.search(r"<!-- family -->\n```python\n(.*?)\n```", CONTRIBUTING, re.DOTALL)
    assert match
    names: dict[str, Any] = {"__name__": "granite"}
    exec(compile(match[1], "CONTRIBUTING.md", "exec"), names)
    monkeypatch.setattr(
        convert.architectures, "FAMILIES", (names["Granite"], *convert.architectures.FAMILIES)
    )
    found = [scores(tmp_path / "one", logits_scaling=1.0), scores(tmp_path / "all", **MULTIPLIERS)]
    assert found[0] != pytest.approx(found[1], abs=1e-3)


def scores(directory: Path, **settings: float) -> list[float]:
    source = directory / "checkpoint"
    write_llama(source, dtype="F32", architectures=["GraniteForCausalLM"], **settings)
    path = convert_checkpoint(source, directory / "model.gguf", outtype="f32")
    with ServiceClient(n_ctx=64) as service:
        client = service.create_sampling_client(base_model=str(path))
        return [
            x or 0.0 for x in client.compute_logprobs(ModelInput.from_ints(list(range(20, 40)))).result()
        ]
