"""lm-evaluation-harness: the model ``tinker-local`` by itself, and its command line."""

from __future__ import annotations

import json
import re
import shlex
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.test_readme import block
from tinker_local import BadRequestError, NotFoundError, SamplingClient, ServiceClient
from tinker_local.cli import app

pytestmark = pytest.mark.parity

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.model import CachingLM  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from tests.parity.harness import CHOICE, GREEDY, TASKS, WORDS, alike, requests  # noqa: E402
from tinker_local.lm_eval import LocalLM  # noqa: E402

DRAWN = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 8}


@pytest.fixture(scope="module")
def small(client: SamplingClient) -> LocalLM:
    """The default model, for what needs no comparison."""
    return LocalLM(client)


def test_a_context_of_white_space(small: LocalLM) -> None:
    """There ``hf`` fails; here it is part of the continuation, as after other contexts."""
    blank, empty = small.loglikelihood(requests("loglikelihood", ("  ", "\tx"), ("", "  \tx")))
    assert alike(blank, empty)


def test_what_is_shared_is_computed_once(small: LocalLM, client: SamplingClient) -> None:
    context = "A list of numbers: " + WORDS * 20
    before = client.get_telemetry().counters
    small.loglikelihood(requests("loglikelihood", *((context, f" {n}") for n in range(10, 40))))
    after = client.get_telemetry().counters
    asked = after.tokens_in - before.tokens_in
    computed = asked - (after.cache_hit_tokens - before.cache_hit_tokens)
    n_context = len(client.get_tokenizer().encode(context))
    assert asked > 30 * n_context
    assert computed < n_context + 30 * 4


def test_order_and_cache(small: LocalLM, tmp_path: Path) -> None:
    asked = requests("loglikelihood", *(("x " * (n % 7 + 1), f" {n}") for n in range(30)))
    texts = requests("loglikelihood_rolling", ("One.",), ("Two two.",))
    answers = requests("generate_until", ("One,", {"until": ["."], "max_gen_toks": 4}))
    alone = [small.loglikelihood([request])[0][0] for request in asked]
    cache = CachingLM(small, str(tmp_path / "cache.db"))
    expected = small.loglikelihood(asked)
    assert [logprob for logprob, _ in expected] == pytest.approx(alone, abs=0.5)  # a 4-bit file
    assert max(alone) - min(alone) > 3
    totals, continued = small.loglikelihood_rolling(texts), small.generate_until(answers)
    small._client, client = None, small._client  # everything below comes from the cache
    try:
        assert cache.loglikelihood(asked) == expected
        assert cache.loglikelihood_rolling(texts) == totals
        assert cache.generate_until(answers) == continued
    finally:
        small._client = client
        small.set_cache_hook(lm_eval.api.model.CacheHook(None))


def test_draws() -> None:
    """In the invariant mode: else a draw may fall otherwise with what is cached."""
    service = ServiceClient(n_ctx=1024, batch_invariant=True)
    client = service.create_sampling_client(base_model="SmolLM2-135M-Instruct")
    asked = requests("generate_until", *[("Once upon a time", DRAWN)] * 4)
    first, again, other = (LocalLM(client, seed=seed).generate_until(asked) for seed in (1, 1, 2))
    assert first == again
    assert len(set(first)) > 1, "repeats are drawn apart"
    assert first != other
    narrow = requests("generate_until", ("Once upon a time", {**DRAWN, "top_k": 1, "top_p": 0.9}))
    plain = requests("generate_until", ("Once upon a time", {**GREEDY, "temperature": 1.0, "top_k": 0}))
    model = LocalLM(client)
    assert model.generate_until(narrow) == model.generate_until(plain)


@pytest.mark.parametrize("as_id", [False, True])
def test_thinking(client: SamplingClient, as_id: bool) -> None:
    """What comes before the end of the thinking is dropped, and ``until`` does not end it."""
    plain = LocalLM(client)
    asked = [("Once upon a time, in a small village", {**GREEDY, "max_gen_toks": 30})]
    [whole] = plain.generate_until(requests("generate_until", *asked))
    tokens = plain.tok_encode(whole)
    end = next(token for token in tokens[4:-4] if tokens.count(token) == 1)
    word = client.get_tokenizer().decode(end)
    assert whole.count(word) == 1
    model = LocalLM(client, think_end_token=end if as_id else word, enable_thinking=True)
    until = {**asked[0][1], "until": [whole.split(word)[0][:12]]}
    [answer] = model.generate_until(requests("generate_until", (asked[0][0], until)))
    assert answer == whole.split(word)[1].lstrip()
    with pytest.raises(BadRequestError, match="enable_thinking"):
        model.loglikelihood(requests("loglikelihood", ("a", " b")))


