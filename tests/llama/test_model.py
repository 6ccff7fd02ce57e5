"""The door to llama.cpp: files that are not models, and its log."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.long import few
from tests.random_model import write_random_model
from tinker_local import BadRequestError, InternalServerError, ServiceClient
from tinker_local.llama.context import Context
from tinker_local.llama.context_plan import ContextPlan
from tinker_local.llama.model import Model, load_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(model_path: Path) -> Model:
    return load_model(model_path, -1)


def test_weights_are_loaded_once(model: Model, model_path: Path) -> None:
    assert load_model(model_path, -1) is model
    assert load_model(model_path.parent / "." / model_path.name, -1) is model


@pytest.mark.parametrize("share", [0.0, 1e-7, 1e-5, 0.003, 0.017, 0.02, 0.5, 0.999999])
def test_truncated_files_are_refused(model_path: Path, tmp_path: Path, share: float) -> None:
    whole = model_path.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(len(whole) * share)])
    with ServiceClient() as service, pytest.raises(BadRequestError, match=r"cut\.gguf"):
        service.create_sampling_client(base_model=str(path))


def test_the_error_has_llama_cpps_words(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(model_path.read_bytes()[:-1])
    with pytest.raises(BadRequestError, match="not within the file bounds"):
        load_model(path, -1)


def test_a_context_that_cannot_be_made(model: Model) -> None:
    plan = ContextPlan(
        n_ctx=64, n_sequences=1, n_batch=64, n_rows=64, n_threads=1, kv_type="q8_0", flash_attn=False
    )
    with pytest.raises(InternalServerError, match="q8_0"):
        Context(model, plan)


@pytest.mark.parametrize("kv_type", ["f16", "f32", "q8_0"])
@pytest.mark.parametrize("flash_attn", [None, True, False])
def test_kv_types(model: Model, kv_type: str, flash_attn: bool | None) -> None:
    if kv_type == "q8_0" and flash_attn is False:
        pytest.skip("refused: see above")
    plan = ContextPlan(
        n_ctx=256,
        n_sequences=2,
        n_batch=256,
        n_rows=256,
        n_threads=2,
        kv_type=kv_type,  # type: ignore[arg-type]
        flash_attn=flash_attn,
    )
    context = Context(model, plan)
    batch = context.batch
    batch.tokens[:4], batch.positions[:4] = [504, 3575, 282, 4649], range(4)
    batch.sequences[:4], batch.flags[:4] = 1, [0, 1, 0, 1]
    context.decode(4)
    rows = context.logits(2)
    assert rows.shape == (2, model.n_vocab)
    assert np.isfinite(rows).all()
    assert rows[1].argmax() == model.tokenize(" is", add_special=False, parse_special=False)[0]
    context.close()


def test_metadata(model: Model) -> None:
    assert model.metadata("general.architecture") == "llama"
    assert model.metadata("no.such.key") is None
    assert model.n_ctx_train == 8192


LOG = """
import logging, sys
{setup}
import tinker_local
tinker_local.ServiceClient(n_ctx=64).create_sampling_client(base_model=sys.argv[1])
"""


@pytest.mark.parametrize(
    ("setup", "talks"),
    few(
        2,
        [
            ("logging.basicConfig(level='INFO')", False),
            ("logging.basicConfig(level='DEBUG')", True),
            ("", False),
        ],
    ),
)
def test_llama_cpp_is_silent_unless_debugging(setup: str, talks: bool, model_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOG.format(setup=setup), str(model_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout == ""
    assert ("DEBUG:tinker_local.llama:" in done.stderr) == talks
    assert bool(done.stderr) == talks


def test_errors_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(write_random_model(tmp_path / "model.gguf").read_bytes().replace(b"llama", b"other"))
    with caplog.at_level(logging.ERROR, "tinker_local.llama"), pytest.raises(BadRequestError):
        load_model(path, -1)
    assert any(record.levelno == logging.ERROR for record in caplog.records)


@pytest.mark.parametrize("architecture", ["inkling", "dreamt-up"])
def test_an_architecture_that_llama_cpp_does_not_know_is_named(architecture: str, tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "new.gguf", architecture)  # type: ignore[arg-type]
    with pytest.raises(BadRequestError, match=f"unknown model architecture: '{architecture}'"):
        load_model(path, 0)
