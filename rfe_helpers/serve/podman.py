"""Run a container with podman and skopeo, as root or rootless.

podman's own settings are used first. Only if a container does not start with them, a
containers.conf is written into the lab and used from then on. It has conservative settings (runc,
cgroupfs, lower limits), which podman needs inside other containers and with old cgroups.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core import files, journal, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, PodmanError, ServeError, ToolMissingError

_CONSERVATIVE = """\
# podman's own settings did not start a container on this machine.
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@dataclass(frozen=True)
class Mount:
    """A file of the host, mounted read-only at a path in the container."""

    source: Path
    target: str


@dataclass(frozen=True)
class Podman:
    """podman on this machine; `config` is the path of the lab's own containers.conf."""

    config: Path

    @classmethod
    def find(cls, config: Path) -> Podman:
        """podman on this machine. Raises PodmanError if it is not installed."""
        try:
            run.require("podman", "skopeo")
        except ToolMissingError as error:
            raise PodmanError(error.message, remedy=error.remedy) from None
        return cls(config)

    def import_image(self, archive: Path, image: str, deadline: Deadline, log: Path) -> None:
        """Import an OCI archive into podman's storage as `image`."""
        copy = ["skopeo", "copy", "--quiet", f"oci-archive:{archive}"]
        try:
            self._run([*copy, f"containers-storage:{image}"], deadline, log)
        except CommandFailedError as error:
            raise _explained(error, f"cannot import {archive.name}", log) from None

    def start(
        self,
        name: str,
        image: str,
        *,
        port: int,
        container_port: int,
        mounts: Iterable[Mount],
        deadline: Deadline,
        log: Path,
    ) -> None:
        """Run a container in the background, its port published on loopback only.

        Raises PodmanError if it starts neither with podman's settings nor with the lab's,
        ServeError if the port is taken or the disk is full.
        """
        argv = ["podman", "run", "--detach", "--name", name]
        argv += ["--publish", f"127.0.0.1:{port}:{container_port}"]
        for mount in mounts:
            argv += ["--volume", f"{mount.source}:{mount.target}:ro,z"]
        argv.append(image)
        try:
            self._run(argv, deadline, log)
            return
        except CommandFailedError as error:
            remove(name, self._env())
            first = _explained(error, f"podman cannot start {image}", log)
            if not isinstance(first, PodmanError) or self.config.exists():
                raise first from None
        journal.write(self.config, _CONSERVATIVE, mode=0o600)
        try:
            self._run(argv, deadline, log)
        except CommandFailedError as error:
            remove(name, self._env())
            self.config.unlink()
            raise _explained(error, f"podman cannot start {image}", log) from None

    def is_running(self, name: str) -> bool:
        argv = ["podman", "container", "inspect", "--format", "{{.State.Running}}", name]
        return run.run(argv, env=self._env(), check=False).stdout.strip() == "true"

    def logs(self, name: str) -> str:
        """The last lines that a container printed."""
        argv = ["podman", "logs", "--tail", "15", name]
        result = run.run(argv, env=self._env(), check=False)
        return (result.stdout + result.stderr).strip()

    def image_id(self, image: str) -> str:
        """The id of an image; "" if there is none."""
        argv = ["podman", "image", "inspect", "--format", "{{.Id}}", image]
        result = run.run(argv, env=self._env(), check=False)
        return result.stdout.strip() if result.status == 0 else ""

    def remove(self, name: str) -> None:
        """End and remove a container, if it exists."""
        remove(name, self._env())

    def remove_image(self, image: str) -> None:
        """Remove an image unless a container uses it."""
        run.run(["podman", "image", "rm", image], env=self._env(), check=False)

    def _run(self, argv: list[str], deadline: Deadline, log: Path) -> None:
        run.run(argv, env=self._env(), deadline=deadline, log=log)

    def _env(self) -> dict[str, str]:
        config = {"CONTAINERS_CONF": str(self.config)} if self.config.exists() else {}
        return {**runtime_directory(), **config}


def remove(name: str, env: Mapping[str, str] | None = None) -> None:
    """End and remove a container, if it exists. Raises ServeError if that fails."""
    argv = ["podman", "rm", "--force", "--ignore", "--time", "1", name]
    try:
        run.run(argv, env=env if env is not None else runtime_directory(), seconds=60)
    except CommandFailedError as error:
        raise ServeError(
            f"the container {name} cannot be removed:\n{error.tail}",
            remedy=f"podman rm --force {name}",
        ) from None


def runtime_directory() -> dict[str, str]:
    """XDG_RUNTIME_DIR for a rootless podman in a session without it; {} if it is not needed."""
    if os.getuid() == 0 or os.environ.get("XDG_RUNTIME_DIR"):
        return {}
    usual = Path(f"/run/user/{os.getuid()}")
    if usual.is_dir() and os.access(usual, os.W_OK):
        return {"XDG_RUNTIME_DIR": str(usual)}
    # A short path, since podman puts sockets there.
    own = Path(f"/tmp/rfe-{os.getuid()}")  # noqa: S108
    own.mkdir(mode=0o700, exist_ok=True)
    status = own.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ServeError(f"{own} belongs to another user", remedy="set XDG_RUNTIME_DIR")
    own.chmod(0o700)
    return {"XDG_RUNTIME_DIR": str(own)}


def _explained(error: CommandFailedError, what: str, log: Path) -> ServeError:
    text = error.tail
    if files.is_full(text):
        remedy = f"{error.remedy}; `podman image prune` removes old images"
        return ServeError(f"{what}: the disk is full", remedy=remedy, log=log)
    if "address already in use" in text or "port is already allocated" in text:
        return ServeError(
            f"{what}: the port is taken",
            remedy="stop what listens there (`ss -ltnp` lists it), or choose another port",
            log=log,
        )
    return PodmanError(f"{what}:\n{text}", remedy="`podman info` tells more", log=log)
