"""``tiktoken.model`` (Kimi-K2): a line for each token, its bytes in base64 and its rank.

tiktoken joins the two neighbours whose bytes together have the lowest rank. The pair that makes a token is
therefore what its own bytes come to with the lower ranks alone, and these pairs are the merges
(https://github.com/openai/tiktoken/blob/main/tiktoken/_educational.py).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from convert.errors import CheckpointError, UnsupportedError
from convert.files.json_file import read_json_if_any
from convert.vocabularies.byte_level import as_characters, missing_bytes
from convert.vocabularies.splits import SPLITS
from convert.vocabularies.token_table import AddedToken, Limit, TokenTable
from convert.vocabularies.tokenizer_config import read_added

N_RESERVED = 256
"""Kimi's special tokens, named or not, follow the ranks (tokenization_kimi.py)."""
LONGEST_RUN = 25_000
"""Kimi cuts runs of spaces, and of anything else, that are longer."""


def read_tiktoken(path: Path, n_rows: int) -> TokenTable:
    """Read a tiktoken.model.

    Args:
        n_rows: of the embedding; reserved tokens beyond it do not exist.

    Raises:
        CheckpointError: the file is malformed.
        UnsupportedError: it is not Kimi's, so that the way it splits texts is not known.
    """
    config = read_json_if_any(path.with_name("tokenizer_config.json"))
    if not _is_kimi(config):
        raise UnsupportedError(
            f"{path}: how texts are split stands in the tokenizer's own code, which is not run; only that "
            f"of Kimi is known, and tokenizer_config.json names {config.get('tokenizer_class')!r}"
        )
    ranks = _read_ranks(path)
    split = next(split for split in SPLITS if split.name == "kimi-k2")
    table = TokenTable(
        path, "gpt2", split.name, {rank: as_characters(data) for data, rank in ranks.items()}
    )
    table.merges = _merges(path, ranks)
    table.limits = [*split.limits(), _long_runs()]
    missing = missing_bytes(set(table.texts.values()))
    if missing:
        raise CheckpointError(f"{path}: there are no tokens for the bytes {missing.hex(' ')}")
    _add_reserved(table, config, len(ranks), n_rows)
    return table


def _is_kimi(config: Mapping[str, Any]) -> bool:
    return config.get("tokenizer_class") == "TikTokenTokenizer" or "tokenization_kimi" in str(
        config.get("auto_map")
    )


def _read_ranks(path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            encoded, rank = line.split()
            token = base64.b64decode(encoded, validate=True)
            if int(rank) != len(ranks) or token in ranks or not token:
                raise ValueError("ranks must count up from 0, each token once")
            ranks[token] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise CheckpointError(f"{path}: line {number} is no token and rank: {error}") from error
    if not ranks:
        raise CheckpointError(f"{path} has no tokens")
    return ranks


def _merges(path: Path, ranks: Mapping[bytes, int]) -> list[str]:
    merges = []
    for token, rank in ranks.items():
        if len(token) == 1:
            continue
        parts = _parts(token, rank, ranks)
        if len(parts) != 2:
            raise UnsupportedError(
                f"{path}: lower ranks turn the token {token!r} into {parts}, which are not two parts, so "
                "that no merge makes it"
            )
        merges.append(" ".join(map(as_characters, parts)))
    return merges


def _parts(token: bytes, below: int, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Return what a token's bytes come to when only lower ranks are joined."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, below) for left, right in pairwise(parts)]
        lowest = min(joined)
        if lowest >= below:
            break
        at = joined.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _add_reserved(table: TokenTable, config: Mapping[str, Any], first: int, n_rows: int) -> None:
    named = config.get("added_tokens_decoder") or {}
    path = table.path.with_name("tokenizer_config.json")
    if not isinstance(named, dict):
        raise CheckpointError(f"{path}: added_tokens_decoder must be a table, not {named!r:.80}")
    for token_id in range(first, min(first + N_RESERVED, n_rows)):
        if str(token_id) in named:
            _, token = read_added(path, named[str(token_id)], token_id)
        else:
            token = AddedToken(f"<|reserved_token_{token_id}|>")
        table.add(token_id, token)


def _long_runs() -> Limit:
    return Limit(
        f"Kimi's own code cuts runs of more than {LONGEST_RUN:,} characters, llama.cpp does not",
        applies=lambda text: len(text) > LONGEST_RUN,
    )
