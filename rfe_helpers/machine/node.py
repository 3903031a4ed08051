"""An installed edge system, over SSH: its deployments, updates, rollbacks, reboots.

The lab has one SSH key (`keys/id_ed25519`, 0600), which the kickstart adds to the system, and
keeps each machine's host key in `keys/known_hosts-<name>` from the first connection on.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rfe_helpers.core import network, run, ssh
from rfe_helpers.core.network import LOOPBACK
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.run import Result
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import CommandFailedError, DeadlineExceededError, NodeError
from rfe_helpers.lab import keys
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.vm import Machine

# How often the SSH server is tried, and how long its greeting may take.
_TRY_SECONDS, _GREETING_SECONDS = 1, 3
# The same for the lab's machines until systemd has written to the console that the server runs.
# Each attempt before it is up costs an emulated machine a third of a second: QEMU delivers it
# later, although it is closed by then.
_EARLY_TRY_SECONDS, _EARLY_GREETING_SECONDS = 5, 1.5
_SSHD_STARTED = re.compile(r"Started .*(?:ssh|SSH)")
_GOING_DOWN_SECONDS = 30
_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Deployment:
    """One bootable version of the system, as `rpm-ostree status --json` describes it. `origin` is
    what it is updated from: REMOTE:REF, or a reference to a container image, whose `digest` it has
    then.

    >>> booted = node.status().booted
    >>> booted.osname, booted.origin
    ('debian-edge', 'edge:debian/13/x86_64/edge')
    """

    checksum: str
    version: str
    origin: str
    osname: str
    timestamp: datetime
    booted: bool
    staged: bool
    pinned: bool
    digest: str = ""


@dataclass(frozen=True)
class NodeStatus:
    """All deployments of a system; the first one is what boots next.

    >>> status = node.status()
    >>> status.booted.version, len(status.deployments)
    ('13.2...', 2)
    """

    deployments: tuple[Deployment, ...]

    @property
    def booted(self) -> Deployment:
        return self.deployments[self._booted_index]

    @property
    def pending(self) -> Deployment | None:
        """The deployment that the next boot runs instead of the booted one, staged or not."""
        return self.deployments[0] if self._booted_index > 0 else None

    @property
    def rollback(self) -> Deployment | None:
        """The deployment that `rpm-ostree rollback` returns to."""
        following = self.deployments[self._booted_index + 1 :]
        return following[0] if following else None

    @property
    def _booted_index(self) -> int:
        for index, deployment in enumerate(self.deployments):
            if deployment.booted:
                return index
        raise NodeError("none of the deployments is booted")


class Node:
    r"""An edge system, reached over SSH at `port` of `host`; `name` is that of its machine.

    Where the lab runs the machine itself, waiting also notices that it has ended or panicked.

    >>> from rfe_helpers import Node
    >>> node = Node(lab, "edge-1", port=lab.step("install")["ssh_port"])
    >>> node.run("hostname").stdout
    'edge-1\n'
    >>> node.upgrade()  # doctest: +SKIP
    >>> node.reboot(600)  # doctest: +SKIP
    """

    def __init__(
        self, lab: Lab, name: str, *, port: int, user: str = "core", host: str = LOOPBACK
    ) -> None:
        self.lab = lab
        self.name = name
        self.host = host
        self.port = port
        self.user = user

    def __repr__(self) -> str:
        return f"Node({self.name}: {self.ssh_line})"

    @property
    def ssh_line(self) -> str:
        """The command that opens a shell on the node, ready to paste."""
        return self._ssh.line

    @property
    def _ssh(self) -> ssh.Host:
        return keys.host(self.lab, self.name, self.port, user=self.user, address=self.host)

    def forget_host_key(self) -> None:
        """Accept the next host key, after the machine was installed again."""
        keys.forget(self.lab, self.name)

    # commands ---------------------------------------------------------------------------------

    def run(self, command: str, *, seconds: float = 300, check: bool = True) -> Result:
        """Run a shell command on the node. Raises NodeError if it fails (unless `check` is false),
        if the node does not answer, or if the command takes longer than `seconds`."""
        try:
            result = run.run(self._argv(command), seconds=seconds, check=False)
        except DeadlineExceededError as error:
            raise NodeError(f"{self.name}: {command!r} took longer than {seconds:.0f} s") from error
        self._check_host_key(result)
        if result.status == ssh.FAILED:
            raise NodeError(
                f"{self.name} does not answer over SSH: {result.stderr.strip()}",
                remedy=f"check that the machine is running, then try: {self.ssh_line}",
            )
        if check and result.status != 0:
            output = run.tail_of(result.stderr.strip() or result.stdout.strip())
            raise NodeError(f"{self.name}: {command!r} ended with {result.status}: {output}")
        return result

    def _check_host_key(self, result: Result) -> None:
        if result.status == ssh.FAILED and "Host key verification failed" in result.stderr:
            raise NodeError(
                f"{self.name} has another host key than before",
                remedy="check that no other system answers there; if it was installed again, "
                f"remove {keys.known_hosts(self.lab, self.name)}",
            )

    def sudo(self, command: str, *, seconds: float = 300, check: bool = True) -> Result:
        """Run a shell command on the node as root; like `run` otherwise."""
        return self.run(f"sudo sh -c {shlex.quote(command)}", seconds=seconds, check=check)

    def read(self, path: str) -> str:
        """The content of a text file on the node, read as root."""
        return self.sudo(f"cat {shlex.quote(path)}").stdout

    # rpm-ostree -------------------------------------------------------------------------------

    def status(self) -> NodeStatus:
        """The deployments, from `rpm-ostree status --json`. Raises NodeError."""
        answer = self.run("rpm-ostree status --json").stdout
        try:
            return parse_status(json.loads(answer))
        except (ValueError, KeyError, TypeError) as error:
            raise NodeError(
                f"{self.name}: rpm-ostree status --json cannot be parsed: {error!r}"
            ) from error

    def upgrade(self, *, seconds: float = 1800) -> str:
        """Pull and stage what the remote offers; returns the output of rpm-ostree."""
        return self.sudo("rpm-ostree upgrade", seconds=seconds).stdout

    def rollback(self) -> str:
        """Make the previous deployment the one that boots next."""
        return self.sudo("rpm-ostree rollback").stdout

    # boots ------------------------------------------------------------------------------------

    def boot_id(self) -> str:
        """The kernel's id of this boot, different after every one."""
        return self.run(_BOOT_ID).stdout.strip()

    def wait(
        self, deadline: Deadline | float, on_progress: OnProgress = None, *, not_boot: str = ""
    ) -> str:
        """Wait until the system answers over SSH in another boot than `not_boot`; returns its
        boot id. Raises DeadlineExceededError with the end of the console, MachineError, or
        NodeError if the host key has changed."""

        machine = Machine.find(self.lab, self.name)
        begins = 0 if machine is None else machine.console_size
        next_try = Deadline(0)

        def answer() -> str | None:
            nonlocal next_try
            if on_progress is not None:
                on_progress(f"waiting for {self.name} to answer over SSH")
            early = machine is not None and not _SSHD_STARTED.search(machine.console(begins))
            if not next_try.expired and (early or machine is None):
                return None
            next_try = Deadline(_EARLY_TRY_SECONDS if early else _TRY_SECONDS)
            # QEMU accepts connections for a machine that is not there yet, and ssh would wait for
            # its greeting much longer than until the next try.
            if not self._greets(_EARLY_GREETING_SECONDS if early else _GREETING_SECONDS):
                return None
            self._ssh.disconnect()
            try:
                result = run.run(self._argv(_BOOT_ID), seconds=30, check=False)
            except (DeadlineExceededError, CommandFailedError):
                return None
            self._check_host_key(result)
            boot = result.stdout.strip()
            return boot if result.status == 0 and boot and boot != not_boot else None

        what = f"{self.name} answers over SSH"
        if machine is not None:
            return machine.wait_until(answer, deadline, what, on_progress, every=0.2)
        return wait_for(answer, deadline, what, every=1)

    def reboot(self, deadline: Deadline | float, on_progress: OnProgress = None) -> str:
        """Reboot and wait for the next boot; returns its boot id. Raises as `wait` does."""
        limit = Deadline.of(deadline)
        before = self.boot_id()
        # The connection may or may not survive the command.
        run.run(self._argv("sudo systemctl reboot"), deadline=limit, check=False)
        # A login to a system that is going down hangs with it.
        with contextlib.suppress(DeadlineExceededError):
            wait_for(lambda: not self._greets(), Deadline(_GOING_DOWN_SECONDS), "it goes down")
        return self.wait(limit, on_progress, not_boot=before)

    def _greets(self, seconds: float = _GREETING_SECONDS) -> bool:
        greeting = network.greeting(self.host, self.port, seconds)
        return greeting.startswith(b"SSH-")

    def _argv(self, command: str) -> list[str]:
        return self._ssh.argv(command)


def parse_status(document: dict[str, Any]) -> NodeStatus:
    """Parse `rpm-ostree status --json`. Raises ValueError, KeyError or TypeError."""
    return NodeStatus(tuple(_deployment(entry) for entry in document["deployments"]))


def _deployment(entry: dict[str, Any]) -> Deployment:
    return Deployment(
        checksum=entry["checksum"],
        version=entry.get("version") or "",
        origin=entry.get("container-image-reference") or entry.get("origin") or "",
        osname=entry["osname"],
        timestamp=datetime.fromtimestamp(entry["timestamp"], UTC),
        booted=entry["booted"],
        staged=entry.get("staged", False),
        pinned=entry.get("pinned", False),
        digest=entry.get("container-image-reference-digest") or "",
    )
