"""Clients of OpenAI's endpoints, unmodified, against a server in this process."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tinker_local import ModelInput, SamplingClient, SamplingParams, ServiceClient, Tokenizer
from tinker_local.serve import Server, app

pytestmark = pytest.mark.parity

openai = pytest.importorskip("openai")

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TEXT = "The capital of France is"


@pytest.fixture(scope="module")
def own_service() -> Iterator[ServiceClient]:
    """A float32 cache and equal bits, whatever else runs."""
    with ServiceClient(n_ctx=1024, batch_invariant=True) as service:
        yield service


@pytest.fixture(scope="module")
def own(own_service: ServiceClient) -> SamplingClient:
    return own_service.create_sampling_client(base_model=MODEL)


@pytest.fixture(scope="module")
def server(own_service: ServiceClient) -> Iterator[Server]:
    with Server(app(own_service, models=[MODEL])) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="tml-local", max_retries=0)


def prompt(own: SamplingClient, text: str = TEXT) -> ModelInput:
    return ModelInput.from_ints(own.get_tokenizer().encode(text))


class TestOpenAiPackage:
    def test_completions(self, client: Any, own: SamplingClient) -> None:
        params = SamplingParams(max_tokens=12, seed=3, temperature=0.8)
        expected = own.sample(prompt(own), 2, params).result().sequences
        found = client.completions.create(
            model=MODEL, prompt=TEXT, max_tokens=12, seed=3, temperature=0.8, n=2, logprobs=2
        )
        for choice, sequence in zip(found.choices, expected, strict=True):
            assert choice.logprobs.token_logprobs == sequence.logprobs
            assert choice.finish_reason == sequence.stop_reason
            assert len(choice.logprobs.top_logprobs[0]) in (2, 3)
        assert found.usage.completion_tokens == sum(len(s.tokens) for s in expected)

    def test_prompts_are_scored(self, client: Any, own: SamplingClient) -> None:
        asked: dict[str, Any] = {"model": MODEL, "prompt": TEXT, "max_tokens": 0, "logprobs": 5}
        (choice,) = client.completions.create(echo=True, **asked).choices
        assert choice.text == TEXT
        assert choice.logprobs.token_logprobs == own.compute_logprobs(prompt(own)).result()
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(**asked, suffix="x")
        assert caught.value.param == "suffix"
        with pytest.raises(openai.NotFoundError):
            client.completions.create(model="absent", prompt="x")

    def test_a_stream(self, client: Any) -> None:
        asked: dict[str, Any] = {"model": MODEL, "prompt": TEXT, "max_tokens": 20, "seed": 5}
        whole = client.completions.create(**asked)
        chunks = list(
            client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        )
        text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
        assert text == whole.choices[0].text
        assert chunks[-1].usage == whole.usage

    def test_chats_asynchronously(self, server: Server) -> None:
        asked: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Name a colour."}],
            "max_tokens": 12,
            "seed": 1,
            "logprobs": True,
            "top_logprobs": 30,
        }

        async def ask() -> tuple[Any, list[Any]]:
            async with openai.AsyncOpenAI(base_url=f"{server.url}/oai/api/v1", api_key="tml-x") as client:

                async def streamed() -> list[Any]:
                    return [c async for c in await client.chat.completions.create(**asked, stream=True)]

                return tuple(await asyncio.gather(client.chat.completions.create(**asked), streamed()))

        whole, chunks = asyncio.run(ask())
        (choice,) = whole.choices
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == choice.message.content
        entries = [e for c in chunks if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
        assert entries == choice.logprobs.content
        assert {len(entry.top_logprobs) for entry in entries} == {30}

    def test_models(self, client: Any) -> None:
        assert MODEL in [model.id for model in client.models.list()]
        assert client.models.retrieve(MODEL).max_model_len == 1024


class TestHarness:
    """lm-evaluation-harness; ``test_lm_eval_scores.py`` has its ``local-completions``."""

    def test_the_model_gguf(self, server: Server, own: SamplingClient) -> None:
        pytest.importorskip("lm_eval")
        from lm_eval.api.instance import Instance
        from lm_eval.models.gguf import GGUFLM

        pairs = [("The capital of France is", " Paris"), ("1 2 3 4", " 5 6"), ("Café", " crème")]
        asked = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]
        found = GGUFLM(base_url=server.url).loglikelihood(asked)
        for (context, continuation), (total, _) in zip(pairs, found, strict=True):
            n = len(own.get_tokenizer().encode(context))
            scores = own.compute_logprobs(prompt(own, context + continuation)).result()
            assert total == pytest.approx(sum(filter(None, scores[n:])), abs=1e-5)


def test_inspect_measures_perplexity(server: Server, own: SamplingClient, tmp_path: Path) -> None:
    inspect_ai = pytest.importorskip("inspect_ai", reason="pip install inspect-ai")
    from inspect_ai.dataset import Sample
    from inspect_ai.model import GenerateConfig, get_model
    from inspect_ai.scorer import perplexity

    texts = [TEXT + " Paris.", "Two and two are four, and three and three are six."]
    model = get_model(
        f"openai-api-completions/local/{MODEL}", base_url=f"{server.url}/v1", api_key="tml-local"
    )
    task = inspect_ai.Task(
        dataset=[Sample(input=text) for text in texts],
        scorer=perplexity(),
        config=GenerateConfig(prompt_logprobs=5, max_tokens=1),
    )
    (log,) = inspect_ai.eval(task, model=model, log_dir=str(tmp_path), display="none")
    assert log.status == "success", log.error
    scores = [own.compute_logprobs(prompt(own, text)).result() for text in texts]
    expected = [-sum(filter(None, each)) / (len(each) - 1) for each in scores]
    found = [next(iter(sample.scores.values())).value for sample in log.samples]
    assert found == pytest.approx(expected, abs=1e-9)
    assert math.exp(max(expected)) < 1000


class TestLlm:
    """simonw's ``llm``, through its configuration file."""

    @pytest.fixture
    def llm(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        llm = pytest.importorskip("llm")
        monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
        entry = f"model_name: {MODEL}\n  api_base: {server.url}/v1\n"
        text = f"- model_id: local-chat\n  {entry}- model_id: local-text\n  {entry}  completion: true\n"
        (tmp_path / "extra-openai-models.yaml").write_text(text, encoding="utf-8")
        return llm

    def test_a_chat(self, llm: Any, client: Any) -> None:
        response = llm.get_model("local-chat").prompt("Name a colour.", temperature=0, max_tokens=12)
        parts = list(response)  # a stream
        assert len(parts) > 3
        asked: Any = {"messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 12}
        expected = client.chat.completions.create(model=MODEL, temperature=0, **asked)
        assert "".join(parts) == expected.choices[0].message.content
        assert response.usage().output == expected.usage.completion_tokens

    def test_log_probabilities(self, llm: Any, own: SamplingClient) -> None:
        response = llm.get_model("local-text").prompt(
            TEXT, temperature=0, max_tokens=4, logprobs=3, stream=False
        )
        assert response.text()
        expected = own.sample(prompt(own), 1, SamplingParams(max_tokens=4, temperature=0)).result()
        assert isinstance(own.get_tokenizer(), Tokenizer)
        assert own.get_tokenizer().decode(expected.sequences[0].tokens) == response.text()
