"""Applies a blueprint's customizations to the system that it runs in.

`python3 customize.py` reads them from stdin, as JSON in the shape of a blueprint that the service
has validated: in the chroot of a tree that is being built, of a guest image, or of a deployment.
Standard library only. What only the tree can tell, such as whether a unit or a group exists, is
checked before anything is changed, and all that is wrong is reported at once.
"""

import base64
import contextlib
import grp
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Table = dict[str, Any]

ROOT = Path("/")
# Where a blueprint may write; in a deployment /root and /usr/local are links into /var.
WRITABLE = ("/etc", "/root", "/usr/local/bin", "/usr/local/sbin")
UNITS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
SCRIPTS = "/etc/init.d"
SUFFIXES = (".service", ".socket", ".target", ".timer", ".path", ".mount", ".automount", ".slice")


# containers-storage.conf(5)
STORAGE = """[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"

[storage.options]
additionalimagestores = ["/usr/share/containers/storage"]
"""


def run(*argv: str, data: str | None = None) -> None:
    """Run a command; its output goes to the build log; secrets (`data`) are passed on stdin."""
    subprocess.run(argv, check=True, input=data, text=True)


def stage(name: str) -> None:
    print(f"RFE-STAGE: {name}", flush=True)


def in_tree(path: str) -> Path:
    return ROOT / path.lstrip("/")


# checks -------------------------------------------------------------------------------------------


def problems(customizations: Table) -> Iterator[str]:
    """What cannot be applied to this tree, each with its place in the blueprint."""
    users = {entry["name"] for entry in customizations.get("user") or []}
    groups = {entry["name"] for entry in customizations.get("group") or []}
    yield from missing_groups(customizations, lambda name: exists(grp.getgrnam, name))
    yield from missing_accounts(customizations, users)
    yield from wrong_places(customizations)
    yield from missing_owners(customizations, users, users | groups)
    yield from missing_units(customizations, has_unit)
    zone = (customizations.get("timezone") or {}).get("timezone")
    if zone and not in_tree(f"/usr/share/zoneinfo/{zone}").exists():
        yield f"customizations.timezone.timezone: the tree has no time zone {zone}"


def missing_groups(customizations: Table, known: Callable[[str], bool]) -> Iterator[str]:
    """Groups of users that neither the tree nor the blueprint has."""
    entries = [*(customizations.get("user") or []), *(customizations.get("group") or [])]
    coming = {entry["name"] for entry in entries}
    for number, entry in enumerate(customizations.get("user") or []):
        for name in entry.get("groups") or []:
            if name not in coming and not known(name):
                where = f"customizations.user[{number}].groups"
                yield f"{where}: there is no group {name}: add it to customizations.group"


def missing_accounts(customizations: Table, users: set[str]) -> Iterator[str]:
    ids = {entry.get("gid") for entry in customizations.get("group") or []}
    for number, entry in enumerate(customizations.get("group") or []):
        gid = entry.get("gid")
        for other in grp.getgrall() if gid is not None else ():
            # groupadd --force would choose another id in silence.
            if (gid == other.gr_gid) != (entry["name"] == other.gr_name):
                where = f"customizations.group[{number}].gid"
                yield f"{where}: the group {other.gr_name} has the id {other.gr_gid}"
    for number, entry in enumerate(customizations.get("user") or []):
        gid = entry.get("gid")
        if gid is not None and gid not in ids and not exists(grp.getgrgid, gid):
            where = f"customizations.user[{number}]"
            yield f"{where}.gid: no group has the id {gid}: add one to customizations.group"
    for number, entry in enumerate(customizations.get("sshkey") or []):
        if entry["user"] not in users and not exists(pwd.getpwnam, entry["user"]):
            yield f"customizations.sshkey[{number}].user: there is no user {entry['user']}"


def missing_owners(customizations: Table, users: set[str], groups: set[str]) -> Iterator[str]:
    for key in ("directories", "files"):
        for number, entry in enumerate(customizations.get(key) or []):
            where = f"customizations.{key}[{number}]"
            user, group = entry.get("user"), entry.get("group")
            if isinstance(user, str) and user not in users and not exists(pwd.getpwnam, user):
                yield f"{where}.user: there is no user {user}"
            if isinstance(group, str) and group not in groups and not exists(grp.getgrnam, group):
                yield f"{where}.group: there is no group {group}"


def exists(lookup: Callable[[Any], object], key: object) -> bool:
    try:
        lookup(key)
    except KeyError:
        return False
    return True


