"""Model files that llama.cpp could not take, or would end the process on, are refused with a reason."""

from __future__ import annotations

import ctypes
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from convert.gguf.arrays import Malformed, array_of, string_starts
from convert.gguf.formats import FORMATS
from tests.fuzz.gguf_parts import ARRAY, Key, Parts, Tensor, take_apart
from tests.random_model import ARCHITECTURES, Architecture, write_random_model
from tinker_local import BadRequestError
from tinker_local.gguf.file import read_head
from tinker_local.gguf.model_check import check_model
from tinker_local.llama.ggml import bind
from tinker_local.llama.model import load_model

U32, I32, F32, BOOL, STRING, U64 = 4, 5, 6, 7, 8, 10
Change = Callable[[Parts], object]
TOKENS = "tokenizer.ggml.tokens"


def key(parts: Parts, name: str) -> Key:
    found = parts.key(name)
    assert found is not None
    return found


def tensor(parts: Parts, name: str) -> Tensor:
    return next(tensor for tensor in parts.tensors if tensor.name == name.encode())


def put(name: str, value: object, kind: int = U32, element: int = 0) -> Change:
    def change(parts: Parts) -> None:
        parts.keys = [key for key in parts.keys if key.name != name.encode()]
        parts.keys.append(Key(name.encode(), kind, value, element))  # type: ignore[arg-type]

    return change


def drop(name: str) -> Change:
    return lambda parts: parts.keys.remove(key(parts, name))


def set_type(name: str, kind: int) -> Change:
    def change(parts: Parts) -> None:
        tensor(parts, name).kind = kind
        tensor(parts, name).fit()

    return change


def set_token(token: int, text: bytes) -> Change:
    return lambda parts: key(parts, TOKENS).value.__setitem__(token, text)  # type: ignore[union-attr, index]


def set_kind(token: int, kind: int) -> Change:
    return lambda parts: key(parts, "tokenizer.ggml.token_type").value.__setitem__(token, kind)  # type: ignore[union-attr, index]


def set_attribute(name: str, of: str, value: object) -> Change:
    return lambda parts: setattr(tensor(parts, of), name, value)


