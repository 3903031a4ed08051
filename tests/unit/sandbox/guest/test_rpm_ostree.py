"""How /usr/bin/rpm-ostree of a guest finds its program, with a fake of libostree's bindings.

What its commands do is in the system tests, on a machine with deployments.
"""

import os
import sys
from pathlib import Path

import rfe_helpers
from rfe_helpers.core import run

ROOT = Path(rfe_helpers.__file__).parent / "sandbox/guest/root"
# PyGObject has a main loop for asyncio.
PACKAGE = """
import asyncio
from asyncio import coroutines

class Loop(asyncio.SelectorEventLoop):
    pass

if asyncio.__spec__ is not None:
    raise SystemExit("the real asyncio was imported, which is slow")

def require_version(*_):
    pass
"""
BINDINGS = """
class GLib:
    Error = OSError

class OSTree:
    YEAR_VERSION, RELEASE_VERSION = 2025, 2

class Gio:
    pass
"""


def test_the_launcher_starts_the_program(tmp_path: Path) -> None:
    (tmp_path / "gi").mkdir()
    (tmp_path / "gi/__init__.py").write_text(PACKAGE)
    (tmp_path / "gi/repository.py").write_text(BINDINGS)
    launcher = tmp_path / "rpm-ostree"
    source = (ROOT / "usr/bin/rpm-ostree").read_text()
    assert source.startswith("#!/usr/bin/python3 -I\n")
    launcher.write_text(source.replace('"/usr/lib"', repr(str(ROOT / "usr/lib"))))
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, launcher]
    output = run.run([*argv, "--version"], env={**os.environ, **environment}).stdout
    assert " libostree: '2025.2'" in output
    result = run.run([*argv, "frobnicate"], env={**os.environ, **environment}, check=False)
    assert result.status == 2
    assert "invalid choice: 'frobnicate'" in result.stderr
