"""JupyterLab over a lab's notebooks, on loopback and with a token: `rfe lab open`.

The server reads `jupyter_settings/` through JUPYTER_CONFIG_PATH: no news from the internet, and
panels are saved as their static twins, and workbook/server.py extends the server; through
JUPYTER_PATH its kernels load workbook/kernel.py.
Its runtime files, the token among them, are in `<lab>/jupyter`, which only the lab's owner can
read; its log is `logs/jupyter.log`.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import webbrowser
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import NoReturn

from rfe_helpers.core import files, run
from rfe_helpers.core.network import LOOPBACK
from rfe_helpers.core.run import ProcessId
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import LabError
from rfe_helpers.lab import ports
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import notebooks

PROCESS = "jupyter"
START_SECONDS = 120
_RESERVE = 64 << 20  # bytes
# In the environment of a server's kernels: the path of the machines' pages on it.
MACHINE_PAGES = "RFE_MACHINES"
_FIRST = "lab/tree/00-start-here.ipynb"


def open_lab(lab: Lab, *, browser: bool = True, address: str = LOOPBACK) -> None:
    """Open a lab in JupyterLab, and keep it running until Ctrl-C or until it is shut down.

    If JupyterLab runs for this lab already, its address is said, and this returns. `browser` opens
    it in the browser; the server listens at `address`. Raises LabError, with the end of the log, if
    JupyterLab does not start.
    """
    say = functools.partial(print, flush=True)  # also into a file or a pipe
    with files.locked(lab.path("jupyter", "lock")):
        running = lab.process(PROCESS)
        server = running or _start(lab, address, browser=browser)
        try:
            location = wait_for(
                lambda: _location(lab, server), Deadline(START_SECONDS), "JupyterLab answers"
            )
        except KeyboardInterrupt:
            run.stop(server)
            raise
    if running is not None:
        say(f"JupyterLab is already running for {lab.directory}:\n{_box(location)}")
        if browser:
            webbrowser.open(_runtime(lab, server, "-open.html").as_uri())
        return
    say(f"JupyterLab is running for {lab.directory}; its log is {lab.log(PROCESS)}")
    if outdated := notebooks.outdated_copies(lab):
        say(f"Newer versions of {len(outdated)} notebooks that you have changed are there:")
        say(f"`{lab.command('upgrade-notebooks')}` merges them with your changes.")
    say(f"Ctrl-C ends it. The address for your browser:\n{_box(location)}")
    try:
        wait_for(lambda: not server.alive, Deadline(float("inf")), "JupyterLab ends", every=0.5)
    except KeyboardInterrupt:
        say("ending JupyterLab; machines and servers of the lab keep running")
        run.stop(server, grace=20)
    lab.remove_process(PROCESS)


def _start(lab: Lab, address: str, *, browser: bool) -> ProcessId:
    root = notebooks.copies(lab)
    return run.start(
        argv(root, lab.port(PROCESS, ports.JUPYTER), browser=browser, address=address),
        log=lab.log(PROCESS),
        env={**os.environ, **environment(lab)},  # those of the user: for terminals and the browser
        on_start=lambda process: lab.add_process(PROCESS, process),
    )


def environment(lab: Lab) -> dict[str, str]:
    """The environment of the server; its terminals find `rfe`, which uses this lab."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    ours = {name: _with_settings(name) for name in ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH")}
    return {
        **ours,
        "JUPYTER_RUNTIME_DIR": str(lab.folder("jupyter")),
        "JUPYTERLAB_WORKSPACES_DIR": str(lab.folder("jupyter", "workspaces")),
        "PATH": programs,
        "RFE_LAB": str(lab.directory),
    }


def argv(root: Path, port: int, *, browser: bool = True, address: str = LOOPBACK) -> list[str]:
    """The command line of JupyterLab, which generates a token and prints it in its URL."""
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.ip={address}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/{_FIRST}",
        *([] if browser else ["--no-browser"]),
        *(["--allow-root"] if os.getuid() == 0 else []),
    ]


def become_seat(directory: str) -> NoReturn:
    """Become the server of a seat in a room; where it listens is in JupyterHub's environment.

    In a container nothing runs yet: its runtime directory, which is in the home, is made again. A
    part of its disk is kept in reserve, so that a seat whose disk is full begins nevertheless.
    """
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if runtime.parent == Path.home():
        reserve = Path.home() / ".reserve"
        reserve.unlink(missing_ok=True)
        shutil.rmtree(runtime, ignore_errors=True)
        runtime.mkdir(mode=0o700, exist_ok=True)
        if files.room(Path.home()) > 4 * _RESERVE:
            with suppress(OSError), reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _RESERVE)
    lab = Lab(directory)
    argv = [
        sys.executable,
        "-m",
        "jupyterhub.singleuser",
        f"--ServerApp.root_dir={notebooks.copies(lab)}",
    ]
    run.become(argv, env={**os.environ, **environment(lab)})


def machine_page(lab: Lab, name: str) -> str:
    """The path of a machine's page on the server of this kernel; "" if that is not the one of
    `rfe lab open` for this lab."""
    pages = os.environ.get(MACHINE_PAGES, "")
    same_lab = Path(os.environ.get("RFE_LAB") or os.devnull) == lab.directory
    return f"{pages}/{name}" if pages and same_lab else ""


def _location(lab: Lab, server: ProcessId) -> str:
    """The address with its token, once the server listens, and "" before."""
    if not server.alive:
        log = lab.log(PROCESS)
        tail = run.tail_of(log.read_text(errors="replace"))
        raise LabError(f"JupyterLab ended:\n{tail}", log=log, remedy="see the last lines above")
    try:
        told = json.loads(_runtime(lab, server, ".json").read_text())
    except (FileNotFoundError, ValueError):
        return ""
    # Not its "url": that of a server that listens everywhere has the name of the machine.
    return f"http://{LOOPBACK}:{told['port']}{told['base_url']}{_FIRST}?token={told['token']}"


def _runtime(lab: Lab, server: ProcessId, suffix: str) -> Path:
    """A file that a Jupyter server writes when it starts (jupyter_server.serverapp)."""
    return lab.folder("jupyter") / f"jpserver-{server.pid}{suffix}"


def _box(text: str) -> str:
    line = "─" * (len(text) + 2)
    return f"┌{line}┐\n│ {text} │\n└{line}┘"


def _with_settings(variable: str) -> str:
    """A search path of Jupyter's with our settings and our kernel first."""
    settings = str(resources.files("rfe_helpers.workbook") / "jupyter_settings")
    return os.pathsep.join(filter(None, [settings, os.environ.get(variable, "")]))