QUERY, NORM, EMBEDDING = "blk.0.attn_q.weight", "blk.0.attn_norm.weight", "token_embd.weight"
FORMAT: dict[str, tuple[Change, str]] = {
    "another version": (lambda parts: setattr(parts, "version", 4), "has version 4"),
    "the other byte order": (lambda parts: setattr(parts, "version", 3 << 24), "other byte order"),
    "many keys": (lambda parts: setattr(parts, "n_keys", 2**40), "claims 1,099,511,627,776 keys"),
    "many tensors": (lambda parts: setattr(parts, "n_tensors", 2**64 - 1), "tensors"),
    "a key too many": (lambda parts: setattr(parts, "n_keys", len(parts.keys) + 1), "broken GGUF"),
    "a key twice": (lambda parts: parts.keys.append(parts.keys[0]), "is there twice"),
    "an empty key": (put("", 1), "a key is empty"),
    "a key that is no UTF-8": (
        lambda parts: parts.keys.append(Key(b"\xff", U32, 1)),
        "a key is not UTF-8",
    ),
    "a value of an unknown type": (put("x", 1, 13), "unknown type 13"),
    "an array of arrays": (put("x", [1], ARRAY, ARRAY), "array of arrays"),
    "an array of an unknown type": (put("x", [1], ARRAY, 99), "has type 99"),
    "a long array": (lambda parts: setattr(key(parts, TOKENS), "count", 2**61), "would have"),
    "an alignment of 3": (put("general.alignment", 3), "power of two"),
    "an alignment of 8": (put("general.alignment", 8), "power of two"),
    "an alignment of another type": (put("general.alignment", 32, U64), "is not a uint32"),
    "a tensor twice": (lambda parts: parts.tensors.append(parts.tensors[0]), "is there twice"),
    "a tensor without a name": (set_attribute("name", QUERY, b""), "no name"),
    "a tensor with a long name": (set_attribute("name", QUERY, b"x" * 64), "at most 63"),
    "no dimensions": (set_attribute("n_axes", QUERY, 0), "0 dimensions"),
    "five dimensions": (set_attribute("n_axes", QUERY, 5), "5 dimensions"),
    "an extent of zero": (set_attribute("shape", QUERY, [0, 64]), "impossible shape"),
    "a product that overflows": (set_attribute("shape", QUERY, [2**33, 2**33]), "impossible shape"),
    "an unknown number format": (set_attribute("kind", QUERY, 4), "number format 4"),
    "rows that are no whole blocks": (set_attribute("kind", QUERY, 12), "blocks of 256"),
    "a place that is another's": (set_attribute("offset", QUERY, 0), "next free place"),
    "a place outside": (set_attribute("offset", QUERY, 2**63), "next free place"),
    "a size outside": (set_attribute("shape", "blk.5.ffn_down.weight", [64, 10**9]), "cut off"),
}
SETTINGS: dict[str, tuple[Change, str]] = {
    "no architecture": (drop("general.architecture"), "general.architecture is missing"),
    "an adapter": (put("general.type", b"adapter", STRING), "is an adapter"),
    "a picture model": (put("general.architecture", b"clip", STRING), "not a language model"),
    "no layers": (put("llama.block_count", 0), "block_count is 0; it must be from 1"),
    "many layers": (put("llama.block_count", 513), "from 1 to 512"),
    "no number of layers": (drop("llama.block_count"), "block_count is missing"),
    "layers of another type": (put("llama.block_count", 6, U64), "must be a 32-bit integer"),
    "a row of layers": (put("llama.block_count", [6], ARRAY, F32), "must be a 32-bit integer"),
    "no context": (put("llama.context_length", 0), "context_length is 0"),
    "another width": (put("llama.embedding_length", 128), "turns all 32 numbers"),
    "heads that do not divide": (put("llama.attention.head_count_kv", 3), "must divide head_count"),
    "no heads": (put("llama.attention.head_count", 0), "head_count is 0 in layer 0"),
    "heads for some layers": (
        put("llama.attention.head_count_kv", [2, 2], ARRAY, U32),
        "an entry for each of 6 layers",
    ),
    "values shorter than keys": (put("llama.attention.value_length", 8), "architecture has them equal"),
    "half a rotation": (put("llama.rope.dimension_count", 8), "turns all 16 numbers"),
    "a rotation of 15": (put("llama.rope.dimension_count", 15), "must be even"),
    "no rotation": (put("llama.rope.dimension_count", 0), "must be even, and from 2"),
    "an unknown scaling": (put("llama.rope.scaling.type", b"x", STRING), "known are none, linear"),
    "sections of nothing": (put("llama.rope.dimension_sections", [0] * 4, ARRAY, I32), "not all zero"),
    "a base of zero": (put("llama.rope.freq_base", 0.0, F32), "must be positive"),
    "a base that is none": (put("llama.rope.freq_base", math.nan, F32), "not a finite number"),
    "a negative epsilon": (
        put("llama.attention.layer_norm_rms_epsilon", -1.0, F32),
        "must not be negative",
    ),
    "experts that are not used": (put("llama.expert_count", 8), "is 0, of 8 experts"),
    "more used than there are": (put("llama.expert_used_count", 2), "is 2, of 0 experts"),
    "many experts": (put("llama.expert_count", 1025), "from 0 to 1024"),
    "an unknown gating": (put("llama.expert_gating_func", 5), "from 0 to 4"),
    "layers that predict": (put("llama.nextn_predict_layers", 6), "nextn_predict_layers is 6"),
    "a large setting": (put("llama.leading_dense_block_count", 2**32 - 1), "is the most"),
    "a norm of float16": (set_type(NORM, 1), "can add and scale by F32 only"),
    "weights that are integers": (set_type(QUERY, 26), "cannot multiply with"),
    "weights of intermediate results": (set_type(QUERY, 9), "cannot multiply with"),
    "no embedding": (set_attribute("name", EMBEDDING, b"other"), "token_embd.weight is missing"),
}
VOCABULARY: dict[str, tuple[Change, str]] = {
    "none": (put("tokenizer.ggml.model", b"none", STRING), "model is none"),
    "no tokens": (drop(TOKENS), "tokens is missing"),
    "tokens that are numbers": (put(TOKENS, [1, 2], ARRAY, U32), "no array of texts"),
    "a token too few": (
        lambda parts: key(parts, TOKENS).value.pop(),  # type: ignore[union-attr]
        "399 tokens, and token_embd.weight a row for each of 400",
    ),
    "a token twice": (set_token(7, b"ab"), "1 tokens twice"),
    "twice, up to a zero": (set_token(7, b"ab\0c"), "1 tokens twice"),
    "no UTF-8": (set_token(7, b"\xff"), "not UTF-8"),
    "a byte that is none": (set_kind(7, 6), "is said to be a byte"),
    "an unknown kind": (set_kind(7, 8), "outside 0 to 6"),
    "too few kinds": (put("tokenizer.ggml.token_type", [1], ARRAY, I32), "for each of 400 tokens"),
    "kinds of another type": (
        put("tokenizer.ggml.token_type", [1] * 400, ARRAY, F32),
        "token_type is no array",
    ),
    "too few scores": (put("tokenizer.ggml.scores", [0.0] * 399, ARRAY, F32), "scores is no array"),
    "a score that is none": (
        put("tokenizer.ggml.scores", [math.nan] * 400, ARRAY, F32),
        "scores has entries that are no numbers",
    ),
    "no merges": (drop("tokenizer.ggml.merges"), "merges is missing"),
    "a merge of one": (put("tokenizer.ggml.merges", [b"a b", b"ab"], ARRAY, STRING), "space between"),
    "an id outside": (put("tokenizer.ggml.eos_token_id", 400), "no id of 400 tokens"),
    "an id of another type": (put("tokenizer.ggml.pad_token_id", 1, U64), "no id of 400 tokens"),
    "a flag that is a number": (put("tokenizer.ggml.add_bos_token", 1, U32), "is not a bool"),
    "pieces without bytes": (put("tokenizer.ggml.model", b"llama", STRING), "no token <0x"),
    "a template that is a number": (put("tokenizer.chat_template", 1, U32), "chat_template is no text"),
    "a template with a long name": (
        put("tokenizer.chat_template." + "x" * 300, b"x", STRING),
        "name of more than 255 bytes",
    ),
    "a named template that is a number": (put("tokenizer.chat_template.rag", 1, U32), "rag is no text"),
    "a map of nothing": (put("tokenizer.ggml.precompiled_charsmap", [0] * 3, ARRAY, 0), "not room for"),
}


