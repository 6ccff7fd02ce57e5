"""The oracle: the checkpoint's tokenizer, as transformers runs it with the ``tokenizers`` library.

The GGUF file gets it whole. It is the file's own where there is a tokenizer.json, and is built from the
tokens of a tokenizer.model or tiktoken.model otherwise. Then come the tokens that transformers adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gguf import TokenType
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from convert.errors import CheckpointError
from convert.vocabularies.embedded import ask
from convert.vocabularies.splits import KIMI_K2
from convert.vocabularies.token_table import SPACE, AddedToken, TokenTable
from convert.vocabularies.tokenizer_config import TokenizerConfig


def load_oracle(table: TokenTable, config: TokenizerConfig, n_rows: int) -> Tokenizer:
    """Return the tokenizer of a table's file, with the tokens that are added beside it.

    The table gets those tokens, too.

    Args:
        table: the tokens of the file.
        config: the settings beside it.
        n_rows: of the embedding. A named token that has neither a token nor a row is left out: the model
            could not read it.

    Raises:
        CheckpointError: the library refuses the file, or understands other ids.
    """
    is_legacy = config.values.get("legacy") is not False
    oracle = ask(str(table.path), lambda: _of_file(table, is_legacy=is_legacy))
    for token_id, token in sorted({**table.added, **config.added()}.items()):
        table.add(token_id, token)
        token.add_to(oracle)
        if oracle.token_to_id(token.text) != token_id:
            raise CheckpointError(
                f"{table.path}: {token.text!r} has the id {token_id}, but the tokenizers library gives it "
                f"{oracle.token_to_id(token.text)}: are there ids without a token before it?"
            )
    _name_special(oracle, config, n_rows)
    for token_id, added in oracle.get_added_tokens_decoder().items():
        if table.added.get(token_id) != AddedToken.of(added):
            table.add(token_id, AddedToken.of(added))
    oracle.no_truncation()
    oracle.no_padding()
    oracle.encode_special_tokens = config.splits_special
    return oracle


def _name_special(oracle: Tokenizer, config: TokenizerConfig, n_rows: int) -> None:
    """Make tokens with a name special, which are then found in any text; those that are keep their ways."""
    added = {token.content for token in oracle.get_added_tokens_decoder().values()}
    for token, may_be_new in config.named():
        has_row = may_be_new and oracle.get_vocab_size() < n_rows
        if token.text not in added and (has_row or oracle.token_to_id(token.text) is not None):
            token.add_to(oracle)
            added.add(token.text)


def around(oracle: Tokenizer, where: str) -> tuple[list[int], list[int]]:
    """Return the ids that a tokenizer puts before a text and after it.

    Raises:
        CheckpointError: its post-processor fails, or leaves the text out.
    """
    text = oracle.encode("a", add_special_tokens=False).ids
    whole = ask(f"{where}: post_processor", lambda: oracle.encode("a").ids)
    for at in range(len(whole) - len(text) + 1):
        if whole[at : at + len(text)] == text:
            return whole[:at], whole[at + len(text) :]
    raise CheckpointError(f"{where}: post_processor leaves the text out")


def put_around(oracle: Tokenizer, before: Sequence[int], after: Sequence[int]) -> None:
    """Let a tokenizer put these ids before a text and after it, and nothing else."""
    pieces = [f"T{token_id}" for token_id in before], [f"T{token_id}" for token_id in after]
    single = [*pieces[0], "$A", *pieces[1]]
    special: list[Any] = [
        {"id": f"T{token_id}", "ids": [token_id], "tokens": [str(oracle.id_to_token(token_id))]}
        for token_id in dict.fromkeys((*before, *after))
    ]
    pair = [*pieces[0], "$A", *pieces[0], "$B:1", *pieces[1]]
    oracle.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)


def copy_of(oracle: Tokenizer) -> Tokenizer:
    """Return a tokenizer that can be changed without changing the first."""
    made = Tokenizer.from_str(oracle.to_str())
    made.encode_special_tokens = oracle.encode_special_tokens
    return made


# -- tokenizers of files ---------------------------------------------------------------------------


def _of_file(table: TokenTable, *, is_legacy: bool) -> Tokenizer:
    if table.json is not None:
        return Tokenizer.from_str(table.json)
    if table.path.suffix == ".json":
        return Tokenizer.from_file(str(table.path))
    return _of_ranks(table) if table.model == "gpt2" else _of_scores(table, is_legacy=is_legacy)


def _of_ranks(table: TokenTable) -> Tokenizer:
    vocabulary = {text: token_id for token_id, text in table.texts.items() if token_id not in table.added}
    pairs = [tuple(merge.split(" ")) for merge in table.merges]
    oracle = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=True))  # type: ignore[arg-type]
    oracle.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(KIMI_K2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    oracle.decoder = decoders.ByteLevel()
    return oracle


def _of_scores(table: TokenTable, *, is_legacy: bool) -> Tokenizer:
    """SentencePiece joins the two neighbours that make the piece with the highest score.

    A space goes before every stretch between special tokens, as SentencePiece does it, and before the whole
    text alone if the tokenizer is not legacy.
    """
    vocabulary = {text: token_id for token_id, text in table.texts.items()}
    normal = [i for i in table.texts if table.kinds.get(i, TokenType.NORMAL) == TokenType.NORMAL]
    merges = []
    for token_id in sorted(normal, key=lambda i: (-table.scores.get(i, 0.0), i)):
        text = table.texts[token_id]
        pairs = ((text[:at], text[at:]) for at in range(1, len(text)))
        merges += [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
    unk = None if table.unk is None else table.texts[table.unk]
    oracle = Tokenizer(models.BPE(vocabulary, merges, unk_token=unk, fuse_unk=True, byte_fallback=True))
    prefix: list[Any] = [normalizers.Prepend(SPACE)] if table.space_prefix else []
    if prefix and not is_legacy:
        oracle.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        oracle.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    parts: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    oracle.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return oracle


__all__ = ["around", "copy_of", "load_oracle", "put_around"]
