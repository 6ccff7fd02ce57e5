"""OpenAI's endpoints: the numbers are those of the client in this process, in the forms that tools read."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.random_model import Shape, write_random_model
from tests.serve.caller import Answer, Caller
from tests.serve.conftest import TINY
from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient
from tinker_local.serve import app
from tinker_local.serve.openai_api.fields import ChatFields, CompletionFields

END = 256
TEMPLATE = """\
{%- for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}
{%- for m in messages %}({{ m.role }}){{ m.content if m.content is string else m.content[0].text }}
{%- endfor %}
{%- if add_generation_prompt %}(a){% if thinks %}<think>
{% endif %}{% endif %}{# </think> #}{# reasoning_effort #}"""


def complete(caller: Caller, prompt: Any = (1, 2, 3), **fields: Any) -> Any:
    answer = caller.post("/v1/completions", {"model": TINY, "prompt": prompt, "max_tokens": 6, **fields})
    assert answer.status == 200, answer.body
    return answer.json()


def events(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/event-stream")
    *parts, done, rest = answer.body.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def joined(lists: Iterable[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(lists))


class TestCompletions:
    @pytest.mark.parametrize("bias", [{}, {str(END): 100}])
    def test_an_echo_has_one_entry_more(
        self, caller: Caller, tiny_client: SamplingClient, bias: dict[str, float]
    ) -> None:
        """As lm-evaluation-harness sums it up, which drops the last entry, also where EOS was drawn."""
        tokens = [7, 8, 9, 200, 10]
        asked = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1, "logit_bias": bias}
        (choice,) = complete(caller, tokens, **asked)["choices"]
        found = choice["logprobs"]
        assert {len(column) for column in found.values()} == {len(tokens) + 1}
        assert (found["token_logprobs"][0], found["top_logprobs"][0]) == (None, None)
        expected = tiny_client.compute_logprobs(ModelInput.from_ints(tokens)).result()
        assert found["token_logprobs"][1:5] == pytest.approx(expected[1:], abs=1e-5)
        for value, top in zip(found["token_logprobs"][1:], found["top_logprobs"][1:], strict=True):
            assert value in top.values()
        assert choice["finish_reason"] == ("stop" if bias else "length")

    def test_the_greedy_token_has_the_top_entrys_float(self, caller: Caller) -> None:
        (choice,) = complete(caller, temperature=0, max_tokens=8, logprobs=1)["choices"]
        found = choice["logprobs"]
        assert found["token_logprobs"] == [max(top.values()) for top in found["top_logprobs"]]
        tokens = complete(caller, temperature=0, max_tokens=8, return_token_ids=True)["choices"][0]
        scored = complete(
            caller, [1, 2, 3, *tokens["token_ids"]], temperature=0, max_tokens=1, echo=True, logprobs=1
        )["choices"][0]["logprobs"]
        assert scored["token_logprobs"][3:-1] == [max(top.values()) for top in scored["top_logprobs"][3:-1]]

    def test_prompts_of_every_kind(self, caller: Caller) -> None:
        ids = [
            caller.post("/tokenize", {"model": TINY, "prompt": text}).json()["tokens"]
            for text in ("ab", "cd")
        ]
        one = complete(caller, "ab", seed=5)["choices"][0]
        for prompts in (["ab", "cd"], ids):
            choices = complete(caller, prompts, seed=5, n=2)["choices"]
            assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
            assert choices[0]["text"] == one["text"]
            assert choices[0]["text"] != choices[1]["text"]

    def test_a_seed_draws_what_the_client_draws(self, caller: Caller, tiny_client: SamplingClient) -> None:
        asked = {"seed": 11, "temperature": 0.7, "top_p": 0.9, "min_p": 0.01, "presence_penalty": 1}
        found = complete(caller, n=3, logprobs=0, return_token_ids=True, **asked)["choices"]
        params = SamplingParams(max_tokens=6, **asked)
        expected = tiny_client.sample(ModelInput.from_ints([1, 2, 3]), 3, params).result().sequences
        assert [choice["token_ids"] for choice in found] == [s.tokens for s in expected]
        assert [choice["prompt_token_ids"] for choice in found] == [[1, 2, 3]] * 3
        for choice, sequence in zip(found, expected, strict=True):
            assert choice["logprobs"]["token_logprobs"] == sequence.logprobs
            assert [list(top.values()) for top in choice["logprobs"]["top_logprobs"]] == [
                [value] for value in sequence.logprobs or []
            ]

    def test_best_of_returns_the_most_probable(self, caller: Caller) -> None:
        every = complete(caller, n=6, seed=3, logprobs=0)
        means = [sum(c["logprobs"]["token_logprobs"]) / 6 for c in every["choices"]]
        best = complete(caller, n=2, best_of=6, seed=3, logprobs=0)
        found = [sum(c["logprobs"]["token_logprobs"]) / 6 for c in best["choices"]]
        assert found == sorted(means, reverse=True)[:2]
        assert (
            best["usage"]
            == every["usage"]
            == {
                "prompt_tokens": 3,
                "completion_tokens": 36,
                "total_tokens": 39,
                "prompt_tokens_details": {"cached_tokens": 0},
            }
        )

    def test_a_stop_is_not_in_the_text_and_its_tokens_are(self, caller: Caller) -> None:
        asked = {
            "temperature": 0,
            "logit_bias": {"65": 60},
            "presence_penalty": 2,
            "return_token_ids": True,
        }
        whole = complete(caller, max_tokens=3, **asked)["choices"][0]
        assert whole["text"] == "bbb"
        for stop in ("bb", ["zz", "bb"], [65], ["zz", 65]):
            found = complete(caller, stop=stop, **asked)["choices"][0]
            assert (found["text"], found["finish_reason"]) == ("", "stop")
            assert found["token_ids"] == ([65, 65] if "bb" in (stop if stop != "bb" else ["bb"]) else [65])
        found = complete(caller, stop_token_ids=[65], include_stop_str_in_output=True, **asked)["choices"][
            0
        ]
        assert found["text"] == "b"

    @pytest.mark.parametrize("stop", ["<|endoftext|>", [END], []])
    def test_special_tokens_stop(self, caller: Caller, stop: Any) -> None:
        asked = {"stop": stop, "logit_bias": {str(END): 100}, "return_token_ids": True}
        found = complete(caller, **asked)["choices"][0]
        assert (found["text"], found["token_ids"], found["finish_reason"]) == ("", [END], "stop")
        found = complete(caller, ignore_eos=True, **{**asked, "stop": None})["choices"][0]
        assert (found["token_ids"], found["finish_reason"]) == ([END] * 6, "length")

    def test_prompts_are_scored_alone(self, caller: Caller, tiny_client: SamplingClient) -> None:
        tokens = list(range(100, 200)) * 6  # cut to one more than the context holds
        tokens = tokens[: tiny_client.n_ctx + 1]
        found = complete(caller, tokens, max_tokens=0, prompt_logprobs=2)["choices"][0]
        assert (found["text"], found["finish_reason"]) == ("", "length")
        expected = tiny_client.compute_logprobs(ModelInput.from_ints(tokens)).result()
        entries = found["prompt_logprobs"]
        assert entries[0] is None
        firsts = [next(iter(entry.items())) for entry in entries[1:]]
        assert [int(token) for token, _ in firsts] == tokens[1:]
        assert [said["logprob"] for _, said in firsts] == pytest.approx(expected[1:], abs=1e-5)
        assert all({1, 2} <= {said["rank"] for said in entry.values()} for entry in entries[1:])

    def test_text_offsets_are_characters_of_the_text(self, caller: Caller) -> None:
        """As the harness's model ``gguf`` reads them, to find where a continuation begins."""
        context, continuation = "aé b", "ü d"
        found = complete(caller, context + continuation, echo=True, logprobs=3, max_tokens=1)["choices"][0]
        places, tokens = found["logprobs"]["text_offset"], found["logprobs"]["tokens"]
        assert found["text"].startswith(context + continuation)
        first = next(i for i, place in enumerate(places) if place >= len(context))
        assert tokens[first : first + 2] == ["bytes:\\xc3", "bytes:\\xbc"]  # ü, byte by byte
        assert places[-1] == len(context + continuation)

    def test_a_stream_adds_up_to_the_answer(self, caller: Caller) -> None:
        asked = {
            "prompt": ["ab", "é"],
            "n": 2,
            "seed": 4,
            "logprobs": 2,
            "max_tokens": 30,
            "stop": ["1", "d"],
            "return_token_ids": True,
        }
        whole = complete(caller, **asked)
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = events(caller.post("/oai/api/v1/completions", {"model": TINY, **asked, **streamed}))
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"] == whole["usage"]
        assert len({chunk["id"] for chunk in chunks}) == 1
        for choice in whole["choices"]:
            own = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
            assert "".join(c["text"] for c in own) == choice["text"]
            assert joined(c.get("token_ids", []) for c in own) == choice["token_ids"]
            assert own[0]["prompt_token_ids"] == choice["prompt_token_ids"]
            assert [c["finish_reason"] for c in own if c["finish_reason"]] == [choice["finish_reason"]]
            for name, column in choice["logprobs"].items():
                assert joined(c["logprobs"][name] for c in own if c["logprobs"]) == column
        assert max(len(c["text"]) for chunk in chunks for c in chunk["choices"]) < 20

    def test_a_streamed_echo(self, caller: Caller) -> None:
        asked = {"model": TINY, "prompt": "ab", "echo": True, "stream": True, "max_tokens": 0}
        chunks = events(caller.post("/v1/completions", asked))
        assert [c["choices"][0]["text"] for c in chunks] == ["ab", ""]
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"foo": 1}, "foo", "'foo' is not served here; leave it out"),
        ({"suffix": "x"}, "suffix", "suffix is 'x'"),
        ({"store": True}, "store", "store is True"),
        ({"prompt": None}, "prompt", "prompt is missing"),
        ({"prompt": []}, "prompt", "0 prompts"),
        ({"prompt": [[1], "a"]}, "prompt", "prompt is"),
        ({"prompt": [[]]}, "prompt", "prompt is empty"),
        ({"prompt": [1, 400]}, "prompt", "prompt token 1 is 400"),
        ({"prompt": [1] * 513}, "prompt", "the context holds 512"),
        ({"temperature": "hot"}, "temperature", "temperature is 'hot'"),
        ({"temperature": -1}, "temperature", "temperature is -1"),
        ({"temperature": float("nan")}, "temperature", "temperature is nan"),
        ({"max_tokens": 600}, "max_tokens", "lower max_tokens to 509"),
        ({"max_tokens": True}, "max_tokens", "max_tokens is True"),
        ({"n": 0}, "n", "n is 0"),
        ({"n": 10**6}, "n", "it must be at most 65536"),
        ({"best_of": 1, "n": 2}, "best_of", "best_of is 1, and n is 2"),
        ({"best_of": 2, "stream": True}, "best_of", "not served in a stream"),
        ({"echo": True, "logprobs": 1, "stream": True}, "logprobs", "not served in a stream"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs", "not served in a stream"),
        ({"logprobs": 1025}, "logprobs", "logprobs is 1025"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "an id in logit_bias is 'x'"),
        ({"logit_bias": {"1": "y"}}, "logit_bias", "logit_bias is 'y'"),
        ({"stop": [1.5]}, "stop", "stop is [1.5]"),
        ({"stop": ""}, "stop", "empty string"),
        ({"stop_token_ids": [400]}, "stop", "stop token 0 is 400"),
        ({"ignore_eos": True, "stop": "x"}, "ignore_eos", "exclude each other"),
        ({"stream_options": {"x": 1}}, "stream_options", "'stream_options.x' is not served"),
        ({"presence_penalty": 3}, "presence_penalty", "from -2 to 2"),
    ],
)
def test_what_is_not_served_is_named(caller: Caller, fields: Any, param: str, says: str) -> None:
    body = {"model": TINY, "prompt": [1, 2, 3], "max_tokens": 1, **fields}
    answer = caller.post("/v1/completions", body)
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert says in error["message"]


