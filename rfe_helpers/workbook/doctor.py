"""What this host has for the workbook, what it lacks, and the commands that fix that.

The packages come from `tools.tsv`; the script `install-packages` beside it, which `./set-up` runs,
too, installs those that are missing. Every call looks at the host again, except for whether KVM
boots a guest, which rfe_helpers.machine.accelerator records.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, NoReturn

from rfe_helpers.core import files, memory, run
from rfe_helpers.core.network import port_is_free
from rfe_helpers.errors import RfeError, ToolMissingError
from rfe_helpers.lab import ports
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.lab.lab import default_directory
from rfe_helpers.machine.accelerator import find_accelerator

Status = Literal["ok", "missing", "too old", "warning"]
MIB = 1024 * 1024
GIB = 1024 * MIB

# Arguments of commands that do not print their version with --version.
_VERSION_ARGUMENT = {
    "ssh": "-V",
    "nginx": "-v",
    "xorriso": "-version",
    "mksquashfs": "-version",
    "openssl": "version",
}
_NO_VERSION = {"newuidmap", "ssh-keygen", "pasta", "mke2fs"}

# Bytes that each step adds, measured with the sandbox profile and rounded up.
DISK_STEPS = (
    ("20 build a commit: package cache and base tree", "cache", 2 * GIB),
    ("20 build a commit: the tree in work and the artifact", "lab", 2 * GIB),
    ("30 inspect the commit: a second commit to compare with", "lab", 1 * GIB),
    ("40 serve the commit: container image and repository", "lab", 1 * GIB),
    ("50 install a machine: boot ISO", "cache", 1 * GIB),
    ("50 install a machine: its disk", "lab", 2 * GIB),
    ("60 update and roll back: another commit", "lab", 1 * GIB),
)
# Users of Debian's packages have ids below 60000 (Debian policy 9.2.2); usermod gives 65536, but a
# rootless container has fewer left for its users.
SUBORDINATE_IDS = 60000
KVM = Path("/dev/kvm")
CONTAINER_MARKS = ("/run/.containerenv", "/.dockerenv")  # of podman and of Docker
MEMORY_NEEDED = 3 * GIB
PORTS = (("the web server", ports.WEB), ("SSH to the machine", ports.SSH))


@dataclass(frozen=True)
class Diagnosis:
    """The state of one thing that the workbook needs. `remedy` is the command or the action that
    fixes it.

    >>> from rfe_helpers.workbook import doctor
    >>> finding = doctor.examine_tool(doctor.tools()[0])
    >>> finding.name, finding.status, finding.stops
    ('ostree', 'ok', False)
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""
    essential: bool = False

    @property
    def stops(self) -> bool:
        """Whether the workbook cannot run without fixing it."""
        return self.essential and self.status in ("missing", "too old")


@dataclass(frozen=True)
class Tool:
    """A line of tools.tsv. `probe` has alternatives, each a command or an absolute glob; `minimum`
    is the oldest version that works, "-" for any; `debian` and `fedora` are names of packages;
    `need` is essential, optional, or the numbers of the notebooks that need it: 85,100.

    >>> from rfe_helpers.workbook import doctor
    >>> [ostree] = [tool for tool in doctor.tools() if tool.name == "ostree"]
    >>> ostree.essential, ostree.purpose
    (True, 'repositories and commits')
    """

    probe: tuple[str, ...]
    minimum: str
    debian: str
    fedora: str
    need: str
    purpose: str

    @property
    def essential(self) -> bool:
        """Whether the workbook cannot run without it."""
        return self.need == "essential"

    def is_for(self, number: str) -> bool:
        """Whether a notebook cannot do without it."""
        return self.essential or number in self.notebooks

    @property
    def notebooks(self) -> list[str]:
        """The numbers of the only notebooks that need it; [] if all do, or none must."""
        return self.need.split(",") if self.need[:1].isdigit() else []

    @property
    def package(self) -> str:
        """The package that has it on this system."""
        return self.debian if run.which("apt-get") is not None else self.fedora

    @property
    def name(self) -> str:
        """The command, or the package for files."""
        return self.debian if self.probe[0].startswith("/") else self.probe[0]

    def find(self) -> Path | None:
        """The path of the first alternative on this host, or None."""
        for item in self.probe:
            if item.startswith("/"):
                path = next(iter(sorted(Path("/").glob(item[1:]))), None)
            else:
                path = run.which(item)
            if path is not None:
                return path
        return None


def examine() -> list[Diagnosis]:
    """Examine everything; takes a few seconds, the first time longer, since a guest is booted.

    For example:

    >>> from rfe_helpers.workbook import doctor
    >>> [finding.name for finding in doctor.examine() if finding.stops]
    []
    """
    return [
        _python(),
        *map(examine_tool, tools()),
        examine_user_namespaces(),
        *_subordinate_ids(),
        examine_accelerator(),
        _memory(),
        *examine_disk(),
        *(examine_port(purpose, ports.of_user(port)) for purpose, port in PORTS),
    ]