def wrong_places(customizations: Table) -> Iterator[str]:
    """Paths that lead elsewhere, lack a parent, or are something else already."""
    coming: set[Path] = set()
    for number, entry in enumerate(customizations.get("directories") or []):
        path, where = in_tree(entry["path"]), f"customizations.directories[{number}].path"
        if is_elsewhere(path / "x"):
            yield f"{where}: {entry['path']} leads to {path.resolve()}"
        elif path.is_symlink() or (path.exists() and not path.is_dir()):
            yield f"{where}: {entry['path']} is not a directory in this tree"
        elif not entry.get("ensure_parents") and not is_there(path.parent, coming):
            yield f"{where}: {path.parent} does not exist: set ensure_parents = true"
        coming |= {path, *(path.parents if entry.get("ensure_parents") else ())}
    for number, entry in enumerate(customizations.get("files") or []):
        path, where = in_tree(entry["path"]), f"customizations.files[{number}].path"
        if is_elsewhere(path):
            yield f"{where}: {path.parent} leads to {path.parent.resolve()}"
        elif path.is_dir() and not path.is_symlink():
            yield f"{where}: {entry['path']} is a directory in this tree"
        elif not is_there(path.parent, coming):
            yield f"{where}: {path.parent} does not exist: add it to customizations.directories"


def is_elsewhere(path: Path) -> bool:
    """Whether links lead to a place in which a blueprint may not write."""
    parent = path.parent.resolve()
    places = [in_tree(place).resolve() for place in WRITABLE]
    return not any(place in (parent, *parent.parents) for place in places)


def is_there(path: Path, coming: set[Path]) -> bool:
    return path.is_dir() or path in coming


def has_unit(name: str) -> bool:
    return any(in_tree(f"{place}/{name}").exists() for place in (*UNITS, SCRIPTS))


def missing_units(customizations: Table, known: Callable[[str], bool]) -> Iterator[str]:
    """Units to be enabled or disabled that neither the tree nor the blueprint has; `known` says
    whether the tree has a unit, or a script in /etc/init.d, of this name."""
    coming = {Path(entry["path"]).name for entry in customizations.get("files") or []}
    for key in ("enabled", "disabled"):
        for name in (customizations.get("services") or {}).get(key) or []:
            unit = name if name.endswith(SUFFIXES) else f"{name}.service"
            stem, _, rest = unit.partition("@")
            template = f"{stem}@.{rest.rpartition('.')[2]}" if rest else unit
            names = {unit, template}
            script = unit.removesuffix(".service")
            if not names & coming and not any(map(known, (*names, script))):
                yield (
                    f"customizations.services.{key}: the tree has no unit {unit}: "
                    "add the package that has it"
                )


# application --------------------------------------------------------------------------------------


def customize(customizations: Table) -> None:
    """Apply a blueprint's customizations; each key of the API has a function."""
    appliers: tuple[tuple[str, Callable[[Any], None]], ...] = (
        ("group", groups),
        ("user", users),
        ("sshkey", ssh_keys),
        ("hostname", hostname),
        ("timezone", timezone),
        ("locale", locale),
        ("directories", directories),
        ("files", files),
        ("services", services),
        ("firewall", firewall),
    )
    for name, apply in appliers:
        if customizations.get(name):
            stage(f"customize {name}")
            apply(customizations[name])


def groups(entries: list[Table]) -> None:
    for entry in entries:
        gid = ["--gid", str(entry["gid"])] if entry.get("gid") is not None else []
        run("groupadd", "--force", *gid, entry["name"])


def users(entries: list[Table]) -> None:
    for entry in entries:
        name = entry["name"]
        exists = subprocess.run(["id", name], capture_output=True).returncode == 0
        options = []
        for option, key in (
            ("--comment", "description"),
            ("--shell", "shell"),
            ("--uid", "uid"),
            ("--gid", "gid"),
        ):
            if entry.get(key) is not None:
                options += [option, str(entry[key])]
        if entry.get("home"):
            # As osbuild/blueprint does, without a slash at the end. The long name of this option
            # differs between useradd and usermod.
            options += ["-d", entry["home"].rstrip("/") or "/"]
        if entry.get("groups"):
            options += ["--groups", ",".join(entry["groups"])]
        if exists:
            if options:
                run("usermod", *options, name)
        else:
            shell = [] if entry.get("shell") else ["--shell", "/bin/bash"]
            run("useradd", "--create-home", *shell, *options, name)
        if entry.get("password"):
            run("chpasswd", "--encrypted", data=f"{name}:{entry['password']}\n")
        if entry.get("key"):
            ssh_keys([{"user": name, "key": entry["key"]}])
        if entry.get("expiredate") is not None:
            run("chage", "--expiredate", str(entry["expiredate"]), name)
        if entry.get("force_password_reset"):
            run("chage", "--lastday", "0", name)


def ssh_keys(entries: list[Table]) -> None:
    for entry in entries:
        record = subprocess.run(
            ["getent", "passwd", entry["user"]], check=True, capture_output=True, text=True
        ).stdout.strip()
        _, _, uid, gid, _, home, _ = record.split(":")
        directory = Path(home) / ".ssh"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = directory / "authorized_keys"
        with keys.open("a") as file:
            file.write(entry["key"].strip() + "\n")
        keys.chmod(0o600)
        for path in (directory, keys):
            os.chown(path, int(uid), int(gid))


