"""What an architecture allows less than others do: in prefix reuse, and in exact numbers."""

from __future__ import annotations

from collections.abc import Iterator

from convert.gguf.file import GgufFile
from tinker_local.gguf.architectures import WITH_STATES

STATES = (
    "layers keep states, which cannot step back: a request starts where an earlier one ended, or from a "
    "copy where prompts part"
)
CHOSEN_KEYS = (
    "queries choose their keys within llama.cpp's graph, where our attention cannot follow: other requests "
    "change the last bits, and batch_invariant is refused"
)
STEPS = (
    "flash attention rounds queries and keys, and choices flip: where flash_attn is left out, attention "
    "goes in steps"
)
POOLED = (
    "pooled keys are float32 in the batch that makes them and rounded to kv_type later, and choices can "
    "flip: kv_type='f32' keeps scored and sampled log-probabilities together"
)


def top_k_key(architecture: str | None) -> str:
    """Return the metadata key of the number of keys that an indexer chooses for a query."""
    return f"{architecture}.attention.indexer.top_k"


def limits_of(head: GgufFile) -> Iterator[str]:
    """Yield the limits of a model, a sentence each."""
    architecture = head.text("general.architecture")
    if architecture in WITH_STATES:
        yield STATES
    if head.number(top_k_key(architecture)):
        yield CHOSEN_KEYS
        yield STEPS
    if head.number(f"{architecture}.attention.indexer.kpool"):
        yield POOLED
