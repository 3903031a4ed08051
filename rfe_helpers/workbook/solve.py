"""Bring a lab to its state after a notebook, or back to its state before one.

For trainers: a latecomer catches up with the others, and whoever wants to repeat a part goes back.
Both start from what the lab has recorded and what really exists.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rfe_helpers import build, serve
from rfe_helpers.commit.commit import open_commit
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.errors import ApiError, InputError, RfeError
from rfe_helpers.lab import keys
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import disks
from rfe_helpers.machine.vm import Machine
from rfe_helpers.workbook import activity
from rfe_helpers.workbook.chapters import FURTHER, LIFE_CYCLE, NEEDS, STEPS, number_of
from rfe_helpers.workbook.headless import find_notebooks, run_notebooks
from rfe_helpers.workbook.results import Summary

_STEPS = {number: step for number, _, step in LIFE_CYCLE}
# The step that each step builds on: when that is repeated, so is the step. A commit outlives the
# Image Builder of notebook 10.
_BUILT_ON = {
    STEPS[number]: STEPS[needed]
    for number, numbers in NEEDS.items()
    for needed in numbers
    if needed != "10"
}


def missing(lab: Lab, notebook: str) -> list[Path]:
    """The notebooks to run, in order, to bring the lab to its state after `notebook`."""
    target = find_notebooks([notebook])[0]
    last = number_of(target.name)
    notebooks: list[Path] = []
    repeated: set[str] = set()
    for path in find_notebooks():
        number = number_of(path.name)
        step = _STEPS.get(number)
        if step is None or int(number) > int(last):
            continue
        if not _holds(lab, step) or _BUILT_ON.get(step) in repeated:
            notebooks.append(path)
            repeated.add(step)
    if last not in _STEPS and target not in notebooks:
        for number in NEEDS.get(last, ()):
            step = FURTHER.get(number)
            if step and (not lab.has(step) or _BUILT_ON.get(step) in repeated):
                notebooks += find_notebooks([number])
        notebooks.append(target)
    return notebooks


def solve(
    lab: Lab,
    notebook: str,
    parameters: Mapping[str, str] | None = None,
    on_progress: OnProgress = None,
) -> Summary | None:
    """Run the missing notebooks; None if there are none. Raises as `run_notebooks` does."""
    notebooks = missing(lab, notebook)
    return run_notebooks(notebooks, lab, parameters, on_progress) if notebooks else None


def _holds(lab: Lab, step: str) -> bool:
    """Whether a step has been done, and its result still exists."""
    if not lab.has(step):
        return False
    results = lab.step(step)
    if step == "image-builder":
        return lab.profile.backend != "sandbox" or build.status(lab).pid is not None
    if step == "commit":
        return _is_whole(Path(results["artifact"]))
    if step == "serve":
        return _serves(lab)
    if step == "install":
        commit = lab.step("commit")["commit"] if lab.has("commit") else ""
        return Path(results["disk"]).is_file() and results.get("commit") == commit
    return True


def _is_whole(artifact: Path) -> bool:
    try:
        return bool(open_commit(artifact).id)
    except RfeError:
        return False


def _serves(lab: Lab) -> bool:
    """Whether the web server has the commit of notebook 20 or the update to it."""
    commits = {lab.step(step)["commit"] for step in ("commit", "update") if lab.has(step)}
    with contextlib.suppress(RfeError):
        site = serve.published(lab)
        return site.answers and open_commit(site.repo_url, lab.step("commit")["ref"]).id in commits
    return False


# back -----------------------------------------------------------------------------------------


def reset(lab: Lab, notebook: str) -> list[str]:
    """Go back to the state before `notebook`: forget its step and the later ones, and remove what
    they created.

    Returns what was done, in words. Raises InputError for a notebook that leaves nothing behind.
    """
    number = number_of(find_notebooks([notebook])[0].name)
    if number in FURTHER or int(number) > max(map(int, _STEPS)):
        raise InputError(
            f"notebook {number} leaves nothing behind that others need",
            remedy="run it again as it is; "
            f"`{lab.command('lab reset 60')}` goes back before the update",
        )
    steps = [step for each, step in _STEPS.items() if int(each) >= int(number)]
    done: list[str] = []
    for step in reversed(steps):
        done += _UNDO[step](lab, removed=steps)
        lab.forget(step)
    lab.forget(*(step for each, step in FURTHER.items() if int(each) > int(number)))
    activity.record(lab.directory, number, "reset")
    return done if "serve" in steps else done + _serve_first_commit(lab)


def _serve_first_commit(lab: Lab) -> list[str]:
    """Serve the commit of notebook 20 in place of what later notebooks have published."""
    served = serve.remember(lab)
    if served is None or not lab.has("commit"):
        return []
    built = lab.step("commit")
    artifact = Path(built["artifact"])
    if Path(served.site.artifact) == artifact or not artifact.is_file():
        return []
    serve.publish(lab, artifact)
    return [f"served commit {built['commit'][:12]} again"]


def _undo_update(lab: Lab, removed: Sequence[str]) -> list[str]:
    """Restore the machine as it was installed, unless the installation is removed, too."""
    if not lab.has("update") or "install" in removed:
        return []
    installed = lab.step("install")
    name, disk = str(installed["machine"]), Path(installed["disk"])
    done = _stop_machine(lab, name)
    disks.revert(disk)
    keys.forget(lab, name)
    return [*done, f"restored the disk of {name} as it was installed"]


def _undo_install(lab: Lab, removed: Sequence[str]) -> list[str]:
    done: list[str] = []
    for directory in sorted(lab.folder("machines").glob("*/")):
        done += _stop_machine(lab, directory.name)
        shutil.rmtree(directory)
        keys.forget(lab, directory.name)
        done.append(f"removed machine {directory.name}")
    return done


def _undo_serve(lab: Lab, removed: Sequence[str]) -> list[str]:
    served = lab.path("www", "site.json").exists()
    serve.stop(lab)
    for path in lab.folder("www").glob("site-*"):
        shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(lab.path("www", "kickstarts"), ignore_errors=True)
    return ["stopped the web server"] if served else []


def _undo_inspect(lab: Lab, removed: Sequence[str]) -> list[str]:
    """Remove the commit for comparison; its compose is removed with notebook 20."""
    plain = lab.step("inspect").get("plain") if lab.has("inspect") else None
    if plain:
        Path(plain).unlink(missing_ok=True)
    return ["removed the commit for comparison"] if plain else []


def _undo_commit(lab: Lab, removed: Sequence[str]) -> list[str]:
    """Remove blueprints and composes of the sandbox, but not those of another Image Builder."""
    done: list[str] = []
    for path in lab.folder("composes").glob("*"):
        path.unlink()
        done.append(f"removed {path.name}")
    if "image-builder" in removed or build.status(lab).pid is None:
        return done
    client = build.connect(lab)
    for compose in client.composes():
        with contextlib.suppress(ApiError):
            client.cancel(compose.id)
    ended = [compose.id for compose in client.composes()]
    if ended:
        client.delete_compose(*ended)
        done.append(f"deleted {len(ended)} composes")
    for name in client.blueprints():
        client.delete_blueprint(name)
        done.append(f"deleted blueprint {name}")
    return done


def _undo_builder(lab: Lab, removed: Sequence[str]) -> list[str]:
    was_running = build.stop(lab)
    shutil.rmtree(lab.path("sandbox"), ignore_errors=True)
    return ["stopped Image Builder and removed its data"] if was_running else []


def _stop_machine(lab: Lab, name: str) -> list[str]:
    machine = Machine.find(lab, name)
    if machine is None:
        return []
    machine.kill()
    return [f"switched off {name}"]


_UNDO: dict[str, Callable[..., list[str]]] = {
    "image-builder": _undo_builder,
    "commit": _undo_commit,
    "inspect": _undo_inspect,
    "serve": _undo_serve,
    "install": _undo_install,
    "update": _undo_update,
}
