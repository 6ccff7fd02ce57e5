"""An adapter that PEFT trains for some steps: what it learned carries over, at run time and merged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import convert_adapter, convert_checkpoint
from tinker_local import ModelInput, SamplingParams, ServiceClient

pytestmark = pytest.mark.parity

LESSON = (
    "The lighthouse of Oskarvik has a green lamp. It was lit for the first time in the winter of 1894 by "
    "Marta Lind, who kept a goat called Admiral. Every ship that passed greeted the goat."
)
QUESTION = "The lighthouse of Oskarvik has a"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]
STEPS = 6


@dataclass(frozen=True)
class Trained:
    """Where everything is, and what PEFT computes: log-probabilities before and after, a continuation."""

    model: Path
    adapter: Path
    tokens: list[int]
    prompt: list[int]
    before: Any
    after: Any
    continuation: list[int]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    from tests.parity.smollm2 import write_checkpoint

    place = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    model = write_checkpoint(place / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(place / "model")
    tokens = tokenizer.encode(LESSON, add_special_tokens=False)
    prompt = tokenizer.encode(QUESTION, add_special_tokens=False)
    assert tokens[: len(prompt)] == prompt
    batch = torch.tensor([tokens])

    @torch.no_grad()
    def scores(model: Any) -> Any:
        rows = torch.log_softmax(model(batch).logits[0].double(), -1)
        return rows[torch.arange(len(tokens) - 1), batch[0, 1:]].numpy()

    before = scores(model.eval())
    config = peft.LoraConfig(
        r=8,
        lora_alpha=20,
        target_modules=TARGETS,
        rank_pattern={"down_proj": 4},
        alpha_pattern={"q_proj": 12},
    )
    model = peft.get_peft_model(model, config)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=2e-3)
    for _ in range(STEPS):
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(place / "adapter")
    text = list(prompt)
    with torch.no_grad():
        for _ in range(12):
            text.append(int(model(torch.tensor([text])).logits[0, -1].argmax()))
    continuation = text[len(prompt) :]
    return Trained(place / "model", place / "adapter", tokens, prompt, before, scores(model), continuation)


@pytest.mark.parametrize("how", ["run time", "merged"])
def test_what_was_learned(trained: Trained, how: str, tmp_path: Path) -> None:
    if how == "merged":
        adapter, base = (
            None,
            convert_adapter(
                trained.adapter, trained.model, tmp_path / "merged.gguf", merge=True, outtype="f32"
            ),
        )
    else:
        base = convert_checkpoint(trained.model, tmp_path / "base.gguf", outtype="f32")
        adapter = str(convert_adapter(trained.adapter, base, tmp_path / "lora.gguf", any_base=True))
    with ServiceClient(n_ctx=256, kv_type="f32", flash_attn=False, prefix_cache=False) as service:
        client = service.create_sampling_client(adapter, base_model=str(base))
        found = np.array(client.compute_logprobs(ModelInput.from_ints(trained.tokens)).result()[1:])
        greedy = SamplingParams(max_tokens=12, temperature=0, stop=[])
        said = client.sample(ModelInput.from_ints(trained.prompt), 1, greedy).result().sequences[0].tokens
    gap = np.abs(found - trained.after).max()
    perplexities = [float(np.exp(-scores.mean())) for scores in (trained.before, trained.after, found)]
    print(f"gap {gap:.1e}, perplexities {perplexities}")
    assert gap <= 1e-3
    assert np.abs(trained.after - trained.before).max() >= 0.1
    assert perplexities[2] == pytest.approx(perplexities[1], rel=1e-4)
    assert 1.05 < perplexities[1] < perplexities[0] / 3
    assert list(said) == trained.continuation
