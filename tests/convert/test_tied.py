"""Token embeddings and output matrix: one matrix or two, as the file has them, whatever the config says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert import CheckpointError, UnsupportedError, convert_adapter, convert_checkpoint
from convert.adapters.base import Base
from convert.architectures import find_architecture
from convert.errors import ConversionWarning
from convert.source.config import Config
from convert.source.safetensors_file import read_tensors
from tests.convert.expected import numbers, read_gguf
from tests.random_checkpoints.adapters import random_factors, write_adapter
from tests.random_checkpoints.plain import Tensors, write_llama, write_safetensors, write_weights

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def write_tied(directory: Path, head: str, **settings: Any) -> Tensors:
    """Write a Llama that says it is tied, whose file has this output matrix."""
    tensors = write_llama(directory, dtype="BF16", tie_word_embeddings=True, **settings)
    embedding = tensors[EMBEDDING]
    if head == "alone":
        del tensors[EMBEDDING]
    given = {"other": embedding[::-1].copy(), "float32": embedding.astype(np.float32)}
    tensors[HEAD] = given.get(head, embedding)
    write_weights(directory, tensors)
    return tensors


def converted(source: Path) -> dict[str, Any]:
    made = convert_checkpoint(source, source.with_suffix(".gguf"), outtype="f32", verify=False)
    return {name: numbers(tensor) for name, tensor in read_gguf(made)[1].items()}


@pytest.mark.parametrize("head", ["same", "float32", "alone"])
def test_one_matrix(tmp_path: Path, head: str) -> None:
    """transformers 5 ties to whichever name is there, and where both have the same numbers."""
    tensors = write_tied(tmp_path / "m", head)
    made = converted(tmp_path / "m")
    assert "output.weight" not in made
    assert np.array_equal(made["token_embd.weight"], tensors[HEAD].astype(np.float32))


def test_two_matrices_are_an_untied_model(tmp_path: Path) -> None:
    """transformers 5 uses both; transformers 4 took the embeddings twice."""
    tensors = write_tied(tmp_path / "m", "other")
    with pytest.warns(ConversionWarning, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        made = converted(tmp_path / "m")
    assert np.array_equal(made["token_embd.weight"], tensors[EMBEDDING].astype(np.float32))
    assert np.array_equal(made["output.weight"], tensors[HEAD].astype(np.float32))


@pytest.mark.parametrize("name", ["Olmo2ForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM"])
@pytest.mark.parametrize("head", ["other", "same"])
def test_families_that_always_or_never_have_an_output(tmp_path: Path, name: str, head: str) -> None:
    embedding = np.arange(12, dtype=np.float32).reshape(4, 3)
    matrices = {EMBEDDING: embedding, HEAD: embedding if head == "same" else embedding + 1}
    write_safetensors(tmp_path / "m.safetensors", matrices)
    config = Config({"tie_word_embeddings": True})
    family: Any = find_architecture(name)(config, read_tensors(tmp_path / "m.safetensors"))
    if head == "same":
        targets = list(family.embeddings())
        assert len(targets) == (2 if name.startswith("Olmo") else 1)
        assert family.copies == (HEAD,)
    elif name.startswith("Gemma2"):
        with pytest.raises(UnsupportedError, match="gemma2 always uses the token embeddings"):
            list(family.embeddings())
    else:
        with pytest.warns(ConversionWarning, match="both are used"):
            _, output = family.embeddings()
        assert np.array_equal(next(output.pieces()), matrices[HEAD])


def test_adapters_of_the_output(tmp_path: Path) -> None:
    """With two matrices in the file the base needs no untied copy; a merged model has the right ones."""
    tensors = write_tied(tmp_path / "two", "other")
    with pytest.warns(ConversionWarning):
        assert not Base.open(tmp_path / "two").is_tied
    write_tied(tmp_path / "one", "same")
    factors = {k: v for k, v in random_factors(tensors).items() if "unembed" in k}
    given = write_adapter(tmp_path / "lora", factors)
    a, b = factors.values()
    for name in ("one", "two"):
        path = tmp_path / f"{name}.gguf"
        convert_adapter(given, tmp_path / name, path, merge=True, outtype="f32", verify=False)
        made = {key: numbers(tensor) for key, tensor in read_gguf(path)[1].items()}
        head = tensors[EMBEDDING if name == "one" else HEAD].astype(np.float32)
        assert np.array_equal(made["token_embd.weight"], tensors[EMBEDDING].astype(np.float32))
        assert np.allclose(made["output.weight"], head + 4 * b @ a, atol=1e-5)


def test_untied_without_an_output_matrix_is_refused(tmp_path: Path) -> None:
    tensors = write_tied(tmp_path / "m", "same")
    del tensors[HEAD]
    write_weights(tmp_path / "m", tensors)
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"has no tensor lm_head\.weight"):
        converted(tmp_path / "m")
