"""What a seat runs in: a container of the workbook's image, or an account of this machine.

Containers are run by podman through its Docker socket, which DockerSpawner uses: each has a volume
with the person's lab, and limits on memory, processors and processes. As root the volume is a file
system of its own, in a file, so that a full disk is the seat's alone. Seats reach the hub through
slirp4netns, which shows them the loopback of this machine.
"""

from __future__ import annotations

import os
import pwd
import resource
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rfe_helpers.core import files, run
from rfe_helpers.core.network import HOST_FROM_GUEST, LOOPBACK
from rfe_helpers.core.progress import Say
from rfe_helpers.core.units import size as size_text
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import InputError
from rfe_helpers.room.settings import Settings
from rfe_helpers.serve.podman import Podman

PROCESSES = 2048  # of a seat, with all threads
SCRATCH = 8 << 30  # bytes of a seat's /var/tmp, where trees are built
_USER = 1000  # of the image
_LOOP_DEVICES = Path("/dev/loop-control")
_NETWORK = "slirp4netns:allow_host_loopback=true"  # seats reach the hub on this loopback
_LABEL = "rfe.room"
_COMMENT = "seat of an rfe room"  # of the accounts that a room makes


class SeatEngine(ABC):
    """How seats are made, and what of the machine they need. `environment` is for JupyterHub."""

    environment: Mapping[str, str]

    @abstractmethod
    def prepare(self, tell: Say) -> None:
        """Check the machine, and make what seats need. Raises InputError or PodmanError."""

    @abstractmethod
    def make(self, name: str) -> None:
        """Make what one seat needs before it starts, unless it is there."""

    def service(self) -> list[str]:
        """The command of a service that has to run beside the hub, and does not; [] for none."""
        return []

    def is_ready(self) -> bool:
        return True

    @abstractmethod
    def configure(self, c: Any, hub_port: int) -> None:
        """Set JupyterHub's configuration."""

    @abstractmethod
    def end_seats(self, names: Iterable[str]) -> list[str]:
        """End all that runs in these seats; returns what was ended."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a seat, in which nothing runs, with all that it has stored."""


def engine_of(directory: Path, identity: str, settings: Settings) -> SeatEngine:
    """The engine of a room."""
    if settings.engine == "accounts":
        return Accounts(settings)
    return Containers(directory, identity, settings)


class Containers(SeatEngine):
    """Containers of podman, with root or without."""

    def __init__(self, directory: Path, identity: str, settings: Settings) -> None:
        self.settings = settings
        self.identity = identity
        self.disks = directory / "disks"
        self.log = directory / "logs" / "podman.log"
        self.podman = Podman(directory / "containers.conf")
        self.socket = directory / "podman.sock"

    @property
    def environment(self) -> Mapping[str, str]:  # type: ignore[override]
        return {**self.podman.environment(), "DOCKER_HOST": f"unix://{self.socket}"}

    def volume(self, seat: str) -> str:
        return f"rfe-room-{self.identity}-{seat}"

    @property
    def volumes(self) -> dict[str, tuple[str, int]]:
        """What follows a seat's name in those of its volumes: where each is, and its bytes."""
        scratch = ("/var/tmp", SCRATCH)  # noqa: S108
        return {"": ("/lab", self.settings.disk_bytes), "_scratch": scratch}  # _ is not in names

    def prepare(self, tell: Say) -> None:
        run.require("podman", "slirp4netns")
        image = self.settings.image
        if not self.podman.image_id(image):
            raise InputError(
                f"podman has no image {image}",
                remedy="make it with `make image`, or name another: image = … in the room's file",
            )
        self.podman.probe(image, _NETWORK, Deadline(120), self.log)
        if self.has_disks:
            self._check_room(tell)
            for seat in self.settings.people:
                self.make(seat)
        else:
            tell("without root and loop devices the disks of seats are not limited")

    @property
    def has_disks(self) -> bool:
        """Whether seats can have file systems of their own here."""
        return os.getuid() == 0 and _LOOP_DEVICES.exists()

    def _check_room(self, tell: Say) -> None:
        """Say when all disks together are larger than the one that they are on."""
        room = files.room(self.disks.parent)
        sizes = sum(size for _, size in self.volumes.values()) * len(self.settings.people)
        if sizes > room:
            tell(
                f"the disks of all seats may take {size_text(sizes)}, and {size_text(room)} are "
                "free: a full disk of this machine is felt by everybody"
            )

    def make(self, name: str) -> None:
        """Volumes that are file systems in sparse files, which podman mounts with the seat."""
        for suffix, (_, size) in self.volumes.items() if self.has_disks else ():
            volume, image = self.volume(name + suffix), self.disks / f"{name}{suffix}.ext4"
            if image.exists() and self._run("volume", "exists", volume, check=False).status == 0:
                continue
            self.disks.mkdir(exist_ok=True, mode=0o700)
            with files.replacing(image, mode=0o600) as new:
                with new.open("wb") as file:
                    file.truncate(size)
                owner = f"root_owner={_USER}:{_USER},lazy_itable_init=1"
                run.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-E", owner, new])
                # podman fills a volume that is empty, and this would keep it from being that.
                run.run(["debugfs", "-w", "-R", "rmdir lost+found", new])
            self._run("volume", "rm", "--force", volume, check=False)
            # With discard, what a person deletes is free on this machine's disk, too.
            options = ["--opt", "type=ext4", "--opt", f"device={image}", "--opt", "o=loop,discard"]
            self._run("volume", "create", *options, volume)

    def service(self) -> list[str]:
        self.socket.unlink(missing_ok=True)
        return ["podman", "system", "service", "--time=0", f"unix://{self.socket}"]

    def is_ready(self) -> bool:
        with suppress(OSError):
            self.socket.chmod(0o600)
            return True
        return False

    def configure(self, c: Any, hub_port: int) -> None:
        settings = self.settings
        host: dict[str, Any] = {
            "network_mode": _NETWORK,
            "pids_limit": PROCESSES,
            "memswap_limit": settings.memory_bytes,
            # All that a seat writes is on its own disk, or in its memory.
            "read_only": True,
            "tmpfs": {"/tmp": "size=256m"},  # noqa: S108
            "log_config": {"Type": "k8s-file", "Config": {"max-size": "10m"}},
            "ulimits": [
                {"Name": name, "Soft": most, "Hard": most} for name, most in _limits().items()
            ],
        }
        if os.access("/dev/kvm", os.R_OK | os.W_OK):
            host["devices"] = ["/dev/kvm:/dev/kvm:rwm"]
        c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
        c.Spawner.hub_connect_url = f"http://{HOST_FROM_GUEST}:{hub_port}"
        c.DockerSpawner.image = settings.image
        c.DockerSpawner.prefix = f"rfe-room-{self.identity}"
        # As they are: in {username} a - is -2d.
        c.DockerSpawner.name_template = "{prefix}-{raw_username}"
        c.DockerSpawner.volumes = {
            self.volume("{raw_username}" + suffix): path
            for suffix, (path, _) in self.volumes.items()
        }
        c.DockerSpawner.host_ip = LOOPBACK
        c.DockerSpawner.remove = True
        c.DockerSpawner.extra_host_config = host
        c.DockerSpawner.extra_create_kwargs = {"labels": {_LABEL: self.identity}}
        c.DockerSpawner.mem_limit = settings.memory_bytes
        c.DockerSpawner.cpu_limit = settings.processors
        c.DockerSpawner.cmd = ["room", "seat"]
        c.DockerSpawner.environment = {"XDG_RUNTIME_DIR": "/lab/.run"}

    def end_seats(self, names: Iterable[str]) -> list[str]:
        flag = f"label={_LABEL}={self.identity}"
        listing = self._run("ps", "--all", "--format", "{{.Names}}", "--filter", flag)
        ours = {self.volume(name) for name in names}
        ended = [name for name in listing.stdout.split() if name in ours]
        for name in ended:
            self.podman.remove(name)
        return [f"container {name}" for name in ended]

    def remove(self, name: str) -> None:
        for suffix in self.volumes:
            volume = self.volume(name + suffix)
            if self._run("volume", "exists", volume, check=False).status == 0:
                self._run("volume", "rm", "--force", volume)
            (self.disks / f"{name}{suffix}.ext4").unlink(missing_ok=True)

    def _run(self, *words: str, check: bool = True) -> run.Result:
        argv = ["podman", *words]
        return run.run(argv, env=self.podman.environment(), check=check, seconds=60)


