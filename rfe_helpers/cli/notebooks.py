"""`rfe doctor`, `rfe run` and `rfe solve`: whether notebooks can run here, and runs of them."""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from rfe_helpers import workbook
from rfe_helpers.cli import matrix, shared
from rfe_helpers.core import files
from rfe_helpers.errors import InputError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.notebooks import all_notebooks

if TYPE_CHECKING:
    from rfe_helpers.workbook.results import Summary


@shared.completing
def complete_notebook() -> list[str]:
    return [path.stem for path in all_notebooks()]


@click.command(cls=shared.Command, example="rfe doctor --install")
@click.option(
    "--install", is_flag=True, help="Install the packages that are missing, after asking."
)
@click.option("--yes", is_flag=True, help="Install without asking.")
@shared.json_option
def doctor(install: bool, yes: bool, as_json: bool) -> int:
    """Show what this machine has, what it lacks, and how to get it.

    --install gets missing packages with apt or dnf, as root or with sudo, and then shows what is
    still missing. The exit status is 1 if something that the notebooks need is missing.
    """
    if yes and not install:
        raise InputError("--yes needs --install")
    findings = workbook.doctor.examine()
    command = workbook.doctor.install_command(findings)
    if install and command:
        print(f"missing packages: {command}", file=sys.stderr)
        if yes or shared.confirmed("Install them?", "nothing was installed"):
            workbook.doctor.install("doctor", *["--json"] * as_json)
    stops = any(finding.stops for finding in findings)
    if as_json:
        shared.print_json({"ready": not stops, "install": command, "findings": findings})
        return int(stops)
    signs = {"ok": "✔", "warning": "!", "missing": "✘", "too old": "✘"}
    for finding in findings:
        word = "" if finding.status in ("ok", "warning") else f"{finding.status}: "
        print(f"{signs[finding.status]} {finding.name}: {word}{finding.detail}")
        if finding.remedy:
            print(f"    to do: {finding.remedy}")
    if command:
        print(f"\nAll missing packages at once: {command}")
    print("\nNot ready: see the lines with ✘." if stops else "\nReady.")
    return int(stops)


@click.command(cls=shared.Command, example='rfe run 20 -p packages "tmux vim-tiny"')
@click.argument("notebooks", nargs=-1, metavar="[NOTEBOOK]...", shell_complete=complete_notebook)
@click.option("--all", "everything", is_flag=True, help="Run every notebook, the long ones too.")
@shared.profile_option(
    "The release to work with; by default that of the lab, or sandbox.", default=None
)
@click.option(
    "-p",
    "--parameter",
    "parameters",
    type=(str, str),
    multiple=True,
    metavar="NAME VALUE",
    help="Set a parameter in the notebooks that have it; may be repeated.",
)
@click.option(
    "--keep-going", is_flag=True, help="After a failure, run the notebooks that do not need it."
)
@click.option("--exercises", is_flag=True, help="Do the exercises, too, with their solutions.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, writable=True, path_type=Path),
    metavar="DIR",
    help="Copy report, summary and executed notebooks to DIR.",
)
@click.option(
    "--junit",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the result as JUnit XML.",
)
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write a summary as Markdown.",
)
@matrix.options
@shared.json_option
@shared.lab_option
def run(
    notebooks: tuple[str, ...],
    everything: bool,
    profile: str | None,
    parameters: tuple[tuple[str, str], ...],
    keep_going: bool,
    exercises: bool,
    out: Path | None,
    junit: Path | None,
    markdown: Path | None,
    axes: tuple[str, ...],
    scheduler: str,
    workers: int | None,
    as_json: bool,
    directory: str,
) -> int:
    """Run notebooks without a browser.

    A NOTEBOOK is 20, 20-build-a-commit, one that `rfe new` made, or a path. Without one, those
    that every reader takes are run, 00 to 60 and 90.
    """
    headless = workbook.headless
    if everything and notebooks:
        raise InputError("--all and names of notebooks do not go together")
    own = shared.own_notebooks(directory)
    paths = all_notebooks() if everything else headless.find_notebooks(notebooks, own)
    # What cannot be written is said before the run, not after it.
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    for file in (junit, markdown):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    if axes:
        return matrix.run(
            axes,
            paths,
            directory,
            profile,
            dict(parameters),
            keep_going=keep_going,
            exercises=exercises,
            scheduler=scheduler,
            workers=workers,
            out=out,
            junit=junit,
            markdown=markdown,
            as_json=as_json,
        )
    matrix.require_axes(scheduler, workers)
    stream = sys.stderr if as_json else sys.stdout
    summary = headless.run_notebooks(
        paths,
        Lab(directory, profile),
        dict(parameters),
        lambda line: shared.print_inert(line, stream),
        keep_going=keep_going,
        solve=exercises,
    )
    from rfe_helpers.workbook import markdown as markdown_text

    _write_results(summary, out, junit, markdown)
    if as_json:
        shared.print_json(summary.to_json())
    status = _status(summary, stream)
    _annotate(summary)
    shared.append_to_job_summary(lambda most: markdown_text.render(summary, most))
    return status


def _write_results(
    summary: Summary, out: Path | None, junit: Path | None, markdown: Path | None
) -> None:
    """Write the files that the options ask for."""
    if out is not None:
        shutil.copytree(summary.directory, out, dirs_exist_ok=True)
    if junit is not None:
        from rfe_helpers.workbook import junit as junit_xml

        junit_xml.write(summary, junit)
    if markdown is not None:
        from rfe_helpers.workbook import markdown as markdown_text

        files.write(markdown, markdown_text.render(summary))


def _annotate(summary: Summary) -> None:
    """In GitHub Actions: an annotation for each failure. On stderr, as what `_status` explains: of
    two streams GitHub would take lines in any order."""
    if shared.in_github_actions():
        from rfe_helpers.workbook import github

        for line in github.workflow_commands(summary):
            print(line, file=sys.stderr, flush=True)


@click.command(cls=shared.Command, example="rfe solve 40")
@click.argument("notebook", shell_complete=complete_notebook)
@shared.lab_option
def solve(notebook: str, directory: str) -> int:
    """Bring a lab to the state after NOTEBOOK, such as 40: run the notebooks that are missing."""
    from rfe_helpers.workbook import solve

    summary = solve.solve(
        Lab(directory), notebook, None, lambda line: shared.print_inert(line, sys.stdout)
    )
    if summary is None:
        print(f"nothing to do: the lab is already as it is after notebook {notebook}")
        return 0
    return _status(summary, sys.stdout)


def _status(summary: Summary, stream: TextIO) -> int:
    """Say how a run ended, a failure and the end of its log last; returns the exit status."""
    for reason, results in itertools.groupby(summary.notebooks, lambda result: result.reason):
        if reason:
            names = ", ".join(result.name for result in results)
            print(f"not run: {names} ({reason})", file=stream)
    print(f"{summary.status}: {summary.report}", file=stream, flush=True)
    for result in summary.notebooks:
        if result.failure is not None:
            shared.print_inert(result.explanation(), sys.stderr)
    return {"passed": 0, "interrupted": 130}.get(summary.status, 1)