def mla(keys: int, values: int, heads: int) -> Change:
    """Settings of compressed attention, of which the ones given are right at 12, 8 and 1."""
    sizes = {
        "key_length": 12,
        "value_length": 8,
        "key_length_mla": keys,
        "value_length_mla": values,
        "kv_lora_rank": 8,
        "head_count_kv": heads,
    }

    def change(parts: Parts) -> None:
        put("general.architecture", b"deepseek2", STRING)(parts)
        for key in parts.keys:
            key.name = key.name.replace(b"llama.", b"deepseek2.")
        for name, size in sizes.items():
            put(f"deepseek2.attention.{name}", size)(parts)
        put("deepseek2.rope.dimension_count", 4)(parts)

    return change


LAYERS: dict[str, tuple[Change, str]] = {
    "queries of half the heads": (
        lambda parts: (
            [put(f"llama.attention.head_count{of}", 1)(parts) for of in ("", "_kv")]
            + [put(f"llama.attention.{of}_length", 16)(parts) for of in ("key", "value")]
        ),
        "attn_q.weight has 64 rows; the heads and their lengths make 16",
    ),
    "compressed, of two heads": (mla(16, 16, 2), "must be 1, as keys and values are compressed"),
    "compressed values alone": (mla(0, 16, 1), "do not fit"),
    "compressed, nothing but rotation": (mla(4, 16, 1), "do not fit"),
}


