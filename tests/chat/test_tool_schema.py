"""Python functions as tools; the right values are those of get_json_schema of transformers 5.24."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from typing import Any, Literal, Optional, Union

import pytest

from tinker_local import BadRequestError, Tokenizer
from tinker_local.chat.tool_schema import tool_schema


class Color(enum.Enum):
    RED = "red"
    TWO = 2


def weather(
    city: str,
    unit: Literal["c", "f"] = "c",
    days: int | None = None,
    tags: list[str] | list[int] = (),  # type: ignore[assignment]
    box: Optional[dict[str, float]] = None,  # noqa: UP045
    pair: tuple[int, str] = (1, "a"),
    either: Union[int, str, bool] = 1,  # noqa: UP007
    what: Any = None,
    color: Color = Color.RED,
    plain: list = [],  # type: ignore[type-arg]  # noqa: B006
    drink: str = "tea",
) -> str:
    """Get the weather.

    It is long:
    two lines.

    Args:
        city: The city, with a
            continued line: and a colon
        unit (str): Unit
        days (int, optional): Days

        tags: Tags
        box: Box
        pair: Pair
        either: Either
        what: What
        color: Color
        plain: Plain
        drink: To drink (choices: ["tea", " coffee "])

    Returns:
        The weather:
        sunny
    """
    raise NotImplementedError


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Get the weather.\n\nIt is long:\ntwo lines.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city, with a continued line: and a colon"},
                "unit": {"type": "string", "enum": ["c", "f"], "description": "Unit"},
                "days": {"type": "integer", "nullable": True, "description": "Days"},
                "tags": {
                    "anyOf": [
                        {"type": "array", "items": {"type": "string"}},
                        {"type": "array", "items": {"type": "integer"}},
                    ],
                    "description": "Tags",
                },
                "box": {
                    "type": "object",
                    "additionalProperties": {"type": "number"},
                    "nullable": True,
                    "description": "Box",
                },
                "pair": {
                    "type": "array",
                    "prefixItems": [{"type": "integer"}, {"type": "string"}],
                    "description": "Pair",
                },
                "either": {"type": ["boolean", "integer", "string"], "description": "Either"},
                "what": {"description": "What"},
                "color": {"type": ["string", "integer"], "enum": ["red", 2], "description": "Color"},
                "plain": {"type": "array", "description": "Plain"},
                "drink": {"type": "string", "enum": ["tea", "coffee"], "description": "To drink"},
            },
            "required": ["city"],
        },
        "return": {"type": "string", "description": "The weather:\n    sunny"},
    },
}


class Tools:
    def scale(self, x: float, data: bytes = b"") -> Tools:
        """Scale.

        Args:
          x: How much
          data: What
        """
        raise NotImplementedError

    def ping(self) -> None:
        """Ping."""


def test_a_function() -> None:
    """The order counts too, since templates write the schema."""
    assert json.dumps(tool_schema(weather)) == json.dumps(WEATHER)


def test_a_method() -> None:
    assert tool_schema(Tools().ping) == {
        "type": "function",
        "function": {
            "name": "ping",
            "description": "Ping.",
            "parameters": {"type": "object", "properties": {}},
            "return": {"type": "null"},
        },
    }


def test_tools_of_a_conversation(tiny_tokenizer: Tokenizer) -> None:
    options: dict[str, Any] = {"tokenize": False, "chat_template": "{{ tools|tojson }}"}
    chat = [{"role": "user", "content": "Hi"}]
    text = tiny_tokenizer.apply_chat_template(chat, tools=[weather, {"name": "f"}], **options)
    assert json.loads(text) == [WEATHER, {"name": "f"}]
    for tools, said in (
        (["x"], "a tool is a str"),
        ("x", "tools is a str"),
        ([len], "a tool is a builtin"),
    ):
        with pytest.raises(BadRequestError, match=said):
            tiny_tokenizer.apply_chat_template(chat, tools=tools, **options)


def _without_doc(x: int) -> int:
    return x


def _without_type(x) -> int:  # type: ignore[no-untyped-def]
    """Do it.

    Args:
        x: What
    """
    return int(x)


def _without_description(x: int) -> int:
    """Do it."""
    return x


def _long(x: tuple[int, ...]) -> int:
    """Do it.

    Args:
        x: What
    """
    return len(x)


def _chosen(x: str) -> str:
    """Do it.

    Args:
        x: What (choices: [tea])
    """
    return x


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_without_doc, "no docstring"),
        (_without_type, "parameter x has no type"),
        (_without_description, "no description of the parameter x"),
        (Tools().scale, "bytes.*has no JSON schema"),
        (_long, "has no length"),
        (_chosen, "Expecting value"),
    ],
)
def test_what_has_no_schema(function: Callable[..., Any], said: str) -> None:
    with pytest.raises(BadRequestError, match=rf"cannot become a tool: .*{said}"):
        tool_schema(function)
