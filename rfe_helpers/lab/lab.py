"""One run of the workbook: its paths, ports, processes and results.

On disk, all in the lab directory, which only its owner can read:

    lab.json            the state: profile, ports, steps, processes (this module writes it)
    lab.lock            held while lab.json is changed
    logs/               one log per program; commands.jsonl is the journal of commands
    keys/               the SSH key made for this lab (0600)
    composes/           artifacts of Image Builder: <id>-commit.tar, …
    www/                kickstarts and repositories that are served
    registry/           container images of devices, and their sources
    machines/<name>/    disk, console, screenshots and QMP socket of a machine
    runs/<time>/        executed notebooks and reports of headless runs
    matrix/             runs in many combinations, and their labs (rfe_helpers.workbook.matrix)
    sandbox/            the state of the sandbox Image Builder
    notebooks/          the lab's own copies of the notebooks (rfe_helpers.workbook.notebooks)
    jupyter/            what JupyterLab keeps while it runs

Invariants: lab.json is replaced as a whole, under the lock, so any number of notebooks and
commands may use one lab; it never holds a secret; a process in it is identified by pid, start
time and boot id, so that a recycled pid is never ended. What can be made again and serves several
labs (the base tree, the boot ISO, packages) is in the cache (rfe_helpers.lab.cache).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rfe_helpers.core import files, journal, network, run
from rfe_helpers.errors import LabError, RfeError, StepMissingError
from rfe_helpers.lab import keys, labs, ports, profile

STATE_VERSION = 1
DEFAULT = "~/rfe-lab"
# The notebook that records each step.
NOTEBOOK_OF = {
    "image-builder": "10",
    "builder-machine": "15",
    "commit": "20",
    "inspect": "30",
    "serve": "40",
    "install": "50",
    "update": "60",
    "trust": "65",
    "interruptions": "67",
    "offline": "70",
    "fleet": "80",
    "applications": "85",
    "playground": "95",
    "imagemode": "100",
    "layers": "105",
}
_DIRECTORIES = (
    "logs",
    "keys",
    "composes",
    "www",
    "registry",
    "machines",
    "runs",
    "matrix",
    "sandbox",
    "sockets",
    "notebooks",
    "jupyter",
)


def default_directory() -> str:
    """The lab of commands without --lab: RFE_LAB, or DEFAULT."""
    return os.environ.get("RFE_LAB") or DEFAULT


class Lab:
    """A lab directory, created if it does not exist; several programs may open it at once.

    >>> from rfe_helpers.lab import Lab
    >>> lab = Lab("rhel-lab", "rhel-9.6")  # without a name: the sandbox
    >>> lab.record("compose", commit="0f3a")  # for the notebooks after this one
    >>> lab.step("compose")["commit"]
    '0f3a'
    >>> lab.log("image-builder")
    PosixPath('.../rhel-lab/logs/image-builder.log')

    `profile_name` is used when the lab is created ("sandbox" if it is None); later it must be the
    same or None. Raises LabError if the directory cannot be used, ProfileError for an unknown
    profile or one of a release without edge images.
    """

    def __init__(self, directory: str | Path = DEFAULT, profile_name: str | None = None) -> None:
        if not str(directory).strip():
            raise LabError(
                "the name of the lab's directory is empty",
                remedy=f"name one, such as {DEFAULT}; for this directory write .",
            )
        self.directory = Path(directory).expanduser().absolute()
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.directory.chmod(0o700)
        except OSError as error:
            raise LabError(
                f"cannot use {self.directory} as a lab: {error.strerror}",
                remedy="choose another directory with the parameter `lab`",
            ) from None
        with self._changing() as state:
            if profile_name is not None and state["profile"] not in (None, profile_name):
                raise LabError(
                    f"{self.directory} is a lab for profile {state['profile']}, not {profile_name}",
                    remedy=self._start_over(),
                )
            self.profile = profile.load(state["profile"] or profile_name or "sandbox")
            self.profile.require_edge()
            state["profile"] = self.profile.name
        labs.remember(self.directory, str(state["id"]))
        journal.open_journal(self.path("logs", "commands.jsonl"))

    def __repr__(self) -> str:
        return f"Lab({str(self.directory)!r}, profile {self.profile.name})"

    def command(self, words: str) -> str:
        """A command of `rfe` for this lab, ready to paste; --lab is left out for the usual one."""
        return f"rfe {words}" + (
            "" if self.is_usual else f" --lab {shlex.quote(str(self.directory))}"
        )

    @property
    def is_usual(self) -> bool:
        """Whether it is ~/rfe-lab, which commands use without --lab and RFE_LAB."""
        return self.directory == Path(DEFAULT).expanduser().absolute()

    def _start_over(self) -> str:
        return f"use another lab directory, or `{self.command('lab clean')}` to start over"

    # paths ------------------------------------------------------------------------------------

    def path(self, *parts: str) -> Path:
        """A path inside the lab; its parent directories are created."""
        path = self.directory.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def folder(self, *parts: str) -> Path:
        """A directory inside the lab, created if it does not exist."""
        path = self.directory.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, name: str) -> Path:
        """The log file of a program."""
        return self.path("logs", f"{name}.log")

    def socket(self, name: str) -> Path:
        """A path for a unix socket, short enough (the limit is 107 bytes), in a 0700 directory."""
        path = self.path("sockets", name)
        if len(os.fsencode(path)) < 100:
            path.parent.chmod(0o700)
            return path
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/rfe-{os.getuid()}")  # noqa: S108
        short = runtime / f"rfe-{self.id}"
        for directory in (runtime, short):  # whoever owns the first could exchange the second
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            status = directory.lstat()
            if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
                raise LabError(
                    f"{directory}, for the lab's sockets, is not a directory of yours",
                    remedy="set XDG_RUNTIME_DIR to one, or choose a shorter path for the lab",
                )
            directory.chmod(0o700)
        return short / name

    @property
    def id(self) -> str:
        """Eight hex digits that tell this lab from others on the machine."""
        return str(self.state["id"])

    @property
    def public_key(self) -> str:
        """The lab's public SSH key, one line; the key pair is made at the first call."""
        return keys.public_key(self)

    # state ------------------------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """A copy of the whole state as it is on disk now."""
        return self._read()

    def record(self, step: str, **results: Any) -> None:
        """Store the results of a step (JSON values, and paths as text) in place of earlier ones."""
        with self._changing() as state:
            plain = json.loads(json.dumps(results, default=str))
            state["steps"][step] = {**plain, "at": datetime.now(UTC).isoformat(timespec="seconds")}

    def step(self, step: str) -> dict[str, Any]:
        """The results of a step. Raises StepMissingError, with its notebook, if it was not run."""
        results = self.state["steps"].get(step)
        if results is None:
            number = NOTEBOOK_OF.get(step)
            if number is None:
                raise StepMissingError(f"this lab has no result of step {step!r}")
            raise StepMissingError(
                f"notebook {number} has not been run in this lab: there is no result of {step!r}",
                remedy=f"work through notebook {number}, or let `{self.command(f'solve {number}')}`"
                " run it and those before it that are missing",
            )
        return dict(results)

    def has(self, step: str) -> bool:
        return step in self.state["steps"]

    def forget(self, *steps: str) -> None:
        """Remove the results of steps; unknown ones are fine."""
        with self._changing() as state:
            for step in steps:
                state["steps"].pop(step, None)

    # ports ------------------------------------------------------------------------------------

    def port(self, name: str, preferred: int) -> int:
        """The TCP port on loopback that this lab uses for `name`; later calls return the same one.

        The usual lab takes `preferred`, a port that the workbook's text names (as `ports.of_user`
        shifts it), if it is free. All other labs get random ports below those of outgoing
        connections. Raises LabError if none is free.
        """
        preferred = ports.of_user(preferred)
        with self._changing() as state:
            known = state["ports"]
            if name not in known:
                usual = self.is_usual and preferred not in known.values()
                is_free = usual and network.port_is_free(preferred)
                known[name] = preferred if is_free else self._free_port(known.values())
            return int(known[name])

    def _free_port(self, taken: Iterable[int]) -> int:
        port = network.free_port(taken)
        if port is None:
            raise LabError(
                "no TCP port from 10000 on is free on this machine",
                remedy="see what listens with `ss -ltnp`, and stop what is not needed",
            )
        return port

    # processes --------------------------------------------------------------------------------

    def add_process(self, name: str, process: run.ProcessId) -> None:
        """Remember a process, so that `sweep` can end it even after this program has ended."""
        with self._changing() as state:
            state["processes"][name] = asdict(process)

    def process(self, name: str) -> run.ProcessId | None:
        """A remembered process; None if there is none of that name, or if it has ended."""
        entry = self.state["processes"].get(name)
        process = run.ProcessId(**entry) if entry else None
        return process if process is not None and process.alive else None

    def processes(self) -> dict[str, run.ProcessId]:
        """All remembered processes that are still alive."""
        known = {name: run.ProcessId(**entry) for name, entry in self.state["processes"].items()}
        return {name: process for name, process in known.items() if process.alive}

    def remove_process(self, name: str) -> None:
        with self._changing() as state:
            state["processes"].pop(name, None)

    def add_container(self, name: str) -> None:
        """Remember a podman container by name, so that `sweep` removes it."""
        with self._changing() as state:
            if name not in state["containers"]:
                state["containers"].append(name)

    def remove_container(self, name: str) -> None:
        with self._changing() as state:
            if name in state["containers"]:
                state["containers"].remove(name)

    # clean-up ---------------------------------------------------------------------------------

    def sweep(self, remove_container: Callable[[str], None] | None = None) -> list[str]:
        """End everything that this lab has running; return what was ended, one line each.

        Containers are removed with `remove_container` (serve.remove_container); if that fails, the
        error is raised after all processes have been ended.
        """
        ended = []
        for name, process in self.processes().items():
            run.stop(process)
            self.remove_process(name)
            ended.append(f"{name} (pid {process.pid})")
        failures: list[RfeError] = []
        for name in self.state["containers"]:
            try:
                if remove_container is not None:
                    remove_container(name)
                    self.remove_container(name)
                    ended.append(f"container {name}")
            except RfeError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return ended

    def clean(self, remove_container: Callable[[str], None] | None = None) -> list[str]:
        """End everything, then delete the files of the lab and the labs of its matrix; the cache
        stays.

        The directory is removed, too, unless something else is in it: a home directory that was
        given as a lab by mistake must survive.
        """
        ended = [
            line
            for path in sorted(self.directory.glob("matrix/labs/*/lab.json"))
            for line in Lab(path.parent).clean(remove_container)
        ]
        ended += self.sweep(remove_container)
        labs.forget(self.id)
        journal.open_journal(None)
        for name in _DIRECTORIES:
            if (self.directory / name).exists():
                shutil.rmtree(self.directory / name)
        for name in ("lab.json", "lab.lock", "sandbox.lock"):
            (self.directory / name).unlink(missing_ok=True)
        if not any(self.directory.iterdir()):
            self.directory.rmdir()
        return ended

    # lab.json ---------------------------------------------------------------------------------

    def _read(self) -> dict[str, Any]:
        path = self.directory / "lab.json"
        try:
            state = json.loads(path.read_text())
        except FileNotFoundError:
            return {
                "version": STATE_VERSION,
                "id": os.urandom(4).hex(),
                "profile": None,
                "steps": {},
                "ports": {},
                "processes": {},
                "containers": [],
            }
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise LabError(
                f"{path} is damaged: {error}",
                remedy=f"move it away and start over with `{self.command('lab clean')}`",
            ) from None
        if state.get("version") != STATE_VERSION:
            raise LabError(
                f"{path} was written by another version of the workbook",
                remedy=self._start_over(),
            )
        return dict(state)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        with files.locked(self.directory / "lab.lock"):
            state = self._read()
            yield state
            files.write_json(self.directory / "lab.json", state, mode=0o600)