class Accounts(SeatEngine):
    """Accounts of this machine, one for each seat, without limits on what they use. Only accounts
    that a room has made are touched: their comment says so."""

    environment: Mapping[str, str] = {}  # it never changes

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def prepare(self, tell: Say) -> None:
        if os.getuid() != 0:
            raise InputError(
                "a room of accounts needs root, to make them",
                remedy='run it as root, or with engine = "containers", which does not',
            )
        run.require("useradd", "userdel", "pkill")
        accounts = {account.pw_name for account in pwd.getpwall()}
        for seat in accounts.intersection(self.settings.people):
            if _account(seat) is None:
                raise InputError(
                    f"there is an account {seat} on this machine, which is not a seat's",
                    remedy="give the seat another name",
                )
        tell("accounts share this machine: nothing limits their memory, processors and disk")

    def make(self, name: str) -> None:
        """Nothing: JupyterHub makes the account when somebody logs in."""

    def configure(self, c: Any, hub_port: int) -> None:
        useradd = ["useradd", "--create-home", "--shell", "/bin/bash", "--comment", _COMMENT]
        c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"
        c.LocalAuthenticator.create_system_users = True
        c.LocalAuthenticator.add_user_cmd = useradd
        c.Spawner.cmd = [str(Path(sys.executable).parent / "rfe"), "room", "seat"]

    def end_seats(self, names: Iterable[str]) -> list[str]:
        return [f"processes of {name}" for name in names if _end_processes(name)]

    def remove(self, name: str) -> None:
        if _account(name) is not None:
            _end_processes(name)
            run.run(["userdel", "--remove", name], check=False)  # 12, if it had no mail


def _limits() -> dict[str, int]:
    """The highest limits (getrlimit(2)) that this machine lets containers have. All seats have one
    user id, so that of processes is for all of them together."""
    most = int(Path("/proc/sys/kernel/pid_max").read_text())  # podman asks for no more
    limits = {"nproc": (resource.RLIMIT_NPROC, most), "nofile": (resource.RLIMIT_NOFILE, 1 << 20)}
    hard = {name: resource.getrlimit(number)[1] for name, (number, _) in limits.items()}
    return {
        name: usual if hard[name] == resource.RLIM_INFINITY else min(hard[name], usual)
        for name, (_, usual) in limits.items()
    }


def _account(seat: str) -> pwd.struct_passwd | None:
    """The account of a seat; None if there is none of that name, or one that no room has made."""
    try:
        account = pwd.getpwnam(seat)
    except KeyError:
        return None
    return account if account.pw_gecos == _COMMENT else None


def _end_processes(seat: str) -> bool:
    """End all processes of a seat's account; returns whether there were any."""
    account = _account(seat)
    if account is None:
        return False
    argv = ["pkill", "--signal", "KILL", "-U", str(account.pw_uid)]
    return run.run(argv, check=False).status == 0
