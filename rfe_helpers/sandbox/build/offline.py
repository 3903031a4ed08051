"""edge-installer: the boot ISO with a commit inside, for machines without a network.

The layout is osbuild-composer's: the repository at /ostree/repo, the kickstart at /osbuild.ks,
named in every entry of the boot menu. In addition `payload.json`, beside the repository, gives the
size of the unpacked commit. The installed system's remote is the URL of the compose request, so
later updates come from there.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import files
from rfe_helpers.errors import BuilderError
from rfe_helpers.install import kickstart, media
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import ostree_options, tree
from rfe_helpers.sandbox.installer import iso as installer

FACTS = "ostree/payload.json"  # what the installer needs to know before it partitions a disk
BLOCK = 4096  # of the file systems that the commit is installed to
MEDIUM = "/run/install/repo"  # where installers, Anaconda included, mount their boot medium
SOURCE = "source"
# What the directive `rootpw` and a %post script can set.
_ROOT_KEYS = {"name", "password", "key", "expiredate", "force_password_reset"}
UNATTENDED = (
    "text --non-interactive",
    "zerombr",
    "clearpart --all --initlabel",
    "autopart --type=plain --fstype=ext4 --nohome",
    "network --bootproto=dhcp",
    "reboot",
    f"bootloader --append={shlex.quote(kickstart.CONSOLES)}",
)


def build(request: tree.Request, work: tree.Work, target: Path) -> Path:
    """Make the ISO of a compose at `target`; `request.parent` is the commit that goes into it.

    Raises BuilderError if the blueprint contradicts itself, CommitError if the commit cannot be
    fetched, KickstartError for contents that do not parse.
    """
    text = osbuild_kickstart(request)
    with payload(request, work) as repository:
        boot = installer.boot_iso(work)
        work.on_stage("artifact", target.name)
        script, facts = work.directory / media.KICKSTART, work.directory / "payload.json"
        try:
            script.write_text(text)
            files.write_json(facts, {"bytes": unpacked_bytes(repository)})
            media.add_files(
                boot,
                target,
                {media.REPOSITORY: repository.path, FACTS: facts, media.KICKSTART: script},
                # dracut's option to check the medium before it is used
                timeout=(request.blueprint.customizations.get("installer") or {}).get(
                    "menu-timeout"
                ),
                arguments=f"inst.ks={media.read(boot).own_kickstart} rd.live.check",
                deadline=work.deadline,
                on_start=work.on_process,
            )
        finally:
            facts.unlink(missing_ok=True)
            script.unlink(missing_ok=True)  # it may hold password hashes
    return target


@contextlib.contextmanager
def payload(request: tree.Request, work: tree.Work) -> Iterator[Repo]:
    """A repository that contains only the commit of a request; removed at the end."""
    work.on_stage("payload", "ostree pull")
    directory = work.directory / "payload"
    shutil.rmtree(directory, ignore_errors=True)
    try:
        fetch(request, directory, work)
        yield Repo(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fetch(request: tree.Request, directory: Path, work: tree.Work) -> str:
    """Pull the commit of a request, without its history, into a repository of its own."""
    repository = Repo(directory).init("archive")
    repository.add_remote(SOURCE, ostree_options.reachable(request.url))
    revision = request.parent or request.ref
    commit = repository.pull(SOURCE, revision, deadline=work.deadline, log=work.log)
    repository.set_ref(request.ref, commit)
    repository.update_summary()
    return commit


def unpacked_bytes(repository: Repo) -> int:
    """The bytes that the files of an archive repository take on a disk when they are deployed.

    Each .filez begins with the length of its header, padding to 8 bytes, and the size of the file,
    all big-endian (ostree's repository format, "archive").
    """
    total = 0
    for path in (repository.path / "objects").glob("*/*.filez"):
        with path.open("rb") as file:
            size: int = struct.unpack(">8xQ", file.read(16))[0]
        total += -(-size // BLOCK) * BLOCK
    return total


def check(customizations: Mapping[str, Any]) -> None:
    """Raise BuilderError if customizations contradict each other, or request what a kickstart
    cannot express."""
    for user in customizations.get("user", []):
        if user["name"] == "root":
            _refuse("user.root", [key for key in user if user[key] and key not in _ROOT_KEYS])
        # A directive is a line, and pykickstart ends lines as Python does.
        if len(user.get("description", "").splitlines()) > 1:
            _refuse(f"user.{user['name']}", ["a description of several lines"])
    options = customizations.get("installer") or {}
    contents = (options.get("kickstart") or {}).get("contents", "")
    unattended = bool(options.get("unattended"))
    if contents and (unattended or options.get("sudo-nopasswd")):
        # osbuild/images refuses it with the same message.
        raise BuilderError(
            "installer.kickstart.contents are not supported in combination with "
            "unattended or sudo-nopasswd"
        )
    if contents and any(customizations.get(key) for key in ("user", "group", "sshkey")):
        raise BuilderError(
            "edge-installer installer.kickstart.contents are not supported in combination with "
            "users or groups",
            remedy="create them in the contents, with the directives user, group and sshkey",
        )


def warnings(customizations: Mapping[str, Any]) -> list[str]:
    """What an installer does otherwise than RHEL's."""
    options = customizations.get("installer") or {}
    contents = (options.get("kickstart") or {}).get("contents")
    messages = []
    if not contents and not options.get("unattended"):
        messages.append(
            "customizations.installer: the sandbox's installer asks nothing: add a kickstart to "
            "the ISO with mkksiso, or set unattended = true"
        )
    if options.get("modules"):
        messages.append(
            "customizations.installer.modules: ignored: they are modules of Anaconda, and the "
            "sandbox's installer is not Anaconda"
        )
    return messages


def _refuse(where: str, keys: Sequence[str]) -> None:
    if keys:
        raise BuilderError(
            f"customizations.{where}: {', '.join(sorted(keys))} cannot be set by the installer",
            remedy="set it in the blueprint of the commit",
        )


def osbuild_kickstart(request: tree.Request) -> str:
    """The kickstart of the ISO: the payload, the blueprint's customizations, the real remote."""
    customizations = request.blueprint.customizations
    check(customizations)
    options = customizations.get("installer") or {}
    contents = (options.get("kickstart") or {}).get("contents", "")
    unattended = bool(options.get("unattended"))
    facts = profile.load("sandbox")
    lines = [
        f"ostreesetup --nogpg --osname={facts.ostree.osname} --remote={facts.ostree.remote} "
        f"--url=file://{MEDIUM}/{media.REPOSITORY} --ref={shlex.quote(request.ref)}",
        *(UNATTENDED if unattended else ()),
        *_accounts(customizations),
        *_settings(customizations, unattended=unattended),
        *([contents.rstrip()] if contents else []),
        *_sudo(options.get("sudo-nopasswd", [])),
        *_after(customizations),
        *_remote(facts.ostree.remote, request.url),
    ]
    text = "\n".join(lines) + "\n"
    kickstart.validate(text, facts.kickstart.version)
    return text


def _accounts(customizations: Mapping[str, Any]) -> list[str]:
    lines = []
    for group in customizations.get("group", []):
        lines.append(_line("group", name=group["name"], gid=group.get("gid")))
    for user in customizations.get("user", []):
        lines += _ssh_keys(user["name"], user.get("key"))
        if user["name"] == "root":
            if user.get("password"):
                lines.append(f"rootpw --iscrypted {shlex.quote(user['password'])}")
            continue
        lines.append(
            _line(
                "user",
                name=user["name"],
                gecos=user.get("description"),
                groups=",".join(user.get("groups") or []),
                homedir=(user.get("home") or "").rstrip("/"),
                shell=user.get("shell"),
                uid=user.get("uid"),
                gid=user.get("gid"),
                password=user.get("password"),
            )
            + (" --iscrypted" if user.get("password") else "")
        )
    for key in customizations.get("sshkey", []):
        lines += _ssh_keys(key["user"], key["key"])
    return lines


def _ssh_keys(user: str, keys: str | None) -> list[str]:
    """A directive for each line of a blueprint's key."""
    lines = (keys or "").strip().splitlines()
    return [f"sshkey --username={user} {shlex.quote(line.strip())}" for line in lines]


def _settings(customizations: Mapping[str, Any], *, unattended: bool) -> list[str]:
    """Language, keyboard and time zone; an unattended installation needs all of them."""
    locale = customizations.get("locale") or {}
    zone = customizations.get("timezone") or {}
    languages = locale.get("languages") or (["C.UTF-8"] if unattended else [])
    keyboard = locale.get("keyboard") or ("us" if unattended else "")
    timezone = zone.get("timezone") or ("UTC" if unattended else "")
    return [
        *([f"lang {shlex.quote(languages[0])}"] if languages else []),
        *([f"keyboard {shlex.quote(keyboard)}"] if keyboard else []),
        *([f"timezone {shlex.quote(timezone)} --utc"] if timezone else []),
    ]


def _sudo(names: Iterable[str]) -> list[str]:
    """A file for each user or %group that may use sudo without a password."""
    lines = []
    for number, name in enumerate(names):
        path = f"/etc/sudoers.d/50-blueprint-{number}"
        rule = shlex.quote(f"{name} ALL=(ALL) NOPASSWD: ALL")
        commands = [f"echo {rule} > {path}", f"chmod 440 {path}"]
        lines += ["%post --erroronfail", *commands, "%end"]
    return lines


def _after(customizations: Mapping[str, Any]) -> list[str]:
    """A script for what directives of a kickstart cannot express."""
    commands = []
    for user in customizations.get("user", []):
        name = shlex.quote(user["name"])
        if user.get("expiredate") is not None:
            commands.append(f"chage --expiredate {user['expiredate']} {name}")
        if user.get("force_password_reset"):
            commands.append(f"chage --lastday 0 {name}")
    if servers := (customizations.get("timezone") or {}).get("ntpservers"):
        path = "/etc/systemd/timesyncd.conf.d"
        text = shlex.quote(f"[Time]\\nNTP={' '.join(servers)}\\n")
        commands += [f"mkdir -p {path}", f"printf {text} > {path}/50-blueprint.conf"]
    return ["%post --erroronfail", *commands, "%end"] if commands else []


def _remote(remote: str, url: str) -> list[str]:
    """Without this the system would look for updates on the ISO forever."""
    add = f"ostree remote add --no-sign-verify --no-gpg-verify {remote} {shlex.quote(url)}"
    return ["%post --erroronfail", f"ostree remote delete {remote}", add, "%end"]


def _line(directive: str, **options: Any) -> str:
    words = [
        f"--{key}={shlex.quote(str(value))}"
        for key, value in options.items()
        if value not in (None, "")
    ]
    return " ".join([directive, *words])
