"""Users, keys and settings of the deployment that is mounted at `view`."""

from __future__ import annotations

from pathlib import Path

from .console import InstallError, run, step
from .plan import InstallPlan, Root, User

_APPEND_KEY = """set -e; umask 077
mkdir -p "$1/.ssh"; cat >> "$1/.ssh/authorized_keys"; chown -R "$2:$3" "$1/.ssh"
"""


def configure(plan: InstallPlan, view: Path) -> None:
    """Apply the kickstart's users and settings."""
    for name, gid in plan.groups:
        _add_group(view, name, gid)
    for user in plan.users:
        step(f"user {user.name}")
        _add_user(view, user)
    _set_root(view, plan.root)
    for name, key in plan.ssh_keys:
        _add_key(view, name, key)
    if plan.hostname:
        (view / "etc/hostname").write_text(plan.hostname + "\n")
    if plan.timezone:
        _set_timezone(view, plan.timezone)
    if plan.language:
        _set_language(view, plan.language)
    if plan.keyboard:
        # In Debian /etc/vconsole.conf is a link to this file; a plain file there is replaced.
        keyboard = f"XKBLAYOUT={plan.keyboard}\nKEYMAP={plan.keyboard}\n"
        (view / "etc/default/keyboard").write_text(keyboard)
    for action, units in (("enable", plan.enabled), ("disable", plan.disabled)):
        for unit in units:
            run("systemctl", f"--root={view}", action, unit)


def _add_group(view: Path, name: str, gid: str | None = None) -> None:
    run("chroot", view, "groupadd", "-f", *(["-g", gid] if gid else []), name)


def _add_user(view: Path, user: User) -> None:
    for group in user.groups:
        _add_group(view, group)
    options = ["-m", "-s", user.shell or "/bin/bash", "-d", user.home or f"/var/home/{user.name}"]
    if user.gecos:
        options += ["-c", user.gecos]
    if user.groups:
        options += ["-G", ",".join(user.groups)]
    if user.uid:
        options += ["-u", user.uid]
    if user.gid:
        _add_group(view, user.name, user.gid)
        options += ["-g", user.gid]
    run("chroot", view, "useradd", *options, user.name)
    _set_password(view, user.name, user.password, hashed=user.hashed)
    if user.locked:
        run("chroot", view, "usermod", "-L", user.name)


def _set_root(view: Path, root: Root) -> None:
    _set_password(view, "root", root.password, hashed=root.hashed)
    if root.locked:
        run("chroot", view, "usermod", "-L", "root")


def _set_password(view: Path, name: str, password: str | None, *, hashed: bool) -> None:
    if password:
        encrypted = ["-e"] if hashed else []
        run("chroot", view, "chpasswd", *encrypted, stdin=f"{name}:{password}\n")


def _add_key(view: Path, name: str, key: str) -> None:
    try:
        entry = run("chroot", view, "getent", "passwd", name).strip().split(":")
    except InstallError:
        raise InstallError(f"sshkey: there is no user {name}") from None
    uid, gid, home = entry[2], entry[3], entry[5]
    run("chroot", view, "sh", "-c", _APPEND_KEY, "sh", home, uid, gid, stdin=key + "\n")


def _set_timezone(view: Path, zone: str) -> None:
    if zone not in ("UTC", "Etc/UTC") and not (view / "usr/share/zoneinfo" / zone).is_file():
        raise InstallError(f"timezone: the tree has no time zone {zone}")
    link = view / "etc/localtime"
    link.unlink(missing_ok=True)
    link.symlink_to(f"../usr/share/zoneinfo/{zone}")


def _set_language(view: Path, language: str) -> None:
    """Set the language, or C.UTF-8 if the tree lacks its locale, which would break programs."""
    locales = run("chroot", view, "locale", "-a").lower().replace("utf8", "utf-8").split()
    if language.lower() not in locales:
        step(f"the tree has no locale {language}: using C.UTF-8")
        language = "C.UTF-8"
    (view / "etc/locale.conf").write_text(f"LANG={language}\n")
