"""What the project says about itself is true."""

import ast
import doctest
import json
import re
import shlex
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support import commands
from support.command_line import parse

import rfe_helpers
from rfe_helpers.cli import main, vm
from rfe_helpers.workbook.headless import find_notebooks
from rfe_helpers.workbook.notebooks import all_notebooks

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))
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
    # A condition is on a Python that conda does not install.
    always = [text for text in project["dependencies"] if ";" not in text]
    assert listed == {*map(requirement, always), python}
    assert "- -e ." in (ROOT / "environment.yml").read_text()


def readme_commands() -> list[str]:
    """The commands of README.md and docs/*.md: in blocks of no named language, and in the text."""
    text = "\n".join([README, *(path.read_text() for path in DOCS)])
    fences = re.findall(r"^```(.*)\n([\s\S]*?)^```$", text, re.MULTILINE)
    blocks = [block for language, block in fences if not language]
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`((?:rfe|make) [^`]+)`", text)
    commented = re.findall(r"# .*?; (rfe run [0-9 ]+) for", text)
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
    elif words[0] == "pipx":
        assert words[1] in ("install", "upgrade")
        assert words[2:] == [pyproject()["project"]["name"]]
    elif words[:2] == ["podman", "run"]:
        (image,) = re.findall(r"^IMAGE \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        command = words[words.index(image) + 1 :]
        assert not command or parse(main.rfe, command)
    elif words[0] == "./set-up":
        assert words[1] in (ROOT / "set-up").read_text()
    else:
        assert words[0] == "papermill"
        assert (ROOT / words[1]).is_file()


def test_the_readme_has_its_commands():
    assert {"make jupyter", "make workbook", "rfe run", "rfe doctor"} <= set(readme_commands())


def test_the_readme_lists_every_notebook_and_every_guide():
    for path in all_notebooks():
        assert f"(notebooks/{path.name})" in README
    for name in ("trainers", "ci", "rhel", "sandbox", "clients", "figures"):
        assert f"(docs/{name}.md)" in README


def test_the_page_of_the_package_stands_alone():
    """On the index no file of the clone is beside it, and no address of the clone is known."""
    path = ROOT / pyproject()["project"]["readme"]
    assert re.findall(r"\]\(|!\[|<img", path.read_text()) == []


def test_the_changelog_has_a_heading_for_each_release():
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    releases = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+) \((\d{4}-\d\d-\d\d)\)", h) for h in headings[1:]]
    assert all(releases), headings
    versions = [tuple(map(int, release.groups()[:3])) for release in releases if release]
    assert versions == sorted(set(versions), reverse=True)
    dates = [release[4] for release in releases if release]
    assert dates == sorted(dates, reverse=True)


def test_licences_of_what_is_shipped_are_listed_and_their_texts_packaged():
    vendor = ROOT / "rfe_helpers/workbook/static/vendor"
    table = (ROOT / "THIRD-PARTY.md").read_text()
    versions = json.loads((vendor / "package.json").read_text())["dependencies"].values()
    assert all(f"| {version} |" in table for version in versions)
    texts = {*vendor.rglob("LICENSE*"), *vendor.rglob("AUTHORS")}
    assert {path.parent.name for path in texts} == {"novnc", "pako", "xterm"}
    project = pyproject()["project"]
    assert texts <= {path for glob in project["license-files"] for path in ROOT.glob(glob)}
    for path in texts:
        assert f"`{path.relative_to(vendor)}`" in table
    licences = set(project["license"].split(" AND "))
    assert licences == {"Apache-2.0", *re.findall(r"\| ([A-Z]+(?:-[\w.]+)*)(?:,[^|]*)? \|", table)}


def test_the_readme_fits_a_screen_and_a_half():
    assert len(README.splitlines()) <= 75


@pytest.mark.parametrize(
    "path",
    [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")), *DOCS],
    ids=lambda path: path.name,
)
def test_links_and_files_that_are_named_lead_somewhere(path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (path.parent / target).exists(), target
    for name in re.findall(r"`((?:rfe_helpers|tests|benchmarks|notebooks|docs)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name


def test_the_ten_lines_of_the_readme_are_those_of_the_package():
    (readme,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    lines = doctest.DocTestParser().get_examples(rfe_helpers.__doc__ or "")
    code = "".join(line.source for line in lines)
    assert ast.dump(ast.parse(readme)) == ast.dump(ast.parse(code))


def test_help_of_make_lists_what_people_type():
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("workbook", "jupyter", "test", "test-full", "doctor", "clean"):
        assert f"make {target} " in shown.stdout


@pytest.mark.parametrize("script", ["set-up", ".ci/run", "rfe_helpers/workbook/install-packages"])
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
    (limit,) = re.findall(r"iles \w+ at most (\d+)\s+lines", CONTRIBUTING)
    assert limit == "500"
    sources = [ROOT / name for name in TRACKED if name.endswith(".py")]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in sources
        if path.is_file()
    }
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}