def hostname(name: str) -> None:
    Path("/etc/hostname").write_text(name + "\n")


def timezone(settings: Table) -> None:
    if zone := settings.get("timezone"):
        link = Path("/etc/localtime")
        link.unlink(missing_ok=True)
        link.symlink_to(f"../usr/share/zoneinfo/{zone}")
        Path("/etc/timezone").write_text(zone + "\n")
    if servers := settings.get("ntpservers"):
        drop_in = Path("/etc/systemd/timesyncd.conf.d/50-blueprint.conf")
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        drop_in.write_text("[Time]\nNTP=" + " ".join(servers) + "\n")


def locale(settings: Table) -> None:
    if languages := settings.get("languages"):
        Path("/etc/locale.conf").write_text(f"LANG={languages[0]}\n")
    if keyboard := settings.get("keyboard"):
        Path("/etc/vconsole.conf").write_text(f"KEYMAP={keyboard}\n")


def directories(entries: list[Table]) -> None:
    for entry in entries:
        path = in_tree(entry["path"])
        path.mkdir(parents=bool(entry.get("ensure_parents")), exist_ok=True)
        own(path, entry, default_mode=0o755)


def files(entries: list[Table]) -> None:
    """Write files. As osbuild does, what is at the destination is removed first: a link is
    replaced, never written through."""
    for entry in entries:
        path = in_tree(entry["path"])
        path.unlink(missing_ok=True)
        # what was fetched from a `uri` may be binary
        data = (entry.get("data") or "").encode()
        path.write_bytes(base64.b64decode(entry["base64"]) if "base64" in entry else data)
        own(path, entry, default_mode=0o644)


def own(path: Path, entry: Table, default_mode: int) -> None:
    mode = entry.get("mode")
    if mode is None:
        mode = default_mode
    if (user := entry.get("user")) is not None:
        shutil.chown(path, user=user)
    if (group := entry.get("group")) is not None:
        shutil.chown(path, group=group)
    # Last, because a change of the owner clears setuid and setgid.
    path.chmod(int(mode, 8) if isinstance(mode, str) else mode)


def services(units: Table) -> None:
    for verb, key in (("enable", "enabled"), ("disable", "disabled"), ("mask", "masked")):
        if units.get(key):
            run("systemctl", verb, *units[key])


def firewall(settings: Table) -> None:
    """Set up firewalld, as the osbuild stage org.osbuild.firewall does."""

    def configure(*options: str) -> None:
        run("firewall-offline-cmd", *options)

    services = settings.get("services") or {}
    for port in settings.get("ports") or []:
        configure(f"--add-port={port.replace(':', '/')}")
    for name in services.get("enabled") or []:
        configure(f"--add-service={name}")
    for name in services.get("disabled") or []:
        configure(f"--remove-service={name}")
    for zone in settings.get("zones") or []:
        name = zone["name"]
        known = subprocess.run(["firewall-offline-cmd", f"--info-zone={name}"], capture_output=True)
        if known.returncode:
            configure(f"--new-zone={name}")
        for source in zone.get("sources") or []:
            configure(f"--zone={name}", f"--add-source={source}")
    run("systemctl", "enable", "firewalld.service")


def containers(store: Path) -> None:
    """Prepare an image store for a commit, and have podman read it beside its own.

    OSTree holds no devices: a whiteout, by which a layer deletes a file, gets the name that ostree
    turns into a whiteout again when it deploys. Raises SystemExit for what it cannot hold.
    """
    for path in list(store.glob("overlay/*/diff/**/*")):
        status = path.lstat()
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            path.unlink()
            path.with_name(f".ostree-wh.{path.name}").touch()
        elif stat.S_ISDIR(status.st_mode) and is_opaque(path):
            raise SystemExit(f"containers: {path} replaces a directory: squash the image's layers")
    configuration = in_tree("/etc/containers/storage.conf")
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(STORAGE)


def is_opaque(directory: Path) -> bool:
    """Whether a directory of a layer hides that of the layers below it."""
    for name in ("trusted.overlay.opaque", "user.overlay.opaque"):
        with contextlib.suppress(OSError):
            if os.getxattr(directory, name, follow_symlinks=False) == b"y":
                return True
    return False


def main() -> None:
    customizations = json.load(sys.stdin)
    if wrong := list(problems(customizations)):
        raise SystemExit("\n".join(["this tree cannot be customized:", *wrong]))
    store = in_tree("/usr/share/containers/storage")
    try:
        if store.exists():
            containers(store)
        customize(customizations)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error.cmd[0]} ended with status {error.returncode}") from None


if __name__ == "__main__":
    main()
