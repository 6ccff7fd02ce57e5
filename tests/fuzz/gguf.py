"""Mutated GGUF models and adapters, each opened, tokenized with and decoded with in a child process.

    python -m tests.fuzz.gguf [--count N] [--seed S] [--keep DIRECTORY]

One case in four is an adapter. Most are changed by structure (a setting, a length, a type, a shape, a
token, ...) and put together again, so that what they break is not the format; the others have bits flipped
or are cut off. No case may end the process, hang for 10 s, grow it by 1 GB or raise an error that is not
ours.
"""

from __future__ import annotations

import gc
import random
from pathlib import Path

from tests.fuzz.command import Fuzzer, fuzzer_main
from tests.fuzz.gguf_damage import damaged
from tests.random_adapter import random_adapter
from tests.random_model import Architecture, Shape, write_random_model

ARCHITECTURES: tuple[Architecture, ...] = ("llama", "gemma3", "mamba", "jamba", "qwen3moe")
SHAPE = Shape(n_vocab=300, n_embd=32, n_layer=2, n_head=4, n_head_kv=2, n_ff=64, n_ctx=256)
TEXTS = ("ab\n", " word1 é漢字 <|endoftext|>\x00\t", "a" * 70)


def write_seeds(directory: Path) -> None:
    """Write sound files: a model of each architecture, and an adapter for each."""
    for name in ARCHITECTURES:
        model = write_random_model(directory / f"{name}.gguf", name, SHAPE)
        random_adapter(model).write(model.with_suffix(".lora"))


def make(number: int, seed: int, seeds: Path) -> bytes:
    rng = random.Random(f"{seed}:{number}")
    name = rng.choice(ARCHITECTURES)
    sound = seeds / f"{name}.lora" if number % 4 == 3 else seeds / f"{name}.gguf"
    return damaged(rng, sound.read_bytes())


def open_and_use(path: Path, bases: Path) -> str:
    """Open a model, or an adapter on the base it names, and compute with it."""
    from tinker_local.gguf.file import is_adapter, read_head
    from tinker_local.llama.adapter import load_adapter
    from tinker_local.llama.context import Context
    from tinker_local.llama.context_plan import ContextPlan
    from tinker_local.llama.model import load_model
    from tinker_local.tokenizer import Tokenizer

    is_lora = is_adapter(path)
    base = bases / f"{read_head(path).text('general.architecture')}.gguf" if is_lora else path
    model = load_model(base if is_lora and base.name.removesuffix(".gguf") in ARCHITECTURES else path, 0)
    adapter = load_adapter(model, path) if is_lora else None
    tokenizer = Tokenizer(model)
    ids = [token for text in TEXTS for token in tokenizer.encode(text)]
    tokenizer.decode([token for token in ids if 0 <= token < model.n_vocab])
    tokenizer.convert_ids_to_tokens(list(range(model.n_vocab)))
    plan = ContextPlan(n_ctx=64, n_sequences=2, n_batch=64, n_rows=64, n_threads=1, adapter=adapter)
    context = Context(model, plan)
    for start, n in ((0, 8), (8, 1), (9, 1)):
        if start + n > context.n_ctx:
            break
        for i in range(n):
            batch = context.batch
            batch.tokens[i], batch.positions[i] = (start + i) % model.n_vocab, start + i
            batch.sequences[i], batch.flags[i] = 0, 1
        context.decode(n)
        context.logits(n).sum()
    context.close()
    del context, adapter, model, tokenizer
    gc.collect()
    return "computed"


FUZZER = Fuzzer("tests.fuzz.gguf", 5000, write_seeds, make, open_and_use, "tinker_local.errors:TinkerError")

if __name__ == "__main__":
    fuzzer_main(FUZZER, __doc__)
