"""What all commands have in common: examples, --lab, and how errors are printed."""

import errno
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from support import sandbox_service
from support.command_line import commands, parse

from rfe_helpers.cli import main, shared, vm


def test_the_message_of_an_error_is_no_command_for_github(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main.main(["commit", "show", str(tmp_path / "a\n::add-mask::e")]) == 1
    first, *lines, last = capsys.readouterr().err.splitlines()
    assert first.startswith("::stop-commands::")
    assert "::add-mask::e" in "\n".join(lines)
    assert last == f"::{first.rpartition(':')[2]}::"


@pytest.mark.parametrize("line", [main.rfe, vm.vm], ids=["rfe", "vm"])
def test_every_page_of_help_has_an_example_that_is_a_command(line: click.Command) -> None:
    """Those of groups, too."""
    pages = dict(commands(line))
    assert len(pages) > 40 or line is vm.vm
    for words in pages:
        page = CliRunner().invoke(line, [*words, "--help"], prog_name=line.name)
        assert page.exit_code == 0
        example = page.output.partition("\nExample:\n  ")[2].partition("\n")[0]
        assert shlex.split(example)[: len(words) + 1] == [line.name, *words], words
        parse(line, shlex.split(example)[1:])


@pytest.mark.parametrize("words", [["lab", "show"], ["sandbox", "start"], ["solve", "10"]])
def test_an_empty_lab_is_wrong_usage_and_not_the_current_directory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for empty in ("", " "):
        with pytest.raises(SystemExit) as ended:
            main.main([*words, "--lab", empty])
        assert ended.value.code == 2
        assert "for the current directory write ." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_variable_is_as_if_it_were_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RFE_LAB", "")
    assert main.main(["lab", "show"]) == 1
    assert f"there is no lab in {tmp_path}/home/rfe-lab" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "rfe: the disk of {0} is full ("),
        (errno.EDQUOT, "rfe: the disk of {0} is full ("),
        (errno.EACCES, "rfe: {0}/x: Permission denied\n"),
    ],
)
def test_errors_of_the_operating_system_name_the_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int, said: str
) -> None:
    @click.command(cls=shared.Command, example="rfe")
    def fails() -> None:
        raise OSError(number, "Permission denied", str(tmp_path / "x"))

    assert shared.run_line(fails, "rfe", []) == 1
    assert capsys.readouterr().err.startswith(said.format(tmp_path))


def test_a_package_that_does_not_exist_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = sandbox_service.debian_repository(tmp_path / "debian")
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RFE_DEBIAN_MIRROR", sources)
    assert main.main(["cache", "tmux", "nosuchpkg", "tmuxx"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("rfe: Debian 13 has no package nosuchpkg, tmuxx")