def test_bodies_that_are_no_request(caller: Caller) -> None:
    for body in (b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000):
        assert caller.post("/v1/completions", body).status == 400
    answer = caller.post("/v1/completions", {"model": "absent", "prompt": "x"})
    assert (answer.status, answer.json()["error"]["param"]) == (404, "model")


VALUES = [
    *(None, True, -1, 3, 0.5, 1e308, 2**64, 10**30, float("nan"), "", "a", "\ud800", "\0", "9" * 5000),
    *([], [1], ["a"], [[1]], [None], [{}], [1] * 600, {}, {"1": -100}, {"65": 5e9}, {"a": [1]}),
]


def test_mutated_requests_are_answered(chats: Caller) -> None:
    rng = random.Random(0)
    bases: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"prompt": [1, 2], "max_tokens": 1, "logprobs": 1, "echo": True, "n": 2}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}),
        ("/tokenize", {"prompt": "ab"}),
        ("/detokenize", {"tokens": [1]}),
    ]
    names = [*CompletionFields.model_fields, *ChatFields.model_fields]
    seen = set[int]()
    for _ in range(400):
        path, body = rng.choice(bases)
        raw = json.dumps(body | {rng.choice([*names, *body]): rng.choice(VALUES)}).encode()
        if rng.random() < 0.2:
            at = rng.randrange(len(raw))
            raw = raw[:at] + rng.randbytes(1) + raw[at + 1 :]
        answer = chats.begin("POST", path, raw).result(60)
        assert answer.status in (200, 400, 404), raw
        assert b"failed" not in answer.body, raw
        seen.add(answer.status)
    assert seen == {200, 400, 404}


