"""What is read from a checkpoint's tokenizer files, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType

from convert.errors import CheckpointError, UnsupportedError, VerificationError
from convert.verification.tokenization import check_tokenization
from convert.vocabularies.embedded import KEY, SPLITS_SPECIAL, EmbeddedTokenizer
from convert.vocabularies.splits import SPLITS
from convert.vocabularies.token_table import UNEQUAL
from convert.vocabularies.vocabulary import Vocabulary, read_vocabulary
from tests.convert.vocabulary_files import Json, change, write_vocabulary
from tests.random_checkpoints.tokenizers import write_tokenizer


def read(
    directory: Path, kind: str, n_more: int = 0, config: Json | None = None, **options: Any
) -> Vocabulary:
    written = write_tokenizer(directory, kind, **options)
    return read_vocabulary(directory, config or {}, written.n_tokens + n_more)


# -- what is written ------------------------------------------------------------------------------


def test_kinds_of_tokens(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, "llama2")
    kinds = dict(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
    assert kinds["<unk>"] == TokenType.UNKNOWN
    assert kinds["<s>"] == kinds["</s>"] == TokenType.CONTROL
    assert kinds["<0x0A>"] == TokenType.BYTE
    assert kinds["▁t"] == TokenType.NORMAL
    kinds = dict(zip(*(lambda v: (v.tokens, v.kinds))(read(tmp_path / "q", "qwen2")), strict=True))
    assert kinds["<|im_end|>"] == TokenType.CONTROL
    assert kinds["<think>"] == TokenType.USER_DEFINED


def test_metadata_of_byte_level_bpe(tmp_path: Path) -> None:
    vocabulary = read(tmp_path, "llama3")
    values = vocabulary.metadata()
    assert values["tokenizer.ggml.model"] == "gpt2"
    assert values["tokenizer.ggml.pre"] == "llama-bpe"
    assert values["tokenizer.ggml.add_bos_token"] is True
    assert values["tokenizer.ggml.add_eos_token"] is False
    merges = values["tokenizer.ggml.merges"]
    assert isinstance(merges, list)
    assert all(merge.count(" ") == 1 for merge in merges)
    assert vocabulary.tokens[vocabulary.bos or 0] == "<|begin_of_text|>"
    assert "tokenizer.ggml.scores" not in values


def test_metadata_of_sentencepiece(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer.model"):
        values = read(tmp_path / name, "gemma", files=(name,)).metadata()
        assert values["tokenizer.ggml.model"] == "llama"
        assert values["tokenizer.ggml.add_space_prefix"] is False
        assert values["tokenizer.ggml.remove_extra_whitespaces"] is False
        assert values["tokenizer.ggml.unknown_token_id"] == 3
        assert values["tokenizer.ggml.padding_token_id"] == 0
        assert "tokenizer.ggml.merges" not in values


def test_the_json_decides_where_both_are_there(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama2", files=("tokenizer.json", "tokenizer.model"))
    (tmp_path / "tokenizer.model").write_bytes(b"not read")
    assert read_vocabulary(tmp_path, {}, 900).table.path.name == "tokenizer.json"


@pytest.mark.parametrize("kind", ["gpt2", "llama2", "kimi-k2"])
def test_rows_without_a_token_are_filled_up(tmp_path: Path, kind: str) -> None:
    written = write_tokenizer(tmp_path, kind)
    n_rows = written.n_tokens + 40
    vocabulary = read_vocabulary(tmp_path, {}, n_rows)
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == n_rows
    if kind != "kimi-k2":
        assert vocabulary.tokens[-1] == f"[PAD{n_rows - 1}]"
        assert set(vocabulary.kinds[written.n_tokens :]) == {TokenType.UNUSED}
    else:
        assert vocabulary.tokens[-1] == f"<|reserved_token_{n_rows - 1}|>"
    check_tokenization(write_vocabulary(tmp_path / "v.gguf", vocabulary), vocabulary)


def test_a_filler_is_no_token_of_the_source(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "smollm")
    change(tmp_path / "tokenizer.json", lambda f: f["model"]["vocab"].update({"[PAD650]": 600}))
    vocabulary = read_vocabulary(tmp_path, {}, 660)
    assert vocabulary.tokens[600] == "[PAD650]"
    assert vocabulary.tokens[650] == "[PAD650]_"


def test_more_tokens_than_rows(tmp_path: Path) -> None:
    written = write_tokenizer(tmp_path, "gpt2")
    with pytest.raises(CheckpointError, match=r"'<\|endoftext\|>' has the id 600.* ids below 600"):
        read_vocabulary(tmp_path, {}, written.n_tokens - 1)


# -- beginning and end ----------------------------------------------------------------------------


def test_every_end_is_one_in_llama_cpp(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "gpt2")
    change(tmp_path / "generation_config.json", lambda f: f.update(eos_token_id=[600, 300, 301]))
    vocabulary = read_vocabulary(tmp_path, {}, 610)
    assert (vocabulary.end.eos, vocabulary.end.eot, vocabulary.end.eom) == (600, 300, 301)
    path = write_vocabulary(tmp_path / "v.gguf", vocabulary)
    assert check_tokenization(path, vocabulary).other_ends == ()
    path = write_vocabulary(tmp_path / "w.gguf", vocabulary, eom_token_id=302)
    with pytest.raises(VerificationError, match=r"ends a generation at .* \(301\), llama\.cpp does not"):
        check_tokenization(path, vocabulary)


@pytest.mark.parametrize(
    "kind", ["llama3", "gpt-oss", "phi-3", "gemma", "qwen2", "kimi-k2", "nemotron-h", "phi-4"]
)
def test_the_ends_are_foreseen(tmp_path: Path, kind: str) -> None:
    vocabulary = read(tmp_path, kind)
    path = write_vocabulary(tmp_path / "v.gguf", vocabulary)
    report = check_tokenization(path, vocabulary, ())
    wanted = {*vocabulary.generation_ids, vocabulary.end.eos}
    others = {vocabulary.tokens.index(text) for text in report.other_ends}
    assert wanted | others == vocabulary.end.ids


def test_more_ends_than_a_file_holds(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "gpt2")
    change(tmp_path / "generation_config.json", lambda f: f.update(eos_token_id=[600, 300, 301, 302]))
    with pytest.raises(
        UnsupportedError, match=r"generation_config\.json ends a generation at \['.*'\] as well"
    ):
        read_vocabulary(tmp_path, {}, 610)


def around(vocabulary: Vocabulary, text: str = "a") -> list[str | None]:
    """Return the tokens of a text, as the file's tokenizer gives them."""
    tokenizer = EmbeddedTokenizer(str(vocabulary.metadata()[KEY]), len(vocabulary.tokens))
    return [tokenizer.token(i) for i in tokenizer.encode(text, add_special=True)]


