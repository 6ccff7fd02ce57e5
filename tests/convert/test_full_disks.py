"""Disks that are full, and directories that cannot be written to, wherever something is written.

A full disk is stood in for by a limit on the size of files (RLIMIT_FSIZE, which child processes inherit),
and a directory that is read-only by being another user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.long import few
from tests.random_checkpoints.adapters import random_factors, write_adapter
from tests.random_checkpoints.plain import write_llama

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")

SCRIPT = """
import os, resource, sys
from pathlib import Path
import convert
from convert.errors import ConversionError
from tinker_local import ServiceClient, TinkerError
from tinker_local.store.model_store import ModelStore
from tinker_local.store.keeper import StoreKeeper
home, source, n_bytes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if n_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
else:
    os.setegid(65534), os.seteuid(65534)
try:
    {job}
    print("done")
except (ConversionError, TinkerError) as error:
    print(type(error).__name__, error)
"""
JOBS = {
    "direct": 'convert.convert_checkpoint(source, home / "x.gguf", outtype="f32")',
    "quantized": 'convert.convert_checkpoint(source, home / "x.gguf", outtype="q4_0", verify=False)',
    "requantized": (
        'convert.convert_checkpoint(home / "Org" / "Base-f32.gguf", home / "x.gguf", outtype="q8_0")'
    ),
    "add": 'StoreKeeper(ModelStore(home)).add(home / "Org" / "Base-f32.gguf", "copied")',
    "first use": (
        'ServiceClient(models_dir=home).create_sampling_client("tinker://run:train:0/sampler_weights/x")'
    ),
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import convert

    directory = tmp_path_factory.mktemp("full")
    tensors = write_llama(directory / "source", tie_word_embeddings=True)
    home = directory / "home"
    (home / "Org").mkdir(parents=True)
    (home / ".lock").touch()
    base = home / "Org" / "Base-f32.gguf"
    convert.convert_checkpoint(directory / "source", base, outtype="f32", name="Org/Base", verify=False)
    download = home / "tinker" / "run%3Atrain%3A0" / "sampler_weights" / "x"
    write_adapter(download, random_factors(tensors), base_model_name_or_path="Org/Base")
    return directory


def files(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.name != ".lock")


def run(prepared: Path, tmp_path: Path, job: str, n_bytes: int) -> subprocess.CompletedProcess[str]:
    home = tmp_path / "home"
    before = files(prepared / "home")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{job}", JOBS[job]), home, prepared / "source", str(n_bytes)],
        cwd=ROOT,
        env=os.environ | {"TINKER_LOCAL_MODELS_DIR": str(home), "TINKER_LOCAL_N_CTX": "64"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("BadRequestError ", "ConversionError ", "LlamaError ")), done.stdout
    assert files(home) == before
    return done


@pytest.mark.parametrize("job", JOBS)
def test_a_disk_that_is_full(prepared: Path, tmp_path: Path, job: str) -> None:
    shutil.copytree(prepared / "home", tmp_path / "home")
    run(prepared, tmp_path, job, 20_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("job", few(2, JOBS))
def test_directories_that_are_read_only(prepared: Path, tmp_path: Path, job: str) -> None:
    for directory in (*tmp_path.parents, prepared, *prepared.parents):
        if directory.stat().st_uid == os.geteuid() and not directory.stat().st_mode & 1:
            directory.chmod(0o755)
    tmp_path.chmod(0o755)
    shutil.copytree(prepared / "home", tmp_path / "home")
    done = run(prepared, tmp_path, job, 0)
    assert "ermission denied" in done.stdout
