"""Headless runs of notebooks, with papermill.

This adds to papermill: parameters are checked before anything runs, progress is reported per cell,
executed copies are kept whatever happens, and outputs are scanned for secrets. A run leaves in
`<lab>/runs/<time>/`, to which `<lab>/runs/latest` points from its beginning:

    <notebook>.ipynb    the executed copy, up to the last cell that ran
    <notebook>.log      the output of its kernel
    summary.json        `Summary.to_json`
    report.html         a self-contained report (rfe_helpers.workbook.report)

While it runs it holds a lock on `<lab>/runs/lock`, which has its pid and the time of its beginning:
two runs in one lab would replace each other's machines.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from rfe_helpers.core import files, run
from rfe_helpers.core.masking import mask, secrets_in
from rfe_helpers.core.progress import OnProgress, Say, say
from rfe_helpers.core.units import elapsed
from rfe_helpers.errors import LabError, ParameterError, RfeError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import activity, engine, exercises, notebook_file, report
from rfe_helpers.workbook.chapters import FURTHER, LIFE_CYCLE, NEEDS, number_of
from rfe_helpers.workbook.notebooks import all_notebooks
from rfe_helpers.workbook.results import Failure, NotebookResult, Status, Summary

KERNEL = "python3"
_TAIL_BYTES = 8192
# Of the cell that failed: the last lines of what it has shown, and the last characters of those.
_OUTPUT_LINES, _OUTPUT_LENGTH = 60, 8192
_PAPERMILL_MARKER = "papermill-error-cell-tag"
# The facts of a run: the step that records each, and its name there.
_RECORDED = {
    "commit": ("commit", "commit"),
    "version": ("commit", "version"),
    "packages": ("commit", "packages"),
    "tree_bytes": ("inspect", "bytes"),
    "update": ("update", "commit"),
    "update_bytes": ("update", "update_bytes"),
    "reboot_seconds": ("update", "reboot_seconds"),
    "rollback_seconds": ("update", "rollback_seconds"),
}


def find_notebooks(names: Sequence[str] = (), own: Path | None = None) -> list[Path]:
    """The notebooks with these names: "20", "20-build-a-commit", a path, a step of the lab, or one
    in the directory `own`, which is that of a lab's notebooks.

    Without names, all but the optional ones, in order. Raises ParameterError for an unknown name,
    InputError for a file that is not a notebook.

    >>> from rfe_helpers.workbook import headless
    >>> [path.name for path in headless.find_notebooks(["20", "serve"])]
    ['20-build-a-commit.ipynb', '40-serve-the-commit.ipynb']
    """
    known = all_notebooks()
    if not names:
        return [path for path in known if number_of(path.name) not in FURTHER]
    return [_find_notebook(name, known, own) for name in names]


def _find_notebook(name: str, known: Sequence[Path], own: Path | None) -> Path:
    if name.endswith(".ipynb") and Path(name).is_file():
        return notebook_file.read(Path(name).absolute()).path
    # A step of the lab, as in the message of StepMissingError.
    number = next((number for number, _, step in LIFE_CYCLE if step == name), name)
    for path in known:
        if number in (path.name, path.stem, number_of(path.name)):
            return path
    if own is not None and name and "/" not in name:
        path = own.absolute() / f"{name.removesuffix('.ipynb')}.ipynb"
        if path.is_file():
            return notebook_file.read(path).path
    raise ParameterError(
        f"there is no notebook {name!r}",
        remedy=f"choose from: {', '.join(path.stem for path in known)}, or a path",
    )


def run_notebooks(
    notebooks: Sequence[Path],
    lab: Lab,
    parameters: Mapping[str, str] | None = None,
    on_progress: OnProgress = None,
    *,
    keep_going: bool = False,
    solve: bool = False,
) -> Summary:
    """Run notebooks one after the other in `lab`; the first that does not pass ends the run. With
    `keep_going`, those that need nothing of it are run nevertheless. With `solve`, exercises are
    done with their solutions, and one that stays open fails.

    `parameters` are texts that are converted to the types in the parameters cell of a notebook;
    each is passed to the notebooks that have it. Raises, before anything runs, ParameterError if
    no notebook has a parameter or if a value does not fit, and LabError while another run is in
    progress in the lab. Everything after that, including Ctrl-C, is reported in the Summary, which
    is on disk with the report when this returns.

    >>> from rfe_helpers.workbook import headless
    >>> notebooks = headless.find_notebooks(["20"])
    >>> summary = headless.run_notebooks(notebooks, lab, {"packages": "htop"})  # doctest: +SKIP
    >>> summary.status, summary.report  # doctest: +SKIP
    ('passed', PosixPath('/home/anna/rfe-lab/runs/2026-01-05T12-00-00/report.html'))
    """
    tell = say(on_progress)
    values = _values(notebooks, parameters or {}, lab)
    results: list[NotebookResult] = []
    with running(lab):
        started = datetime.now(UTC)
        directory = new_directory(lab.folder("runs"), started)
        began = time.monotonic()
        with closing(engine.Kernels(KERNEL, notebooks, directory)) as kernels:
            for number, (path, arguments) in enumerate(zip(notebooks, values, strict=True)):
                if obstacle := _obstacle(path, results, keep_going):
                    results.append(NotebookResult(path.stem, "not run", reason=obstacle, path=path))
                    continue
                tell(path.stem)
                activity.record(lab.directory, path.name, "running")
                executed = directory / path.name
                kernel = kernels.of(number)
                results.append(_run_one(path, executed, arguments, kernel, tell, solve))
                _note_end(lab, results[-1])
                tell(f"    {results[-1].status} in {elapsed(results[-1].seconds)}")
        summary = Summary(
            directory=directory,
            profile=lab.profile.name,
            started=started,
            seconds=time.monotonic() - began,
            notebooks=tuple(results),
            facts=_facts(lab, started),
        )
        files.write_json(directory / "summary.json", summary.to_json())
        files.write(summary.report, report.render(summary))
    return summary


@contextmanager
def running(lab: Lab) -> Iterator[None]:
    """Hold the lab's lock for runs; it is gone with the process, however that ends. Raises LabError
    while another run holds it."""
    lock = lab.path("runs", "lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(lock, wait=False))
        except BlockingIOError:
            raise _other_run(lab, lock) from None
        began = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        lock.write_text(json.dumps({"pid": os.getpid(), "began": began}))
        yield


def _other_run(lab: Lab, lock: Path) -> LabError:
    try:
        other = json.loads(lock.read_text())
    except ValueError:  # it has begun this very moment
        other = {"pid": "not known yet", "began": "now"}
    return LabError(
        f"another run is in progress in {lab.directory}: process {other['pid']}, "
        f"since {other['began']}",
        remedy="wait until it ends, end it with Ctrl-C or `kill`, or use another lab with --lab",
    )


def _obstacle(path: Path, results: Sequence[NotebookResult], keep_going: bool) -> str:
    """Why a notebook is not run after these results, "" if it is run."""
    for result in results:
        if result.status == "passed":
            continue
        ended = "failed" if result.status == "failed" else f"was {result.status}"
        if result.status == "interrupted" or not keep_going:
            return result.reason or f"{result.name} {ended}"
        if number_of(result.name) in NEEDS.get(number_of(path.name), ()):
            return f"it needs {result.name}, which {ended}"
    return ""


def _facts(lab: Lab, started: datetime) -> dict[str, Any]:
    """What the notebooks have recorded since `started`, under the names that docs/ci.md lists."""
    since = started.replace(microsecond=0)  # of the precision that the lab records
    steps = {
        name: step
        for name, step in lab.state["steps"].items()
        if datetime.fromisoformat(step["at"]) >= since
    }
    artifact = Path(steps.get("commit", {}).get("artifact", ""))
    values = {fact: steps.get(step, {}).get(key) for fact, (step, key) in _RECORDED.items()} | {
        "artifact_bytes": artifact.stat().st_size if artifact.is_file() else None
    }
    return {fact: value for fact, value in values.items() if value is not None}


def new_directory(parent: Path, started: datetime) -> Path:
    """Create <time> in `parent`, in local time, and point `latest` to it; a second one within the
    same second gets a suffix."""
    name = started.astimezone().strftime("%Y-%m-%dT%H-%M-%S")
    for suffix in ("", *(f".{number}" for number in range(2, 100))):
        directory = parent / (name + suffix)
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        temporary = parent / f".latest-{directory.name}"
        temporary.symlink_to(directory.name)
        temporary.replace(parent / "latest")
        return directory
    raise RfeError(f"too many runs in {parent} within the same second")


def _values(
    notebooks: Sequence[Path], parameters: Mapping[str, str], lab: Lab
) -> list[dict[str, Any]]:
    """The converted parameters of each notebook; papermill only warns about unknown ones."""
    known = [papermill.inspect_notebook(path) for path in notebooks]
    names = {name for inferred in known for name in inferred} - {"lab", "profile"}
    for name in parameters:
        if name in ("lab", "profile"):
            raise ParameterError(
                f"parameter {name} cannot be given with -p", remedy=f"use the option --{name}"
            )
        if name not in names:
            raise ParameterError(
                f"no notebook of this run has a parameter {name!r}",
                remedy=f"they have: {', '.join(sorted(names))}",
            )
    fixed = {"lab": str(lab.directory), "profile": lab.profile.name}
    return [
        {name: value for name, value in fixed.items() if name in inferred}
        | {
            name: typed(name, text, inferred[name])
            for name, text in parameters.items()
            if name in inferred
        }
        for inferred in known
    ]


def typed(name: str, text: str, parameter: Mapping[str, Any]) -> str | int | float | bool:
    """Convert `text` to the type that papermill infers for the parameter.

    Types other than bool, int and float are left as text. Raises ParameterError if it does not
    fit.

    >>> from rfe_helpers.workbook import headless
    >>> headless.typed("minutes", "45", {"inferred_type_name": "float", "default": "30.0"})
    45.0
    """
    kind = str(parameter["inferred_type_name"])
    try:
        if kind == "bool":
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
                text.lower()
            ]
        if kind in ("int", "float"):
            return int(text) if kind == "int" else float(text)
    except (KeyError, ValueError):
        raise ParameterError(
            f"parameter {name} must be {kind}, not {text!r}",
            remedy=f"its default is {parameter['default']}; {parameter['help']}".rstrip("; "),
        ) from None
    return text


def _note_end(lab: Lab, result: NotebookResult) -> None:
    """Note for a trainer how a notebook ended."""
    error = ""
    if result.status != "passed":
        failure = result.failure
        error = f"{failure.error}: {failure.text}" if failure else result.status
    event: activity.Event = "done" if result.status == "passed" else "failed"
    activity.record(lab.directory, result.name, event, error=error)


def _run_one(
    path: Path,
    executed: Path,
    values: dict[str, Any],
    kernel: AbstractContextManager[engine.Kernel],
    tell: Say,
    solve: bool,
) -> NotebookResult:
    """Run one notebook to its end or its first failing cell."""
    began = time.monotonic()
    status: Status = "passed"
    failure = None
    try:
        with kernel as running_kernel:
            papermill.execute_notebook(
                path,
                executed,
                values,
                engine_name=engine.NAME,
                kernel_name=KERNEL,
                progress_bar=False,
                tell=tell,
                kernel=running_kernel,
                solve=solve,
            )
    except KeyboardInterrupt:
        status = "interrupted"
    except PapermillExecutionError as error:
        status, failure = "failed", _failure(error, executed)
    except DeadKernelError:
        status, failure = "failed", _death(executed)
    is_there = executed.exists()  # not if it was interrupted as its kernel started
    remark = (_remove_secrets(executed) or _open_exercise(executed)) if is_there else None
    if remark is not None and status == "passed":
        status, failure = "failed", remark
    return NotebookResult(
        name=path.stem,
        status=status,
        seconds=time.monotonic() - began,
        failure=failure,
        executed=executed if is_there else None,
        path=path,
    )


def _failure(error: PapermillExecutionError, executed: Path) -> Failure:
    log = re.search(r"^log: (.+)$", error.evalue, re.MULTILINE)
    path = Path(log[1]) if log else executed.with_suffix(".log")
    cells = nbformat.read(executed, as_version=4).cells
    # Papermill counts without the two cells that it adds to the copy, to lead to the failing one.
    own = [
        i for i, cell in enumerate(cells) if _PAPERMILL_MARKER not in cell.metadata.get("tags", ())
    ]
    index = own[error.cell_index]
    message, remedy = RfeError.split(mask(error.evalue))
    return Failure(
        cell=index,
        source=error.source,
        error=error.ename,
        message=message,
        number=error.exec_count,
        log=str(path),
        tail=_tail(path),
        remedy=remedy,
        output=_output(cells[index]),
    )


def _death(executed: Path) -> Failure:
    """The failure of the cell that was running when the kernel died."""
    cells = nbformat.read(executed, as_version=4).cells
    begun = [
        index
        for index, cell in enumerate(cells)
        if engine.has_number(cell) and cell.metadata.papermill.status != "pending"
    ]
    log = executed.with_suffix(".log")
    return Failure(
        output=_output(cells[begun[-1]]) if begun else "",
        cell=begun[-1] if begun else -1,
        source=cells[begun[-1]].source if begun else "",
        error="DeadKernelError",
        message="the notebook's kernel was killed or died",
        number=len(begun) or None,
        log=str(log),
        tail=_tail(log),
    )


def _output(cell: nbformat.NotebookNode) -> str:
    """The end of what a cell has shown, as text without secrets. An error that shows no more than
    its message, as ours do, is left out: a failure has it already."""
    texts = []
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            texts.append(output.text)
        elif output.output_type == "error":
            trace = "\n".join(output.traceback)
            texts.append("" if trace == f"{output.ename}: {output.evalue}" else trace)
        else:
            texts.append(output.data.get("text/plain", ""))
    shown = "\n".join(text.rstrip("\n") for text in texts if text)
    return run.tail_of(mask(shown), _OUTPUT_LINES)[-_OUTPUT_LENGTH:]


def _tail(log: Path) -> str:
    """The last lines of a log without secrets; "" if it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return run.tail_of(mask(file.read().decode(errors="replace")))
    except OSError:
        return ""


