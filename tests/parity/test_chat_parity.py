"""The right values in tests/chat and tests/encoding, asked of transformers again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from convert.vocabularies.hard_corpus import HARD_CORPUS
from convert.vocabularies.vocabulary import read_vocabulary
from tests.chat import test_continuation as continuation
from tests.chat import test_conversation as conversation
from tests.chat import test_generation as generation
from tests.chat import test_tool_schema as schemas
from tests.convert.vocabulary_files import write_small_model
from tests.encoding import test_encoder as encoder
from tests.parity.test_vocabulary_parity import MODEL_TYPES, official_of
from tests.random_checkpoints.tokenizers import write_tokenizer
from tinker_local import Tokenizer
from tinker_local.llama.model import load_model

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")


def cases(test: Any) -> list[Any]:
    (mark,) = test.pytestmark
    return list(mark.args[1])


def official(ours: Tokenizer, **named: str) -> Any:
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=ours.get_vocab(), merges=[("a", "b")]))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    library.add_special_tokens(list(ours.get_added_vocab()))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=library, **named)


@pytest.fixture
def theirs(tiny_tokenizer: Tokenizer) -> Any:
    return official(tiny_tokenizer, **tiny_tokenizer.special_tokens_map)


@pytest.mark.parametrize(("template", "content", "text"), cases(continuation.test_is_left_open))
def test_continued(theirs: Any, template: str, content: Any, text: str) -> None:
    options = {"chat_template": template, "tokenize": False, "continue_final_message": True}
    assert theirs.apply_chat_template(continuation.last(content), **options) == text


@pytest.mark.parametrize(("message", "text"), cases(conversation.test_plain_values))
def test_plain_values(theirs: Any, message: Any, text: str) -> None:
    assert conversation.text_of(theirs, [message], conversation.JSON) == text


@pytest.mark.parametrize(("template", "text"), cases(generation.test_is_a_scope))
def test_scopes(theirs: Any, template: str, text: str) -> None:
    assert conversation.text_of(theirs, [generation.USER], template) == text


def test_masks(tiny_tokenizer: Tokenizer, theirs: Any) -> None:
    turns = [generation.USER, generation.SAID]
    for chat in (turns, turns * 2, [turns, turns * 3], [[generation.USER], turns]):
        for options in ({}, {"truncation": True, "max_length": 9}):
            given: dict[str, Any] = {"padding": True, **options}
            assert generation.masks(tiny_tokenizer, chat, **given) == generation.masks(
                theirs, chat, **given
            )


@pytest.mark.parametrize(
    "kind", ["qwen2", "llama3", "gpt2", "deepseek-v3", "gpt-oss", "tekken", "mistral", "gemma"]
)
def test_masks_of_the_families(tmp_path: Path, kind: str) -> None:
    written = write_tokenizer(tmp_path, kind, 700)
    theirs = official_of(tmp_path, MODEL_TYPES[kind])
    vocabulary = read_vocabulary(tmp_path, {"model_type": MODEL_TYPES[kind]}, written.n_tokens)
    ours = Tokenizer(load_model(write_small_model(tmp_path / "model.gguf", vocabulary), 0))
    theirs.pad_token = ours.pad_token = theirs.eos_token
    theirs.padding_side = ours.padding_side  # Gemma's class says "left", and a GGUF file has no word for it
    template = "{{ bos_token }}" + generation.TURNS.replace("?", "{{ eos_token }}")
    texts = HARD_CORPUS[::3]
    chats = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": f" {text}\n"}] * 2
        for text in texts
        if text
    ]
    options = {"chat_template": template, "padding": True}
    found, expected = (generation.masks(tokenizer, chats, **options) for tokenizer in (ours, theirs))
    assert found == {name: expected[name] for name in found}
    for text in texts:
        given = {"max_length": 7, "truncation": True, "return_offsets_mapping": True}
        encoding = theirs(text, **given)
        assert ours(text, **given) == {name: encoding[name] for name in ours(text, **given)}


def test_schema() -> None:
    assert transformers.utils.get_json_schema(schemas.weather) == schemas.WEATHER


@pytest.mark.parametrize(("options", "ids"), cases(encoder.test_encode))
def test_encode(tiny_tokenizer: Tokenizer, options: dict[str, Any], ids: list[int]) -> None:
    tokenizer = official(tiny_tokenizer, bos_token="<|endoftext|>", eos_token="word0", pad_token="word1")
    tokenizer._tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)]
    )
    tokenizer.model_max_length = 2048
    assert tokenizer.encode("ab c", **options) == ids
