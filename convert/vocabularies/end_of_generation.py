"""The tokens at which llama.cpp ends a generation, and how a file makes them those of the model.

A GGUF file names three such ids (eos, eot, eom). llama.cpp adds every token whose text it knows from some
model (``llama_vocab::impl::load`` in ``src/llama-vocab.cpp``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from convert.errors import UnsupportedError

KNOWN_TEXTS = frozenset(
    (
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "[e~[",
    )
)
FILL_IN_TEXTS = (
    ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    ("<|file_sep|>",),
)
"""Texts of which llama.cpp picks one token of each kind; a vocabulary hardly ever has two."""
FILL_IN_OTHERS = frozenset(
    (
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<PRE>",
        "\u2581<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<SUF>",
        "\u2581<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<MID>",
        "\u2581<MID>",
        "<|code_middle|>",
        "<|middle|>",
        "<\uff5cfim\u2581begin\uff5c>",
        "<\uff5cfim\u2581hole\uff5c>",
        "<\uff5cfim\u2581end\uff5c>",
    )
)
ALWAYS_RENDERED = frozenset(("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"))
"""llama.cpp makes these user-defined, so that they are found in any text."""


@dataclass(frozen=True)
class EndOfGeneration:
    """The ids to write.

    Attributes:
        eos, eot, eom: what the keys of these names hold.
        ids: every id at which llama.cpp then ends a generation.
    """

    eos: int
    eot: int | None
    eom: int | None
    ids: frozenset[int]


def end_of_generation(texts: Mapping[int, str], eos: int, wanted: Iterable[int]) -> EndOfGeneration:
    """Return the ids to write so that llama.cpp ends a generation at all wanted ids.

    Args:
        texts: of all tokens, by id.
        eos: the tokenizer's end-of-text token.
        wanted: the ids of generation_config.json.

    Raises:
        UnsupportedError: there are more than can be written.
    """
    by_text = {text: token_id for token_id, text in texts.items()}
    known = {by_text[text] for text in KNOWN_TEXTS if text in by_text}
    for kind in FILL_IN_TEXTS:
        known.update([by_text[text] for text in kind if text in by_text][:1])
    excepted = {by_text[text] for text in _excepted(by_text)}
    left = [token_id for token_id in dict.fromkeys(wanted) if token_id not in known | {eos}]
    lost = left[2:] + [token_id for token_id in wanted if token_id in excepted]
    if lost:
        raise UnsupportedError(
            f"generation_config.json ends a generation at {[texts[i] for i in lost]} as well, for which a "
            "GGUF file has no room; leave out of eos_token_id what the model does not need"
        )
    eot, eom = (*left, None, None)[:2]
    return EndOfGeneration(eos, eot, eom, frozenset((known | {eos, *left}) - excepted))


def _excepted(texts: Iterable[str]) -> set[str]:
    """Return the texts that llama.cpp takes off its list again where certain others are there."""
    texts = set(texts)
    excepted = set()
    calls = bool(texts & {"<|call|>", "<|calls|>"})
    if "<|end|>" in texts and calls and texts & {"<|return|>", "<|flush|>"}:
        excepted.add("<|end|>")
    if "</s>" in texts and texts & {"<|tool_response>", "<|plamo:eos|>"}:
        excepted.add("</s>")
    return excepted


def changed_by_llama_cpp(texts: Iterable[str]) -> frozenset[str]:
    """Return the texts whose token llama.cpp makes control or user-defined, whatever the file says."""
    known = (
        KNOWN_TEXTS | ALWAYS_RENDERED | {text for kind in FILL_IN_TEXTS for text in kind} | FILL_IN_OTHERS
    )
    return known.intersection(texts)