def of(architecture: str, **settings: int | list[int]) -> Change:
    """Another architecture, with settings of its own; ``__`` is a dot."""

    def change(parts: Parts) -> None:
        put("general.architecture", architecture.encode(), STRING)(parts)
        for key in parts.keys:
            key.name = key.name.replace(b"llama.", f"{architecture}.".encode())
        for name, value in settings.items():
            kind = ARRAY if isinstance(value, list) else U32
            put(f"{architecture}.{name.replace('__', '.')}", value, kind, U32)(parts)

    return change


HYBRIDS: dict[str, tuple[Change, str]] = {
    "recurrent alone": (of("lfm2", attention__head_count_kv=[0] * 6), "all of the 6 layers are recurrent"),
    "attention alone": (of("lfm2moe", attention__head_count_kv=[1] * 6), "none of the 6 layers"),
    "attention alone, said once": (of("granitehybrid", attention__head_count_kv=1), "none of the 6 layers"),
    "Kimi's recurrent alone": (of("kimi-linear", attention__head_count_kv=0), "all of the 6 layers"),
    "five streams": (of("deepseek4", hyper_connection__count=5), "llama.cpp computes with 4"),
    "an indexer's odd length": (
        of("deepseek32", attention__indexer__key_length=96),
        "key_length is 96; it must be a multiple of 64",
    ),
    "GLM's odd indexer": (of("glm-dsa", attention__indexer__key_length=32), "multiple of 64"),
    "pools of one": (
        of("glm5-next", attention__head_count_kv=[0, 1] * 3, attention__indexer__kpool=1),
        "kpool is 1; it must be 2 or more",
    ),
    "half a pool": (
        of(
            "glm5-next",
            attention__head_count_kv=[0, 1] * 3,
            attention__indexer__kpool=4,
            attention__indexer__top_k=6,
        ),
        "divide top_k, which is 6",
    ),
}
ALL = {
    "hybrids": HYBRIDS,
    "layers": LAYERS,
    "format": FORMAT,
    "settings": SETTINGS,
    "vocabulary": VOCABULARY,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_random_model(tmp_path_factory.mktemp("models") / "model.gguf").read_bytes()


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind, cases in ALL.items() for case in cases])
def test_is_refused(kind: str, case: str, sound: bytes, tmp_path: Path) -> None:
    change, said = ALL[kind][case]
    parts = take_apart(sound)
    change(parts)
    path = tmp_path / "changed.gguf"
    path.write_bytes(parts.pack())
    with pytest.raises(BadRequestError, match=said) as raised:
        load_model(path, 0)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "qwen3moe"])
def test_is_taken(architecture: Architecture, tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "model.gguf", architecture)
    model = check_model(path)
    assert model.architecture == architecture
    parts = take_apart(path.read_bytes())
    assert parts.pack() == path.read_bytes()
    assert {name: (info.type, list(info.ne)) for name, info in model.tensors.items()} == {
        tensor.name.decode(): (tensor.kind, (tensor.shape + [1] * 4)[:4]) for tensor in parts.tensors
    }


