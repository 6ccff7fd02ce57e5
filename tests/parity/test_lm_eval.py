"""lm-evaluation-harness: the model ``tinker-local`` beside its ``hf`` model, same weights in float32."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from convert import convert_checkpoint
from tests.test_readme import block
from tinker_local import BadRequestError, NotFoundError, SamplingClient, ServiceClient
from tinker_local.cli import app

pytestmark = pytest.mark.parity

lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("torch")

from lm_eval.api.model import CachingLM  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from tests.parity.harness import ANSWER, CHOICE, TASKS, evaluate, n_items, requests  # noqa: E402
from tests.parity.smollm2 import write_checkpoint  # noqa: E402
from tinker_local.lm_eval import LocalLM  # noqa: E402

FLOAT32 = {"n_ctx": 2048, "kv_type": "f32", "flash_attn": False}
GREEDY = {"do_sample": False, "max_gen_toks": 8}
DRAWN = {"do_sample": True, "temperature": 1.0, "max_gen_toks": 8}
WORDS = "one two three four five six seven eight nine ten "


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lm_eval") / "SmolLM2"
    write_checkpoint(directory)
    return directory


@pytest.fixture(scope="module")
def float32(checkpoint: Path) -> SamplingClient:
    path = convert_checkpoint(checkpoint, checkpoint.with_name("f32.gguf"), outtype="f32")
    return ServiceClient(**FLOAT32).create_sampling_client(base_model=str(path))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ours(float32: SamplingClient) -> LocalLM:
    return LocalLM(float32, max_length=512)


@pytest.fixture(scope="module")
def official(checkpoint: Path) -> HFLM:
    return HFLM(pretrained=str(checkpoint), dtype="float32", device="cpu", batch_size=8, max_length=512)


@pytest.fixture(scope="module")
def small(client: SamplingClient) -> LocalLM:
    """The default model, for what needs no comparison."""
    return LocalLM(client)


@pytest.mark.parametrize("name", [CHOICE, ANSWER])
def test_scores_within_one_item(ours: LocalLM, official: HFLM, name: str, tmp_path: Path) -> None:
    found, answers = evaluate(ours, name, tmp_path)
    expected, official_answers = evaluate(official, name, tmp_path)
    assert found.keys() == expected.keys() != set()
    for metric, value in found.items():
        assert value == pytest.approx(expected[metric], abs=1.01 / n_items(name)), metric
        assert 0.4 < value < 1, "a task that the model always or never solves shows nothing"
    pairs = list(zip(answers, official_answers, strict=True))
    differing = sum(not _alike(one, other) for one, other in pairs)
    assert len(pairs) == n_items(name)
    assert differing <= 1, [pair for pair in pairs if not _alike(*pair)]


def _alike(one: Any, other: Any) -> bool:
    """Whether answers are the same; log-probabilities to what float32 gives."""
    if isinstance(one, float):
        return one == pytest.approx(other, abs=2e-3)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other)


PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is ", "Paris"),  # the space belongs to the answer
    ("One two three four\n\n", " five six"),
    ("Once upon a", " time there was a Q"),
    ("", "Paris"),
    ("", "<|im_start|>user"),  # begins with what stands for an empty context
    (WORDS * 80, " one two"),  # longer than the model reads
    (WORDS * 52, WORDS[:-1]),  # about as long
    ("Grüße aus", " Köln 🚂"),
    ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Hello!"),
]


def test_continuations(ours: LocalLM, official: HFLM) -> None:
    asked = requests("loglikelihood", *PAIRS)
    found, expected = ours.loglikelihood(asked), official.loglikelihood(asked)
    for pair, (logprob, is_greedy), (official_logprob, official_is_greedy) in zip(
        PAIRS, found, expected, strict=True
    ):
        assert logprob == pytest.approx(official_logprob, abs=2e-3), pair
        assert is_greedy == official_is_greedy, pair
    assert {is_greedy for _, is_greedy in found} == {False, True}


def test_a_context_of_white_space(small: LocalLM) -> None:
    """There ``hf`` fails; here it is part of the continuation, as after other contexts."""
    blank, empty = small.loglikelihood(requests("loglikelihood", ("  ", "\tx"), ("", "  \tx")))
    assert _alike(blank, empty)


@pytest.mark.parametrize("n_words", [0, 3, 120, 512, 600, 1300])
def test_whole_texts(ours: LocalLM, official: HFLM, english: str, n_words: int) -> None:
    asked = requests("loglikelihood_rolling", (" ".join(english.split()[:n_words]),), (WORDS,))
    expected = official.loglikelihood_rolling(asked)
    assert ours.loglikelihood_rolling(asked) == pytest.approx(expected, rel=1e-4, abs=2e-3)


def test_answers(ours: LocalLM, official: HFLM) -> None:
    asked = requests(
        "generate_until",
        ("The capital of France is", {"until": ["."], **GREEDY}),
        ("The capital of France is", {"until": ["nowhere"], **GREEDY}),
        ("One, two, three,", {"until": ", seven", **GREEDY}),
        ("<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n", {"until": [], **GREEDY}),
        ("<|im_start|>user\nSay hello.<|im_end|>\n", {"until": ["user", "assistant"], **GREEDY}),
        (WORDS * 80, {"until": ["\n"], **GREEDY}),  # longer than the model reads
    )
    assert ours.generate_until(asked) == official.generate_until(asked)


CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi "}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The answer is "}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}],
]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("begins_answer", [True, False])
def test_chats(ours: LocalLM, official: HFLM, chat: list[dict[str, str]], begins_answer: bool) -> None:
    found = ours.apply_chat_template(chat, add_generation_prompt=begins_answer)
    assert found == official.apply_chat_template(chat, add_generation_prompt=begins_answer)
    assert ours.chat_template(True) == official.chat_template(True)


def test_ids(ours: LocalLM, official: HFLM) -> None:
    for name in ("eot_token_id", "prefix_token_id", "max_length", "max_gen_toks"):
        assert getattr(ours, name) == getattr(official, name), name
    for text in ("Hello", "<|im_start|>user", ""):
        assert ours.tok_encode(text) == official.tok_encode(text)


def test_a_chat_task(ours: LocalLM, official: HFLM, tmp_path: Path) -> None:
    """Few-shot examples as turns of a conversation, and the beginning of the answer given."""
    changes = {"gen_prefix": "The capital is"}
    prompts = []
    for model in (ours, official):
        settings = {"apply_chat_template": True, "fewshot_as_multiturn": True, "limit": 2}
        found, answers = evaluate(model, ANSWER, tmp_path, settings, **changes)
        prompts.append(answers)
        assert found
    assert prompts[0] == prompts[1]


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
    expected = [small.loglikelihood([request])[0] for request in asked]
    cache = CachingLM(small, str(tmp_path / "cache.db"))
    assert _alike(small.loglikelihood(asked), expected)
    totals, continued = small.loglikelihood_rolling(texts), small.generate_until(answers)
    small._client, client = None, small._client  # everything below comes from the cache
    try:
        assert _alike(cache.loglikelihood(asked), expected)
        assert cache.loglikelihood_rolling(texts) == totals
        assert cache.generate_until(answers) == continued
    finally:
        small._client = client
        small.set_cache_hook(lm_eval.api.model.CacheHook(None))


def test_draws(client: SamplingClient) -> None:
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
        ({"n_ctx": 64, "max_length": 64}, "max_length is 64"),
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
    monkeypatch.chdir(TASKS)
    return tmp_path


def test_the_readme_command(at_home: Path) -> None:
    program, *arguments = shlex.split(block("lm-eval").removeprefix("$ "))
    assert program == "tinker-local"
    arguments[arguments.index("--tasks") + 1] = f"{CHOICE}.yaml"  # data that is here
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
