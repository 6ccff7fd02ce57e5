"""Generation: a task's ``generation_kwargs`` as ``SamplingParams``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from tinker_local import checks
from tinker_local.errors import BadRequestError, shown
from tinker_local.tokenizer import Tokenizer
from tinker_local.types import SamplingParams

_WITHOUT_EFFECT = {
    "frequency_penalty": 0,
    "length_penalty": 1,
    "min_p": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "typical_p": 1,
}
"""Arguments of other backends, with the value that has no effect; None has none either."""


_TOP_K = 50
"""Tokens that transformers draws from by default, and so the harness's ``hf`` model."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Parameters of one generation.

    Attributes:
        until: stop strings, among them the text of the end-of-text token; the answer ends before the first.
        stops_at_once: whether an empty string was among them, which every text contains: the answer is one
            token, as with the harness's ``hf`` model.
        max_tokens: most tokens to generate.
        temperature, top_k, top_p: as in ``SamplingParams``.
        think_end: text or token id after which the answer begins; None if the model does not think.
    """

    until: tuple[str, ...]
    stops_at_once: bool
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    think_end: str | int | None

    @classmethod
    def of(
        cls, gen_kwargs: Mapping[str, Any], *, eos: str | None, max_tokens: int, think_end: str | int | None
    ) -> Generation:
        """Read a task's ``generation_kwargs``.

        Args:
            gen_kwargs: as the harness documents them. Decoding is greedy unless ``do_sample`` is set and
                the temperature is above 0. ``top_k`` is 50 by default, as in transformers; 0 keeps all.
            eos: text of the end-of-text token.
            max_tokens: most tokens to generate if ``gen_kwargs`` does not say.
            think_end: as in the class.

        Raises:
            BadRequestError: an argument is unknown here, or its value is impossible.
        """
        asked: dict[str, Any] = dict(normalize_gen_kwargs(dict(gen_kwargs), max_tokens))
        stops = _strings(asked.pop("until"))
        until = handle_stop_sequences([text for text in stops if text], eos)
        draws, temperature = asked.pop("do_sample"), asked.pop("temperature", 0.0)
        top_k, top_p = asked.pop("top_k", None), asked.pop("top_p", None)
        limit = checks.integer(asked.pop("max_gen_toks"), "max_gen_toks", 1)
        for name, value in asked.items():
            if value is not None and (name not in _WITHOUT_EFFECT or value != _WITHOUT_EFFECT[name]):
                raise BadRequestError(
                    f"the generation argument {name}={value!r} is not supported; use until, max_gen_toks, "
                    "do_sample, temperature, top_k and top_p"
                )
        return cls(
            tuple(until),
            "" in stops,
            limit,
            checks.temperature(temperature) if draws else 0.0,
            (_TOP_K if top_k is None else top_k) or -1,
            1.0 if top_p is None else top_p,
            think_end,
        )

    def params(self, seed: int) -> SamplingParams:
        """Return the parameters of the request.

        A thinking model may think any text, stop strings included: only the end-of-text token stops it.
        """
        thinks = self.think_end is not None
        return SamplingParams(
            max_tokens=1 if self.stops_at_once and not thinks else self.max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=seed,
            stop=list(self.until) if self.until and not thinks else None,
        )

    def answer(self, tokens: Sequence[int], tokenizer: Tokenizer) -> str:
        """Return the answer: the text after thinking, up to the first stop string."""
        tokens, think_end = list(tokens), None
        if isinstance(self.think_end, str):
            think_end = self.think_end
        elif self.think_end in tokens:
            tokens = tokens[len(tokens) - tokens[::-1].index(self.think_end) :]
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        if self.think_end is not None:
            text = text.lstrip()
        answer: str = postprocess_generated_text(text, list(self.until), think_end)
        return answer


def _strings(until: list[Any]) -> list[str]:
    for text in until:
        if not isinstance(text, str | None):
            raise BadRequestError(f"until is {shown(until)}; it must be a str or a list of str")
    return [text for text in until if text is not None]


__all__ = ["Generation"]
