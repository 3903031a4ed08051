"""JupyterLab over the workbook, on loopback and with a token: `rfe lab open`.

The server reads `jupyter_settings/` through JUPYTER_CONFIG_PATH: no news from the internet, and
panels are saved as their static twins; through JUPYTER_PATH its kernels load workbook/kernel.py.
With the default lab, the notebooks of the clone are opened; any other lab gets its own copies in
`<lab>/notebooks`, whose parameter `lab` is that lab, so that several people can work from one
clone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from importlib import resources
from pathlib import Path

import nbformat

from rfe_helpers.core import files, run
from rfe_helpers.lab import ports
from rfe_helpers.lab.lab import DEFAULT, Lab
from rfe_helpers.workbook.headless import NOTEBOOKS, all_notebooks

PROCESS = "jupyter"
_FIRST = "00-start-here.ipynb"


def open_lab(lab: Lab, *, browser: bool = True) -> None:
    """Replace this process with JupyterLab, registered in the lab as "jupyter"; does not return."""
    root = notebooks_of(lab)
    # JupyterLab keeps the pid and the start time of this process.
    if (identity := run.ProcessId.of(os.getpid())) is not None:
        lab.add_process(PROCESS, identity)
    run.become(
        argv(root, lab.port(PROCESS, ports.JUPYTER), browser=browser),
        env=environment(lab),
    )


def environment(lab: Lab) -> dict[str, str]:
    """The environment of the server; its terminals find `rfe`, which uses this lab."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    directory = str(lab.directory)
    ours = {name: _with_settings(name) for name in ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH")}
    return {**ours, "PATH": programs, "RFE_LAB": directory}


def argv(root: Path, port: int, *, browser: bool = True) -> list[str]:
    """The command line of JupyterLab, which generates a token and prints it in its URL."""
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.default_url=/lab/tree/{_FIRST}",
        *([] if browser else ["--no-browser"]),
        *(["--allow-root"] if os.getuid() == 0 else []),
    ]


def notebooks_of(lab: Lab) -> Path:
    """The directory of a lab's notebooks; copies are made once and not changed afterwards."""
    if lab.directory == Path(DEFAULT).expanduser().absolute():
        return NOTEBOOKS
    root = lab.folder("notebooks")
    shutil.copytree(NOTEBOOKS / "pictures", root / "pictures", dirs_exist_ok=True)
    for path in all_notebooks():
        if not (root / path.name).exists():
            files.write(root / path.name, with_lab(path, lab))
    return root


def with_lab(path: Path, lab: Lab) -> str:
    """The JSON of a notebook, with a lab and its profile as its parameters."""
    notebook = nbformat.read(path, as_version=4)
    values = {"lab": str(lab.directory), "profile": lab.profile.name}
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            for name, value in values.items():
                line = re.compile(rf'^({name}: str) = "[^"]*"', re.MULTILINE)
                text = json.dumps(value).replace("\\", r"\\")
                cell.source = line.sub(rf"\1 = {text}", cell.source)
    return str(nbformat.writes(notebook)) + "\n"


def _with_settings(variable: str) -> str:
    """A search path of Jupyter's with our settings and our kernel first."""
    settings = str(resources.files("rfe_helpers.workbook") / "jupyter_settings")
    return os.pathsep.join(filter(None, [settings, os.environ.get(variable, "")]))