def test_prompts_are_logged_only_if_asked(
    chats: Caller, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.INFO, "tinker_local.serve"):
        chat(chats, content="a secret")
        assert "a secret" not in caplog.text
        service = ServiceClient(models_dir=tmp_path)
        with service, Caller(app(service, logs_prompts=True)) as telling:
            body = {"model": "absent", "messages": [{"role": "user", "content": "no secret"}]}
            telling.post("/v1/chat/completions", body)
    assert "no secret" in caplog.text


def test_neutral_fields_pass(caller: Caller) -> None:
    neutral = {"user": "me", "metadata": {"a": "b"}, "store": False, "suffix": None, "anything": None}
    assert complete(caller, stream_options=None, top_k=0, length_penalty=1.0, **neutral)


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    directory = tmp_path_factory.mktemp("chats")
    said = {"tokenizer.chat_template": TEMPLATE}
    path = write_random_model(directory / "Chat.gguf", shape=Shape(n_layer=1), said=said)
    with (
        ServiceClient(models_dir=directory, n_ctx=256, prefix_cache=False, n_threads=1) as service,
        Caller(app(service, models=[str(path)])) as caller,
    ):
        yield caller


def chat(caller: Caller, content: Any = "hi", **fields: Any) -> Any:
    messages = fields.pop("messages", [{"role": "user", "content": content}])
    answer = caller.post("/v1/chat/completions", {"messages": messages, "max_tokens": 5, **fields})
    assert answer.status == 200, answer.body
    return answer.json()