FLAGS = [  # what transformers 4.57 and 5.24 do; of the two for classes with an asterisk, 5.24
    ("tekken", "PreTrainedTokenizerFast", {"add_bos_token": False}, ["<s>", "a"]),
    ("tekken", "PreTrainedTokenizerFast", {"add_bos_token": False, "add_eos_token": True}, ["<s>", "a"]),
    ("qwen2", "Qwen2Tokenizer", {"add_bos_token": True, "add_eos_token": True}, ["a"]),
    ("gpt2", "GPT2Tokenizer", {"add_bos_token": True}, ["a"]),
    ("llama2", "LlamaTokenizer", {}, ["<s>", "▁a"]),
    ("llama2", "LlamaTokenizer", {"add_eos_token": False}, ["<s>", "▁a"]),
    ("llama2", "LlamaTokenizer", {"add_bos_token": False}, ["<s>", "▁a"]),  # *
    ("gemma", "GemmaTokenizer", {"add_bos_token": False, "add_eos_token": True}, ["<bos>", "a"]),  # *
    ("llama2", "CodeLlamaTokenizer", {"add_bos_token": False}, ["<s>", "▁a"]),  # *
    ("tekken", "GPTNeoXTokenizer", {}, ["a"]),
]


@pytest.mark.parametrize(("kind", "tokenizer_class", "flags", "tokens"), FLAGS)
def test_the_post_processor_decides(
    tmp_path: Path, kind: str, tokenizer_class: str, flags: dict[str, bool], tokens: list[str]
) -> None:
    write_tokenizer(tmp_path, kind)

    def edit(config: Json) -> None:
        for flag in ("add_bos_token", "add_eos_token"):
            config.pop(flag, None)
        config.update(flags, tokenizer_class=tokenizer_class)

    change(tmp_path / "tokenizer_config.json", edit)
    vocabulary = read_vocabulary(tmp_path, {}, 900)
    assert around(vocabulary) == tokens
    assert (vocabulary.adds_bos, vocabulary.adds_eos) == (len(tokens) > 1, False)
    check_tokenization(write_vocabulary(tmp_path / "v.gguf", vocabulary), vocabulary, ("a", "a b"))


