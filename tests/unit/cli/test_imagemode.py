"""`rfe imagemode`, with files as people have them."""

import json
from pathlib import Path

import pytest

from rfe_helpers.cli import main

BLUEPRINT = """\
name = "edge"
[[packages]]
name = "tmux"
[customizations]
fips = true
[[customizations.files]]
path = "/etc/motd"
data = "hello"
"""


@pytest.fixture
def edge(tmp_path: Path) -> str:
    path = tmp_path / "edge.toml"
    path.write_text(BLUEPRINT)
    return str(path)


def test_the_containerfile_is_printed_and_what_is_missing_is_said(
    edge: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["imagemode", "containerfile", edge, "--profile", "rhel-10.1"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1:3] == [
        "FROM registry.redhat.io/rhel10/rhel-bootc:10.1",
        "LABEL containers.bootc=1",
    ]
    assert out.endswith("RUN bootc container lint\n")
    assert err.startswith("customizations.fips: ")
    assert "--output DIRECTORY" in err


def test_the_context_is_written_once(
    edge: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "image"
    words = ["imagemode", "containerfile", edge, "--output", str(target), "--base", "localhost/x"]
    assert main.main(words) == main.main(words) == 0
    out, err = capsys.readouterr()
    assert out == f"{target}: Containerfile and 1 other file\n" * 2
    assert "--output" not in err
    assert "FROM localhost/x\n" in (target / "Containerfile").read_text()
    assert (target / "rootfs/etc/motd").read_text() == "hello"
    (target / "mine").write_text("x")
    assert main.main(words) == 1
    assert "is not empty, and nothing in it was changed\nto do: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        (None, [], "cannot read"),
        ("name = ", [], "this is not TOML"),
        ("name = 1", [], "name must be a string"),
        ("\0", [], "it is not text"),
        (BLUEPRINT, ["--base", "a b"], "is not the name of an image"),
        (BLUEPRINT, ["--profile", "rhel-8.10"], "has no image mode"),
        (BLUEPRINT, ["--profile", "nonsense"], "unknown profile"),
    ],
)
def test_bad_input_is_one_message(
    text: str | None,
    words: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "edge.toml"
    if text is not None:
        path.write_text(text)
    assert main.main(["imagemode", "containerfile", str(path), *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rfe: ")
    assert told in err
    assert "Traceback" not in err


def test_the_plan_is_numbered_steps_or_json(edge: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["imagemode", "plan", edge, "--profile", "rhel-9.7"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1. Translate the blueprint\n    rfe imagemode containerfile ")
    assert "\n\n2. " in out
    assert main.main(["imagemode", "plan", edge, "--profile", "rhel-9.7", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"title", "commands", "why", "source"} == set(listed[0])
    assert out.count("\n\n") == len(listed) - 1


def test_the_plan_needs_no_blueprint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["imagemode", "plan"]) == 0
    assert "sudo bootc switch 10.0.2.2:5000/edge/os:stable" in capsys.readouterr().out
    assert main.main(["imagemode", "plan", "/nowhere/edge.toml"]) == 1
    assert "cannot read /nowhere/edge.toml" in capsys.readouterr().err
