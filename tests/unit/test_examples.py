"""The examples that need no lab, and what holds for all of them.

Lines with `# doctest: +SKIP` are those that no test runs, and SKIPPED has why; mypy checks that
their names exist and that their arguments fit.
"""

import doctest
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import examples

import rfe_helpers

BUILDS = "it composes, installs or builds for minutes"
CHANGES = "it changes the machine that other tests use"
FETCHES = "it downloads what is not in the cache"
NEEDS_RHEL = "it needs an image of RHEL"
NEEDS_MACHINE_OFF = "it needs a machine that is off, and takes minutes"
# What mypy says of an argument of another type than the annotation.
ARGUMENT = "[arg-type]"
# The docstrings with lines that no test runs, and why.
SKIPPED = {
    "rfe_helpers": "~/rfe-lab is the lab of who runs the tests",
    "rfe_helpers.Node": CHANGES,
    "rfe_helpers.build.fill_cache": FETCHES,
    "rfe_helpers.build.remote.start_guest": BUILDS,
    "rfe_helpers.compose": BUILDS,
    "rfe_helpers.fleet.application.build": BUILDS,
    "rfe_helpers.fleet.move_timer": CHANGES,
    "rfe_helpers.fleet.layers.measure": BUILDS,
    "rfe_helpers.imagemode.build_image": BUILDS,
    "rfe_helpers.imagemode.lint": BUILDS,
    "rfe_helpers.install.download.fetch_media": FETCHES,
    "rfe_helpers.install.media.IsoCommit": BUILDS,
    "rfe_helpers.machine.guest.start": NEEDS_RHEL,
    "rfe_helpers.machine.install": BUILDS,
    "rfe_helpers.prove.Proof": NEEDS_MACHINE_OFF,
    "rfe_helpers.prove.interruptions.rounds": NEEDS_MACHINE_OFF,
    "rfe_helpers.prove.powerloss.check": NEEDS_MACHINE_OFF,
    "rfe_helpers.room": "it starts a hub, with seats of an image that takes minutes to build",
    "rfe_helpers.workbook.headless.run_notebooks": BUILDS,
}
TESTS = {test.name: test for test in examples.tests()}
QUICK = [name for name, test in TESTS.items() if not examples.parts_of(test)]


@pytest.mark.parametrize("name", QUICK)
def test_the_output_is_what_the_docstring_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = examples.failures(TESTS[name], {})
    assert not report, report


@pytest.mark.parametrize("name", TESTS)
def test_an_example_uses_the_parts_of_a_lab_and_what_it_imports(name):
    assert examples.parts_of(TESTS[name]) <= examples.PARTS


def test_the_docstring_of_the_package_says_what_the_parts_of_a_lab_are():
    text = (rfe_helpers.__doc__ or "").partition("parts of a lab")[2]
    assert set(re.findall(r"^    (\w+) {2,}\S", text, re.MULTILINE)) == examples.PARTS


@pytest.mark.parametrize("name", examples.faces())
def test_every_function_and_class_of_a_face_has_an_example(name):
    face = importlib.import_module(name)
    documented = [each for each in face.__all__ if examples.is_documented(getattr(face, each))]
    assert [each for each in documented if ">>> " not in inspect.getdoc(getattr(face, each))] == []


def test_what_notebooks_call_of_a_module_has_an_example():
    cells = [
        "".join(cell["source"])
        for path in sorted((examples.ROOT / "notebooks").glob("*.ipynb"))
        for cell in json.loads(path.read_text())["cells"]
    ]
    called = set(re.findall(r"\b(\w+\.\w+)\(", "\n".join(cells)))
    modules = {
        name: getattr(importlib.import_module(face), name)
        for face in examples.faces()
        for name in importlib.import_module(face).__all__
    }
    without = [
        f"{name}.{inner}"
        for name, module in modules.items()
        if inspect.ismodule(module) and module.__name__ not in examples.faces()
        for inner, thing in examples.members(module)
        if f"{name}.{inner}" in called and ">>> " not in (inspect.getdoc(thing) or "")
    ]
    assert without == []


def skipped_lines(test: doctest.DocTest) -> list[doctest.Example]:
    return [example for example in test.examples if examples.is_skipped(example)]


def test_the_examples_that_no_test_runs_are_these():
    assert {name for name, test in TESTS.items() if skipped_lines(test)} == set(SKIPPED)


def problems(programs: Mapping[str, str], directory: Path) -> list[str]:
    """What mypy says about programs by name."""
    for name, text in programs.items():
        (directory / f"example_{name.replace('.', '_')}.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", directory]
    variables = {**os.environ, "MYPYPATH": "tests"}
    checked = subprocess.run(
        command, cwd=examples.ROOT, env=variables, capture_output=True, text=True, timeout=600
    )
    # Fields of a Blueprint take more than they hold, which a dataclass cannot say.
    lines = (checked.stdout + checked.stderr).splitlines()
    return [line for line in lines if ARGUMENT not in line]


def test_what_is_not_run_could_be_run(tmp_path):
    """Its names exist, and its arguments fit."""
    programs = {name: examples.program(TESTS[name]) for name in SKIPPED}
    assert problems(programs, tmp_path) == []


def test_what_could_not_be_run_is_noticed(tmp_path):
    node = "from rfe_helpers import Lab, Node\nnode = Node(Lab('a'), 'edge-1', port=22)\n"
    programs = {
        "gate": node.replace("port=", "gate="),
        "restart": f"{node}node.restart()",
        "patience": f"{node}node.upgrade(patience=1)",
        "titles": f"{node}node.lab.profile.titles",
        "unknown": f"{node}unknown.stop()",
    }
    lines = problems(programs, tmp_path)
    for name in programs:
        assert any(f"{name}.py" in line and f'"{name}"' in line for line in lines), name
