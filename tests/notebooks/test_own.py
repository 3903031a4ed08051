"""`rfe new`: the user's own notebooks run headless and under nbval, and are never overwritten."""

import os
import subprocess
import sys

import nbformat
import pytest
from support.command_line import RFE, rfe

from rfe_helpers.errors import InputError, ParameterError
from rfe_helpers.workbook import notebooks, own, rules
from rfe_helpers.workbook.headless import find_notebooks

pytestmark = pytest.mark.timeout(300)


def test_a_new_notebook_keeps_the_rules_runs_with_its_exercise_and_under_nbval(lab, tmp_path):
    made = rfe("new", "our-image", "--lab", str(lab.directory))
    path = lab.directory / "notebooks" / "our-image.ipynb"
    assert (made.returncode, made.stderr) == (0, "")
    first, run, check = made.stdout.splitlines()
    assert first == str(path)
    assert path in notebooks.own_notebooks(lab)
    title = nbformat.read(path, as_version=4).cells[0].source
    assert title.startswith("# Our image\n")
    assert "`rfe run our-image.ipynb`" in title

    for line in (f"{run} --exercises", check):
        words = line.split()
        assert words[0] == "rfe"
        result = subprocess.run([*RFE, *words[1:]], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr

    nbval = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", path]
    result = subprocess.run(
        nbval, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


def test_a_path_makes_a_notebook_there(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "our notes").mkdir()
    path = own.create(lab, "./our notes/../Über_uns")
    assert path.resolve() == tmp_path / "Über_uns.ipynb"
    assert "# Über uns\n" in nbformat.read(path, as_version=4).cells[0].source
    assert own.create(lab, "a.ipynb") == tmp_path / "a.ipynb"
    assert rules.violations(path) == []


def test_a_name_is_looked_up_among_the_notebooks_of_the_lab(lab, tmp_path, monkeypatch):
    path = own.create(lab, "our-image")
    folder = lab.directory / "notebooks"
    for name in ("our-image", "our-image.ipynb"):
        assert find_notebooks([name, "20"], folder)[0] == path
        checked = rfe("check", name, "--lab", str(lab.directory))
        assert (checked.returncode, checked.stdout) == (0, f"✔ {path}\n")
    ran = rfe("run", "our-image", "-p", "no_such", "1", "--lab", str(lab.directory))
    assert "no_such" in ran.stderr
    with pytest.raises(ParameterError) as caught:
        find_notebooks(["../notebooks/our-image"], folder)
    assert caught.value.remedy.endswith(", or a path")
    monkeypatch.chdir(tmp_path)
    title = nbformat.read(own.create(lab, "our image.ipynb"), as_version=4).cells[0].source
    assert "`rfe run 'our image.ipynb'`" in title


def test_what_is_there_stays_as_it_is(lab, tmp_path):
    path = own.create(lab, "our-image")
    path.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        own.create(lab, "our-image")
    assert path.read_text() == "mine"
    link = tmp_path / "link.ipynb"
    link.symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="is there already"):
        own.create(lab, str(link))


@pytest.mark.parametrize("name", ["", " ", "20-build-a-commit", "-x", "a b", "a\n", "x" * 200])
def test_a_name_that_is_none_is_refused(lab, name):
    with pytest.raises(InputError, match="is not the name of a notebook of your own") as caught:
        own.create(lab, name)
    assert "begin with a letter" in caught.value.remedy


@pytest.mark.parametrize("name", ["/nowhere/x.ipynb", "/proc/x.ipynb", f"{'x' * 300}.ipynb"])
def test_a_place_that_cannot_be_written_is_named(lab, name):
    with pytest.raises(InputError, match="cannot make") as caught:
        own.create(lab, name)
    assert caught.value.remedy
