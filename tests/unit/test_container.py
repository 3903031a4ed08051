"""The files around the container image hold to their formats, and name what is there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("github-workflows", ".github/workflows/image.yml"),
        ("gitlab-ci", ".gitlab-ci.yml"),
        ("compose-spec", "container/compose.yaml"),
    ],
)
def test_workflows_and_compose_fit_their_schemas(schema: str, path: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", f"--builtin-schema=vendor.{schema}"]
    result = subprocess.run([*check, ROOT / path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "path", [".github/workflows/image.yml", ".gitlab-ci.yml", "container/compose.yaml"]
)
def test_they_use_the_image_that_make_image_makes(path: str) -> None:
    (name,) = re.findall(r"^IMAGE \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert name in (ROOT / path).read_text()
    assert name in (ROOT / "container/build").read_text()
    assert name in (ROOT / "container/rfe-workbook.container").read_text()
    assert name in (ROOT / ".devcontainer/devcontainer.json").read_text()


def test_the_dev_container_mounts_the_lab_as_the_image_has_it() -> None:
    description = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert description["mounts"] == ["source=rfe,target=/lab,type=volume"]
    assert "VOLUME /lab" in (ROOT / "container/build").read_text()
    assert description["remoteUser"] == "rfe"


@pytest.mark.parametrize("name", ["build", "finish"])
def test_the_scripts_are_posix_shell(name: str) -> None:
    result = subprocess.run(["dash", "-n", ROOT / "container" / name], capture_output=True)
    assert (result.returncode, result.stderr) == (0, b"")
