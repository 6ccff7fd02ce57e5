"""HTML of responses in notebooks."""

from __future__ import annotations

import pickle
import re

import numpy as np

from tests.display.test_page import Parsed
from tinker_local import ModelInput, SamplingClient, SamplingParams, Tokenizer, types


def test_a_response_shows_its_tokens(client: SamplingClient, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("A <b>bold</b> 😀 word")
    response = client.sample(
        ModelInput.from_ints(prompt),
        2,
        SamplingParams(max_tokens=5, seed=1, stop=[]),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=3,
        topk_sample_logprobs=2,
    ).result()
    html = response._repr_html_()
    parsed = Parsed(html)
    assert len(parsed.details) == len(prompt) + 2 * 5
    assert not parsed.ids, "ids of several outputs would clash"
    assert not {"b", "script"} & set(parsed.tags)
    assert all("rank" in detail for detail in parsed.details[1:])
    assert f"id {prompt[0]}" in parsed.details[0]
    said = "".join(parsed.said)
    for sequence in response.sequences:
        assert sequence.logprobs is not None
        assert (
            f"log-probability {sum(sequence.logprobs):.3f}".replace("-", "−").replace("log−", "log-")
            in said
        )
    rules = re.findall(
        r"^([^\s@}{][^{]*)\{", html[html.index("<style>") + 7 : html.index("</style>")], re.MULTILINE
    )
    assert rules
    assert all(".tinker-look" in part for rule in rules for part in rule.split(",") if "(" not in part)

    alone = response.sequences[0]._repr_html_()
    assert len(Parsed(alone).details) == 5
    without = client.sample(ModelInput.from_ints(prompt), 1, SamplingParams(max_tokens=2, stop=[])).result()
    assert len(Parsed(without._repr_html_()).details) == 2, "a prompt that was not scored is not shown"
    again = pickle.loads(pickle.dumps(response))
    shown = Parsed(again._repr_html_())
    assert len(shown.details) == len(parsed.details)
    assert shown.details[0] == f"id {prompt[0]}\nnot scored", "without a vocabulary there are ids"


def test_a_notebook_stays_small() -> None:
    tokens = np.arange(300, dtype=np.int32)
    sequence = types.SampledSequence("length", "a", tokens, np.full(300, -0.5, np.float32))
    html = types.SampleResponse([sequence] * 50)._repr_html_()
    assert len(Parsed(html).details) == 4000
    assert "and 200 more tokens" in html
    assert "and 18 more" in html


def test_nothing_to_show() -> None:
    assert not Parsed(types.SampleResponse([])._repr_html_()).details
    bare = types.SampledSequence("stop", "a", np.array([5], np.int32))
    assert "not scored" in Parsed(bare._repr_html_()).details[0]
