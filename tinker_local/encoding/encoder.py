"""Texts to token ids: cut, padded, as lists or tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, overload

from tinker_local.encoding.batch_encoding import BatchEncoding, Row, columns_of, padded
from tinker_local.encoding.offsets import Offset, token_offsets
from tinker_local.encoding.options import EncodingOptions, checked_side, refuse
from tinker_local.encoding.vocabulary import Vocabulary
from tinker_local.errors import BadRequestError, shown
from tinker_local.llama.model import Model

_LIST = "encode takes a str; for several texts call the tokenizer: tokenizer(texts)"


class Encoder(Vocabulary):
    """Encodes texts.

    Attributes:
        padding_side: the side of padding, "right" or "left"; a GGUF file says neither, so "right" at first.
        truncation_side: the side that is cut, "right" or "left".
        model_max_length: tokens to cut to where ``max_length`` is not given; as many as the model was
            trained to read.
        is_fast: as of transformers' tokenizers that know offsets.
    """

    is_fast = True

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.padding_side = "right"
        self.truncation_side = "right"
        self.model_max_length = model.n_ctx_train

    @overload
    def encode(
        self,
        text: str,
        text_pair: None = ...,
        add_special_tokens: bool = ...,
        *,
        return_tensors: str,
        **options: Any,
    ) -> Any: ...

    @overload
    def encode(
        self, text: str, text_pair: None = ..., add_special_tokens: bool = ..., **options: Any
    ) -> list[int]: ...

    def encode(
        self,
        text: str,
        text_pair: None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        **options: Any,
    ) -> Any:
        """Return the token ids of a text: a list, or a tensor (1, tokens) by ``return_tensors``.

        Special tokens written in the text (``<|im_start|>``) become their ids.

        Args:
            text: any text.
            text_pair: not taken: a language model reads one text.
            add_special_tokens: add BOS and EOS where the vocabulary says so.
            padding: "max_length" pads to ``max_length``.
            truncation: True cuts to ``max_length``; None does so where ``max_length`` is given.
            max_length: in tokens, with special ones.
            **options: those of calling the tokenizer.

        Raises:
            BadRequestError: the text is no str, or an argument is unknown, refused or wrong.
        """
        if not isinstance(text, str):
            raise BadRequestError(f"text is a {type(text).__name__} ({shown(text)}); {_LIST}")
        given = {
            "text_pair": text_pair,
            "add_special_tokens": add_special_tokens,
            "padding": padding,
            "truncation": truncation,
            "max_length": max_length,
            "return_attention_mask": False,
            **options,
        }
        return self._encoding([text], EncodingOptions.of(given, "encode"), is_batch=False)["input_ids"]

    def __call__(self, text: str | Sequence[str], text_pair: None = None, **options: Any) -> BatchEncoding:
        """Return the token ids of a text, or of each of several, with an attention mask.

        Args:
            text: a text, or a list of texts.
            text_pair: not taken: a language model reads one text.
            **options: ``add_special_tokens``, ``padding``, ``truncation``, ``max_length``,
                ``pad_to_multiple_of``, ``padding_side``, ``return_tensors``, ``return_token_type_ids``,
                ``return_attention_mask``, ``return_special_tokens_mask``, ``return_offsets_mapping``,
                ``return_length`` and ``split_special_tokens``, with transformers' meanings and defaults.

        Raises:
            BadRequestError: something is no text, or an argument is unknown, refused or wrong.
        """
        options = {"text_pair": text_pair, **(options.pop("tokenizer_kwargs", None) or {}), **options}
        checked = EncodingOptions.of(options, "the tokenizer")
        if isinstance(text, str):
            return self._encoding([text], checked, is_batch=False)
        if not isinstance(text, list | tuple):
            raise BadRequestError(
                f"text is a {type(text).__name__} ({shown(text)}); it must be a str or a list of str"
            )
        for item in text:
            if not isinstance(item, str):
                raise BadRequestError(
                    f"a text is a {type(item).__name__} ({shown(item)}); it must be a str"
                )
        return self._encoding(text, checked, is_batch=True)

    def tokenize(self, text: str, add_special_tokens: bool = False, **options: Any) -> list[str]:
        """Return the tokens of a text as the vocabulary writes them; arguments are those of ``encode``."""
        ids = self.encode(text, add_special_tokens=add_special_tokens, **options)
        tokens: list[str] = self.convert_ids_to_tokens(ids)
        return tokens

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return the number of tokens that ``add_special_tokens`` adds to a text."""
        refuse({"text_pair": pair or None}, "num_special_tokens_to_add")
        return sum(self._n_added)

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        **options: Any,
    ) -> BatchEncoding:
        """Return encodings with padding.

        Args:
            encoded_inputs: what calling the tokenizer returns, or a list of such.
            padding: True or "longest": to the longest; "max_length": to ``max_length``.
            **options: ``max_length``, ``pad_to_multiple_of``, ``padding_side``, ``return_attention_mask``
                and ``return_tensors``.

        Raises:
            BadRequestError: there are no ``input_ids``, or an argument is unknown, refused or wrong.
        """
        checked = EncodingOptions.of({"padding": padding, "truncation": False, **options}, "pad")
        rows, is_batch = _rows(encoded_inputs)
        if checked.return_attention_mask is not False:
            rows = [
                {**row, "attention_mask": row.get("attention_mask", [1] * len(row["input_ids"]))}
                for row in rows
            ]
        return self._gathered(rows, checked, is_batch)

    def _encoding(
        self,
        texts: Sequence[str],
        options: EncodingOptions,
        *,
        is_batch: bool,
        spans: Sequence[Sequence[Offset]] | None = None,
    ) -> BatchEncoding:
        """Encode texts; ``spans`` are the parts of each that the assistant says, if masks are asked for."""
        rows = [
            self._row(text, options, None if spans is None else spans[number])
            for number, text in enumerate(texts)
        ]
        return self._gathered(rows, options, is_batch)

    def _row(self, text: str, options: EncodingOptions, spans: Sequence[Offset] | None) -> Row:
        ids = self._model.tokenize(
            text, add_special=options.add_special_tokens, parse_special=not options.split_special_tokens
        )
        before, after = self._n_added if options.needs_text and options.add_special_tokens else (0, 0)
        n_text = len(ids) - before - after
        row: Row = {"input_ids": ids}
        if options.return_token_type_ids:
            row["token_type_ids"] = [0] * len(ids)
        if options.return_attention_mask is not False:
            row["attention_mask"] = [1] * len(ids)
        if options.return_special_tokens_mask:
            row["special_tokens_mask"] = [1] * before + [0] * n_text + [1] * after
        if options.return_offsets_mapping or spans is not None:
            found = self._offsets(text, ids[before : before + n_text], options)
            offsets = [(0, 0)] * before + found + [(0, 0)] * after
            if options.return_offsets_mapping:
                row["offset_mapping"] = list(offsets)
            if spans is not None:
                row["assistant_masks"] = _mask(offsets, spans)
        return self._cut(row, before, after, options) if options.truncates else row

    def _offsets(self, text: str, ids: Sequence[int], options: EncodingOptions) -> list[Offset]:
        known = self._model.offsets(text, parse_special=not options.split_special_tokens)
        return token_offsets(text, [self._model.piece(i) for i in ids]) if known is None else known

    def _cut(self, row: Row, before: int, after: int, options: EncodingOptions) -> Row:
        """Return a row of at most ``max_length`` tokens; special ones around the text stay."""
        length = options.max_length or self.model_max_length
        room = length - before - after
        if room < 0:
            raise BadRequestError(
                f"max_length is {length}, and the vocabulary adds {before + after} special tokens"
            )
        n_text = len(row["input_ids"]) - before - after
        n_left = (
            max(0, n_text - room) if checked_side("truncation_side", self.truncation_side) == "left" else 0
        )
        kept = slice(before + n_left, before + n_left + min(n_text, room))
        return {
            name: [*values[:before], *values[kept], *values[before + n_text :]]
            for name, values in row.items()
        }

    def _gathered(self, rows: Sequence[Row], options: EncodingOptions, is_batch: bool) -> BatchEncoding:
        """Pad rows and return them as one encoding."""
        if options.pads_to is not None:
            rows = self._padded(rows, options)
        encoding = BatchEncoding.of(rows, options.return_tensors)
        if not is_batch and options.return_tensors is None:
            encoding = BatchEncoding({name: values[0] for name, values in encoding.items()})
        if options.return_length:
            encoding["length"] = [len(row["input_ids"]) for row in rows]
        return encoding

    def _padded(self, rows: Sequence[Row], options: EncodingOptions) -> list[Row]:
        if self.pad_token_id is None:
            raise BadRequestError(
                "the vocabulary has no padding token; set one: tokenizer.pad_token = tokenizer.eos_token"
            )
        length = max((len(row["input_ids"]) for row in rows), default=0)
        if options.pads_to == "max_length":
            length = options.max_length or self.model_max_length
        multiple = options.pad_to_multiple_of or 1
        length = -(-length // multiple) * multiple
        side = checked_side("padding_side", options.padding_side or self.padding_side)
        return [padded(row, length, self.pad_token_id, side) for row in rows]

    @cached_property
    def _n_added(self) -> tuple[int, int]:
        """The number of tokens that are added before a text, and after it."""
        plain = self._model.tokenize("a", add_special=False, parse_special=False)
        whole = self._model.tokenize("a", add_special=True, parse_special=False)
        before = next((i for i in range(len(whole)) if whole[i : i + len(plain)] == plain), 0)
        return before, len(whole) - before - len(plain)


def _mask(offsets: Sequence[Offset], spans: Sequence[Offset]) -> list[int]:
    """Return 1 for each token with a character in a span, else 0; both are in order."""
    mask, number = [], 0
    for start, end in offsets:
        while number < len(spans) and spans[number][1] <= start:
            number += 1
        mask.append(int(number < len(spans) and end > spans[number][0]))
    return mask


def _rows(inputs: Any) -> tuple[list[Row], bool]:
    """Return encodings as rows, and whether there are several."""
    if isinstance(inputs, list | tuple) and all(isinstance(row, Mapping) for row in inputs):
        inputs = columns_of(inputs)
    if not isinstance(inputs, Mapping) or "input_ids" not in inputs:
        raise BadRequestError(f"pad takes encodings with input_ids, not {shown(inputs)}")
    lists = {
        name: [v.tolist() if hasattr(v, "tolist") else v for v in values] for name, values in inputs.items()
    }
    first = lists["input_ids"]
    if first and not isinstance(first[0], list | tuple):
        return [{name: list(values) for name, values in lists.items()}], False
    return [{name: list(values[i]) for name, values in lists.items()} for i in range(len(first))], True
