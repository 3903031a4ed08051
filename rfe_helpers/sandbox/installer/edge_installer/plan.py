"""A kickstart, read with pykickstart, as a plan; what is not supported is refused by line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pykickstart import constants
from pykickstart.errors import KickstartError
from pykickstart.parser import KickstartParser, Script
from pykickstart.sections import (
    OnErrorScriptSection,
    PostScriptSection,
    PreInstallScriptSection,
    PreScriptSection,
)
from pykickstart.version import RHEL9, makeVersion

from .console import InstallError
from .payload import ImagePayload, Payload

# The supported directives and their options; everything else is refused by name.
SUPPORTED: dict[str, frozenset[str]] = {
    "autopart": frozenset({"--type", "--fstype", "--nohome", "--noswap"}),
    "bootloader": frozenset({"--append", "--location"}),
    "clearpart": frozenset({"--all", "--none", "--initlabel", "--drives"}),
    "cmdline": frozenset(),
    "graphical": frozenset({"--non-interactive"}),
    "group": frozenset({"--name", "--gid"}),
    "halt": frozenset(),
    "ignoredisk": frozenset({"--only-use", "--drives"}),
    "keyboard": frozenset({"--vckeymap", "--xlayouts"}),
    "lang": frozenset(),
    "network": frozenset({"--bootproto", "--device", "--hostname", "--onboot", "--activate"}),
    "ostreecontainer": frozenset(
        {"--url", "--stateroot", "--transport", "--no-signature-verification"}
    ),
    "ostreesetup": frozenset({"--osname", "--remote", "--url", "--ref", "--nogpg"}),
    "poweroff": frozenset(),
    "reboot": frozenset(),
    "rootpw": frozenset({"--lock", "--iscrypted", "--plaintext"}),
    "services": frozenset({"--enabled", "--disabled"}),
    "shutdown": frozenset(),
    "sshkey": frozenset({"--username"}),
    "text": frozenset({"--non-interactive"}),
    "timezone": frozenset({"--utc", "--isUtc"}),
    "user": frozenset(
        {
            "--name",
            "--password",
            "--iscrypted",
            "--plaintext",
            "--groups",
            "--uid",
            "--gid",
            "--homedir",
            "--shell",
            "--lock",
            "--gecos",
        }
    ),
    "zerombr": frozenset(),
}
FILESYSTEMS = ("xfs", "ext4")
USER_NAME = r"(?!\.{1,2}$)(?![0-9]+$)[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}"  # as useradd takes them


@dataclass(frozen=True)
class Disks:
    """Which disks may be used, and which of them may be cleared."""

    only: tuple[str, ...]
    ignored: tuple[str, ...]
    clear: bool
    clear_only: tuple[str, ...]


@dataclass(frozen=True)
class User:
    name: str
    password: str | None
    hashed: bool
    locked: bool
    groups: tuple[str, ...]
    uid: str | None
    gid: str | None
    home: str | None
    shell: str | None
    gecos: str


@dataclass(frozen=True)
class Root:
    password: str | None
    hashed: bool
    locked: bool


@dataclass(frozen=True)
class InstallPlan:
    """Everything that a kickstart specifies; None or () where it specifies nothing."""

    payload: Payload | ImagePayload
    disks: Disks
    filesystem: str
    kernel_arguments: tuple[str, ...]
    groups: tuple[tuple[str, str | None], ...]
    users: tuple[User, ...]
    root: Root
    ssh_keys: tuple[tuple[str, str], ...]
    hostname: str | None
    timezone: str | None
    language: str | None
    keyboard: str | None
    enabled: tuple[str, ...]
    disabled: tuple[str, ...]
    scripts: tuple[Script, ...]
    end: str

    def scripts_of(self, kind: int) -> list[Script]:
        """The scripts of one kind (KS_SCRIPT_PRE, …) in their order."""
        return [script for script in self.scripts if script.type == kind]


class _Parser(KickstartParser):  # type: ignore[misc]  # pykickstart has no types
    """Refuses what is not in SUPPORTED before pykickstart parses the values of the line."""

    def __init__(self, handler: Any, *, follow_includes: bool) -> None:
        super().__init__(handler, followIncludes=follow_includes)
        self.lines: dict[str, int] = {}

    def handleCommand(self, lineno: int, args: Sequence[str]) -> Any:  # noqa: N802
        name = args[0]
        if name not in SUPPORTED:
            _refuse(lineno, name, "this directive is not supported here")
        for word in args[1:]:
            option = re.match(r"--?[A-Za-z][\w-]*", word)
            if option and option[0] not in SUPPORTED[name]:
                _refuse(lineno, name, f"option {option[0]} is not supported here")
        self.lines[name] = lineno
        try:
            directive = super().handleCommand(lineno, args)
        except KickstartError as error:
            _refuse(lineno, name, error.message)
        if reason := _unsupported_value(name, directive):
            _refuse(lineno, name, reason)
        return directive

    def setupSections(self) -> None:  # noqa: N802
        self._sections: dict[str, Any] = {}
        for section in (
            PreScriptSection,
            PreInstallScriptSection,
            PostScriptSection,
            OnErrorScriptSection,
        ):
            self.registerSection(section(self.handler, dataObj=Script))


def _refuse(line: int, name: str, reason: str) -> NoReturn:
    raise InstallError(f"line {line}: {name}: {' '.join(reason.split())}")


def parse(text: str, *, follow_includes: bool = True) -> InstallPlan:
    """The plan of a kickstart. Raises InstallError("line N: directive: reason").

    Without `follow_includes`, before %pre has run, included files are ignored and directives that
    they may contain are not required.
    """
    handler = makeVersion(RHEL9)
    parser = _Parser(handler, follow_includes=follow_includes)
    try:
        parser.readKickstartFromString(text)
    except KickstartError as error:
        where = "" if error.lineno is None else f"line {error.lineno}: "
        raise InstallError(where + " ".join(str(error.message).split())) from None
    except ValueError as error:  # shlex: an unclosed quotation
        raise InstallError(f"kickstart: {error}") from None
    return _plan(handler, parser.lines, partial=not follow_includes and "%include" in text)


def _plan(handler: Any, lines: dict[str, int], *, partial: bool) -> InstallPlan:
    if not partial:
        if not lines.keys() & {"ostreesetup", "ostreecontainer"}:
            raise InstallError("the kickstart has no ostreesetup directive, nor ostreecontainer")
        if "autopart" not in lines:
            raise InstallError("the kickstart has no autopart directive")
    networks = handler.network.network
    return InstallPlan(
        payload=_payload(handler, lines),
        disks=Disks(
            only=tuple(handler.ignoredisk.onlyuse),
            ignored=tuple(handler.ignoredisk.ignoredisk),
            clear=handler.clearpart.type == constants.CLEARPART_TYPE_ALL,
            clear_only=tuple(handler.clearpart.drives),
        ),
        filesystem=handler.autopart.fstype or "xfs",
        kernel_arguments=tuple((handler.bootloader.appendLine or "").split()),
        groups=tuple((group.name, _number(group.gid)) for group in handler.group.groupList),
        users=tuple(_user(user) for user in handler.user.userList),
        root=Root(
            password=handler.rootpw.password or None,
            hashed=bool(handler.rootpw.isCrypted),
            locked=bool(handler.rootpw.lock),
        ),
        ssh_keys=tuple((key.username, key.key) for key in handler.sshkey.sshUserList),
        hostname=next((item.hostname for item in networks if item.hostname), None),
        timezone=handler.timezone.timezone or None,
        language=handler.lang.lang or None,
        keyboard=_keyboard(handler.keyboard),
        enabled=tuple(handler.services.enabled or ()),
        disabled=tuple(handler.services.disabled or ()),
        scripts=tuple(handler.scripts),
        end=_end(handler, lines),
    )


def _payload(handler: Any, lines: dict[str, int]) -> Payload | ImagePayload:
    if "ostreecontainer" in lines:
        container = handler.ostreecontainer
        return ImagePayload(
            osname=container.stateroot or "default",
            transport=container.transport or "registry",
            url=container.url or "",
            verify=not container.noSignatureVerification,
            line=lines["ostreecontainer"],
        )
    setup = handler.ostreesetup
    return Payload(
        osname=setup.osname or "",
        remote=setup.remote or setup.osname or "",
        url=setup.url or "",
        ref=setup.ref or "",
        verify=not setup.nogpg,
        line=lines.get("ostreesetup", 0),
    )


def _unsupported_value(name: str, directive: Any) -> str | None:
    """Why a value that pykickstart accepts is not supported here, or None."""
    if name == "autopart":
        if directive.type not in (None, constants.AUTOPART_TYPE_PLAIN):
            return "only --type=plain is supported here"
        if directive.fstype not in (None, "", *FILESYSTEMS):
            return f"--fstype must be {' or '.join(FILESYSTEMS)}"
    if name == "bootloader" and directive.location not in (None, "mbr"):
        return "only --location=mbr is supported here"
    if name == "network" and directive.bootProto not in (None, "", "dhcp"):
        return "only --bootproto=dhcp is supported here"
    if name == "user" and not re.fullmatch(USER_NAME, directive.name):
        return f"{directive.name!r} is not a user name"
    return None


def _user(user: Any) -> User:
    return User(
        name=user.name,
        password=user.password or None,
        hashed=bool(user.isCrypted),
        locked=bool(user.lock),
        groups=tuple(user.groups),
        uid=_number(user.uid),
        gid=_number(user.gid),
        home=user.homedir or None,
        shell=user.shell or None,
        gecos=user.gecos or "",
    )


def _keyboard(directive: Any) -> str | None:
    """The keymap of the console, or else the layout of the desktop without its variant."""
    words = (directive.vc_keymap or directive.keyboard or "").split()
    return words[0] if words else None


def _number(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def _end(handler: Any, lines: dict[str, int]) -> str:
    """reboot, poweroff or halt; halt by default, as Anaconda documents it."""
    if not lines.keys() & {"reboot", "poweroff", "shutdown", "halt"}:
        return "halt"
    ends = {constants.KS_REBOOT: "reboot", constants.KS_SHUTDOWN: "poweroff"}
    return ends.get(handler.reboot.action, "halt")
