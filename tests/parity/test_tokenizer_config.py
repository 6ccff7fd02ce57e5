"""What tokenizer_config.json does, against transformers: the rules of ``TokenizerConfig``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.convert.test_vocabulary import FLAGS, SETTINGS
from tests.convert.vocabulary_files import Json, change
from tests.parity.test_vocabulary_parity import embedded_of, official_of
from tests.random_checkpoints.tokenizers import write_tokenizer

pytestmark = pytest.mark.parity

TEXTS = (
    "a", "the other", " the  end", "a<new>b", "x <|endoftext|> y", "<s>the</s>", "[INST] the", "É\u0301 12",
    "<|im_start|>user\nthe<|im_end|>\n",
)  # fmt: skip
MORE: list[tuple[str, Mapping[str, Any]]] = [
    ("llama3", {"additional_special_tokens": ["<new>"]}),
    ("mistral", {"additional_special_tokens": ["the", "er"]}),
    ("tekken", {"extra_special_tokens": {"image_token": "<new>"}}),
    ("phi-4", {"bos_token": {
        "content": "<|im_start|>", "lstrip": True, "special": True, "__type": "AddedToken",
    }}),
    ("gemma", {"mask_token": "the"}),
    ("qwen2", {"clean_up_tokenization_spaces": True}),
    ("llama3", {"sp_model_kwargs": {"enable_sampling": True}, "use_fast": False, "from_slow": True}),
    ("tekken", {"truncation": True, "max_length": 2, "padding": "max_length", "padding_side": "left"}),
    ("gpt2", {"errors": "ignore", "trim_offsets": True, "normalization": True, "remove_space": True}),
]  # fmt: skip


def compare(directory: Path, kind: str, settings: Mapping[str, Any], model_type: str = "llama") -> None:
    """Write a tokenizer with settings; ids and texts must be those of transformers."""
    n_rows = write_tokenizer(directory, kind).n_tokens + 2

    def edit(config: Json) -> None:
        for flag in ("add_bos_token", "add_eos_token"):
            config.pop(flag, None)
        config.update(settings)

    change(directory / "tokenizer_config.json", edit)
    official, ours = official_of(directory, model_type), embedded_of(directory, model_type, n_rows)
    for text in TEXTS:
        ids = official.encode(text)
        assert ours.encode(text, add_special=True) == ids, text
        for skips in (False, True):
            read = official.decode(ids, skip_special_tokens=skips)
            assert ours.decode(ids, skip_special=skips) == read


@pytest.mark.parametrize(("kind", "tokenizer_class", "flags"), [case[:3] for case in FLAGS])
def test_flags(tmp_path: Path, kind: str, tokenizer_class: str, flags: dict[str, bool]) -> None:
    if tokenizer_class == "GPTNeoXTokenizer":
        kind = "gpt2"  # the class makes its pipeline anew
    if kind == "llama2":
        kind = "mistral"  # whose pipeline the class makes as the file has it
    compare(tmp_path, kind, {**flags, "tokenizer_class": tokenizer_class})


@pytest.mark.parametrize(("kind", "settings"), [(case[0], case[2]) for case in SETTINGS] + MORE)
def test_settings(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    if kind == "llama2":
        kind = "mistral"
    model_type = {"qwen2": "qwen2", "gpt2": "gpt2", "phi-4": "phi3"}.get(kind, "llama")
    compare(tmp_path, kind, settings, model_type)


@pytest.mark.parametrize(
    "flags", [{"add_bos_token": True}, {"add_bos_token": False, "add_eos_token": True}]
)
@pytest.mark.parametrize("legacy", [None, False])
def test_a_tokenizer_model_alone(tmp_path: Path, flags: dict[str, bool], legacy: bool | None) -> None:
    n_rows = write_tokenizer(tmp_path, "llama2", files=("tokenizer.model",)).n_tokens
    settings = {**flags, **({} if legacy is None else {"legacy": legacy})}
    change(tmp_path / "tokenizer_config.json", lambda f: f.update(settings, tokenizer_class="Other"))
    official, ours = official_of(tmp_path, "llama"), embedded_of(tmp_path, "llama", n_rows)
    flags = {"add_bos_token": False, "add_eos_token": False, **flags}
    for text in TEXTS:
        assert ours.encode(text, add_special=True) == official.encode(text), text
