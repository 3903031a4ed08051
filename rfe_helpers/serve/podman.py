"""Run a container with podman and skopeo, as root or rootless.

podman's own settings are used first. Only if a container does not start with them, a
containers.conf is written into the lab and used from then on. It has conservative settings (runc,
cgroupfs, lower limits), which podman needs inside other containers and with old cgroups.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core import files, journal, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, PodmanError, ServeError, ToolMissingError
from rfe_helpers.lab.lab import Lab

# What podman and its runtimes print where they start no container.
_STARTS_NOTHING = re.compile(r"rlimit|\bOCI\b|cgroup|namespace|newuidmap|mounting|crun:|runc:")
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
    """A file or directory of the host at a path in the container, read-only or `writable`."""

    source: Path
    target: str
    writable: bool = False

    @property
    def option(self) -> str:
        return f"--volume={self.source}:{self.target}:{'rw' if self.writable else 'ro'},z"


@dataclass(frozen=True)
class Podman:
    """podman on this machine; `config` is the path of the lab's own containers.conf."""

    config: Path

    @classmethod
    def of(cls, lab: Lab) -> Podman:
        """podman on this machine, with the settings of a lab. Raises PodmanError if it is not
        installed."""
        return cls.find(lab.path("www", "containers.conf"))

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

    def build_image(
        self,
        context: Path,
        image: str,
        deadline: Deadline,
        log: Path,
        *,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Build the Containerfile in a directory as `image`; its base may come from a registry on
        this machine without TLS. Raises PodmanError with the end of the output.

        RUN uses the host's network, to reach what apt or dnf reach here.
        """
        argv = ["podman", "build", "--tls-verify=false", "--network=host", "--pull-always"]
        # Where podman starts no container with its own settings, a chroot does for RUN.
        argv += [] if not self.config.exists() else ["--isolation=chroot"]
        argv += [f"--tag={image}", str(context)]
        what = f"podman cannot build {context}"
        self._try(argv, what, deadline, log, fallback=("--isolation=chroot",), on_line=on_line)

    def push_image(
        self, image: str, deadline: Deadline, log: Path, *, compression: str = "gzip"
    ) -> None:
        """Push an image under its own name, to a registry on this machine without TLS."""
        argv = [
            "podman",
            "push",
            "--quiet",
            "--tls-verify=false",
            f"--compression-format={compression}",
        ]
        try:
            self._run([*argv, image], deadline, log)
        except CommandFailedError as error:
            raise _explained(error, f"podman cannot push {image}", log) from None

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
            argv.append(mount.option)
        self._try([*argv, image], f"podman cannot start {image}", deadline, log, name)

    def run_once(
        self,
        image: str,
        command: Sequence[str],
        deadline: Deadline,
        log: Path,
        *,
        mounts: Iterable[Mount] = (),
        network: str = "none",
    ) -> str:
        """Run a command in a container of its own and return its output; `network` is none or
        host. An image of a registry on this machine is fetched. Raises PodmanError if it fails."""
        argv = ["podman", "run", "--rm", "--pull=missing", "--tls-verify=false"]
        argv += [f"--network={network}", *(mount.option for mount in mounts)]
        what = f"{command[0]} has failed in {image}"
        return self._try([*argv, image, *command], what, deadline, log)

    def probe(self, image: str, network: str, deadline: Deadline, log: Path) -> None:
        """Run a container that ends at once, in a network of that kind, so that what this machine
        needs is known. Raises PodmanError if that works neither with podman's settings nor with the
        lab's."""
        argv = ["podman", "run", "--rm", "--pull=never", f"--network={network}"]
        argv += ["--entrypoint=true"]
        self._try([*argv, image], f"podman cannot start {image}", deadline, log)

    def _try(
        self,
        argv: list[str],
        what: str,
        deadline: Deadline,
        log: Path,
        name: str = "",
        *,
        fallback: Sequence[str] = (),
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        """Run a command with podman's own settings, and if these do not do, with the lab's; remove
        the container `name` where it fails. `fallback` are options for the second attempt.
        Returns its output."""
        try:
            return self._run(argv, deadline, log, on_line)
        except CommandFailedError as error:
            if name:
                remove(name, self.environment())
            first = _explained(error, what, log)
            if not isinstance(first, PodmanError) or self.config.exists():
                raise first from None
            if fallback and not _STARTS_NOTHING.search(error.tail):
                raise first from None  # what was to be built is at fault
        journal.write(self.config, _CONSERVATIVE, mode=0o600)
        try:
            return self._run([*argv, *fallback], deadline, log, on_line)
        except CommandFailedError as error:
            if name:
                remove(name, self.environment())
            self.config.unlink()
            raise _explained(error, what, log) from None

    def is_running(self, name: str) -> bool:
        argv = ["podman", "container", "inspect", "--format", "{{.State.Running}}", name]
        return run.run(argv, env=self.environment(), check=False).stdout.strip() == "true"

    def logs(self, name: str) -> str:
        """The last lines that a container printed."""
        argv = ["podman", "logs", "--tail", "15", name]
        result = run.run(argv, env=self.environment(), check=False)
        return (result.stdout + result.stderr).strip()

    def image_id(self, image: str) -> str:
        """The id of an image; "" if there is none."""
        argv = ["podman", "image", "inspect", "--format", "{{.Id}}", image]
        result = run.run(argv, env=self.environment(), check=False)
        return result.stdout.strip() if result.status == 0 else ""

    def remove(self, name: str) -> None:
        """End and remove a container, if it exists."""
        remove(name, self.environment())

    def remove_image(self, image: str) -> None:
        """Remove an image unless a container uses it."""
        run.run(["podman", "image", "rm", image], env=self.environment(), check=False)

    def _run(
        self,
        argv: list[str],
        deadline: Deadline,
        log: Path,
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        env = self.environment()
        result = run.run(argv, env=env, deadline=deadline, log=log, on_line=on_line)
        return result.stdout + result.stderr

    def environment(self) -> dict[str, str]:
        """What podman needs in its environment."""
        config = {"CONTAINERS_CONF": str(self.config)} if self.config.exists() else {}
        return {**runtime_directory(), **config}


def remove(name: str, env: Mapping[str, str] | None = None) -> None:
    """End and remove a container, if it exists. Raises ServeError if that fails."""
    argv = ["podman", "rm", "--force", "--ignore", "--time", "1", name]
    env = env if env is not None else runtime_directory()
    # The first one fails if the container ends by itself meanwhile.
    if run.run(argv, env=env, seconds=60, check=False).status == 0:
        return
    try:
        run.run(argv, env=env, seconds=60)
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
