"""The page's files: all of them are served, load nothing else, and run under a strict policy."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest

from tests.serve.caller import Caller
from tests.serve.tiny_store import CHECKPOINT, TINY
from tinker_local import ServiceClient
from tinker_local.display import scale
from tinker_local.serve import Access, app, page

LINK = re.compile(r"""(?:src|href)="([^"#][^"]*)"|from "([^"]*)\"""")


def reached(caller: Caller) -> dict[str, str]:
    """Return what a browser loads: path -> text."""
    found, waiting = dict[str, str](), ["/"]
    while waiting:
        path = waiting.pop()
        if path not in found:
            answer = caller.get(path)
            assert answer.status == 200, path
            found[path] = answer.body.decode()
            waiting += ["".join(groups) for groups in LINK.findall(found[path])]
    return found


def test_all_of_it_is_served_and_nothing_else_is_loaded(caller: Caller) -> None:
    found = reached(caller)
    assert all(path == "/" or path.startswith("/page/") for path in found)
    names = {place.name for place in files(page).iterdir() if place.name.endswith((".css", ".js"))}
    assert {f"/page/{name}" for name in names | {"tokens.css", "scale.js"}} | {"/"} == set(found)
    for path, text in found.items():
        assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|\beval\b|style=", text), (
            path
        )
    assert not re.search(r"<script>|<style| on\w+=", found["/"])


def test_the_policy_allows_what_the_server_has(caller: Caller) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/page/page.js", "text/javascript"),
        ("/page/tokens.css", "text/css"),
    ):
        headers = caller.get(path).headers
        assert headers["content-type"].startswith(kind)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_the_scale_is_that_of_the_other_views(caller: Caller) -> None:
    said = caller.get("/page/scale.js").body.decode()
    assert f"PROBABILITIES = {list(scale.PROBABILITIES)}" in said
    assert f"DIFFERENCES = {list(scale.DIFFERENCES)}" in said


def test_a_key_is_needed_for_what_the_page_asks_alone(tiny_service: ServiceClient) -> None:
    with Caller(app(tiny_service, access=Access("tml-secret"))) as locked:
        assert len(reached(locked)) > 9
        assert locked.get("/v1/models").status == 401
        assert locked.post("/token_pieces", {"tokens": [1]}).status == 401
        assert locked.get("/v1/models", authorization="Bearer tml-secret").status == 200


def test_models_say_which_are_adapters_and_of_what(caller: Caller) -> None:
    listed = {model["id"]: model["parent"] for model in caller.get("/v1/models").json()["data"]}
    (model,) = (name for name in listed if name.startswith(TINY))
    assert (listed[model], listed["lora"], listed[CHECKPOINT]) == (None, model, model)


@pytest.mark.parametrize(
    ("tokens", "pieces"),
    [
        ([ord("A") - 33, 257], [[["A", False]], [["ab", False]]]),
        ([256], [[["<|endoftext|>", False]]]),
        ([], []),
    ],
)
def test_pieces_of_tokens(caller: Caller, tokens: list[int], pieces: list[Any]) -> None:
    assert caller.post("/token_pieces", {"model": TINY, "tokens": tokens}).json() == {"pieces": pieces}


def test_bytes_that_are_no_text_are_marks(caller: Caller) -> None:
    every = caller.post("/token_pieces", {"model": TINY, "tokens": list(range(256))}).json()["pieces"]
    assert [["↵", True], ["\n", False]] in every
    assert [["⇥", True], ["\t", False]] in every
    assert [["·", True]] in every
    assert [["\\xf0", True]] in every
    assert [["\\x1b", True]] in every


def test_tokens_that_there_are_not(caller: Caller) -> None:
    answer = caller.post("/token_pieces", {"model": TINY, "tokens": [400]})
    assert answer.status == 400
    assert "400" in answer.json()["error"]["message"]