def test_ruff_checks_the_length_of_functions_that_is_stated():
    (limit,) = re.findall(r"at most (\d+)\s+statements", CONTRIBUTING)
    assert pyproject()["tool"]["ruff"]["lint"]["pylint"]["max-statements"] == int(limit)


def test_what_the_package_needs_at_run_time_is_in_it():
    patterns = pyproject()["tool"]["setuptools"]["package-data"]["rfe_helpers"]
    packaged = {p for pattern in patterns for p in (ROOT / "rfe_helpers").glob(pattern)}
    data = [
        ROOT / name
        for name in TRACKED
        if name.startswith("rfe_helpers/") and not name.endswith(".py") and (ROOT / name).is_file()
    ]
    assert [path for path in data if path not in packaged] == []


# What runs somewhere else: in the tree that is being built, in the installed system.
ELSEWHERE = (
    "sandbox/guest/root/",
    "sandbox/installer/edge_installer/",
    "sandbox/build/inside",
    "sandbox/build/customize.py",
    "fleet/on_device/",
)
ALWAYS_THERE = {
    commands.PYTHON: "it runs the package",
    "sh": "POSIX",
    "cp": "coreutils",
    "tar": "tar: Essential in Debian, and in every installation of Fedora",
    "flock": "util-linux, for which the table has setpriv",
    "unshare": "util-linux, for which the table has setpriv",
    "mkksiso": "of RHEL's lorax; where it is missing, xorriso does its work",
}


def package_modules() -> dict[Path, ast.Module]:
    """The modules that run on the reader's machine, by path within the package."""
    package = ROOT / "rfe_helpers"
    paths = [path.relative_to(package) for path in sorted(package.rglob("*.py"))]
    return {
        path: ast.parse((package / path).read_text())
        for path in paths
        if not str(path).startswith(ELSEWHERE)
    }


def test_every_command_that_the_package_starts_is_in_the_table_of_tools():
    modules = package_modules()
    del modules[Path("core/run.py")]  # it starts what others give it
    started, unknown = commands.started(modules)
    # The doctor asks each tool of the table for its version; Ignition is unpacked from its package.
    known = ("workbook/doctor.py:", "sandbox/build/ignition.py:")
    assert {place for place in unknown if not place.startswith(known)} == set()
    rows = (ROOT / "rfe_helpers/workbook/tools.tsv").read_text().splitlines()
    probes = {name for row in rows for name in row.split("\t")[0].split("|") if row[:1] != "#"}
    missing = {
        command: sorted(places)
        for command, places in started.items()
        if command not in ALWAYS_THERE and not any(fnmatch(probe, command) for probe in probes)
    }
    assert missing == {}
    assert set(ALWAYS_THERE) <= set(started)


def test_the_reader_of_commands_follows_names_parameters_and_calls():
    source = """
FIXED = ("ostree", "log")
def _pulled(argv):
    run.run([*argv, "x"])
def pull(first):
    _pulled(["skopeo", first])
    words = [] if first else list(FIXED)
    run.start(words + ["y"])
    run.run(wait_argv())
    run.require(*first)
    run.require("podman", next(name for name in ("nft", "pasta") if name))
    run.run([f"qemu-{first}"])
def wait_argv():
    return ["flock", "z"]
"""
    started, unknown = commands.started({Path("m.py"): ast.parse(source)})
    assert set(started) == {"ostree", "skopeo", "flock", "podman", "nft", "pasta", "qemu-*"}
    assert started["skopeo"] == {"m.py:4"}
    assert unknown == {"m.py:10"}


def test_a_class_has_a_name_of_its_own():
    package = ROOT / "rfe_helpers"
    places: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        name = str(path.relative_to(package))
        if name.startswith("sandbox/guest/"):  # another machine: the installed system
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(f"{name}:{node.lineno}")
    assert len(places) > 100
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_folder_of_tests_is_passed_over():
    """pytest leaves out folders of some names, such as build, unless it is told otherwise."""
    patterns = pyproject()["tool"]["pytest"]["ini_options"]["norecursedirs"]
    folders = {part for name in TRACKED if name.startswith("tests/") for part in Path(name).parts}
    assert "build" in folders
    assert [f for f in folders for p in patterns if fnmatch(f, p)] == []