def test_flags_that_do_not_act_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tokenizer(tmp_path, "llama2")
    change(tmp_path / "tokenizer_config.json", lambda f: f.update(add_bos_token=False))
    read_vocabulary(tmp_path, {}, 900)
    assert "add_bos_token is false and does not act: tokenizer.json decides" in caplog.text


@pytest.mark.parametrize(
    ("flags", "tokens"),
    [
        ({}, ["<s>", "▁a"]),
        ({"add_bos_token": False}, ["▁a"]),
        ({"add_eos_token": True}, ["<s>", "▁a", "</s>"]),
        ({"add_bos_token": True, "add_eos_token": True}, ["<s>", "▁a", "</s>"]),
    ],
)
def test_flags_without_a_tokenizer_json(tmp_path: Path, flags: dict[str, bool], tokens: list[str]) -> None:
    write_tokenizer(tmp_path, "llama2", files=("tokenizer.model",))

    def edit(config: Json) -> None:
        for flag in ("add_bos_token", "add_eos_token"):
            config.pop(flag, None)
        config.update(flags)

    change(tmp_path / "tokenizer_config.json", edit)
    vocabulary = read_vocabulary(tmp_path, {}, 900)
    assert around(vocabulary) == tokens
    assert (vocabulary.adds_bos, vocabulary.adds_eos) == ("<s>" in tokens, "</s>" in tokens)
    check_tokenization(write_vocabulary(tmp_path / "v.gguf", vocabulary), vocabulary, ("a", "a b"))


def test_a_template_that_llama_cpp_does_not_have(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "tekken")
    twice = [{"SpecialToken": {"id": "<s>", "type_id": 0}}] * 2 + [{"Sequence": {"id": "A", "type_id": 0}}]
    edit: Callable[[Json], None] = lambda f: f["post_processor"]["processors"][1].update(single=twice)  # noqa: E731
    change(tmp_path / "tokenizer.json", edit)
    vocabulary = read_vocabulary(tmp_path, {}, 700)
    assert around(vocabulary) == ["<s>", "<s>", "a"]
    report = check_tokenization(write_vocabulary(tmp_path / "v.gguf", vocabulary), vocabulary, ("a",))
    assert set(report.reasons) == {UNEQUAL["around"].reason}


# -- settings of tokenizer_config.json ---------------------------------------------------------------


def tokens_with(directory: Path, kind: str, text: str, **settings: Any) -> list[str | None]:
    """Return the tokens of a text with settings of tokenizer_config.json, by the file's tokenizer."""
    write_tokenizer(directory, kind)
    change(directory / "tokenizer_config.json", lambda f: f.update(settings))
    vocabulary = read_vocabulary(directory, {}, 900)
    path = write_vocabulary(directory / "v.gguf", vocabulary)
    check_tokenization(path, vocabulary, (text,))
    values = vocabulary.metadata()
    tokenizer = EmbeddedTokenizer(
        str(values[KEY]), len(vocabulary.tokens), splits_special=bool(values[SPLITS_SPECIAL])
    )
    return [tokenizer.token(i) for i in tokenizer.encode(text, add_special=False)]