def install_command(findings: list[Diagnosis]) -> str:
    """One command that installs all packages that are missing, "" if none are.

    >>> from rfe_helpers.workbook import doctor
    >>> missing = doctor.Diagnosis("jq", "missing", "", remedy="apt-get install jq", essential=True)
    >>> doctor.install_command([missing])
    ''
    """
    names = {finding.name for finding in findings if finding.status == "missing"}
    packages = sorted({tool.package for tool in tools() if tool.name in names})
    return _install(*packages) if packages else ""


def install(*arguments: str) -> NoReturn:
    """Install the packages that are missing, and then become `rfe` with these arguments."""
    script = str(resources.files("rfe_helpers.workbook") / "install-packages")
    run.become(["sh", script, sys.executable, "-m", "rfe_helpers.cli", *arguments], env={})


def tools() -> list[Tool]:
    """The lines of tools.tsv, except for those that only a room and the tests need.

    >>> from rfe_helpers.workbook import doctor
    >>> [tool.name for tool in doctor.tools()]
    ['ostree', 'mmdebstrap', ...]
    """
    text = (resources.files("rfe_helpers.workbook") / "tools.tsv").read_text()
    return [tool for tool in parse_tools(text) if tool.need not in ("dev", "room")]


def parse_tools(text: str) -> Iterator[Tool]:
    """The lines of a table such as tools.tsv, which describes its columns."""
    for line in text.splitlines():
        if line and line[0] != "#":
            probe, minimum, debian, fedora, need, purpose = line.split("\t")
            yield Tool(tuple(probe.split("|")), minimum, debian, fedora, need, purpose)


def require_tools(number: str) -> None:
    """Check that all tools of a notebook are installed, without a number those that every notebook
    needs. Raises ToolMissingError with the command that installs what is missing.

    >>> from rfe_helpers.workbook import doctor
    >>> doctor.require_tools("30")
    """
    missing = [t for t in tools() if t.is_for(number) and t.find() is None]
    if missing:
        packages = sorted({tool.package for tool in missing})
        names = ", ".join(tool.name for tool in missing)
        notebook = f"notebook {number}" if number else "this notebook"
        raise ToolMissingError(
            f"{notebook} needs what is not installed: {names}", remedy=_install(*packages)
        )


def _install(*packages: str) -> str:
    sudo = "" if os.getuid() == 0 else "sudo "
    if run.which("apt-get") is not None:
        return f"{sudo}apt-get install --no-install-recommends {' '.join(packages)}"
    return f"{sudo}dnf install {' '.join(packages)}"


def _python() -> Diagnosis:
    version = ".".join(map(str, sys.version_info[:3]))
    return Diagnosis("python", "ok", f"{version} ({sys.executable})", essential=True)


def examine_tool(tool: Tool) -> Diagnosis:
    """Whether a tool is installed, in a version that is new enough."""
    path = tool.find()
    if path is None:
        return Diagnosis(
            tool.name, "missing", f"for {tool.purpose}", _install(tool.package), tool.essential
        )
    if tool.probe[0].startswith("/") or tool.name in _NO_VERSION:
        return Diagnosis(tool.name, "ok", str(path), essential=tool.essential)
    version = _version(path)
    if tool.minimum != "-" and version and _numbers(version) < _numbers(tool.minimum):
        detail = f"{version}, at least {tool.minimum} is needed for {tool.purpose}"
        remedy = f"upgrade the system: it has an older version of the package {tool.package}"
        return Diagnosis(tool.name, "too old", detail, remedy, tool.essential)
    return Diagnosis(tool.name, "ok", version or str(path), essential=tool.essential)


def _version(command: Path) -> str:
    """The version that a command prints, "" if it prints none."""
    argument = _VERSION_ARGUMENT.get(command.name, "--version")
    try:
        result = run.run([command, argument], seconds=20, check=False)
    except RfeError:
        return ""
    version = re.search(r"\d+(\.\d+)+", result.stdout + result.stderr)
    return version[0] if version else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def examine_user_namespaces() -> Diagnosis:
    """Whether an ordinary user may make a user namespace, with ids of other users in it."""
    name = "user namespaces"
    if os.getuid() == 0:
        return Diagnosis(name, "ok", "not needed by root")
    result = run.run(["unshare", "--user", "--map-root-user", "true"], seconds=20, check=False)
    if result.status != 0:
        detail = result.stderr.strip() or "refused"
        return Diagnosis(name, "missing", detail, _allow_user_namespaces(), essential=True)
    mapped = ["unshare", "--user", "--map-auto", "--map-root-user", "true"]
    result = run.run(mapped, seconds=20, check=False)
    if result.status != 0 and in_container():
        detail = f"no ids of other users: {result.stderr.strip()}"
        remedy = (
            "start the container without --cap-drop and without --security-opt no-new-privileges"
        )
        return Diagnosis(name, "missing", detail, remedy, essential=True)
    return Diagnosis(name, "ok", "allowed", essential=True)


