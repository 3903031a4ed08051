"""Somebody who is not root, with a home and subordinate ids: what rootless podman stands on."""

import os
import pwd
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core import run
from rfe_helpers.core.run import ProcessId, Result
from rfe_helpers.core.wait import Deadline, wait_for

# Variables that are those of who runs the tests.
CALLERS = ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "RFE_CACHE", "TMPDIR")


@dataclass(frozen=True)
class OrdinaryUser:
    """A user, their home and a directory of theirs for the test."""

    name: str
    home: Path
    directory: Path

    def run(
        self,
        argv: Iterable[str | Path],
        *,
        packages: Path | None = None,
        seconds: float = 600,
    ) -> Result:
        """Run a command of theirs as cron would, without a login session; `packages` is where
        its Python looks for more packages. Raises CommandFailedError."""
        variables = {"PYTHONPATH": str(packages)} if packages is not None else {}
        return run.run(self.words(*argv), env=variables, cwd=self.directory, seconds=seconds)

    def words(self, *argv: str | Path) -> list[str]:
        """The command line that runs a command of theirs."""
        su = ["runuser", "-u", self.name, "--"] if os.getuid() == 0 else []
        of_caller = [word for name in CALLERS for word in ("-u", name)]
        return [*su, "env", *of_caller, f"HOME={self.home}", *map(str, argv)]

    def give(self, path: Path) -> None:
        """Make a directory theirs, with all that is in it."""
        run.run(["chown", "-R", f"{self.name}:", path])


@contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """Who runs the tests; if that is root, a new user of this machine, who is removed afterwards
    with their processes, their files and podman's storage."""
    if os.getuid() != 0:
        entry = pwd.getpwuid(os.getuid())
        with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
            yield OrdinaryUser(entry.pw_name, Path.home(), Path(directory))
        return
    name = f"rfe-test-{secrets.token_hex(4)}"
    ids = ["-K", "SUB_UID_COUNT=65536", "-K", "SUB_GID_COUNT=65536"]
    run.run(["useradd", "--create-home", "--user-group", "--shell", "/bin/sh", *ids, name])
    entry = pwd.getpwnam(name)
    try:
        for table in ("/etc/subuid", "/etc/subgid"):
            assert f"{name}:" in Path(table).read_text(), f"useradd gave no range of {table}"
        user = OrdinaryUser(name, Path(entry.pw_dir), Path(entry.pw_dir) / "test")
        user.directory.mkdir()
        yield user
    finally:
        wait_for(lambda: _end_processes(entry.pw_uid), Deadline(30), f"what {name} runs ends")
        run.run(["userdel", "--remove", name])
        shutil.rmtree(f"/tmp/rfe-{entry.pw_uid}", ignore_errors=True)  # podman's sockets


def _end_processes(uid: int) -> bool:
    """Kill what a user runs; whether there was nothing left. The first process of a container is
    the user's too, and takes those of the subordinate ids with it."""
    left = False
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if entry.stat().st_uid == uid and ProcessId.of(int(entry.name)) is not None:
                os.kill(int(entry.name), signal.SIGKILL)
                left = True
    return not left