def prompt_text(caller: Caller, **fields: Any) -> str:
    tokens = chat(caller, return_token_ids=True, **fields)["prompt_token_ids"]
    return str(caller.post("/detokenize", {"tokens": tokens}).json()["prompt"])


class TestChat:
    def test_prompts_come_from_the_template(self, chats: Caller) -> None:
        assert prompt_text(chats) == "(user)hi(a)"
        assert prompt_text(chats, content=[{"type": "text", "text": "hi"}]) == "(user)hi(a)"
        assert prompt_text(chats, add_generation_prompt=False) == "(user)hi"
        assert prompt_text(chats, chat_template_kwargs={"thinks": True}) == "(user)hi(a)<think>\n"
        tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        assert prompt_text(chats, tools=tools) == "[f](user)hi(a)"
        assert prompt_text(chats, tools=tools, tool_choice="none") == "(user)hi(a)"
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "I s"}]
        assert (
            prompt_text(chats, messages=messages, continue_final_message=True) == "(user)hi(assistant)I s"
        )

    def test_an_answer(self, chats: Caller) -> None:
        asked = {"seed": 1, "n": 2, "logprobs": True, "top_logprobs": 3, "prompt_logprobs": 1}
        found = chat(chats, return_token_ids=True, **asked)
        assert found["object"] == "chat.completion"
        assert [entry is None for entry in found["prompt_logprobs"][:2]] == [True, False]
        for choice in found["choices"]:
            entries = choice["logprobs"]["content"]
            assert [len(entry["top_logprobs"]) for entry in entries] == [3] * 5
            data = bytes(byte for entry in entries for byte in entry["bytes"])
            assert data.decode("utf-8", "replace") == choice["message"]["content"]
            assert len(choice["token_ids"]) == 5
        assert found["usage"]["completion_tokens"] == 10

    def test_alternatives_beyond_twenty(self, chats: Caller) -> None:
        found = chat(chats, logprobs=True, top_logprobs=1024, max_tokens=1)["choices"][0]
        assert len(found["logprobs"]["content"][0]["top_logprobs"]) == 400  # the whole vocabulary

    def test_reasoning_is_split_off(self, chats: Caller) -> None:
        thinks = {"chat_template_kwargs": {"thinks": True}, "seed": 2, "stop": []}
        plain, thought = (chat(chats, **f)["choices"][0]["message"] for f in ({"seed": 2}, thinks))
        assert "reasoning_content" not in plain
        assert thought["content"] is None
        assert thought["reasoning_content"]
        hidden = chat(chats, include_reasoning=False, **thinks)["choices"][0]["message"]
        assert hidden == {"role": "assistant", "content": ""}

    @pytest.mark.parametrize("more", [{}, {"chat_template_kwargs": {"thinks": True}}])
    def test_a_stream_adds_up_to_the_answer(self, chats: Caller, more: Any) -> None:
        asked = {"seed": 7, "n": 2, "logprobs": True, "top_logprobs": 1, "max_tokens": 30, **more}
        whole = chat(chats, **asked)
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, **asked}
        chunks = events(chats.post("/v1/chat/completions", body))
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        for choice in whole["choices"]:
            own = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
            assert own[0]["delta"] == {"role": "assistant", "content": ""}
            for name in ("content", "reasoning_content"):
                said = "".join(c["delta"].get(name, "") for c in own)
                assert said == (choice["message"].get(name) or "")
            entries = joined(c["logprobs"]["content"] for c in own if c["logprobs"])
            assert entries == choice["logprobs"]["content"]
            assert own[-1]["finish_reason"] == choice["finish_reason"]

    @pytest.mark.parametrize(
        ("fields", "param", "says"),
        [
            ({"messages": []}, "messages", "messages is"),
            ({"messages": [{"content": "x"}]}, "messages", "messages[0].role is None"),
            ({"messages": [{"role": "user", "content": 1}]}, "messages", "messages[0].content is 1"),
            (
                {"messages": [{"role": "user", "content": [{"type": "input_audio", "image_url": {}}]}]},
                "messages",
                "a part of the type 'input_audio'",
            ),
            ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "give one"),
            ({"max_tokens": 300}, "max_tokens", "lower max_tokens"),
            ({"top_logprobs": 3}, "top_logprobs", "needs logprobs"),
            ({"logprobs": 3}, "logprobs", "logprobs is 3"),
            ({"response_format": {"type": "json_object"}}, "response_format", "response_format is"),
            ({"tool_choice": "required"}, "tool_choice", "tool_choice is 'required'"),
            ({"parallel_tool_calls": False}, "parallel_tool_calls", "parallel_tool_calls is False"),
            ({"chat_template": "x"}, "chat_template", "not served here"),
            ({"chat_template_kwargs": {"tokenize": False}}, "chat_template_kwargs", "has tokenize"),
            (
                {"continue_final_message": True, "add_generation_prompt": True},
                "continue_final_message",
                "exclude each other",
            ),
            ({"functions": [{}]}, "functions", "not served here"),
            ({"messages": [{"role": "user", "content": "x" * 300}]}, "messages", "prompt has"),
        ],
    )
    def test_what_is_not_served_is_named(self, chats: Caller, fields: Any, param: str, says: str) -> None:
        body = {"messages": [{"role": "user", "content": "hi"}], **fields}
        answer = chats.post("/v1/chat/completions", body)
        assert (answer.status, answer.json()["error"]["param"]) == (400, param)
        assert says in answer.json()["error"]["message"]

    def test_effort_needs_a_template_with_it(self, chats: Caller, caller: Caller) -> None:
        assert chat(chats, reasoning_effort="high")
        body = {"model": TINY, "messages": [{"role": "user", "content": "hi"}]}
        answer = caller.post("/v1/chat/completions", body)
        assert "no chat template" in answer.json()["error"]["message"]


