"""tinker-cookbook's completers, renderers and evaluators on our client, with nothing of them changed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bare_loop import BareLoop, log_softmax
from tinker_local import SamplingClient, ServiceClient, Tokenizer

pytestmark = pytest.mark.parity

tinker = pytest.importorskip("tinker")
completers = pytest.importorskip("tinker_cookbook.completers")

from tinker_cookbook.eval.custom_evaluators import CustomEvaluator  # noqa: E402
from tinker_cookbook.renderers import get_renderer  # noqa: E402
from tinker_cookbook.supervised.data import FromConversationFileBuilder  # noqa: E402
from tinker_cookbook.supervised.nll_evaluator import SamplerNLLEvaluator  # noqa: E402
from tinker_cookbook.supervised.types import ChatDatasetBuilderCommonConfig  # noqa: E402
from tinker_cookbook.tokenizer_utils import get_tokenizer  # noqa: E402

from tests.parity.official_tokenizer import official_tokenizer  # noqa: E402

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
QUESTION = {"role": "user", "content": "What is the capital of France?"}
NAME = "qwen3_instruct"  # SmolLM2's chats are ChatML as well
TALKS = [
    ("What is 2 + 2?", "2 + 2 is 4."),
    ("Name a colour.", "Blue is a colour, and so is green."),
    ("Where do whales live?", "Whales live in every ocean of the world."),
]


@pytest.fixture(scope="module")
def directory(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of the model, on disk."""
    path = tmp_path_factory.mktemp("SmolLM2")
    official_tokenizer(model_path).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def renderer(directory: Path) -> Any:
    return get_renderer(NAME, get_tokenizer(str(directory)))


def test_token_completer(client: SamplingClient, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("The capital of France is")
    prompt = tinker.ModelInput.from_ints(tokens)
    greedy: Any = tinker.SamplingParams(max_tokens=12, temperature=0, stop=["."])
    expected = client.sample(prompt, 1, greedy).result().sequences[0]

    completer = completers.TinkerTokenCompleter(client, max_tokens=12, temperature=0.0)
    found = asyncio.run(completer(prompt, ["."]))
    assert found.tokens == expected.tokens
    assert np.abs(np.array(found.logprobs) - np.array(expected.logprobs)).max() < 0.1
    assert found.stop_reason == expected.stop_reason == "stop"
    assert tokenizer.decode(found.tokens).endswith(".")
    assert found.sequence_id
    assert found.sequence_id != expected.sequence_id
    assert found.prompt_cache_hit_tokens > 0

    short = asyncio.run(completer(prompt, [tokenizer.eos_token_id], max_tokens=1))
    assert (short.tokens, short.stop_reason) == (expected.tokens[:1], "length")
    capped = completers.TinkerTokenCompleter(client, 12, 0.0, context_window=len(tokens) + 1)
    assert asyncio.run(capped(prompt, ["."])).tokens == expected.tokens[:1]


def test_many_completions_in_one_loop(client: SamplingClient, tokenizer: Tokenizer) -> None:
    completer = completers.TinkerTokenCompleter(client, max_tokens=4)
    prompts = [tinker.ModelInput.from_ints(tokenizer.encode(f"{n} is a number")) for n in range(16)]

    async def rollouts() -> list[Any]:
        return await asyncio.gather(*[completer(prompt, []) for prompt in prompts])

    found = asyncio.run(rollouts())
    assert [len(one.tokens) for one in found] == [len(one.logprobs) for one in found] == [4] * 16
    assert len({one.sequence_id for one in found}) == 16


def test_message_completer(client: SamplingClient, tokenizer: Tokenizer, renderer: Any) -> None:
    messages = [SYSTEM, QUESTION]
    prompt = renderer.build_generation_prompt(messages)
    assert prompt.to_ints() == tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    completer = completers.TinkerMessageCompleter(client, renderer, max_tokens=40, temperature=0.0)
    assert completer.stop_condition == [tokenizer.eos_token_id]
    answer = asyncio.run(completer(messages))
    assert answer["role"] == "assistant"
    assert "Paris" in answer["content"]
    assert "<|im_end|>" not in answer["content"]
    again = asyncio.run(completer([*messages, answer, {"role": "user", "content": "And of Italy?"}]))
    assert "Rome" in again["content"]


def test_a_renderer_on_our_tokenizer(client: SamplingClient, directory: Path) -> None:
    """Renderers that need no more than a tokenizer's methods take ours."""
    theirs = get_renderer("role_colon", get_tokenizer(str(directory)))
    ours = get_renderer("role_colon", client.get_tokenizer())
    assert ours.build_generation_prompt([QUESTION]) == theirs.build_generation_prompt([QUESTION])
    completer = completers.TinkerMessageCompleter(client, ours, max_tokens=8, temperature=0.0)
    assert asyncio.run(completer([QUESTION]))["content"]


def test_an_evaluator_that_samples(client: SamplingClient, directory: Path) -> None:
    graded: list[tuple[str, str]] = []

    def grade(response: str, target: str) -> bool:
        graded.append((response, target))
        return "Paris" in response

    dataset = [{"input": QUESTION["content"], "output": str(n)} for n in range(2)]
    evaluator = CustomEvaluator(dataset, grade, str(directory), NAME)
    metrics = asyncio.run(evaluator(client))
    assert [target for _, target in graded] == ["0", "1"]
    assert all(response and "<|im_" not in response for response, _ in graded)
    assert metrics == {"accuracy": sum("Paris" in response for response, _ in graded) / 2}


def test_an_evaluator_that_scores(model_path: Path, directory: Path, tmp_path: Path) -> None:
    """Mean negative log-likelihood of the answers in a local file, against the sum of its logits' rows."""
    lines = [
        json.dumps({"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]})
        for a, b in TALKS
    ]
    (tmp_path / "talks.jsonl").write_text("\n".join(lines), encoding="utf-8")
    common = ChatDatasetBuilderCommonConfig(
        model_name_for_tokenizer=str(directory), renderer_name=NAME, max_length=256, batch_size=len(TALKS)
    )
    dataset, _ = FromConversationFileBuilder(
        file_path=str(tmp_path / "talks.jsonl"), common_config=common
    )()
    evaluator = SamplerNLLEvaluator.from_dataset(dataset, "talks", get_tokenizer(str(directory)))
    assert len(evaluator.data) == len(TALKS)
    service = ServiceClient(n_ctx=512, prefix_cache=False)
    metrics = asyncio.run(evaluator(service.create_sampling_client(base_model=str(model_path))))

    bare = BareLoop(model_path, own_kernels=True)
    total = weight = 0.0
    for datum in evaluator.data:
        targets = datum.loss_fn_inputs["target_tokens"].to_numpy()
        weights = datum.loss_fn_inputs["weights"].to_numpy()
        rows = log_softmax(bare.prompt_logits(datum.model_input.to_ints()))
        total += (rows[np.arange(len(targets)), targets] * weights).sum()
        weight += weights.sum()
    bare.close()
    print(f"mean negative log-likelihood: {metrics['talks/nll']:.6f}, exactly {-total / weight:.6f}")
    assert abs(metrics["talks/nll"] + total / weight) < 1e-3
    assert metrics["talks/bpb"] > 0
