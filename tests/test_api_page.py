"""The API page is what the docstrings say, and has what people use."""

from __future__ import annotations

import inspect

import tinker_local
from tests.api_page import PAGE, SECTIONS, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.api_page writes it"


def test_all_that_is_public_is_there_or_tinkers_own() -> None:
    named = {name for names in SECTIONS.values() for name in names}
    left_out = {name for name in tinker_local.__all__ if name not in named and not name.startswith("__")}
    classes = {name for name in left_out if not issubclass_of(name, Exception)}
    assert classes == {
        "BackcompatSamplingClientFuture",
        "CheckpointType",
        "ModelID",
        "ModelInputChunk",
        "ParsedCheckpointTinkerPath",
        "StopReason",
        "TelemetryProvider",
        "TensorDtype",
        "types",
    }


def test_everything_on_it_has_a_docstring() -> None:
    for names in SECTIONS.values():
        for name in names:
            assert inspect.getdoc(getattr(tinker_local, name)), name


def issubclass_of(name: str, parent: type) -> bool:
    item = getattr(tinker_local, name)
    return inspect.isclass(item) and issubclass(item, parent)
