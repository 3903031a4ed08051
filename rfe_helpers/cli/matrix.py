"""`rfe run --matrix`: notebooks in many combinations of profiles and parameters."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from rfe_helpers.cli import shared
from rfe_helpers.core import files
from rfe_helpers.errors import InputError, ParameterError
from rfe_helpers.lab.lab import Lab

options = shared.with_options(
    click.option(
        "--matrix",
        "axes",
        multiple=True,
        metavar="NAME=VALUE,VALUE...",
        help="Run every combination of these values of profile, architecture or parameters, each "
        "in a lab of its own; may be repeated. The same command continues what it has left.",
    ),
    click.option(
        "--scheduler",
        default="",
        metavar="ADDRESS",
        help="Run the matrix on the workers of this scheduler of Dask, such as tcp://host:8786.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        metavar="N",
        help="Run at most N combinations at a time; by default as many as fit in memory.",
    ),
)


def run(
    axes: Sequence[str],
    paths: Sequence[Path],
    directory: str,
    profile: str | None,
    parameters: Mapping[str, str],
    *,
    keep_going: bool,
    exercises: bool,
    scheduler: str,
    workers: int | None,
    out: Path | None,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
) -> int:
    """Run a matrix, print its table, and return the exit status."""
    from rfe_helpers.workbook.matrix import plan, report, runs

    parsed = plan.parse_axes(axes)
    if profile is not None and any(axis.name == "profile" for axis in parsed):
        raise ParameterError("profile is an axis of the matrix and given with --profile, too")
    flags = {"--keep-going": keep_going, "--exercises": exercises}
    chosen = [flag for flag, given in flags.items() if given]
    here = not scheduler
    # What is wrong is said before a lab is made.
    usual = profile or "sandbox"
    planned = plan.make_plan(parsed, paths, usual, parameters, chosen, here=here)
    lab = Lab(directory, profile)
    if lab.profile.name != usual:
        planned = plan.make_plan(parsed, paths, lab.profile.name, parameters, chosen, here=here)
    stream = sys.stderr if as_json else sys.stdout
    matrix = runs.run_matrix(
        planned,
        lab,
        lambda line: shared.print_inert(line, stream),
        scheduler=scheduler,
        workers=workers or 0,
    )
    if out is not None:
        report.copy(matrix, out)
    if junit is not None:
        report.write_junit(matrix, junit)
    if markdown is not None:
        files.write(markdown, report.render_markdown(matrix))
    if as_json:
        shared.print_json(matrix.to_json())
    shared.print_inert(str(report.table(matrix)), stream)
    print(f"{matrix.status}: {matrix.report}", file=stream, flush=True)
    shared.append_to_job_summary(lambda most: report.render_markdown(matrix, most))
    return {"passed": 0, "interrupted": 130}.get(matrix.status, 1)


def require_axes(scheduler: str, workers: int | None) -> None:
    """Refuse options that only a matrix has."""
    if scheduler or workers:
        raise InputError("--scheduler and --workers need --matrix")
