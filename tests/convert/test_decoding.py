"""tinker-local's tokenizer on converted vocabularies of every kind, against the ``tokenizers`` library."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library

from convert.vocabularies.embedded import KEY
from convert.vocabularies.hard_corpus import HARD_CORPUS
from convert.vocabularies.vocabulary import read_vocabulary
from tests.convert.vocabulary_files import write_small_model
from tests.random_checkpoints.kinds import KINDS
from tests.random_checkpoints.tokenizers import write_tokenizer
from tinker_local import BadRequestError, Tokenizer
from tinker_local.llama.model import load_model

Both = Callable[[str], tuple[Tokenizer, Library]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Ours and the source's, which is the library on the source's own file where there is one."""
    made: dict[str, tuple[Tokenizer, Library]] = {}

    def make(kind: str) -> tuple[Tokenizer, Library]:
        if kind not in made:
            directory = tmp_path_factory.mktemp(kind)
            written = write_tokenizer(directory, kind, 700)
            vocabulary = read_vocabulary(directory, {}, written.n_tokens + 3)
            file = directory / "tokenizer.json"
            source = Library.from_file(str(file)) if file.exists() else vocabulary.oracle
            model = load_model(write_small_model(directory / "model.gguf", vocabulary), 0)
            made[kind] = Tokenizer(model), source
        return made[kind]

    return make


def test_there_are_seventeen_kinds() -> None:
    assert len(KINDS) == 17


@pytest.mark.parametrize("kind", KINDS)
def test_the_hard_corpus_has_the_sources_ids_and_texts(both: Both, kind: str) -> None:
    ours, source = both(kind)
    for text in HARD_CORPUS:
        for special in (False, True):
            ids = source.encode(text, add_special_tokens=special).ids
            assert ours.encode(text, add_special_tokens=special) == ids
            for skips in (False, True):
                expected = source.decode(ids, skip_special_tokens=skips)
                assert ours.decode(ids, skip_special_tokens=skips) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_ids_in_any_order_have_the_sources_text(both: Both, kind: str) -> None:
    ours, source = both(kind)
    rng = random.Random(3)
    for _ in range(100):
        ids = [rng.randrange(ours.vocab_size) for _ in range(rng.randint(1, 12))]
        for skips in (False, True):
            assert ours.decode(ids, skip_special_tokens=skips) == source.decode(
                ids, skip_special_tokens=skips
            )


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_of_tokens_make_the_text(both: Both, kind: str) -> None:
    """What stop strings are found in; SentencePiece's space in front is no part of the text."""
    ours, source = both(kind)
    for text in HARD_CORPUS:
        ids = ours.encode(text, add_special_tokens=False)
        data = b"".join(map(ours.token_bytes, ids))
        expected = source.decode(ids, skip_special_tokens=False)
        assert data.decode("utf-8", "replace") in (expected, " " + expected)


def test_special_tokens_beside_spaces(both: Both) -> None:
    """What users met: Metaspace that prepends to the first piece alone, NFC, stripped spaces."""
    ours, _ = both("mistral")
    assert ours.convert_ids_to_tokens(ours.encode("[INST]the", add_special_tokens=False)) == [
        "[INST]",
        "t",
        "he",
    ]
    ours, _ = both("qwen2")
    assert ours.encode("e\u0301") == ours.encode("é")
    ours, _ = both("phi-4")
    assert ours.decode(ours.encode("a <|im_end|> b")) == "a<|im_end|>b"
    ours, _ = both("gemma")
    assert ours.convert_ids_to_tokens(ours.encode("▁▁▁", add_special_tokens=False)) == ["▁▁▁"]


@pytest.mark.parametrize("kind", ["llama2", "mistral", "gemma", "llama3"])
def test_a_text_comes_back(both: Both, kind: str) -> None:
    ours, _ = both(kind)
    text = "Hello there,\n  World"
    assert ours.decode(ours.encode(text), skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", ["deepseek-v3", "smollm", "gpt2", "llama2", "yi"])
def test_a_file_without_the_sources_tokenizer(tmp_path: Path, kind: str) -> None:
    """llama.cpp's own tokenizer serves it, as before; here of kinds that it tokenizes alike."""
    written = write_tokenizer(tmp_path, kind, 700)
    vocabulary = read_vocabulary(tmp_path, {}, written.n_tokens)
    path = write_small_model(tmp_path / "model.gguf", vocabulary, without=(KEY,))
    model = load_model(path, 0)
    assert model.embedded is None
    ours, source = Tokenizer(model), Library.from_file(str(tmp_path / "tokenizer.json"))
    for text in HARD_CORPUS:
        ids = source.encode(text).ids
        assert ours.encode(text) == ids
        assert ours.decode(ids) == source.decode(ids, skip_special_tokens=False)


def test_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    written = write_tokenizer(tmp_path / "a", "llama3", 500)
    vocabulary = read_vocabulary(tmp_path / "a", {}, written.n_tokens)
    other = write_tokenizer(tmp_path / "b", "gpt2", 300)
    foreign = read_vocabulary(tmp_path / "b", {}, other.n_tokens).metadata()[KEY]
    for text, said in ((foreign, "in its vocabulary and"), ("{", "the tokenizers library fails")):
        path = write_small_model(tmp_path / "model.gguf", vocabulary, **{"json": text})
        with pytest.raises(BadRequestError, match=said):
            Tokenizer(load_model(path, 0)).encode("a")


def test_texts_that_are_none(both: Both) -> None:
    ours, _ = both("qwen2")
    with pytest.raises(BadRequestError, match="surrogate"):
        ours.encode("a\ud800")
    with pytest.raises(BadRequestError, match="encode it in parts"):
        ours.encode("x" * 4_000_001)
