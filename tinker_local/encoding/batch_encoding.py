"""BatchEncoding: what a tokenizer returns for a text or several, as in transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tinker_local.errors import BadRequestError

Row = dict[str, list[Any]]
"""One text: a list with an entry for each token, by name; ``input_ids`` always."""

FILLINGS: Mapping[str, Any] = {
    "token_type_ids": 0,
    "attention_mask": 0,
    "special_tokens_mask": 1,
    "offset_mapping": (0, 0),
    "assistant_masks": 0,
}
"""What padding has in each list but ``input_ids``."""


class BatchEncoding(dict[str, Any]):
    """Lists or tensors by name; ``encoding.input_ids`` is ``encoding["input_ids"]``.

    ``input_ids`` are a list of ids for one text, a list of such lists for several, or a tensor (texts,
    tokens) where ``return_tensors`` asks for one. ``attention_mask`` has 0 for padding and 1 for the rest.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"a BatchEncoding has no {name!r}; it has {', '.join(self)}") from None

    def to(self, device: Any, **options: Any) -> BatchEncoding:
        """Move torch tensors to a device, and return this."""
        for name, value in self.items():
            if callable(move := getattr(value, "to", None)):
                self[name] = move(device, **options)
        return self

    @classmethod
    def of(cls, rows: Sequence[Row], tensors: str | None) -> BatchEncoding:
        """Return rows as one encoding, with tensors of "np" or "pt".

        Raises:
            BadRequestError: the rows cannot be a tensor, or torch is not installed.
        """
        columns = columns_of(rows)
        if tensors is None:
            return cls(columns)
        if len(lengths := {len(row["input_ids"]) for row in rows}) > 1:
            raise BadRequestError(
                f"texts of {min(lengths)} to {max(lengths)} tokens are no tensor; give padding=True, or "
                "truncation=True with max_length"
            )
        make = _maker(tensors)
        return cls({name: make(values) for name, values in columns.items()})


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the lists of all rows by name; ``input_ids`` alone where there are no rows."""
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {"input_ids": []})}


def _maker(tensors: str) -> Callable[[list[Any]], Any]:
    if tensors == "np":
        return lambda values: np.array(values, np.int64)
    try:
        import torch
    except ImportError as error:
        raise BadRequestError("return_tensors='pt' needs torch, which is not installed") from error
    return lambda values: torch.tensor(values, dtype=torch.int64)


def padded(row: Row, length: int, pad_token: int, side: str) -> Row:
    """Return a row with padding at its "right" or "left", up to a length."""
    missing = length - len(row["input_ids"])
    if missing <= 0:
        return row
    filled = {name: [FILLINGS.get(name, pad_token)] * missing for name in row}
    if side == "left":
        return {name: [*filled[name], *values] for name, values in row.items()}
    return {name: [*values, *filled[name]] for name, values in row.items()}