def test_every_length_of_a_file(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    rng = random.Random(1)
    for length in [*range(64), *rng.sample(range(len(sound)), 150), len(sound) - 1]:
        path.write_bytes(sound[:length])
        with pytest.raises(BadRequestError, match=r"cut\.gguf"):
            check_model(path)


def test_the_real_one(model_path: Path) -> None:
    model = check_model(model_path)
    tokens = model.array(TOKENS)
    assert tokens is not None
    assert len(tokens) == 49152
    assert tokens.texts()[:3] == [b"<|endoftext|>", b"<|im_start|>", b"<|im_end|>"]


def test_formats_are_llama_cpps() -> None:
    """Those up to the newest that we know; 0 is what llama.cpp has for those it gave up."""
    length = bind("ggml_blck_size", ctypes.c_int64, ctypes.c_int)
    n_bytes = bind("ggml_type_size", ctypes.c_size_t, ctypes.c_int)
    name = bind("ggml_type_name", ctypes.c_char_p, ctypes.c_int)
    for kind in range(max(FORMATS) + 1):
        format = FORMATS.get(kind)
        assert (length(kind), n_bytes(kind)) == (
            (format.block_length, format.block_bytes) if format else (0, 0)
        )
        if format:
            assert name(kind).decode().casefold() == format.name.casefold()


def test_texts_of_all_lengths() -> None:
    rng = random.Random(0)
    for _ in range(50):
        lengths = [rng.choice((0, 1, 2, 7, 8, 255, 256, 300)) for _ in range(rng.randrange(1, 400))]
        texts = [bytes(rng.choice(b"\0\1a \xff") for _ in range(length)) for length in lengths]
        data = b"pad" + b"".join(struct.pack("<Q", len(text)) + text for text in texts)
        starts, end = string_starts(data + b"more" * rng.randrange(3), 3, len(texts), "x")
        array = array_of(data[3:end], starts)
        assert array.texts() == texts
        assert array.has_zeros() == any(0 in text for text in texts)
        assert array.have_a_space() == all(b" " in text[1:] for text in texts)
        with pytest.raises(Malformed, match="cut off"):
            string_starts(data[:-1], 3, len(texts) + (not texts[-1]), "x")


@pytest.mark.parametrize(("text", "good"), [("é漢", True), (b"\xe6\xbc", False), (b"\xff", False)])
def test_utf8_of_texts(text: str | bytes, good: bool) -> None:
    """A character may not go on in the next text."""
    data = text.encode() if isinstance(text, str) else text
    texts = [data, b"\xa2" if not good else b"", b"x" * 300]
    packed = b"".join(struct.pack("<Q", len(text)) + text for text in texts)
    starts = np.cumsum([0, *(8 + len(text) for text in texts)])
    assert array_of(packed, starts).is_utf8() == good


def split(sound: bytes, directory: Path, count: int = 2) -> list[Path]:
    """Write a model as two files, as llama.cpp's ``gguf-split`` does."""
    parts = take_apart(sound)
    half = len(parts.tensors) // 2
    paths = []
    for number, tensors in enumerate((parts.tensors[:half], parts.tensors[half:])):
        keys = list(parts.keys) if number == 0 else []
        keys += [Key(b"split.no", 2, number), Key(b"split.count", 2, count)]
        keys += [Key(b"split.tensors.count", I32, len(parts.tensors))]
        paths.append(directory / f"m-{number + 1:05}-of-00002.gguf")
        paths[-1].write_bytes(Parts(keys, tensors).pack())
    return paths


def test_a_model_in_two_files(sound: bytes, tmp_path: Path) -> None:
    first, second = split(sound, tmp_path)
    assert len(check_model(first).tensors) == len(take_apart(sound).tensors)
    assert load_model(first, 0).n_vocab == 400
    with pytest.raises(BadRequestError, match="give the first"):
        check_model(second)
    whole = second.read_bytes()
    second.write_bytes(whole.replace(b"blk.5.ffn_down", b"blk.0.attn_qqq").replace(b"\1\0", b"\2\0", 1))
    with pytest.raises(BadRequestError, match=r"00002-of-00002\.gguf"):
        check_model(first)
    second.unlink()
    with pytest.raises(BadRequestError, match="is missing"):
        check_model(first)


def test_a_part_with_the_wrong_number(sound: bytes, tmp_path: Path) -> None:
    first, second = split(sound, tmp_path)
    second.write_bytes(first.read_bytes())
    with pytest.raises(BadRequestError, match=r"split\.no is 0; for this file it must be 1"):
        check_model(first)
    assert read_head(first).tensors
