"""The model of lm-evaluation-harness by itself, on a tiny model: needs lm-eval, and no torch of its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.random_model import Shape, write_random_model
from tinker_local import BadRequestError, ModelInput, SamplingClient, SamplingParams, ServiceClient

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is in the extra `eval`")

from lm_eval.api.instance import Instance

from tinker_local.lm_eval import LocalLM
from tinker_local.lm_eval.generation import Generation

pytestmark = pytest.mark.parity

N_CTX = 256
END = 256  # the end-of-text token, which stands for BOS as well
TEXT = "ab" + " a text of more tokens than the model reads, which has one for each letter" * 9


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", shape=Shape(n_layer=2))


def open_client(path: Path, n_ctx: int) -> SamplingClient:
    service = ServiceClient(n_ctx=n_ctx, kv_type="f32", flash_attn=False, n_threads=1)
    return service.create_sampling_client(base_model=str(path))


@pytest.fixture(scope="module")
def model(path: Path) -> LocalLM:
    return LocalLM(open_client(path, N_CTX))


def ask(model: LocalLM, kind: str, *arguments: Any) -> Any:
    request = Instance(request_type=kind, doc={}, arguments=arguments, idx=0)
    return getattr(model, kind)([request], disable_tqdm=True)[0]


def test_the_model_reads_as_many_tokens_as_the_context_holds(model: LocalLM) -> None:
    assert model.max_length == N_CTX
    assert LocalLM(model._client, max_length=N_CTX).max_length == N_CTX
    with pytest.raises(BadRequestError, match="max_length is 257"):
        LocalLM(model._client, max_length=N_CTX + 1)


@pytest.mark.parametrize("n_more", [-1, 0, 1, 2, 300])
def test_windows_of_a_text(model: LocalLM, path: Path, n_more: int) -> None:
    """As many tokens are scored at once as the context holds; the first window begins with END."""
    text = TEXT[: N_CTX + n_more]
    tokens = [END, *model.tok_encode(text)]
    larger = open_client(path, 2 * N_CTX)
    expected, scored = 0.0, 0
    while scored < len(tokens) - 1:
        end = min(len(tokens), 1 + scored + N_CTX)
        window = ModelInput.from_ints(tokens[max(0, end - N_CTX - 1) : end])
        scores = larger.compute_logprobs(window, end - 1 - scored).result(60)
        expected += math.fsum(score for score in scores if score is not None)
        scored = end - 1
    assert ask(model, "loglikelihood_rolling", text) == pytest.approx(expected, abs=1e-2)


def test_a_context_that_is_cut(model: LocalLM, path: Path) -> None:
    """The last ``max_length`` + 1 tokens count: all but the last are read."""
    tokens = model.tok_encode(TEXT)[-N_CTX - 1 :]
    larger = open_client(path, 2 * N_CTX)
    expected = larger.compute_logprobs(ModelInput.from_ints(tokens), 3).result(60)[-3:]
    found, _ = ask(model, "loglikelihood", TEXT[:-3], TEXT[-3:])
    assert found == pytest.approx(math.fsum(filter(None, expected)), abs=1e-3)


def test_prompt_and_answer_fill_the_context(model: LocalLM) -> None:
    given = {"until": [], "do_sample": False, "max_gen_toks": N_CTX - 4}
    before = model._client.get_telemetry().counters.tokens_in
    assert ask(model, "generate_until", TEXT, given)
    assert model._client.get_telemetry().counters.tokens_in - before == 4, "the others are cut off"


@pytest.mark.parametrize("until", [[""], "", ["", ","], ["nowhere", ""]])
def test_an_empty_stop_string_ends_the_answer_after_a_token(model: LocalLM, until: Any) -> None:
    """Every text contains it; so does ``hf`` take it."""
    given = {"do_sample": False, "max_gen_toks": 8}
    whole = ask(model, "generate_until", TEXT[:9], {"until": ["nowhere"], **given})
    answer = ask(model, "generate_until", TEXT[:9], {"until": until, **given})
    prompt, params = (
        ModelInput.from_ints(model.tok_encode(TEXT[:9])),
        SamplingParams(max_tokens=1, temperature=0.0),
    )
    [token] = model._client.sample(prompt, 1, params).result(60).sequences[0].tokens
    assert answer == model.tokenizer.decode(token)
    assert len(whole) > len(answer)


@pytest.mark.parametrize("until", [[5], [["a"]], ("a", "b"), [None, 5]])
def test_stop_strings_that_are_none(model: LocalLM, until: Any) -> None:
    with pytest.raises(BadRequestError, match=r"until is .*; it must be a str or a list of str"):
        ask(model, "generate_until", "ab", {"until": until, "do_sample": False})


@pytest.mark.parametrize(
    ("given", "top_k"), [({}, 50), ({"top_k": 0}, -1), ({"top_k": 7}, 7), ({"top_k": None}, 50)]
)
def test_draws_are_from_the_fifty_best_tokens(given: dict[str, Any], top_k: int) -> None:
    """The default of transformers, 4 and 5, which ``hf`` takes over."""
    asked = {"do_sample": True, "temperature": 0.5, **given}
    params = Generation.of(asked, eos=None, max_tokens=9, think_end=None).params(seed=1)
    assert (params.temperature, params.top_k, params.top_p) == (0.5, top_k, 1.0)


def test_bos_that_is_written_already(model: LocalLM) -> None:
    """Before an answer BOS itself counts, before a score the prefix token."""
    both = LocalLM(model._client, add_bos_token=True, prefix_token_id=7)
    text = "<|endoftext|>ab"
    assert both._generation_prompt(text, 8) == both.tok_encode(text)[1:] == model.tok_encode(text)
    assert both.tok_encode(text)[:2] == [END, END]
    assert both._generation_prompt("ab", 8) == both.tok_encode("ab")


def test_the_end_of_thinking_as_a_number_in_a_text(model: LocalLM) -> None:
    assert LocalLM(model._client, think_end_token="97")._think_end == 97
    assert LocalLM(model._client, think_end_token="</think>")._think_end == "</think>"


def test_white_space_before_a_continuation(model: LocalLM) -> None:
    """An empty context is the prefix token; white space belongs to what is scored."""
    prefixed = LocalLM(model._client, prefix_token_id=7, add_bos_token=True)
    blank, empty = (
        ask(prefixed, "loglikelihood", context, end) for context, end in ((" ", "x"), ("", " x"))
    )
    plain = ask(model, "loglikelihood", " ", "x")
    assert blank == pytest.approx(plain, abs=1e-3), "BOS, which the vocabulary puts there"
    assert blank != pytest.approx(empty, abs=1e-3)
