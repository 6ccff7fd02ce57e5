"""The chat templates of a model file, by name, and which of them a conversation takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tinker_local.errors import BadRequestError

DEFAULT = "default"
WITH_TOOLS = "tool_use"
_NAME = re.compile(r"[\w.-]+")


class ChatTemplates:
    """Templates by name. The rules are those of transformers' ``get_chat_template``.

    Args:
        given: one template, several by name, or None.
        owner: the name of the model file, for messages.
    """

    def __init__(self, given: str | Mapping[str, str] | None, owner: str) -> None:
        named = {DEFAULT: given} if isinstance(given, str) else dict(given or {})
        for name, template in named.items():
            if not isinstance(name, str) or not isinstance(template, str):
                raise BadRequestError(f"the chat template {name!r} is not a text with a name")
        self._named, self._owner = named, owner

    @property
    def value(self) -> str | dict[str, str] | None:
        """As transformers' ``chat_template``: a text, several texts by name, or None."""
        if not self._named:
            return None
        return self._named[DEFAULT] if list(self._named) == [DEFAULT] else dict(self._named)

    def choose(self, asked: str | None, tools: Any) -> str:
        """Return the template that a conversation takes.

        Args:
            asked: a template, or the name of one; None: ``tool_use`` with tools, else the default.
            tools: the tools of the conversation, None if it has none.

        Raises:
            BadRequestError: there is none, or none of that name.
        """
        if asked is None:
            asked = WITH_TOOLS if tools is not None and WITH_TOOLS in self._named else DEFAULT
        elif not isinstance(asked, str):
            raise BadRequestError(f"chat_template is a {type(asked).__name__}; it must be a str")
        elif not _NAME.fullmatch(asked):
            return asked
        if asked in self._named:
            return self._named[asked]
        if not self._named:
            raise BadRequestError(f"{self._owner} has no chat template; pass one as chat_template")
        raise BadRequestError(
            f"{self._owner} has no chat template {asked!r}; it has {', '.join(sorted(self._named))}"
        )
