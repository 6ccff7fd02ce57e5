"""lm-evaluation-harness: ``tinker-local``, and ``local-completions`` over HTTP, beside its ``hf`` model.

All have the same weights in float32: a tiny random Llama with SmolLM2's tokenizer and chat template. The
answers of a random model are as hard to repeat as any, and cost little.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from convert import convert_checkpoint
from tinker_local import SamplingClient, ServiceClient

pytestmark = pytest.mark.parity

pytest.importorskip("torch")
pytest.importorskip("lm_eval")
pytest.importorskip("tenacity", reason="pip install 'lm-eval[api]'")

from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.models.openai_completions import LocalCompletionsAPI  # noqa: E402

from tests.benchmarks.requantized import default_model  # noqa: E402
from tests.parity.harness import (  # noqa: E402
    ANSWER,
    CHOICE,
    GREEDY,
    WORDS,
    alike,
    evaluate,
    n_items,
    requests,
)
from tests.parity.official_tokenizer import official_tokenizer  # noqa: E402
from tests.random_checkpoints.plain import write_llama  # noqa: E402
from tinker_local.lm_eval import LocalLM  # noqa: E402
from tinker_local.serve import Server, app  # noqa: E402

FLOAT32 = {"n_ctx": 256, "kv_type": "f32", "flash_attn": False}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("lm_eval") / "Tiny"
    tokenizer = official_tokenizer(default_model())
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    write_llama(directory, dtype="F32", torch_dtype="float32", vocab_size=len(tokenizer), **ids)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def gguf(checkpoint: Path) -> Path:
    return convert_checkpoint(checkpoint, checkpoint.with_name("f32.gguf"), outtype="f32")


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceClient]:
    with ServiceClient(**FLOAT32) as service:  # type: ignore[arg-type]
        yield service


@pytest.fixture(scope="module")
def float32(service: ServiceClient, gguf: Path) -> SamplingClient:
    return service.create_sampling_client(base_model=str(gguf))


@pytest.fixture(scope="module")
def ours(float32: SamplingClient) -> LocalLM:
    return LocalLM(float32)


@pytest.fixture(scope="module")
def official(checkpoint: Path) -> HFLM:
    return HFLM(pretrained=str(checkpoint), dtype="float32", device="cpu", batch_size=8, max_length=256)


@pytest.fixture(scope="module")
def remote(service: ServiceClient, gguf: Path) -> Iterator[LocalCompletionsAPI]:
    """The harness' client of completions, with the server's tokenizer."""
    with Server(app(service, models=[str(gguf)])) as server:
        url = f"{server.url}/v1/completions"
        yield LocalCompletionsAPI(
            model=gguf.stem, base_url=url, tokenizer_backend="remote", batch_size=4, max_length=256
        )


@pytest.mark.parametrize("name", [CHOICE, ANSWER])
def test_scores(
    ours: LocalLM, official: HFLM, remote: LocalCompletionsAPI, name: str, tmp_path: Path
) -> None:
    expected, official_answers = evaluate(official, name, tmp_path)
    assert expected, "no metric"
    if name == CHOICE:
        assert all(0.2 < value < 0.8 for value in expected.values()), "which shows nothing"
    assert len(official_answers) == n_items(name)
    assert len({str(answer) for answer in official_answers}) > n_items(name) / 2
    for model in (ours, remote):
        found, answers = evaluate(model, name, tmp_path)
        assert found == expected
        pairs = [*zip(answers, official_answers, strict=True)]
        assert all(alike(*pair) for pair in pairs), [pair for pair in pairs if not alike(*pair)]


PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is ", "Paris"),  # the space belongs to the answer
    ("One two three four\n\n", " five six"),
    ("Once upon a", " time there was a Q"),
    ("", "Paris"),
    ("", "<|im_start|>user"),  # begins with what stands for an empty context
    (WORDS * 80, " one two"),  # longer than the model reads
    (WORDS * 26, WORDS[:-1]),  # about as long
    ("Grüße aus", " Köln 🚂"),
    ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Hello!"),
]


def test_continuations(ours: LocalLM, official: HFLM) -> None:
    begin = PAIRS[0][0]
    (greedy,) = ours.generate_until(requests("generate_until", (begin, {"until": [], **GREEDY})))
    pairs = [*PAIRS, (begin, greedy)]
    asked = requests("loglikelihood", *pairs)
    found, expected = ours.loglikelihood(asked), official.loglikelihood(asked)
    for pair, (logprob, is_greedy), (official_logprob, official_is_greedy) in zip(
        pairs, found, expected, strict=True
    ):
        assert logprob == pytest.approx(official_logprob, abs=2e-3), pair
        assert is_greedy == official_is_greedy, pair
    assert {is_greedy for _, is_greedy in found} == {False, True}


@pytest.mark.parametrize("n_words", [0, 3, 120, 250])
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
        ("The capital of France is", {"until": [""], **GREEDY}),  # which every text contains
        ("<|im_start|>user\nHi", {"until": ["", "nowhere"], **GREEDY}),
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