SETTINGS = [  # right by transformers 4.57 and 5.24; of the two with an asterisk, by 5.24
    ("gpt2", "the", {"add_prefix_space": True}, ["Ġthe"]),
    ("gpt2", "the", {}, ["t", "he"]),
    ("qwen2", "the", {"add_prefix_space": True}, ["Ġthe"]),  # *
    ("llama3", "the", {"add_prefix_space": True}, ["t", "he"]),
    ("llama2", "the", {"add_prefix_space": False}, ["t", "he"]),
    ("mistral", "the", {"add_prefix_space": False}, ["t", "he"]),
    ("llama2", "the", {"add_prefix_space": True}, ["▁the"]),
    ("gemma", "the", {"add_prefix_space": True}, ["t", "he"]),
    ("qwen2", "<|im_end|>", {"split_special_tokens": True}, ["<", "|", "i", "m", "_", "e", "nd", "|", ">"]),
    ("qwen2", "<think>", {"split_special_tokens": True}, ["<think>"]),
    ("qwen2", "<|im_end|>", {"split_special_tokens": False}, ["<|im_end|>"]),
    ("gpt2", "a<new>b", {"additional_special_tokens": ["<new>"]}, ["a", "<new>", "b"]),
    ("gpt2", "a<new>b", {"extra_special_tokens": {"image_token": "<new>"}}, ["a", "<new>", "b"]),
    ("gpt2", "a<new>b", {"mask_token": "<new>"}, ["a", "<new>", "b"]),
    ("gpt2", "other", {"mask_token": "the"}, ["o", "the", "r"]),
    ("gpt2", "other", {"do_lower_case": True, "dropout": 0.5, "legacy": False}, ["o", "t", "he", "r"]),
    ("gpt2", "a <|endoftext|> b", {"added_tokens_decoder": {"600": {
        "content": "<|endoftext|>", "lstrip": True, "rstrip": True, "normalized": False, "special": True,
    }}}, ["a", "<|endoftext|>", "b"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "settings", "tokens"), SETTINGS)
def test_settings_that_change_ids(
    tmp_path: Path, kind: str, text: str, settings: dict[str, Any], tokens: list[str]
) -> None:
    assert tokens_with(tmp_path, kind, text, **settings) == tokens


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fix_mistral_regex": True}, "fix_mistral_regex is True"),
        ({"split_special_tokens": "yes"}, "split_special_tokens must be true or false, not 'yes'"),
        ({"add_prefix_space": 3}, "add_prefix_space must be true or false, not 3"),
        ({"add_bos_token": "no"}, "add_bos_token must be true or false, not 'no'"),
        ({"additional_special_tokens": 3}, "additional_special_tokens must be a list"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises((UnsupportedError, CheckpointError), match=said):
        tokens_with(tmp_path, "gpt2", "a", **settings)


def test_a_named_token_without_a_row_is_left_out(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "gpt2")
    change(tmp_path / "tokenizer_config.json", lambda f: f.update(mask_token="<new>"))
    assert "<new>" in read_vocabulary(tmp_path, {}, 602).tokens
    assert "<new>" not in read_vocabulary(tmp_path, {}, 601).tokens


def test_special_tokens_come_from_the_file_with_authority(tmp_path: Path) -> None:
    config = {"bos_token_id": 300, "eos_token_id": 301, "pad_token_id": 302}
    vocabulary = read(tmp_path, "qwen2", config=config)
    assert vocabulary.tokens[vocabulary.end.eos] == "<|im_end|>"
    assert vocabulary.bos is None  # Qwen2Tokenizer has one only if tokenizer_config.json names it
    assert vocabulary.tokens[vocabulary.pad or 0] == "<|endoftext|>"
    (tmp_path / "generation_config.json").unlink()
    assert read_vocabulary(tmp_path, config, 700).generation_ids == (301,)
    nested = {"text_config": {"eos_token_id": [303]}, "pad_token_id": -1}
    assert read_vocabulary(tmp_path, nested, 700).generation_ids == (303,)


@pytest.mark.parametrize(
    ("kind", "tokens", "bos"),
    [
        ("qwen2", {"bos_token": None}, None),  # as published; config.json has an id all the same
        ("smollm", {"bos_token": None, "tokenizer_class": "LlamaTokenizer"}, None),
        ("gpt2", {"bos_token": None}, None),
        ("qwen2", {"bos_token": "<|im_start|>"}, "<|im_start|>"),
        ("gpt2", {}, "<|endoftext|>"),  # which is EOS, and BOS too
    ],
)
def test_no_bos_is_not_eos(tmp_path: Path, kind: str, tokens: Json, bos: str | None) -> None:
    """The right values are those of transformers 4.57 and 5.24."""
    written = write_tokenizer(tmp_path, kind)
    change(tmp_path / "tokenizer_config.json", lambda f: f.update(tokens, pad_token=None))
    config = {"bos_token_id": 300, "pad_token_id": 302}
    vocabulary = read_vocabulary(tmp_path, config, written.n_tokens)
    assert (None if vocabulary.bos is None else vocabulary.tokens[vocabulary.bos]) == bos
    assert ("tokenizer.ggml.bos_token_id" in vocabulary.metadata()) is (bos is not None)
    assert vocabulary.pad is None
    if bos is None:
        check_tokenization(write_vocabulary(tmp_path / "v.gguf", vocabulary), vocabulary)


def test_bos_of_a_class_that_has_one(tmp_path: Path) -> None:
    """GPT-2's own tokenizer_config.json names no token; config.json's id stands for its class's."""
    written = write_tokenizer(tmp_path, "gpt2")
    change(tmp_path / "tokenizer_config.json", lambda f: f.pop("bos_token"))
    change(tmp_path / "special_tokens_map.json", lambda f: f.pop("bos_token"))
    config = {"bos_token_id": written.eos_token_id}
    assert read_vocabulary(tmp_path, config, written.n_tokens).bos == written.eos_token_id


def test_named_tokens_may_be_tables(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "smollm")
    change(tmp_path / "tokenizer_config.json", lambda f: f.update(eos_token={"content": "END"}))
    change(tmp_path / "tokenizer.json", lambda f: f["model"]["vocab"].update(END=600))
    vocabulary = read_vocabulary(tmp_path, {}, 610)
    assert vocabulary.end.eos == 600
    assert vocabulary.kinds[600] == TokenType.CONTROL


def test_added_tokens_beside_the_tokenizers_file(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama2", files=("tokenizer.model",))
    added = {"content": "<|im_end|>", "special": True, "normalized": False}
    change(tmp_path / "tokenizer_config.json", lambda f: f["added_tokens_decoder"].update({"856": added}))
    change(tmp_path / "added_tokens.json", lambda f: f.update({"<note>": 856}))
    vocabulary = read_vocabulary(tmp_path, {}, 860)
    assert (vocabulary.tokens[856], vocabulary.kinds[856]) == ("<|im_end|>", TokenType.CONTROL)
    check_tokenization(write_vocabulary(tmp_path / "v.gguf", vocabulary), vocabulary)
    change(tmp_path / "tokenizer_config.json", lambda f: f.pop("added_tokens_decoder"))  # older files
    vocabulary = read_vocabulary(tmp_path, {}, 860)
    assert (vocabulary.tokens[856], vocabulary.kinds[856]) == ("<note>", TokenType.USER_DEFINED)
    check_tokenization(write_vocabulary(tmp_path / "v.gguf", vocabulary), vocabulary)


def test_a_token_that_only_the_config_makes_an_added_one(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "gpt2")
    ids = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    text = next(text for text in ids if len(text) == 2 and text.isascii() and text.isalpha())
    token = {"content": text, "special": False, "normalized": False}
    decoder = {str(ids[text]): token}
    change(tmp_path / "tokenizer_config.json", lambda f: f["added_tokens_decoder"].update(decoder))
    vocabulary = read_vocabulary(tmp_path, {}, 610)
    assert vocabulary.kinds[ids[text]] == TokenType.USER_DEFINED
    check_tokenization(write_vocabulary(tmp_path / "v.gguf", vocabulary), vocabulary)
    change(tmp_path / "tokenizer_config.json", lambda f: f["added_tokens_decoder"].update({"5": token}))
    with pytest.raises(CheckpointError, match="the id 5 is"):
        read_vocabulary(tmp_path, {}, 610)


def test_an_added_token_that_the_library_gives_another_id(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "gpt2")
    change(tmp_path / "tokenizer.json", lambda f: f["added_tokens"][0].update(id=605))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(CheckpointError, match="has the id 605, but the tokenizers library gives it 600"):
        read_vocabulary(tmp_path, {}, 610)


def test_the_name_that_makes_phi3_swallow_spaces(tmp_path: Path) -> None:
    phi, plain = read(tmp_path / "phi", "phi-3"), read(tmp_path / "llama", "llama2")
    assert phi.fitting_name("My fine-tune") == "My fine-tune (Phi-3)"
    path = write_vocabulary(tmp_path / "v.gguf", phi, name=phi.fitting_name("My fine-tune"))
    assert check_tokenization(path, phi).is_exact
    assert phi.fitting_name("Phi-3-mini") == "Phi-3-mini"
    assert plain.fitting_name("phi3-like") == "Phi 3-like"
    assert plain.fitting_name("Llama") == "Llama"


# -- chat templates -------------------------------------------------------------------------------


def test_a_template_in_its_own_file_comes_first(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "gpt2")
    change(tmp_path / "tokenizer_config.json", lambda f: f.update(chat_template="field"))
    assert read_vocabulary(tmp_path, {}, 610).chat_templates == {"default": "field"}
    change(tmp_path / "chat_template.json", lambda f: f.update(chat_template="json"))
    assert read_vocabulary(tmp_path, {}, 610).chat_templates == {"default": "json"}
    (tmp_path / "chat_template.jinja").write_text("file ü", encoding="utf-8")
    values = read_vocabulary(tmp_path, {}, 610).metadata()
    assert values["tokenizer.chat_template"] == "file ü"


def test_named_templates(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "gpt2")
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    change(tmp_path / "tokenizer_config.json", lambda f: f.update(chat_template=named))
    values = read_vocabulary(tmp_path, {}, 610).metadata()
    assert values["tokenizer.chat_template"] == "a"
    assert values["tokenizer.chat_template.tool_use"] == "b"
    assert values["tokenizer.chat_templates"] == ["tool_use"]
    (tmp_path / "chat_template.jinja").write_text("c")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("d")
    assert read_vocabulary(tmp_path, {}, 610).chat_templates == {"default": "c", "rag": "d"}


# -- the way a text is split ----------------------------------------------------------------------


def test_a_split_is_known_by_what_it_does(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama3")

    def respell(file: Json) -> None:
        part = file["pre_tokenizer"]["pretokenizers"][0]
        regex = (
            part["pattern"]["Regex"].replace(r"\s*[\r\n]+", r"\s*[\r\n]").replace("{1,3}", "{1,2}\\p{N}?")
        )
        part["pattern"]["Regex"] = regex

    change(tmp_path / "tokenizer.json", respell)
    assert read_vocabulary(tmp_path, {}, 610).table.pre == "llama-bpe"


def unequal(directory: Path, vocabulary: Vocabulary) -> set[str]:
    """Return why llama.cpp's own tokenizer differs on a written file; ours gives the source's ids."""
    return set(check_tokenization(write_vocabulary(directory / "v.gguf", vocabulary), vocabulary).reasons)


def test_a_split_that_llama_cpp_does_not_have(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama3")
    edit: Callable[[Json], None] = lambda f: f["pre_tokenizer"]["pretokenizers"][0].update(  # noqa: E731
        pattern={"Regex": r"\p{L}{1,4}|\s+"}
    )
    change(tmp_path / "tokenizer.json", edit)
    vocabulary = read_vocabulary(tmp_path, {}, 610)
    assert vocabulary.table.pre in {split.name for split in SPLITS}
    assert unequal(tmp_path, vocabulary) == {UNEQUAL["split"].reason}


@pytest.mark.parametrize("digits", [False, True])
def test_a_prefix_space_in_byte_level_bpe(tmp_path: Path, digits: bool) -> None:
    kind = "smollm" if digits else "gpt2"
    write_tokenizer(tmp_path, kind)
    change(tmp_path / "tokenizer_config.json", lambda f: f.update(tokenizer_class="Other"))

    def edit(file: Json) -> None:
        part = file["pre_tokenizer"]["pretokenizers"][-1] if digits else file["pre_tokenizer"]
        part["add_prefix_space"] = True

    change(tmp_path / "tokenizer.json", edit)
    vocabulary = read_vocabulary(tmp_path, {}, 610)
    assert vocabulary.table.pre in {split.name for split in SPLITS}
    assert around(vocabulary, "the") == ["Ġthe"]
    assert unequal(tmp_path, vocabulary) == {UNEQUAL["split"].reason}


def test_ignored_merges_that_matter(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "qwen2")

    def edit(file: Json) -> None:
        file["model"]["ignore_merges"] = True

    change(tmp_path / "tokenizer.json", edit)
    vocabulary = read_vocabulary(tmp_path, {}, 700)  # idle: the merges make every token
    check_tokenization(write_vocabulary(tmp_path / "v.gguf", vocabulary), vocabulary)
    write_tokenizer(tmp_path, "smollm")
    change(tmp_path / "tokenizer.json", edit)
    change(tmp_path / "tokenizer.json", lambda f: f["model"]["vocab"].update({"Ġwholly": 600}))
    vocabulary = read_vocabulary(tmp_path, {}, 700)
    assert around(vocabulary, "is wholly")[-1] == "Ġwholly"
    assert UNEQUAL["merges"] in vocabulary.table.limits
    check_tokenization(write_vocabulary(tmp_path / "v.gguf", vocabulary), vocabulary, ("is wholly",))


@pytest.mark.parametrize("kind", ["gpt2", "llama2", "mistral"])
@pytest.mark.parametrize("normalizer", ["NFKC", "Lowercase"])
def test_normalizers_that_llama_cpp_does_not_have(tmp_path: Path, normalizer: str, kind: str) -> None:
    write_tokenizer(tmp_path, kind)

    def edit(file: Json) -> None:
        parts = [{"type": normalizer}, *([file["normalizer"]] if file["normalizer"] else [])]
        file["normalizer"] = {"type": "Sequence", "normalizers": parts}

    change(tmp_path / "tokenizer.json", edit)
    vocabulary = read_vocabulary(tmp_path, {}, 900)
    assert UNEQUAL["normalizer"] in vocabulary.table.limits
    assert unequal(tmp_path, vocabulary)


def test_a_whole_word(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "gpt2")
    token = {"id": 601, "content": "WORD", "special": False, "single_word": True, "lstrip": False}
    token |= {"rstrip": False, "normalized": False}
    change(tmp_path / "tokenizer.json", lambda f: f["added_tokens"].append(token))
    vocabulary = read_vocabulary(tmp_path, {}, 610)
    assert around(vocabulary, "WORD")[-1] == "WORD"
    assert "WORD" not in around(vocabulary, "WORDS")
    assert UNEQUAL["words"].reason in unequal(tmp_path, vocabulary)


def test_another_way_of_writing_spaces_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "llama2")
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "_"}
    change(tmp_path / "tokenizer.json", lambda f: f.update(normalizer=space))
    with pytest.raises(UnsupportedError, match="way of writing spaces"):
        read_vocabulary(tmp_path, {}, 900)
