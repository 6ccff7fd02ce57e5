"""``tinker://`` paths: found in the store, put on their bases, converted once when first used."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from convert import convert_checkpoint
from tests.long import few
from tests.random_adapter import random_adapter
from tests.random_checkpoints.plain import CONFIG, write_llama, write_safetensors
from tests.random_model import write_random_model
from tinker_local import BadRequestError, ModelInput, NotFoundError, SamplingClient, ServiceClient
from tinker_local.cli import app
from tinker_local.store.keeper import StoreKeeper
from tinker_local.store.model_store import ModelStore

ROOT = Path(__file__).resolve().parents[2]
PATH = "tinker://0034d8c9:train:0/sampler_weights/final"
PROMPT = [int(token) for token in np.random.default_rng(3).integers(0, 256, 40)]
HASHES = ("a" * 64, "b" * 64)
REPOSITORY, HASH = "general.source.huggingface.repository", "general.source.sha256"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TINKER_LOCAL_MODELS_DIR", str(tmp_path / "models"))
    (tmp_path / "models" / "Org").mkdir(parents=True)
    return tmp_path / "models"


@pytest.fixture
def service(home: Path) -> Iterator[ServiceClient]:
    with ServiceClient(n_ctx=256, kv_type="f32", flash_attn=False) as service:
        yield service


def directory_of(home: Path) -> Path:
    path = home / "tinker" / "0034d8c9%3Atrain%3A0" / "sampler_weights" / "final"
    path.mkdir(parents=True, exist_ok=True)
    return path


def put_base(home: Path, name: str = "Org/Base-f32", digest: str = HASHES[0], seed: int = 0) -> Path:
    path = home / f"{name}.gguf"
    path.parent.mkdir(exist_ok=True)
    return write_random_model(path, said={REPOSITORY: "Org/Base", HASH: digest}, seed=seed)


def put_adapter(home: Path, base: Path, name: str = "Base", digest: str | None = HASHES[0]) -> Path:
    keys = {"general__base_model__0__organization": "Org", "general__base_model__0__name": name}
    if digest:
        keys["general__base_model__0__source__sha256"] = digest
    return random_adapter(base).write(directory_of(home) / "weights.gguf", **keys)


def put_download(directory: Path, base: str | None = "Org/Base") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    settings = {"r": 4, "lora_alpha": 8, "base_model_name_or_path": base}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    (directory / "adapter_model.safetensors").write_bytes(b"")
    return directory


def scores(client: SamplingClient) -> np.ndarray:
    return np.array(client.compute_logprobs(ModelInput.from_ints(PROMPT)).result(60)[1:], float)


def test_opens_the_adapter_over_its_base(home: Path, service: ServiceClient) -> None:
    base = put_base(home)
    adapter = put_adapter(home, base)
    plain = scores(service.create_sampling_client(base_model="Org/Base"))
    ours = scores(service.create_sampling_client(PATH))
    by_files = scores(service.create_sampling_client(str(adapter), str(base)))
    assert (ours == by_files).all()
    assert np.abs(ours - plain).max() > 0.1
    both = service.create_sampling_client(model_path=PATH, base_model="base")
    assert both._engine is service.create_sampling_client(PATH)._engine
    assert (scores(service.create_sampling_client(PATH, lora_scale=0)) == plain).all()


def test_on_the_command_line(home: Path) -> None:
    put_adapter(home, put_base(home))
    runner, common = CliRunner(), ["logprobs", "Some text.", "--n-ctx", "64", "--adapter", PATH]
    plain, named = (runner.invoke(app, [*common, *more]) for more in ([], ["--model", "Org/Base"]))
    assert plain.exit_code == 0, plain.output
    assert plain.output == named.output
    refused = runner.invoke(app, [*common, "--model", "SmolLM2-135M-Instruct"])
    assert refused.exit_code == 1
    assert "made for Org/Base, and the model is SmolLM2-135M-Instruct" in refused.output


def test_of_several_bases_the_one_with_its_weights(home: Path, service: ServiceClient) -> None:
    put_base(home, "Org/Base-f32", HASHES[1])
    base = put_base(home, "Org/Base-q8_0", HASHES[0])
    put_adapter(home, base)
    assert str(base) in repr(service.create_sampling_client(PATH))


@pytest.mark.parametrize("tied", [True, False])
def test_other_weights_of_the_same_name(home: Path, service: ServiceClient, tied: bool) -> None:
    put_adapter(home, put_base(home, digest=HASHES[1]))
    given = {"base_model": "Org/Base"} if tied else {}
    with pytest.raises(BadRequestError, match=r"made for Org/Base with the weights aaaa.*are bbbb"):
        service.create_sampling_client(PATH, **given)


def test_a_base_model_of_another_name(home: Path, service: ServiceClient) -> None:
    base = put_base(home)
    put_adapter(home, base, name="Base-Instruct", digest=None)
    for given in ("Org/Base", str(base)):
        with pytest.raises(BadRequestError, match="made for Org/Base-Instruct, and the model is Org/Base"):
            service.create_sampling_client(PATH, base_model=given)


def test_other_publishers_of_the_same_weights(home: Path, service: ServiceClient) -> None:
    base = put_base(home)
    put_adapter(home, base, digest=None)
    other = write_random_model(home / "mine.gguf", said={REPOSITORY: "else/base"})
    assert len(scores(service.create_sampling_client(PATH, base_model=str(other)))) == len(PROMPT) - 1


def test_a_catalogued_name_counts_where_the_file_says_nothing(home: Path, service: ServiceClient) -> None:
    base = write_random_model(home / "Qwen3-4B-f32.gguf")
    put_adapter(home, base, name="Qwen3-8B", digest=None)
    with pytest.raises(BadRequestError, match="made for Org/Qwen3-8B, and the model is Qwen/Qwen3-4B"):
        service.create_sampling_client(PATH, base_model="Qwen3-4B-f32")


def test_a_base_that_is_missing(home: Path, service: ServiceClient, tmp_path: Path) -> None:
    put_adapter(home, write_random_model(tmp_path / "x.gguf"), name="Gone")
    with pytest.raises(NotFoundError, match=r"no model is called 'Org/Gone'.*It is needed as the base of"):
        service.create_sampling_client(PATH)


def test_an_adapter_that_names_no_base(home: Path, service: ServiceClient) -> None:
    base = put_base(home)
    random_adapter(base).write(directory_of(home) / "weights.gguf")
    with pytest.raises(BadRequestError, match="give base_model"):
        service.create_sampling_client(PATH)
    assert len(scores(service.create_sampling_client(PATH, "Base"))) == len(PROMPT) - 1


def test_a_checkpoint_that_was_merged(home: Path, service: ServiceClient) -> None:
    write_random_model(directory_of(home) / "weights.gguf")
    assert len(scores(service.create_sampling_client(PATH))) == len(PROMPT) - 1
    put_base(home)
    with pytest.raises(BadRequestError, match="a whole model"):
        service.create_sampling_client(PATH, "Base")


def test_paths_that_are_not_here(home: Path, service: ServiceClient) -> None:
    put_adapter(home, put_base(home))
    with pytest.raises(
        NotFoundError, match="--as tinker://other/sampler_weights/x.*Checkpoints here: " + PATH
    ):
        service.create_sampling_client("tinker://other/sampler_weights/x")
    for path in ("tinker://../sampler_weights/x", "tinker://run/weights/x", "tinker://x"):
        with pytest.raises(BadRequestError, match=path.replace(".", r"\.")):
            service.create_sampling_client(path)
    with pytest.raises(BadRequestError, match="give it as model_path"):
        service.create_sampling_client(base_model=PATH)


CONVERTER = """
    import sys, time
    from pathlib import Path
    import convert
    from tests.random_adapter import random_adapter

    def convert_adapter(source, base, output, *, on_progress=None):
        with open(output.parents[4] / "log", "a") as log:
            log.write(f"{source.name} {base.name}\\n")
        time.sleep(SECONDS)
        keys = {"general__base_model__0__name": "Base"}
        partial = output.with_name("partial")
        random_adapter(base).write(partial, **keys)
        partial.rename(output)
        return output

    convert.convert_adapter = convert_adapter
