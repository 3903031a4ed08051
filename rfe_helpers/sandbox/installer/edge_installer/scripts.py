"""Runs the kickstart's %pre, %pre-install, %post and %onerror scripts."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from pykickstart.parser import Script

from .console import InstallError, last_line, log, step


def run_scripts(scripts: list[Script], section: str, view: Path | None) -> None:
    """Run scripts in their order, in the deployment at `view` unless they have --nochroot.

    A script that fails ends the installation if it has --erroronfail; otherwise the failure is
    only announced.
    """
    for script in scripts:
        root = view if view is not None and script.inChroot else Path("/")
        step(f"{section} (line {script.lineno})")
        status, output = _run(script, root)
        log(output)
        if script.logfile:
            path = root / script.logfile.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(output)
        if status == 0:
            continue
        reason = f"line {script.lineno}: {section}: status {status}: {last_line(output, status)}"
        if script.errorOnFail:
            raise InstallError(reason)
        step(f"went on after {reason}")


def _run(script: Script, root: Path) -> tuple[int, str]:
    descriptor, name = tempfile.mkstemp(prefix="ks-script-", dir=root / "tmp")
    os.close(descriptor)
    file = Path(name)
    file.write_text(script.script)
    file.chmod(0o700)
    enter = [] if root == Path("/") else ["chroot", str(root)]
    command = [*enter, script.interp, str(Path("/") / file.relative_to(root))]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        return 127, f"{script.interp}: {error.strerror}"
    finally:
        file.unlink(missing_ok=True)
    return result.returncode, result.stdout
