"""Rows in, rows out, as ``map_batches`` calls them; and no Ray, which need not be installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.random_adapter import random_adapter
from tests.random_model import Shape, write_random_model
from tinker_local import BadRequestError, ModelInput, SamplingParams, ServiceClient
from tinker_local.batch import SampleTask, ScoreTask
from tinker_local.distributed import Answers

OPTIONS: dict[str, Any] = {"n_ctx": 256, "n_threads": 1, "batch_invariant": True}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny.gguf", shape=Shape(n_layer=1))


def column(*values: Any) -> np.ndarray[Any, Any]:
    made = np.empty(len(values), object)
    made[:] = values
    return made


def test_rows_get_answers_or_errors(tiny: Path) -> None:
    answers = Answers(SampleTask(SamplingParams(max_tokens=4)), str(tiny), **OPTIONS)
    batch = {
        "prompt": column("ab", "cd", None, "ef"),
        "tokens": column(None, None, np.array([1, 2, 3]), None),
        "seed": np.array([5, 6, 7, 8]),
        "temperature": column(None, -1.0, np.float32(0.5), None),
        "picture": column(b"kept", {1, 2}, None, object),
    }
    found = answers(batch)
    assert list(found["picture"]) == list(batch["picture"])
    assert found["error"][0] is None
    assert "temperature is -1" in found["error"][1]
    assert found["sequences"][1] is None
    client = ServiceClient(**OPTIONS).create_sampling_client(base_model=str(tiny))
    expected = client.sample(
        ModelInput.from_ints([1, 2, 3]), 1, SamplingParams(max_tokens=4, seed=7, temperature=0.5)
    ).result()
    (sequence,) = found["sequences"][2]
    assert (sequence["tokens"], sequence["logprobs"]) == (
        expected.sequences[0].tokens,
        expected.sequences[0].logprobs,
    )
    alone = answers({name: values[2:3] for name, values in batch.items()})
    assert alone["sequences"][0] == found["sequences"][2], "a row does not depend on its batch"


def test_seeds_come_from_lines_and_are_a_column(tiny: Path) -> None:
    answers = Answers(SampleTask(SamplingParams(max_tokens=3), seed=5), str(tiny), **OPTIONS)
    both = answers({"prompt": column("ab", "ab"), "line": np.array([1, 2])})
    assert both["seed"][0] != both["seed"][1]
    assert list(both["line"]) == [1, 2]
    again = answers({"prompt": column("ab"), "seed": column(both["seed"][1])})
    assert again["sequences"][0] == both["sequences"][1]
    with pytest.raises(BadRequestError, match="needs a column seed, or line"):
        answers({"prompt": column("ab")})


def test_each_row_has_its_adapter(tiny: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "lora.gguf"
    random_adapter(tiny, rank=2, seed=1).write(adapter)
    answers = Answers(ScoreTask(), str(tiny), **OPTIONS)
    batch = {
        "tokens": column([1, 2, 3], [1, 2, 3], [1, 2, 3]),
        "adapter": column(None, str(adapter), "none"),
    }
    found = answers(batch)
    client = ServiceClient(**OPTIONS).create_sampling_client(str(adapter), str(tiny))
    assert found["logprobs"][1] == client.compute_logprobs(ModelInput.from_ints([1, 2, 3])).result()
    assert found["logprobs"][0] != found["logprobs"][1]
    assert "none" in found["error"][2]


def test_values_that_are_not_json_and_misspelt_columns_are_errors_of_their_rows(tiny: Path) -> None:
    answers = Answers(ScoreTask(), str(tiny), **OPTIONS)
    assert (
        "prompt is {'a value of type': 'bytes'}; it must be a string"
        in answers({"prompt": column(b"bytes")})["error"][0]
    )
    assert "misspelt 'prompt'" in answers({"prompts": column("a"), "tokens": column([1])})["error"][0]


def test_ray_is_imported_only_for_a_cluster(tiny: Path, tmp_path: Path) -> None:
    """Without Ray, an error has the command that installs it."""
    (tmp_path / "in").write_text('{"prompt": "ab"}\n')
    script = f"""if True:
        import sys, tinker_local, tinker_local.distributed
        from tinker_local.cli import app
        assert not {{"ray", "pyarrow"}} & set(sys.modules)
        sys.modules["ray"] = None
        app(["logprobs", "--model", {str(tiny)!r}, "--input", "in", "--output", "out", "--ray", "local"])
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: a cluster needs the package ray[data]")
    assert "pip install" in done.stderr
    assert not (tmp_path / "out").exists()
