"""The directory of images that clients may name: what lies in it is read, and nothing else here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinker_local import BadRequestError, ImageAssetPointerChunk, ImageChunk, ModelInput, NotFoundError
from tinker_local.pixels import MOST_BYTES
from tinker_local.serve.image_directory import ImageDirectory

DATA = b"\x89PNG and more"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """``images`` may be read, ``images-too`` and ``secret.png`` may not."""
    for place in ("images/cats/a b.png", "images-too/dog.png", "secret.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(DATA)
    return tmp_path


def test_what_lies_in_it_is_read(home: Path) -> None:
    images, path = ImageDirectory(home / "images"), home / "images" / "cats" / "a b.png"
    for location in (
        "cats/a b.png",
        "cats/../cats/./a b.png",
        "../images/cats//a b.png",
        str(path),
        path.as_uri(),
        path.as_uri().replace("file:///", "file://localhost/"),
    ):
        assert images.read(location) == DATA, location
    chunk = ImageAssetPointerChunk(location="cats/a b.png", format="png", expected_tokens=3)
    filled = images.fill(ModelInput.from_ints([1]).append(chunk))
    assert filled.chunks[1] == ImageChunk(data=DATA, format="png", expected_tokens=3)


def test_nothing_else_is_read(home: Path) -> None:
    """And nobody learns what is there: a path that leads out is refused alike, whatever it names."""
    images = ImageDirectory(home / "images")
    for path in (
        "../secret.png",
        "../images-too/dog.png",
        "../nothing.png",
        "cats/../../secret.png",
    ):
        for location in (path, (home / "images" / path).as_posix(), f"file://{home}/images/{path}"):
            with pytest.raises(BadRequestError, match="is not in the server's --image-dir"):
                images.read(location)
    for location in (
        "file:///%2e%2e/secret.png",
        f"file://{home}/images/%2e%2e/secret.png",
        "/dev/zero",
        "/etc",
    ):
        with pytest.raises(BadRequestError, match="is not in the server's --image-dir"):
            images.read(location)
    for location in ("https://a.b/c.png", "file://host/c.png", "smb://host/c.png"):
        with pytest.raises(BadRequestError, match="nothing is fetched"):
            images.read(location)
    for location in ("a\0.png", "file:///%00", "http://[", "x" * 300):
        with pytest.raises(BadRequestError):
            images.read(location)
    with pytest.raises(BadRequestError, match="over 4096 characters"):
        images.read("a/" * 10**6)
    for location in ("no.png", "cats", "", ".", "cats/a b.png/x"):
        with pytest.raises(NotFoundError, match="no image"):
            images.read(location)


def test_links_are_followed_within_it_alone(home: Path) -> None:
    images = ImageDirectory(home / "images")
    links = {
        "in.png": home / "images" / "cats" / "a b.png",
        "out.png": home / "secret.png",
        "up": home,
        "gone.png": home / "nothing.png",
        "loop.png": home / "images" / "loop.png",
        "chain.png": home / "images" / "out.png",
    }
    for name, target in links.items():
        (home / "images" / name).symlink_to(target)
    assert images.read("in.png") == DATA
    assert images.read("up/images/in.png") == DATA
    for name in ("out.png", "up/secret.png", "gone.png", "chain.png", "up/images-too/dog.png", "up/x"):
        with pytest.raises(BadRequestError, match="is not in the server's --image-dir"):
            images.read(name)
    with pytest.raises(NotFoundError):
        images.read("loop.png")
    (home / "link").symlink_to(home / "images")
    assert ImageDirectory(home / "link").read("in.png") == DATA


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_what_is_no_regular_file_is_not_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ImageDirectory(home / "images")
    os.mkfifo(home / "images" / "pipe.png")
    with pytest.raises(NotFoundError, match="no image"):
        images.read("pipe.png")
    with monkeypatch.context() as patch:  # it took a file's place since somebody looked
        patch.setattr(Path, "is_file", lambda path: True)
        with pytest.raises(BadRequestError, match="no regular file"):
            images.read("pipe.png")


def test_files_that_cannot_be_used(home: Path) -> None:
    images, path = ImageDirectory(home / "images"), home / "images" / "huge.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert len(images.read("huge.png")) == MOST_BYTES + 1
    path.chmod(0)
    if not os.access(path, os.R_OK):
        with pytest.raises(BadRequestError, match="cannot be read: Permission denied"):
            images.read("huge.png")


def test_without_one_no_file_may_be_named(home: Path) -> None:
    for location in ("a.png", str(home / "secret.png"), (home / "secret.png").as_uri(), "/dev/zero"):
        with pytest.raises(BadRequestError, match="start it with --image-dir DIRECTORY"):
            ImageDirectory().read(location)
    with pytest.raises(BadRequestError, match="nothing is fetched"):
        ImageDirectory().read("https://a.b/c.png")
    with pytest.raises(BadRequestError, match="is no directory"):
        ImageDirectory(home / "secret.png")