"""
"""Stands in for the converter, so that these tests are of what is around it."""
OPEN = f"""
    from tinker_local import ServiceClient
    client = ServiceClient(n_ctx=256).create_sampling_client({PATH!r})
    print(repr(client))
"""


def child(script: str, seconds: float = 0) -> subprocess.Popen[str]:
    text = textwrap.dedent(script).replace("SECONDS", str(seconds))
    command = [sys.executable, "-c", text]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    return output


@pytest.mark.parametrize("where", few(1, ["as downloaded", "in its directory"]))
def test_two_processes_convert_once(home: Path, where: str) -> None:
    put_base(home)
    download = home / "0034d8c9:train:0_sampler_weights_final"
    put_download(directory_of(home) if where == "in its directory" else download)
    children = [child(CONVERTER + OPEN, seconds=2) for _ in range(2)]
    for process in children:
        assert "weights.gguf" in finished(process)
    source = "final" if where == "in its directory" else download.name
    assert (home / "log").read_text() == f"{source} Base-f32.gguf\n"


def test_the_lock_goes_with_its_process(home: Path) -> None:
    put_base(home)
    put_download(directory_of(home))
    killed = child(CONVERTER + OPEN, seconds=100)
    while not (home / "log").exists():
        assert killed.poll() is None
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    assert not (directory_of(home) / "weights.gguf").exists()
    assert "weights.gguf" in finished(child(CONVERTER + OPEN))


def test_the_base_of_a_download(home: Path, service: ServiceClient) -> None:
    put_download(directory_of(home), base=None)
    with pytest.raises(BadRequestError, match="does not name the model it was trained on; give base_model"):
        service.create_sampling_client(PATH)
    put_download(directory_of(home), base="Org/Gone")
    with pytest.raises(NotFoundError, match="Org/Gone"):
        service.create_sampling_client(PATH)
    put_download(directory_of(home), base="Qwen/Qwen3-8B")
    write_random_model(home / "Qwen3-4B-f32.gguf")
    with pytest.raises(BadRequestError, match="trained on Qwen/Qwen3-8B, but base_model is qwen3-4b"):
        service.create_sampling_client(PATH, base_model="qwen3-4b")
    (directory_of(home) / "adapter_config.json").write_text("{")
    with pytest.raises(BadRequestError, match=r"adapter_config\.json is not JSON"):
        service.create_sampling_client(PATH)


def test_several_archives(home: Path, service: ServiceClient) -> None:
    for name in ("a.tar", "b.tar"):
        (directory_of(home) / name).write_bytes(b"")
    with pytest.raises(BadRequestError, match=r"several archives, a\.tar, b\.tar"):
        service.create_sampling_client(PATH)
    assert "several archives" in CliRunner().invoke(app, ["models"]).output


def put_trained(directory: Path, base: str) -> Path:
    """Write an adapter as Tinker saves it, for the checkpoints of ``write_llama``."""
    rng, tensors = np.random.default_rng(5), {}
    hidden, rank = int(CONFIG["hidden_size"]), 4
    for module, rows in (("model.layers.0.self_attn.o_proj", hidden), ("model.unembed_tokens", 0)):
        rows = rows or int(CONFIG["vocab_size"])
        for factor, shape in (("A", (rank, hidden)), ("B", (rows, rank))):
            name = f"base_model.model.{module}.lora_{factor}.weight"
            tensors[name] = rng.standard_normal(shape, np.float32)
    put_download(directory, base)
    write_safetensors(directory / "adapter_model.safetensors", tensors)
    return directory


@pytest.mark.parametrize("kind", ["directory", "archive"])
def test_a_download_from_first_to_last(
    home: Path, service: ServiceClient, tmp_path: Path, kind: str
) -> None:
    """The converter, the store and the engine together, with the unembedding of a tied model."""
    snapshot = tmp_path / "models--Org--Tiny" / "snapshots" / "abc"
    write_llama(snapshot, tie_word_embeddings=True)
    convert_checkpoint(snapshot, outtype="f32")
    source = put_trained(tmp_path / "download", "Org/Tiny")
    if kind == "archive":
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            archive.add(source, arcname=".")
        source = tmp_path / "x.tar"
    StoreKeeper(ModelStore(home)).add(source, PATH)
    plain = scores(service.create_sampling_client(base_model="Org/Tiny"))
    ours = scores(service.create_sampling_client(PATH))
    assert np.abs(ours - plain).max() > 0.1
    assert (scores(service.create_sampling_client(PATH, "tiny")) == ours).all()
    (verdict,) = StoreKeeper(ModelStore(home)).verify(PATH)
    assert (verdict.problems, verdict.is_recorded) == ((), True)


def test_a_store_elsewhere(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    write_llama(tmp_path / "Tiny")
    convert_checkpoint(tmp_path / "Tiny", elsewhere / "Tiny-f32.gguf", outtype="f32")
    put_trained(directory_of(elsewhere), "Tiny")
    with ServiceClient(n_ctx=256, models_dir=elsewhere) as service:
        assert len(scores(service.create_sampling_client(PATH))) == len(PROMPT) - 1
    (verdict,) = StoreKeeper(ModelStore(elsewhere)).verify(PATH)
    assert (verdict.problems, verdict.is_recorded) == ((), True)
    assert not list(home.rglob("*.gguf"))


def test_what_cannot_be_converted(home: Path, service: ServiceClient, tmp_path: Path) -> None:
    write_llama(tmp_path / "Tiny")
    convert_checkpoint(tmp_path / "Tiny", outtype="f32")
    put_trained(directory_of(home), "Tiny")
    (directory_of(home) / "adapter_model.safetensors").write_bytes(b"broken")
    for _ in range(2):
        with pytest.raises(BadRequestError, match=f"{PATH} cannot be converted: .*adapter_model"):
            service.create_sampling_client(PATH)
    names = [path.name for path in directory_of(home).iterdir()]
    assert sorted(names) == [".lock", "adapter_config.json", "adapter_model.safetensors"]


def test_convert_as(home: Path, service: ServiceClient, tmp_path: Path) -> None:
    write_llama(tmp_path / "Tiny")
    runner = CliRunner()
    arguments = ["convert", str(tmp_path / "Tiny"), "--as"]
    assert runner.invoke(app, [*arguments, PATH, "--output", "x"]).exit_code == 2
    assert runner.invoke(app, [*arguments, "tinker://../sampler_weights/x"]).exit_code == 1
    result = runner.invoke(app, [*arguments, PATH])
    assert result.exit_code == 0, result.output
    assert str(directory_of(home) / "weights.gguf") in result.output
    assert len(scores(service.create_sampling_client(PATH))) == len(PROMPT) - 1
