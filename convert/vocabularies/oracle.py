"""The oracle: the checkpoint's tokenizer, run by the ``tokenizers`` library."""

from __future__ import annotations

from gguf import TokenType
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from convert.errors import CheckpointError
from convert.vocabularies.splits import KIMI_K2
from convert.vocabularies.token_table import SPACE, TokenTable


def load_oracle(table: TokenTable) -> Tokenizer:
    """Return the tokenizer of a table's file, built from the table where the library cannot read the file.

    Raises:
        CheckpointError: the library refuses it, or understands other ids.
    """
    try:
        if table.path.suffix == ".json":
            oracle = Tokenizer.from_file(str(table.path))
        elif table.model == "gpt2":
            oracle = _of_ranks(table)
        else:
            oracle = _of_scores(table)
    except Exception as error:  # the library raises nothing more precise
        raise CheckpointError(f"{table.path}: the tokenizers library does not load it: {error}") from error
    known = oracle.get_added_tokens_decoder()
    for token_id, token in sorted(table.added.items()):
        if token_id not in known:
            token.add_to(oracle)
        if oracle.token_to_id(token.text) != token_id:
            raise CheckpointError(
                f"{table.path}: {token.text!r} has the id {token_id}, but the tokenizers library gives it "
                f"{oracle.token_to_id(token.text)}: are there ids without a token before it?"
            )
    oracle.no_truncation()
    oracle.no_padding()
    return oracle


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
    return oracle


def _of_scores(table: TokenTable) -> Tokenizer:
    """SentencePiece joins the two neighbours that make the piece with the highest score."""
    vocabulary = {text: token_id for token_id, text in table.texts.items()}
    normal = [i for i in table.texts if table.kinds.get(i, TokenType.NORMAL) == TokenType.NORMAL]
    merges = []
    for token_id in sorted(normal, key=lambda i: (-table.scores.get(i, 0.0), i)):
        text = table.texts[token_id]
        pairs = ((text[:at], text[at:]) for at in range(1, len(text)))
        merges += [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
    unk = None if table.unk is None else table.texts[table.unk]
    oracle = Tokenizer(models.BPE(vocabulary, merges, unk_token=unk, fuse_unk=True, byte_fallback=True))
    spaces = normalizers.Replace(" ", SPACE)
    prefix = [normalizers.Prepend(SPACE)] if table.space_prefix else []
    oracle.normalizer = normalizers.Sequence([*prefix, spaces])
    return oracle
