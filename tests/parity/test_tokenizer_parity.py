"""Token ids and chat texts against transformers, on the vocabulary of the same GGUF file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tinker_local import Tokenizer

pytestmark = pytest.mark.parity

HARD = [
    "",
    " ",
    "  two spaces  and trailing ",
    "\n\n\t \r\n mixed \u00a0 white\u2003space\u200b",
    "don't I'll WE'VE she's",
    "1234567890 3.14159 1,000,000 0x7f 12345678901234567890",
    "naïve café Ångström e\u0301 ﬁ",
    "日本語のテキスト 中文 한국어 ไทย العربية עברית हिन्दी",
    "😀👩‍👩‍👧‍👦🏳️‍🌈 \U0001f9d1\U0001f3fd",
    "def f(x):\n    return x**2  # comment\n\n\nclass A:\n\tpass\n",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "text<|endoftext|>more",
    "http://example.com/a?b=c&d=%20e#f",
    "a" * 300 + " " * 40 + "!" * 30,
    "\x00\x01\x7f control",
]
CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " ünïcode\n"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "<|im_end|>"},
    ],
]


@pytest.fixture(scope="module")
def official(model_path: Path) -> Any:
    pytest.importorskip("transformers")
    from tests.parity.official_tokenizer import official_tokenizer

    return official_tokenizer(model_path)


@pytest.mark.parametrize("text", HARD)
def test_hard_texts(tokenizer: Tokenizer, official: Any, text: str) -> None:
    assert tokenizer.encode(text) == official.encode(text)


def test_random_texts(tokenizer: Tokenizer, official: Any, english: str) -> None:
    rng = random.Random(0)
    alphabet = "abcXYZ019 \n\t.,'\"-_éß中あ😀\u0301"
    for _ in range(300):
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 60)))
        assert tokenizer.encode(text) == official.encode(text), repr(text)
    assert tokenizer.encode(english) == official.encode(english)


@pytest.mark.parametrize("skip_special_tokens", [False, True])
def test_decoding(tokenizer: Tokenizer, official: Any, skip_special_tokens: bool) -> None:
    rng = random.Random(1)
    for _ in range(300):
        ids = [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randint(1, 20))]
        expected = official.decode(ids, skip_special_tokens=skip_special_tokens)
        assert tokenizer.decode(ids, skip_special_tokens=skip_special_tokens) == expected


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_chats(
    tokenizer: Tokenizer, official: Any, chat: list[dict[str, str]], add_generation_prompt: bool
) -> None:
    options = {"add_generation_prompt": add_generation_prompt}
    expected = official.apply_chat_template(chat, tokenize=False, **options)
    assert tokenizer.apply_chat_template(chat, tokenize=False, **options) == expected
    ids = official.apply_chat_template(chat, return_dict=False, **options)
    assert tokenizer.apply_chat_template(chat, **options) == ids


def test_special_ids(tokenizer: Tokenizer, official: Any) -> None:
    assert tokenizer.bos_token_id == official.bos_token_id
    assert tokenizer.eos_token_id == official.eos_token_id
    assert tokenizer.eos_token == official.eos_token
    assert tokenizer.convert_ids_to_tokens([0, 300, 9999]) == official.convert_ids_to_tokens([0, 300, 9999])
