"""The arguments of transformers' tokenizers: what each means, and which are refused.

None is ignored in silence: an argument acts, or an error names it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from tinker_local.errors import BadRequestError, shown

_PADDINGS = {
    False: None,
    True: "longest",
    "do_not_pad": None,
    "longest": "longest",
    "max_length": "max_length",
}
_TRUNCATIONS = {False: False, None: False, True: True, "do_not_truncate": False}
_TRUNCATIONS |= {"longest_first": True, "only_first": True}
SIDES = ("right", "left")
_CHOICES: Mapping[str, Collection[Any]] = {
    "padding": _PADDINGS,
    "truncation": _TRUNCATIONS,
    "padding_side": (None, *SIDES),
    "return_tensors": (None, "pt", "np"),
}
_NUMBERS = ("max_length", "pad_to_multiple_of")
REFUSED = {
    "text_pair": "a language model reads one text",
    "text_target": "a language model reads one text",
    "text_pair_target": "a language model reads one text",
    "is_split_into_words": "give the words as one text",
    "stride": "texts are not split into overlapping parts",
    "return_overflowing_tokens": "texts are not split into overlapping parts",
    "clean_up_tokenization_spaces": "it takes spaces out of texts; transformers 5 refrains as well",
    "spaces_between_special_tokens": "it puts spaces into texts",
    "use_source_tokenizer": "there is one vocabulary",
}
"""Arguments of transformers that are not taken, with the reason. None is fine, and False for switches."""


def refuse(given: Mapping[str, Any], method: str, known: tuple[str, ...] = ()) -> None:
    """Raise BadRequestError for an argument that would have to act and cannot, or that nobody knows."""
    for name, value in given.items():
        if name in known:
            continue
        if name not in REFUSED:
            raise BadRequestError(f"{method} has no argument {name!r}")
        is_neutral = value is None or (value in (False, 0) and not name.startswith("text"))
        if not is_neutral:
            raise BadRequestError(f"{method} does not take {name}={shown(value)}: {REFUSED[name]}")


@dataclass(frozen=True)
class EncodingOptions:
    """How texts become ids. Names, values and defaults are those of transformers.

    Attributes:
        add_special_tokens: add BOS and EOS where the vocabulary says so.
        padding: True or "longest" pads to the longest text, "max_length" to ``max_length``.
        truncation: True, "longest_first" or "only_first" cuts texts to ``max_length``. A ``max_length``
            alone cuts too, if ``padding`` is False.
        max_length: in tokens, with special ones. None: as many as the model was trained to read.
        pad_to_multiple_of: padding goes on to a multiple of this.
        padding_side: "right" or "left". None: as the tokenizer's ``padding_side``.
        return_tensors: "np" or "pt" for arrays of NumPy or tensors of torch.
        return_token_type_ids: add ``token_type_ids``, which are 0.
        return_attention_mask: add ``attention_mask``, 0 for padding. None: yes.
        return_special_tokens_mask: add ``special_tokens_mask``, 1 for added tokens and padding.
        return_offsets_mapping: add ``offset_mapping``, the characters that each token stands for.
        return_length: add ``length``, the number of tokens.
        split_special_tokens: read special tokens in the text as plain text.
        verbose: no effect: nothing is said in either case.
    """

    add_special_tokens: bool = True
    padding: bool | str = False
    truncation: bool | str | None = None
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    padding_side: str | None = None
    return_tensors: str | None = None
    return_token_type_ids: bool | None = None
    return_attention_mask: bool | None = None
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    split_special_tokens: bool = False
    verbose: bool = True

    @classmethod
    def of(cls, given: Mapping[str, Any], method: str) -> EncodingOptions:
        """Return the options of a call.

        Raises:
            BadRequestError: an argument is unknown, is refused, or has a value that it cannot have.
        """
        refuse(given, method, NAMES)
        values = {name: _plain(value) for name, value in given.items() if name in NAMES}
        for name, value in values.items():
            _check(name, value)
        return cls(**values)

    @property
    def pads_to(self) -> str | None:
        """What is padded to: "longest", "max_length" or None."""
        return _PADDINGS[self.padding]

    @property
    def truncates(self) -> bool:
        """Whether texts are cut."""
        if self.truncation is None and self.padding is False:
            return self.max_length is not None
        return _TRUNCATIONS[self.truncation]

    @property
    def needs_text(self) -> bool:
        """Whether it matters which tokens were added and which are text."""
        return self.truncates or self.return_special_tokens_mask or self.return_offsets_mapping


NAMES = tuple(field.name for field in fields(EncodingOptions))


def _plain(value: Any) -> Any:
    """Return the value of a member of transformers' enumerations."""
    return value.value if isinstance(value, enum.Enum) else value


def _check(name: str, value: Any) -> None:
    if name in _CHOICES:
        _one_of(name, value, _CHOICES[name])
    is_number = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if name in _NUMBERS and value is not None and not is_number:
        raise BadRequestError(f"{name} is {shown(value)}; it must be an int of at least 1")


def _one_of(name: str, value: Any, known: Collection[Any]) -> None:
    if not isinstance(value, (str, bool, type(None))) or value not in known:  # 1 is no True
        raise BadRequestError(f"{name} is {shown(value)}; it must be one of {', '.join(map(repr, known))}")


def checked_side(name: str, side: Any) -> str:
    """Return a side that a caller has set.

    Raises:
        BadRequestError: it is neither "right" nor "left".
    """
    _one_of(name, side, SIDES)
    return str(side)
