"""``tinker://`` paths, and that none leads out of the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert import ConversionError
from convert.files.tinker_path import TinkerPath, checkpoint_directories

HOME = Path("/home/models")


def test_where_it_lies() -> None:
    path = TinkerPath.parse("tinker://0034d8c9-0a88:train:0/sampler_weights/000080")
    assert (path.run, path.name) == ("0034d8c9-0a88:train:0", "000080")
    directory = path.below(HOME)
    assert directory == HOME / "tinker" / "0034d8c9-0a88%3Atrain%3A0" / "sampler_weights" / "000080"
    assert TinkerPath.of(directory, HOME) == path
    assert str(path) == "tinker://0034d8c9-0a88:train:0/sampler_weights/000080"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run/sampler_weights/x", "not of the form"),
        ("tinker:///sampler_weights/x", "is no name"),
        ("tinker://run/sampler_weights/", "is no name"),
        ("tinker://run/sampler_weights", "not of the form"),
        ("tinker://run/sampler_weights/a/b", "not of the form"),
        ("tinker://../sampler_weights/x", "is no name"),
        ("tinker://run/sampler_weights/..", "is no name"),
        ("tinker://run/sampler_weights/.", "is no name"),
        ("tinker://run/sampler_weights/..\\..\\x", "backslash"),
        ("tinker://run/sampler_weights/x\0y", "cannot be printed"),
        ("tinker://run/sampler_weights/x\ny", "cannot be printed"),
        ("tinker://run/sampler_weights/\ud800", "cannot be printed"),
        ("tinker://run/sampler_weights/" + "x" * 201, "longer than 200"),
        ("tinker://run/weights/x", "training checkpoint"),
        ("tinker://run/external_weights/x", "where sampler_weights is expected"),
        ("tinker://run/../x", "where sampler_weights is expected"),
        ("https://run/sampler_weights/x", "not of the form"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConversionError, match=said):
        TinkerPath.parse(text)


@pytest.mark.parametrize("name", ["%2e%2e", "...", ".lock", "~", "C:", "a b", "é", "-x", "nul.", "%", "*?"])
def test_odd_names_stay_below(name: str) -> None:
    path = TinkerPath.parse(f"tinker://run/sampler_weights/{name}")
    directory = path.below(HOME)
    assert directory.parent == HOME / "tinker" / "run" / "sampler_weights"
    assert not directory.name.startswith(".")
    assert not set(directory.name) & set(':*?"<>|\\/ ')
    assert TinkerPath.of(directory, HOME) == path


@settings(max_examples=40)
@given(st.text(max_size=30), st.text(max_size=30))
def test_no_text_leads_out(run: str, name: str) -> None:
    try:
        path = TinkerPath.parse(f"tinker://{run}/sampler_weights/{name}")
    except ConversionError:
        return
    directory = path.below(HOME)
    assert directory.parents[2] == HOME / "tinker"
    assert ".." not in directory.parts
    assert TinkerPath.of(directory, HOME) == path


def test_directories_that_are_no_checkpoints(tmp_path: Path) -> None:
    sound = TinkerPath.parse("tinker://a:b/sampler_weights/x").below(tmp_path)
    for directory in (
        sound,
        tmp_path / "tinker" / "a:b" / "sampler_weights" / "x",
        sound.parent / ".x.part",
    ):
        directory.mkdir(parents=True)
    (sound.parent / "file").write_text("")
    assert checkpoint_directories(tmp_path) == [sound]