class TestVocabulary:
    def test_there_and_back(self, caller: Caller) -> None:
        found = caller.post("/tokenize", {"model": TINY, "prompt": "aé", "return_token_strs": True}).json()
        assert found["count"] == len(found["tokens"]) == len(found["token_strs"]) == 3
        body = {"model": TINY, "tokens": found["tokens"]}
        assert caller.post("/detokenize", body).json() == {"prompt": "aé"}
        assert caller.post("/tokenize", {"model": TINY}).json()["error"]["param"] == "prompt"

    def test_a_chat(self, chats: Caller) -> None:
        body = {"messages": [{"role": "user", "content": "hi"}]}
        expected = chat(chats, return_token_ids=True)["prompt_token_ids"]
        assert chats.post("/tokenize", body).json()["tokens"] == expected

    def test_what_the_harness_asks(self, chats: Caller) -> None:
        found = chats.get("/tokenizer_info").json()
        assert found["eos_token"] == "<|endoftext|>"
        assert found["chat_template"] == TEMPLATE
        tokens = chats.post("/tokenize", {"prompt": found["eos_token"], "add_special_tokens": False})
        assert tokens.json()["tokens"] == [END]

    def test_models(self, caller: Caller, chats: Caller) -> None:
        assert chats.post("/tokenize", {"model": "Chat", "prompt": "a"}).status == 200  # opens it
        listed = chats.get("/v1/models").json()["data"]
        assert {model["id"] for model in listed} >= {"Chat"}
        (own,) = (model for model in listed if model["id"] == "Chat")
        assert own["max_model_len"] == 256
        assert chats.get("/oai/api/v1/models/Chat").json() == own
        assert chats.get("/v1/models/absent").status == 404