def test_prompts_have_names(client: SamplingClient) -> None:
    names = {
        LocalLM(client, **given).tokenizer_name  # type: ignore[arg-type]
        for given in ({}, {"chat_template_args": {"x": 1}}, {"add_bos_token": True})
    }
    assert len(names) == 3
    assert LocalLM(client).tokenizer_name in names
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


def test_bos(client: SamplingClient) -> None:
    bos = client.get_tokenizer().bos_token_id
    plain = LocalLM(client).tok_encode("Hello")
    model = LocalLM(client, add_bos_token=True)
    assert model.tok_encode("Hello") == [bos, *plain]
    assert model.tok_encode("<|im_start|>Hello") == [bos, *plain]
    assert model.tok_encode("Hello", add_special_tokens=False) == plain
    assert LocalLM(client, prefix_token_id=7).prefix_token_id == 7


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pretrained": "x"}, "no argument 'pretrained'.*model=NAME.*n_ctx"),
        ({"n_ctx": 64, "max_length": 65}, "max_length is 65"),
        ({"max_length": 0}, "max_length"),
        ({"max_gen_toks": 0}, "max_gen_toks"),
        ({"prefix_token_id": 10**6}, "prefix_token_id"),
        ({"kv_type": "f8"}, "kv_type"),
        ({"enable_thinking": True}, "think_end_token"),
    ],
)
def test_arguments_that_are_wrong(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        get_model("tinker-local").create_from_arg_obj({"n_ctx": 64, **given}, {"batch_size": 1})


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(NotFoundError, match="SmolLM2-135M-Instruct"):
        get_model("tinker-local").create_from_arg_string("model=nothing")


@pytest.mark.parametrize(
    ("kind", "asked", "said"),
    [
        ("loglikelihood", ("a", ""), "adds no token"),
        ("loglikelihood", ("a", " b" * 5000), "max_length"),
        ("generate_until", ("a", {"num_beams": 4}), "num_beams=4"),
        ("generate_until", ("a", {"max_length": 40}), "max_length=40"),
        ("generate_until", ("a", {"max_gen_toks": 10**5}), "larger n_ctx"),
        ("generate_until", ("a", {"temperature": -1.0, "do_sample": True}), "temperature"),
    ],
)
def test_requests_that_are_wrong(small: LocalLM, kind: str, asked: tuple[Any, ...], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        getattr(small, kind)(requests(kind, asked))
    assert small.loglikelihood(requests("loglikelihood", ("a", " b")))


def test_nothing_goes_on_after_an_error(client: SamplingClient) -> None:
    before = client.get_telemetry().counters.cancelled
    asked = [(f"{n} {WORDS * 30}", " b") for n in range(50)]
    with pytest.raises(BadRequestError):
        LocalLM(client).loglikelihood(requests("loglikelihood", *asked, ("a", "")))
    assert client.get_telemetry().counters.cancelled - before > 10


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["unchanged"])
    alone = partialmethod(TaskManager.__init__, include_defaults=False)  # else 26,000 files are read
    monkeypatch.setattr(TaskManager, "__init__", alone)
    monkeypatch.chdir(TASKS)
    return tmp_path


def test_the_readme_command(at_home: Path) -> None:
    program, *arguments = shlex.split(block("lm-eval").removeprefix("$ "))
    assert program == "tinker-local"
    arguments[arguments.index("--tasks") + 1] = f"{CHOICE}.yaml"  # data that is here
    arguments[arguments.index("--num_fewshot") + 1] = "4"
    result = CliRunner().invoke(
        app, [*arguments, "--limit", "3", "--output_path", str(at_home / "results.json")]
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"\|\s*opposites\s*\|.*\|\s*acc\s*\|", result.output), result.output
    [written] = at_home.glob("results*.json")
    config = json.loads(written.read_text(encoding="utf-8"))["config"]
    assert config["model"] == "tinker-local"
    assert config["weights"]["path"].endswith(".gguf")


def test_the_command_says_what_is_wrong(at_home: Path) -> None:
    arguments = ["lm-eval", "--model_args", "pretrained=x", "--tasks", f"{CHOICE}.yaml"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "error: the model tinker-local has no argument 'pretrained'" in result.output