def _remove_secrets(executed: Path) -> Failure | None:
    """Hide secrets in the outputs of an executed notebook; returns a Failure for the first cell
    with one."""
    notebook = nbformat.read(executed, as_version=4)
    first = None
    for index, cell in enumerate(notebook.cells):
        kinds: list[str] = []
        for output in cell.get("outputs", ()):
            for holder, key, text in _texts(output):
                kinds += secrets_in(text)
                holder[key] = mask(text)
        if kinds and first is None:
            message = f"an output contained {' and '.join(sorted(set(kinds)))}; it was removed"
            number = cell.execution_count
            first = Failure(
                index, cell.source, "SecretInOutput", message, number, output=_output(cell)
            )
    if first is not None:
        nbformat.write(notebook, executed)
    return first


def _open_exercise(executed: Path) -> Failure | None:
    """A Failure for the first exercise that its solution does not solve."""
    notebook = nbformat.read(executed, as_version=4)
    remark = exercises.open_exercise(notebook)
    if remark is None:
        return None
    index, text = remark
    cell = notebook.cells[index]
    return Failure(
        index, cell.source, "OpenExercise", text, cell.execution_count, output=_output(cell)
    )


def _texts(output: Any) -> list[tuple[Any, Any, str]]:
    """All texts of an output as (container, key, text)."""
    places: list[tuple[Any, Any]] = [(output, key) for key in ("text", "evalue")]
    places += [(output.get("data", {}), key) for key in output.get("data", {})]
    places += [(output.get("traceback", []), i) for i in range(len(output.get("traceback", [])))]
    return [
        (holder, key, holder[key])
        for holder, key in places
        if (isinstance(holder, list) or key in holder) and isinstance(holder[key], str)
    ]
