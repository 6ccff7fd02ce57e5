"""Adding, removing and verifying, also when it is interrupted or done twice at once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.random_adapter import random_adapter
from tests.random_model import write_random_model
from tinker_local import BadRequestError, NotFoundError
from tinker_local.cli import app
from tinker_local.store.keeper import StoreKeeper
from tinker_local.store.model_store import ModelStore

ROOT = Path(__file__).resolve().parents[2]
PATH = "tinker://run:train:0/sampler_weights/x"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def keeper(home: Path) -> StoreKeeper:
    return StoreKeeper(ModelStore(home))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_random_model(tmp_path / "random-f32.gguf")


def files(home: Path) -> list[str]:
    found = (path for path in home.rglob("*") if path.name != ".lock" and not path.is_dir())
    return sorted(str(path.relative_to(home)) for path in found)


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner().invoke(app, ["models", *arguments], input=text)


@pytest.mark.parametrize("link", [False, True])
def test_add_and_remove(keeper: StoreKeeper, home: Path, model: Path, link: bool) -> None:
    path = keeper.add(model, "Me/Mine-f32", link=link)
    assert path == home / "Me" / "Mine-f32.gguf"
    assert path.read_bytes() == model.read_bytes()
    assert path.is_symlink() == link
    assert files(home) == ["Me/Mine-f32.gguf", "Me/Mine-f32.gguf.sha256"]
    assert ModelStore(home).resolve("me/mine") == path
    assert [(v.name, v.problems, v.is_recorded) for v in keeper.verify()] == [("Me/Mine-f32", (), True)]
    keeper.remove("Mine")
    assert files(home) == []
    assert model.exists()


def test_sha256sum_reads_the_hashes(keeper: StoreKeeper, home: Path, model: Path) -> None:
    keeper.add(model)
    command = ["sha256sum", "--check", "random-f32.gguf.sha256"]
    assert subprocess.run(command, cwd=home, check=False).returncode == 0


def test_parts(keeper: StoreKeeper, home: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"Old-bf16-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    for number, part in enumerate(parts):
        part.write_bytes(b"GGUF" + bytes([number]))
    with pytest.raises(BadRequestError, match="give the first part"):
        keeper.add(parts[1], "New")
    keeper.add(parts[0], "New-bf16")
    names = [f"New-bf16-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    assert files(home) == [*names, "New-bf16.gguf.sha256"]
    assert [(home / name).read_bytes() for name in names] == [part.read_bytes() for part in parts]
    (home / names[1]).unlink()
    keeper.remove("new")
    assert files(home) == []


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b/c", "", ".x", "a b", "x\0", "tinker://../sampler_weights/x"]
)
def test_names_that_are_refused(keeper: StoreKeeper, home: Path, model: Path, name: str) -> None:
    if name:
        with pytest.raises(BadRequestError):
            keeper.add(model, name)
        with pytest.raises((BadRequestError, NotFoundError)):
            keeper.remove(name)
    assert files(home) == []
    assert model.exists()


def test_what_cannot_be_added(keeper: StoreKeeper, home: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    with pytest.raises(BadRequestError, match="not a GGUF"):
        keeper.add(tmp_path / "text")
    with pytest.raises(NotFoundError):
        keeper.add(tmp_path / "nothing")
    keeper.add(model, "x")
    before = (home / "x.gguf").stat().st_mtime_ns
    with pytest.raises(BadRequestError, match="there already; --force"):
        keeper.add(model, "x")
    assert (home / "x.gguf").stat().st_mtime_ns == before
    keeper.add(model, "x", force=True)


def test_what_cannot_be_removed(keeper: StoreKeeper, home: Path, model: Path) -> None:
    keeper.add(model, "One/x-f32")
    keeper.add(model, "One/x-bf16")
    with pytest.raises(BadRequestError, match="means several: One/x-bf16, One/x-f32"):
        keeper.remove("x")
    with pytest.raises(NotFoundError, match="there is One/x-bf16, One/x-f32"):
        keeper.remove("y")
    with pytest.raises(BadRequestError, match="belongs to the package"):
        keeper.remove("SmolLM2-135M-Instruct")
    assert len(files(home)) == 4


def test_verify_finds_what_changed(keeper: StoreKeeper, home: Path, model: Path) -> None:
    path = keeper.add(model, "x")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, (1, 1))
    (found,) = keeper.verify("x")
    assert "x.gguf has changed: its SHA-256 is" in found.problems[0]
    path.write_bytes(data[:100])
    (found,) = keeper.verify("x")
    assert found.problems
    (home / "x.gguf.sha256").write_text("nonsense")
    (found,) = keeper.verify("x")
    assert found.problems
    (home / "x.gguf.sha256").unlink()
    path.write_bytes(model.read_bytes())
    (found,) = keeper.verify("x")
    assert (found.problems, found.is_recorded) == ((), False)


def test_checkpoints(keeper: StoreKeeper, home: Path, model: Path, tmp_path: Path) -> None:
    adapter = random_adapter(model).write(tmp_path / "adapter.gguf")
    directory = home / "tinker" / "run%3Atrain%3A0" / "sampler_weights" / "x"
    assert keeper.add(adapter, PATH) == directory / "weights.gguf"
    assert [(v.name, v.problems, v.is_recorded) for v in keeper.verify()] == [(PATH, (), True)]
    keeper.remove(PATH)
    assert files(home) == []
    download = tmp_path / "download"
    download.mkdir()
    (download / "adapter_config.json").write_text("{}")
    with pytest.raises(BadRequestError, match=r"has no adapter_model\.safetensors"):
        keeper.add(download, PATH)
    (download / "adapter_model.safetensors").symlink_to("/etc/passwd")
    with pytest.raises(BadRequestError, match="outside the directory"):
        keeper.add(download, PATH)
    (download / "adapter_model.safetensors").unlink()
    (download / "adapter_model.safetensors").write_bytes(b"x")
    assert files(home) == []
    keeper.add(download, PATH)
    names = ["adapter_config.json", "adapter_model.safetensors"]
    assert sorted(path.name for path in directory.iterdir()) == names
    with pytest.raises(BadRequestError, match="there already"):
        keeper.add(download, PATH)
    keeper.add(download, PATH, force=True)
    keeper.remove(PATH)
    assert files(home) == []


ADD = """
    import sys, time
    from pathlib import Path
    from tinker_local.store.model_store import ModelStore
    from tinker_local.store.keeper import StoreKeeper

    def slowly(done, total):
        print(done, flush=True)
        time.sleep(SECONDS)

    path = StoreKeeper(ModelStore()).add(Path(sys.argv[1]), "x", force=True, on_progress=slowly)
    print(path)
