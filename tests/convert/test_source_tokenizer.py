"""The source's tokenizer stays with the model, whatever makes another file of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library
from typer.testing import CliRunner

from convert import convert_checkpoint
from convert.gguf.file import read_head
from convert.untied import untie
from convert.vocabularies.embedded import KEY
from convert.vocabularies.vocabulary import read_vocabulary
from tests.convert.vocabulary_files import write_small_model
from tests.random_checkpoints.plain import write_llama
from tests.random_checkpoints.tokenizers import write_tokenizer
from tinker_local import BadRequestError, ServiceClient, Tokenizer
from tinker_local.cli import app
from tinker_local.isolated import _try as try_here
from tinker_local.llama.model import Model, load_model

TEXT = "[INST] the  end[/INST]the"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with Mistral's tokenizer, which llama.cpp reads otherwise."""
    directory = tmp_path_factory.mktemp("source") / "Some" / "Mistral"
    n_tokens = write_tokenizer(directory, "mistral").n_tokens
    kept = {file.name: file.read_bytes() for file in directory.iterdir()}
    n_rows = -(-n_tokens // 32) * 32
    write_llama(directory, vocab_size=n_rows, tie_word_embeddings=True)
    for name, data in kept.items():
        (directory / name).write_bytes(data)
    return directory


@pytest.fixture(scope="module")
def bf16(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_checkpoint(source, tmp_path_factory.mktemp("made") / "m-bf16.gguf")


def check(source: Path, path: Path) -> None:
    """The file has the tokenizer, and tinker-local runs it."""
    library = Library.from_file(str(source / "tokenizer.json"))
    embedded = Library.from_str(read_head(path).long_text(KEY) or "")
    assert json.loads(embedded.to_str()) == json.loads(library.to_str())
    ids = library.encode(TEXT).ids
    model = load_model(path, 0)
    assert Tokenizer(model).encode(TEXT) == ids
    model._is_embedded_read = True  # llama.cpp's own has other ids
    model._embedded = None
    assert model.tokenize(TEXT, add_special=True, parse_special=True) != ids


@pytest.mark.parametrize("outtype", ["f32", "q8_0", "q4_0"])
def test_types(source: Path, tmp_path: Path, outtype: str) -> None:
    check(source, convert_checkpoint(source, tmp_path / "m.gguf", outtype=outtype, verify=False))


def test_another_type_of_a_file(source: Path, bf16: Path, tmp_path: Path) -> None:
    check(source, convert_checkpoint(bf16, tmp_path / "m.gguf", outtype="q4_k_m"))


def test_parts(source: Path, tmp_path: Path) -> None:
    path = convert_checkpoint(source, tmp_path / "m.gguf", split_size=100_000)
    assert path.name.startswith("m-00001-of-")
    check(source, path)


def test_an_output_matrix_of_its_own(source: Path, bf16: Path) -> None:
    check(source, untie(bf16))


def test_who_opens_the_same_file_shares_it(bf16: Path) -> None:
    with ServiceClient(n_ctx=64) as service:
        one, other = (service.create_sampling_client(base_model=str(bf16)) for _ in range(2))
        models = [client.get_tokenizer()._model for client in (one, other)]
        assert models[0] is models[1]
        assert not models[0]._is_embedded_read  # nothing was tokenized yet
        one.get_tokenizer().encode("a")
        assert models[0].embedded is models[1].embedded is not None


def test_a_file_says_which_tokenizer_runs(bf16: Path, model_path: Path) -> None:
    runner = CliRunner()
    said = runner.invoke(app, ["models", "show", "m-bf16", "--models-dir", str(bf16.parent)]).output
    assert "tokenizer    the source's own" in said
    assert Model(model_path, 0).embedded is None


def test_a_hostile_tokenizer_is_found_by_a_trial(tmp_path: Path) -> None:
    n_tokens = write_tokenizer(tmp_path, "gpt2").n_tokens
    vocabulary = read_vocabulary(tmp_path, {}, n_tokens)
    file = json.loads(str(vocabulary.metadata()[KEY]))
    pattern = {"Regex": "(a+)+b"}
    file["pre_tokenizer"] = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    path = write_small_model(tmp_path / "model.gguf", vocabulary, json=json.dumps(file))
    with pytest.raises(BadRequestError, match=r"cannot tokenize.*retry-limit"):
        try_here(path, None)