def _allow_user_namespaces() -> str:
    if in_container():
        return (
            "start the container with podman, or with --security-opt seccomp=unconfined; if that "
            "changes nothing, see `rfe doctor` outside it"
        )
    settings = ("kernel.apparmor_restrict_unprivileged_userns=0", "user.max_user_namespaces=15000")
    apparmor = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists()
    return f"sudo sysctl -w {settings[0 if apparmor else 1]}"


def in_container() -> bool:
    """Whether this runs in a container of podman or Docker."""
    return any(Path(name).exists() for name in CONTAINER_MARKS)


def _subordinate_ids() -> Iterator[Diagnosis]:
    user = user_name()
    if os.getuid() == 0:
        yield Diagnosis("subordinate ids", "ok", "not needed by root")
        return
    for path, option in (("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")):
        yield examine_subordinate_ids(user, Path(path), option)


def user_name() -> str:
    """The name of the user, or the number of one without a name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def examine_subordinate_ids(user: str, path: Path, option: str) -> Diagnosis:
    """Whether `user` has as many ids as a Debian tree needs in `path`, which has lines of name or
    uid, first id and count (subuid(5)); `option` is that of usermod which adds some."""
    lines = path.read_text().splitlines() if path.exists() else []
    ranges = [line.split(":") for line in lines if line.count(":") == 2]
    names = (user, str(os.getuid()))
    count = sum(int(number) for name, _, number in ranges if name in names)
    if count >= SUBORDINATE_IDS:
        return Diagnosis(path.name, "ok", f"{count} ids for {user}", essential=True)
    first = max([100000, *(int(start) + int(number) for _, start, number in ranges)])
    remedy = f"sudo usermod {option} {first}-{first + 65535} {user}"
    return Diagnosis(path.name, "missing", f"{count} ids for {user}", remedy, essential=True)


def examine_accelerator() -> Diagnosis:
    """Whether KVM boots a guest here, and what hinders it if not."""
    try:
        accelerator = find_accelerator()
    except RfeError as error:
        return Diagnosis("KVM", "warning", error.message, error.remedy)
    if accelerator == "kvm":
        return Diagnosis("KVM", "ok", "boots a guest")
    if not KVM.exists() and in_container():
        detail = "no /dev/kvm in this container"
        remedy = "start it with --device /dev/kvm, or do nothing: it works, only slowly"
    elif not KVM.exists():
        detail = "no /dev/kvm"
        remedy = "enable virtualisation in the firmware, or do nothing: it works, only slowly"
    elif not os.access(KVM, os.R_OK | os.W_OK):
        detail = "you may not use /dev/kvm"
        remedy = f"sudo usermod --append --groups kvm {user_name()}, then log in again"
        if in_container():
            remedy = "start the container with --group-add keep-groups, as a user who may use it"
    else:
        detail = "/dev/kvm exists, but a guest does not boot"
        remedy = "do nothing: it works, only slowly"
    return Diagnosis("KVM", "warning", f"{detail}: machines are emulated, ten times slower", remedy)


def _memory() -> Diagnosis:
    available = memory.available()
    detail = f"{available / GIB:.1f} GiB free, {MEMORY_NEEDED / GIB:.0f} GiB are enough"
    if available >= MEMORY_NEEDED:
        return Diagnosis("memory", "ok", detail)
    return Diagnosis("memory", "warning", detail, "close other programs before notebook 50")


def examine_disk() -> Iterator[Diagnosis]:
    """Whether there is room for each step; steps on the same file system add up."""
    places = {"cache": cache_directory(), "lab": Path(default_directory()).expanduser()}
    used: dict[int, int] = {}
    for step, place, size in DISK_STEPS:
        directory = next(path for path in (places[place], *places[place].parents) if path.exists())
        device = directory.stat().st_dev
        used[device] = used.get(device, 0) + size
        free = files.room(directory)
        detail = f"{size / GIB:.0f} GiB in {places[place]}, {free / GIB:.0f} GiB free"
        enough = free >= used[device]
        variable = "RFE_CACHE" if place == "cache" else "the parameter `lab`"
        remedy = "" if enough else f"free some space, or choose another directory with {variable}"
        yield Diagnosis(f"disk, {step}", "ok" if enough else "warning", detail, remedy)


def examine_port(purpose: str, port: int) -> Diagnosis:
    """Whether a TCP port on loopback is free."""
    if port_is_free(port):
        return Diagnosis(f"port {port}", "ok", f"free, for {purpose}")
    detail = f"in use; {purpose} will take another one"
    return Diagnosis(
        f"port {port}", "warning", detail, "do nothing, or stop the program that `ss -ltnp` shows"
    )