class Leaver:
    """Asks, and closes the connection after some messages of the answer."""

    def __init__(self, caller: Caller, body: dict[str, Any], after: int) -> None:
        self.n_left, self.left = after, asyncio.Event()
        caller.run(self._ask(caller, json.dumps(body).encode())).result(60)

    async def _ask(self, caller: Caller, body: bytes) -> None:
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            for message in messages:
                return message
            if self.n_left:
                await self.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.n_left -= 1
            if self.n_left == 0:
                self.left.set()

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "state": {},
        }
        await caller.app(scope, receive, send)


@pytest.mark.parametrize(("stream", "after"), [(True, 3), (False, 0)])
def test_a_client_that_leaves_frees_its_cells(caller: Caller, stream: bool, after: int) -> None:
    before = cancelled(caller)
    body = {"model": TINY, "prompt": [1, 2], "max_tokens": 500, "ignore_eos": True, "n": 20}
    Leaver(caller, {**body, "stream": stream}, after)
    ended = time.monotonic() + 20
    while cancelled(caller) == before and time.monotonic() < ended:
        time.sleep(0.01)
    assert cancelled(caller) == before + 1
    assert complete(caller)["choices"]


def test_tokens_are_counted_as_they_come(caller: Caller) -> None:
    names = ("prefilled_tokens_total", "sampled_tokens_total", "prompt_tokens_total")
    before = [metric(caller, name) for name in names]
    prompt = list(range(1, 101))
    body = {"model": TINY, "prompt": prompt, "max_tokens": 400, "ignore_eos": True, "stream": True}
    Leaver(caller, body, 3)  # whose request never finishes
    ended = time.monotonic() + 20
    while metric(caller, "sampled_tokens_total") == before[1] and time.monotonic() < ended:
        time.sleep(0.01)
    prefilled, sampled, answered = (metric(caller, name) - n for name, n in zip(names, before, strict=True))
    assert (prefilled, answered) == (len(prompt), 0)
    assert 1 <= sampled <= 400


def cancelled(caller: Caller) -> float:
    return metric(caller, "requests_cancelled_total")


def metric(caller: Caller, name: str) -> float:
    text = caller.get("/metrics").body.decode()
    (line,) = (line for line in text.splitlines() if line.startswith(f"tinker_local_{name} "))
    return float(line.split()[1])


def test_a_request_that_fails_ends_its_stream_with_the_error(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "tiny.gguf", shape=Shape(n_layer=1))
    service = ServiceClient(models_dir=tmp_path, n_ctx=2048, n_threads=1)
    body = {"prompt": [1, 2], "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with Caller(app(service, models=[str(path)])) as caller:
        future = caller.begin("POST", "/v1/completions", body)
        telemetry, until = service.get_telemetry(), time.monotonic() + 30
        while not telemetry.counters.requests and time.monotonic() < until:
            time.sleep(0.01)
        service.close()
        answer = future.result(60)
    *_, error, done, rest = answer.body.decode().split("\n\n")
    assert json.loads(error.removeprefix("data: "))["error"]["type"] == "server_error"
    assert (done, rest) == ("data: [DONE]", "")


def test_every_field_is_described() -> None:
    for kind in (CompletionFields, ChatFields):
        assert all(field.description for field in kind.model_fields.values())