"""


def child(model: Path, seconds: float) -> subprocess.Popen[str]:
    script = textwrap.dedent(ADD).replace("SECONDS", str(seconds))
    command = [sys.executable, "-c", script, str(model)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_an_interrupted_add_leaves_no_entry(keeper: StoreKeeper, home: Path, model: Path) -> None:
    process = child(model, 100)
    assert process.stdout is not None
    process.stdout.readline()  # it has copied something
    process.kill()
    process.wait()
    process.stdout.close()
    store = ModelStore(home)
    assert list(store.files()) == []
    assert list(keeper.verify()) == []
    with pytest.raises(NotFoundError):
        store.resolve("x")
    keeper.add(model, "x")
    assert [v.problems for v in keeper.verify()] == [()]


def test_two_processes_add_at_once(keeper: StoreKeeper, home: Path, tmp_path: Path) -> None:
    models = [write_random_model(tmp_path / f"{seed}.gguf", seed=seed) for seed in range(3)]
    for process in [child(model, 0) for model in models]:
        output, _errors = process.communicate(timeout=100)
        assert process.returncode == 0
        assert output.endswith("x.gguf\n")
    (verdict,) = keeper.verify()
    assert (verdict.problems, verdict.is_recorded) == ((), True)
    assert files(home) == ["x.gguf", "x.gguf.sha256"]
    assert (home / "x.gguf").read_bytes() in [model.read_bytes() for model in models]


def test_the_command_line(home: Path, model: Path, tmp_path: Path) -> None:
    adapter = random_adapter(model).write(tmp_path / "a.gguf", general__base_model__0__name="Mine")
    assert run("add", str(model), "--name", "Me/Mine-f32").exit_code == 0
    assert run("add", str(adapter), "--name", PATH).exit_code == 0
    assert run("add", str(adapter), "--name", "tuned").exit_code == 0
    for arguments in ([], ["list"], ["show", "mine"]):
        lines = run(*arguments).output.splitlines()
        assert f"  adapters     tuned, {PATH}" in lines
    assert "  base         Mine" in run("show", PATH).output
    assert "sha256 Mine-f32.gguf" in run("show", "me/mine-f32").output
    assert "hf download Qwen/Qwen3-8B" in run("show", "qwen3-8b").output
    assert run("show", "nothing").exit_code == 1
    assert run("verify").output.splitlines() == ["tuned: ok", "Me/Mine-f32: ok", f"{PATH}: ok"]
    (home / "Me" / "Mine-f32.gguf").write_bytes(b"GGUF")
    result = run("verify")
    assert result.exit_code == 1
    assert "tuned: ok" in result.output
    assert run("remove", "mine", text="n\n").exit_code == 1
    assert (home / "Me" / "Mine-f32.gguf").exists()
    assert run("remove", "mine", text="y\n").exit_code == 0
    assert run("remove", PATH, "--yes").exit_code == 0
    assert files(home) == ["tuned.gguf", "tuned.gguf.sha256"]
    assert run("add", str(tmp_path / "nothing")).exit_code == 1
