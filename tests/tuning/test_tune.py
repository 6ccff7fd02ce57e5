"""``models tune``: measurements, choice, stored files, and no leftovers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from typer.testing import CliRunner, Result

from tests.random_adapter import random_adapter
from tests.random_model import Shape, write_random_model
from tinker_local import BadRequestError, ModelInput, NotFoundError, ServiceClient
from tinker_local.cli import app
from tinker_local.store.model_store import ModelStore
from tinker_local.tuning.quality import Quality
from tinker_local.tuning.speed import RelativeSpeed
from tinker_local.tuning.tuner import TypeMeasurement, choose

WORDS = "every good boy does fine and all cows eat grass " * 4


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(tmp_path / "models"))
    (tmp_path / "models" / "Org").mkdir(parents=True)
    (tmp_path / "text.txt").write_text(WORDS, encoding="utf-8")
    write_random_model(
        tmp_path / "models" / "Org" / "Rnd-f32.gguf", shape=Shape(n_embd=256, n_ff=256, n_layer=2)
    )
    return tmp_path / "models"


def tune(home: Path, *arguments: str) -> Result:
    text = ["--text", str(home.parent / "text.txt"), "--rounds", "3"]
    return CliRunner().invoke(app, ["models", "tune", "Rnd", *text, *arguments])


def files(home: Path) -> list[str]:
    return sorted(str(p.relative_to(home)) for p in home.rglob("*") if p.is_file() and p.name != ".lock")


def test_measures_and_leaves_only_the_choice(home: Path) -> None:
    result = tune(home, "--types", "q8_0,q4_0+bf16,q2_k+iq4_nl", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows: dict[str, Any] = {row["type"]: row for row in found["rows"]}
    assert list(rows) == ["f32", "q8_0", "q4_0+bf16", "q2_k+iq4_nl"]
    cost = {type: row["quality"]["kl"] for type, row in rows.items()}
    assert cost["f32"] == 0
    assert 0 < cost["q8_0"] < cost["q4_0+bf16"] < cost["q2_k+iq4_nl"]
    assert rows["q8_0"]["n_bytes"] < rows["f32"]["n_bytes"]
    for row in rows.values():
        assert set(row["speeds"]) == {"score", "one", "8", "32", "batch"}
        assert all(0 < speed["low"] <= speed["ratio"] <= speed["high"] for speed in row["speeds"].values())
    assert set(found["types"]) == {"score", "one", "batch"}
    assert files(home) == ["Org/Rnd-f32.gguf", "tuned/Org/Rnd/tuned.json"]
    assert not list(home.glob(".tune*"))
    kept = json.loads((home / "tuned/Org/Rnd/tuned.json").read_text(encoding="utf-8"))
    assert kept["types"] == found["types"]
    assert kept["rows"] == found["rows"]


def test_a_type_that_cannot_be_made_is_a_line_of_the_table(home: Path) -> None:
    write_random_model(home / "Org" / "Rnd-f32.gguf", shape=Shape(n_embd=96, n_head=3, n_head_kv=1))
    result = tune(home, "--types", "q8_0+q6_k,q8_0")
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    assert "cannot make q8_0+q6_k" in lines["q8_0+q6_k"]
    assert "±" in lines["q8_0"]
    assert "f32" in lines


def test_kept_files_are_found_by_the_kind_of_work(home: Path) -> None:
    store = ModelStore(home)
    source = home / "Org" / "Rnd-f32.gguf"
    with pytest.raises(NotFoundError, match="models tune Rnd --keep"):
        store.resolve("Rnd@score")
    assert tune(home, "--types", "q8_0", "--keep").exit_code == 0
    choose_by_hand(home, score="q8_0", one=None, batch="q4_0+bf16")
    made = home / "tuned" / "Org" / "Rnd" / "q8_0.gguf"
    CliRunner().invoke(app, ["convert", str(source), "--type", "q8_0", "-o", str(made), "--force"])
    assert store.resolve("Org/Rnd@score") == store.resolve("rnd@score") == made
    assert store.resolve("Rnd@one") == store.resolve("Rnd") == source
    with pytest.raises(NotFoundError, match=r"convert .*Rnd-f32.gguf --type q4_0\+bf16 --output") as caught:
        store.resolve("Rnd@batch")
    command = str(caught.value).partition("tinker-local ")[2].split()
    assert CliRunner().invoke(app, command).exit_code == 0
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(store.resolve("Rnd@batch")).tensors}
    assert types["token_embd.weight"] == "BF16"
    assert types["blk.0.ffn_up.weight"] == "Q4_0"
    client = ServiceClient(n_ctx=256).create_sampling_client(base_model="Rnd@score")
    assert len(client.compute_logprobs(ModelInput.from_ints([1, 2, 3])).result()) == 3
    shown = CliRunner().invoke(app, ["models", "show", "Rnd"]).output
    assert "score q8_0, one this file, batch q4_0+bf16" in shown
    assert CliRunner().invoke(app, ["models", "tune", "Rnd", "--remove"]).output == "Rnd: removed\n"
    assert files(home) == ["Org/Rnd-f32.gguf"]


def test_a_choice_for_another_file_does_not_count(home: Path) -> None:
    assert tune(home, "--types", "q8_0").exit_code == 0
    write_random_model(home / "Org" / "Rnd-f32.gguf")
    with pytest.raises(BadRequestError, match="was tuned from a file of"):
        ModelStore(home).resolve("Rnd@score")
    (home / "tuned/Org/Rnd/tuned.json").write_text("{}")
    with pytest.raises(BadRequestError, match=r"tuned.json cannot be used"):
        ModelStore(home).resolve("Rnd@score")


def test_of_several_types_the_most_exact_is_the_source(home: Path) -> None:
    whole = home / "Org" / "Rnd-f32.gguf"
    for type in ("q8_0", "q8_0+f32"):
        convert = ["convert", str(whole), "--type", type]
        assert CliRunner().invoke(app, convert).exit_code == 0
    assert files(home) == [
        "Org/Rnd-f32.gguf",
        *(f"Org/Rnd-q8_0{o}.gguf{h}" for o in ("+f32", "") for h in ("", ".sha256")),
    ]
    store = ModelStore(home)
    assert store.resolve("Rnd") == whole
    assert store.resolve("Org/Rnd-q8_0+f32").stem == "Rnd-q8_0+f32"
    whole.unlink()
    assert store.resolve("Rnd").stem == "Rnd-q8_0+f32"
    found = json.loads(tune(home, "--types", "f16", "--json").stdout)
    assert found["reference"] == "f16"
    rows = {row["type"]: row["quality"]["kl"] for row in found["rows"]}
    assert rows["q8_0+f32"] > rows["f16"] == 0  # the same numbers, with activations rounded less


def test_what_cannot_be_tuned(home: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert "no model is called" in run(app, ["models", "tune", "nobody"]).output
    assert "'q9' is not known" in tune(home, "--types", "q9").output
    assert tune(home, "--types", "q9").exit_code == 2
    assert "q4_0+q4_k_m" in tune(home, "--types", "q4_0+q4_k_m").output
    assert "cannot be read" in run(app, ["models", "tune", "Rnd", "--text", "nothing"]).output
    (tmp_path / "text.txt").write_text("short")
    assert "give a longer one" in tune(home).output
    random_adapter(home / "Org" / "Rnd-f32.gguf").write(home / "lora.gguf")
    assert "is an adapter" in run(app, ["models", "tune", "lora"]).output


def test_chooses_the_fastest_of_those_good_enough() -> None:
    rows = [
        row("bf16", 0.0, 1.00, is_source=True),
        row("q8_0", 0.001, 1.95),
        row("q4_0", 0.04, 2.0, low=1.9),
        row("q2_k", 0.5, 4.0),
        TypeMeasurement("q6_k", problem="cannot be made"),
    ]
    assert choose(rows, "score", 0.05).type == "q8_0"  # as fast as q4_0 within noise, and more exact
    assert choose(rows, "score", 1.0).type == "q2_k"
    assert choose(rows, "score", 0.0001).type == "bf16"
    assert choose(rows[:1], "one", 0.0).type == "bf16"


def row(
    type: str, kl: float, ratio: float, low: float | None = None, is_source: bool = False
) -> TypeMeasurement:
    speed = RelativeSpeed(100 * ratio, ratio, low or ratio, ratio)
    return TypeMeasurement(
        type, is_source, 1, Quality(kl, 0, 10, 100), dict.fromkeys(("score", "one", "batch"), speed)
    )


def choose_by_hand(home: Path, **types: str | None) -> None:
    path = home / "tuned" / "Org" / "Rnd" / "tuned.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(said | {"types": types}), encoding="utf-8")
