"""`rfe blueprint`, `rfe compose` and `rfe sources` with the sandbox's service."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sandbox_service import ARTIFACT, Running

from rfe_helpers.build import parse_toml
from rfe_helpers.cli import main
from rfe_helpers.lab.lab import Lab

Rfe = Callable[..., str]


@pytest.fixture
def rfe(builder_lab: Lab, capsys: pytest.CaptureFixture[str]) -> Rfe:
    """Run a command with the lab; returns what it prints. `status` is the one that it must have."""

    def command(*words: str | Path, status: int = 0) -> str:
        capsys.readouterr()
        ended = main.main([*map(str, words), "--lab", str(builder_lab.directory)])
        told = capsys.readouterr()
        assert ended == status, told.err
        return told.err if status else told.out

    return command


def as_json(text: str) -> Any:
    return json.loads(text)


def blueprint_file(directory: Path, package: str, version: str = "0.0.1") -> Path:
    path = directory / f"{package}.toml"
    path.write_text(f'name = "edge"\nversion = "{version}"\n[[packages]]\nname = "{package}"\n')
    return path


def test_a_blueprint_is_stored_shown_and_deleted(rfe: Rfe, tmp_path: Path) -> None:
    assert rfe("blueprint", "push", blueprint_file(tmp_path, "tmux")) == "edge 0.0.1 is stored\n"
    assert rfe("blueprint", "list") == "edge\n"
    assert as_json(rfe("blueprint", "list", "--json")) == ["edge"]
    shown = parse_toml(rfe("blueprint", "show", "edge"))
    assert [package.name for package in shown.packages] == ["tmux"]
    assert as_json(rfe("blueprint", "show", "edge", "--json"))["packages"][0]["name"] == "tmux"
    packages = rfe("blueprint", "depsolve", "edge").splitlines()
    assert "tmux-3.5a-3.x86_64" in packages
    assert len(as_json(rfe("blueprint", "depsolve", "edge", "--json"))) == len(packages)
    assert parse_toml(rfe("blueprint", "freeze", "edge")).packages[0].version.startswith("3.5a-3")
    assert rfe("blueprint", "delete", "edge") == "deleted edge\n"
    assert as_json(rfe("blueprint", "list", "--json")) == []
    assert "UnknownBlueprint" in rfe("blueprint", "show", "edge", status=1)


def test_the_history_of_a_blueprint_is_listed_tagged_and_undone(rfe: Rfe, tmp_path: Path) -> None:
    rfe("blueprint", "push", blueprint_file(tmp_path, "tmux"))
    assert rfe("blueprint", "tag", "edge") == "tagged edge\n"
    rfe("blueprint", "push", blueprint_file(tmp_path, "vim-tiny", "0.0.2"))
    newest, oldest = as_json(rfe("blueprint", "history", "edge", "--json"))
    assert (newest["revision"], oldest["revision"]) == (None, 1)
    head, _, *rows = rfe("blueprint", "history", "edge").splitlines()
    assert head.split() == ["commit", "timestamp", "revision", "message"]
    assert [row.split()[0] for row in rows] == [newest["commit"], oldest["commit"]]
    before = parse_toml(rfe("blueprint", "show", "edge", "--commit", oldest["commit"]))
    assert before.packages[0].name == "tmux"
    assert parse_toml(rfe("blueprint", "show", "edge")).packages[0].name == "vim-tiny"
    assert oldest["commit"] in rfe("blueprint", "undo", "edge", oldest["commit"])
    assert parse_toml(rfe("blueprint", "show", "edge")).packages[0].name == "tmux"


def test_the_workspace_has_an_uncommitted_copy(rfe: Rfe, tmp_path: Path) -> None:
    rfe("blueprint", "push", blueprint_file(tmp_path, "tmux"))
    copy = blueprint_file(tmp_path, "vim-tiny")
    assert rfe("blueprint", "push", copy, "--workspace") == "edge is in the workspace\n"
    assert sorted(rfe("blueprint", "diff", "edge").splitlines()) == ["+ vim-tiny", "- tmux"]
    assert [None, "vim-tiny"] in as_json(rfe("blueprint", "diff", "edge", "--json"))
    assert len(as_json(rfe("blueprint", "history", "edge", "--json"))) == 1
    assert "workspace" in rfe("blueprint", "delete", "edge", "--workspace")
    assert as_json(rfe("blueprint", "diff", "edge", "--json")) == []
    assert rfe("blueprint", "list") == "edge\n"


def test_a_compose_is_listed_downloaded_and_deleted(
    rfe: Rfe, service: Running, tmp_path: Path
) -> None:
    service.push("edge", packages=[{"name": "tmux", "version": "*"}])
    service.builder.open()
    compose = service.compose("edge")
    service.wait(compose, "FINISHED")
    head, _, row = rfe("compose", "list").splitlines()
    assert head.split()[:3] == ["id", "status", "blueprint"]
    assert row.split()[:3] == [compose, "FINISHED", "edge"]
    (listed,) = as_json(rfe("compose", "list", "--json"))
    assert (listed["id"], listed["type"]) == (compose, "edge-commit")
    first, *packages = rfe("compose", "show", compose).splitlines()
    assert first.endswith("edge-commit, FINISHED")
    assert "tmux-3.5a-3.x86_64" in packages
    assert as_json(rfe("compose", "show", compose, "--json"))["blueprint"]["name"] == "edge"
    assert "Stage: ostree.commit" in rfe("compose", "log", compose)
    path = Path(rfe("compose", "download", compose, "--to", tmp_path).splitlines()[-1])
    assert (path.parent, path.read_bytes()) == (tmp_path, ARTIFACT)
    tars = {}
    for part in ("results", "logs", "metadata"):
        told = rfe("compose", "download", compose, f"--{part}", "--to", tmp_path)
        with tarfile.open(told.splitlines()[-1]) as tar:
            tars[part] = tar.getnames()
    assert f"{compose}-commit.tar" in tars["results"]
    assert f"{compose}-commit.tar" not in tars["logs"] + tars["metadata"]
    assert rfe("compose", "delete", compose) == f"deleted {compose}\n"
    assert as_json(rfe("compose", "list", "--json")) == []
    for word in ("delete", "download", "show", "cancel"):
        told = rfe("compose", word, compose, status=1)
        assert "UnknownUUID" in told
        assert "to do: `rfe compose list` lists those that exist; one that has been" in told


def test_a_running_compose_is_canceled(rfe: Rfe, service: Running) -> None:
    service.push("edge")
    compose = service.compose("edge")
    service.wait(compose, "RUNNING")
    assert rfe("compose", "cancel", compose) == f"canceled {compose}\n"
    assert service.status(compose) == "FAILED"
    assert as_json(rfe("compose", "list", "--json"))[0]["status"] == "FAILED"


def test_sources_are_listed_added_and_deleted(rfe: Rfe, tmp_path: Path) -> None:
    key = tmp_path / "key.asc"
    armour = "PGP PUBLIC KEY BLOCK-----"
    key.write_text(f"-----BEGIN {armour}\n\nmDMEZ0bQ\n=abcd\n-----END {armour}\n")
    system = as_json(rfe("sources", "list", "--json"))
    assert all(source["system"] for source in system)
    add = ["sources", "add", "extra", "http://127.0.0.1:9/debian"]
    assert rfe(*add, "--no-check-gpg", "--gpg-key", key) == "added extra\n"
    (extra,) = (s for s in as_json(rfe("sources", "list", "--json")) if not s["system"])
    assert (extra["url"], extra["check_gpg"]) == ("http://127.0.0.1:9/debian", False)
    assert (extra["name"], extra["gpgkeys"]) == ("extra", [key.read_text()])
    assert "http://127.0.0.1:9/debian" in rfe("sources", "list")
    assert rfe("sources", "delete", "extra") == "deleted extra\n"
    assert as_json(rfe("sources", "list", "--json")) == system
    assert "SystemSource" in rfe("sources", "delete", system[0]["id"], status=1)
    assert "No such file" in rfe(*add, "--gpg-key", tmp_path / "gone", status=1)


@pytest.mark.parametrize("words", [["blueprint", "list"], ["compose", "list"], ["sources", "list"]])
def test_a_lab_is_not_made_by_asking_its_image_builder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main.main([*words, "--lab", str(tmp_path / "none")]) == 1
    assert "there is no lab in" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
