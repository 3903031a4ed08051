"""What the project says about itself is true."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from support.command_line import parse

from rfe_helpers.cli import main, vm
from rfe_helpers.workbook.headless import all_notebooks, find_notebooks

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()


def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirement(text: str) -> str:
    """A requirement as conda and pip both write it."""
    return text.replace("matplotlib-base", "matplotlib").replace(" ", "")


def test_environment_yml_is_the_runtime_of_pyproject():
    lines = re.findall(r"^ *- (\S+)$", (ROOT / "environment.yml").read_text(), re.MULTILINE)
    listed = {requirement(line) for line in lines if re.match(r"[a-z]", line)}
    listed -= {"conda-forge", "pip", "pip:"}
    project = pyproject()["project"]
    python = f"python{project['requires-python']}"
    assert listed == {*map(requirement, project["dependencies"]), python}
    assert "- -e ." in (ROOT / "environment.yml").read_text()


def readme_commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`((?:rfe|make) [^`]+)`", README)
    commented = re.findall(r"# .*?; (rfe run [0-9 ]+) for", README)
    return [line for line in [*lines, *inline, *commented] if line]


@pytest.mark.parametrize("line", readme_commands())
def test_every_command_of_the_readme_is_one(line):
    words = shlex.split(line)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    elif words[0] == "rfe":
        context = parse(main.rfe, words[1:])
        if context.params.get("notebooks"):
            find_notebooks(context.params["notebooks"])
    elif words[0] == "export":
        script = f"{line}; command -v rfe"
        found = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
        assert found.stdout == f"{ROOT}/.venv/bin/rfe\n"
    elif words[0] == "vm":
        parse(vm.vm, words[1:])
    else:
        assert words[0] == "papermill"
        assert (ROOT / words[1]).is_file()


def test_the_readme_has_its_commands():
    assert {"make jupyter", "make workbook", "rfe run", "rfe doctor"} <= set(readme_commands())


def test_the_readme_lists_every_notebook_and_its_links_lead_somewhere():
    for path in all_notebooks():
        assert f"(notebooks/{path.name})" in README
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target


def test_help_of_make_lists_what_people_type():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("workbook", "jupyter", "test", "test-full", "doctor", "clean"):
        assert f"make {target} " in shown.stdout


@pytest.mark.parametrize("script", ["set-up", ".ci/run"])
def test_shell_scripts_parse_and_can_be_executed(script):
    subprocess.run(["sh", "-n", ROOT / script], check=True)
    assert (ROOT / script).stat().st_mode & 0o111


def test_set_up_has_nothing_to_do_where_everything_is_there():
    """It installs nothing here: the tests themselves need all of it."""
    result = subprocess.run(
        [ROOT / "set-up", "--dev"], capture_output=True, text=True, timeout=300, check=True
    )
    assert "installing" not in result.stderr


def test_no_file_names_a_registry_or_a_path_of_one_machine():
    forbidden = re.compile(
        r"https?://(deb|security|files)\.[a-z]|https?://pyp|https?://registry\.n|"
        r"\bdeb\.deb"
        r"ian\.org|pypi\.or"
        r"g|/wor"
        r"k/|/far"
        r"m/"
    )
    for name in TRACKED:
        path = ROOT / name
        if path.suffix in (".png", ".tar") or not path.is_file():
            continue
        found = forbidden.search(path.read_text(errors="replace"))
        assert found is None, f"{name}: {found}"


def test_files_stay_readable():
    for name in TRACKED:
        if name.endswith(".py") and (ROOT / name).is_file():
            assert len((ROOT / name).read_text().splitlines()) <= 650, name


def test_what_the_package_needs_at_run_time_is_in_it():
    patterns = pyproject()["tool"]["setuptools"]["package-data"]["rfe_helpers"]
    packaged = {p for pattern in patterns for p in (ROOT / "rfe_helpers").glob(pattern)}
    data = [
        ROOT / name
        for name in TRACKED
        if name.startswith("rfe_helpers/") and not name.endswith(".py") and (ROOT / name).is_file()
    ]
    assert [path for path in data if path not in packaged] == []
