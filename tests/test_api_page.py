"""The API page is what the docstrings say, and has what people use."""

from __future__ import annotations

import inspect

import tinker_local
from tests.api_page import (
    OPENAI,
    PAGE,
    README,
    SECTIONS,
    SERVICE_CLIENT,
    page,
    with_fields,
    with_options,
    with_table,
)
from tinker_local.options import Options


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.api_page writes it"


def test_options_are_described_as_in_their_own_file() -> None:
    readme, source = README.read_text(encoding="utf-8"), SERVICE_CLIENT.read_text(encoding="utf-8")
    assert readme == with_table(readme), "python -m tests.api_page writes it"
    assert source == with_options(source), "python -m tests.api_page writes it"
    for name in Options.model_fields:
        assert f"\n| `{name}` | " in readme
        assert f"\n        {name}: " in source


def test_fields_of_openais_requests_are_described_as_in_their_own_file() -> None:
    readme = OPENAI.read_text(encoding="utf-8")
    assert readme == with_fields(readme), "python -m tests.api_page writes it"
    assert "| `presence_penalty` | `0.0` | -2 to 2; counts generated tokens. |" in readme


def test_every_option_says_its_default() -> None:
    for name, field in Options.model_fields.items():
        before, unset, default = (field.description or "").partition(" Unset: ")
        assert before.endswith("."), name
        assert unset, name
        assert default.endswith("."), name
        if field.default is not None:
            assert default == f"{field.default}.", name


def test_service_client_takes_every_option() -> None:
    taken = list(inspect.signature(tinker_local.ServiceClient).parameters)
    assert taken[taken.index("n_ctx") :] == list(Options.model_fields)


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
