"""The right values in tests/chat and tests/encoding, asked of transformers again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chat import test_continuation as continuation
from tests.chat import test_conversation as conversation
from tests.chat import test_generation as generation
from tests.chat import test_tool_schema as schemas
from tests.encoding import test_encoder as encoder
from tinker_local import Tokenizer

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
