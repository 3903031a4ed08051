"""A registry of images, and a repository that pulls from it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.image_repository import ImageStore
from support.images import ImageServer, image_server, trust


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageServer]:
    monkeypatch.setattr("edge.image_proxy.HOME", str(tmp_path / "home"))
    with image_server() as served:
        trust(tmp_path / "home", served)
        yield served


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    path = tmp_path / "repo"
    subprocess.run(["ostree", "init", f"--repo={path}", "--mode=bare"], check=True)
    return ImageStore(path)
