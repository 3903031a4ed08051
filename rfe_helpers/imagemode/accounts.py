"""Users, groups and SSH keys of a blueprint in image mode.

sysusers.d creates accounts on the machine at boot, tmpfiles.d their homes, and sshd reads keys of
the image: `useradd` in a Containerfile gives numbers that drift between builds, and its changes of
/etc/passwd and /home do not reach a machine that has its own (bootc,
docs/src/building/users-and-groups.md, 2024-11; the directory /usr/ssh is that of examples for
centos-bootc). Passwords are never written: everyone who can pull an image can read them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rfe_helpers.imagemode.context import Draft, quoted

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,30}")
_PATH = re.compile(r"(?:/[A-Za-z0-9_+.-]+)+")
_COMMENT = re.compile(r'[^:"\\\x00-\x1f\x7f-\x9f\u2028\u2029]{1,200}')
_KEY = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,20000}")
_LARGEST_ID = 2**32 - 3
_RESERVED_ID = 2**16 - 1
_FIRST_ID = 1000  # as useradd gives them
_OF_ACCOUNTS = ("description", "gid", "groups", "home", "shell", "uid")
_SSHD = "/etc/ssh/sshd_config.d/30-blueprint.conf"
_SSHD_TEXT = """\
# Keys of the image first, then those of the machine.
AuthorizedKeysFile /usr/ssh/%u.keys .ssh/authorized_keys
"""


def groups(draft: Draft, entries: Iterable[Mapping[str, Any]]) -> None:
    for number, entry in enumerate(entries):
        key, name = f"customizations.group[{number}]", str(entry.get("name") or "")
        if not _named(draft, key, name):
            continue
        gid = entry.get("gid")
        if type(gid) is int and _fits(gid):
            draft.gids.add(gid)
            draft.sysusers.append(f"g {name} {gid}")
        else:
            draft.sysusers.append(f"g {name} -")


def users(draft: Draft, entries: Iterable[Mapping[str, Any]]) -> None:
    """Accounts; one without a number gets the one that useradd would give, so that files of a
    machine that comes across keep their owner."""
    listed = list(entries)
    taken = {entry.get("uid") for entry in listed}
    first, assigned = _FIRST_ID, list[str]()
    for number, entry in enumerate(listed):
        key, name = f"customizations.user[{number}]", str(entry.get("name") or "")
        _remark_what_is_secret(draft, key, entry)
        if not _named(draft, key, name):
            continue
        if name == "root":
            if any(entry.get(what) for what in _OF_ACCOUNTS):
                draft.remark(key, "root is in the base image as it is", "set no more than a key")
            continue
        requested = entry.get("uid")
        if type(requested) is int and _fits(requested):
            uid = requested
        else:
            uid = next(each for each in range(first, _LARGEST_ID) if each not in taken)
            first = uid + 1
            assigned.append(f"{name} {uid}")
        _user(draft, key, name, uid, entry)
    if assigned:
        draft.remark(
            "customizations.user.uid",
            f"not set, so the accounts get what useradd gives: {', '.join(assigned)}",
            "compare with `id` on a machine that is to be switched, and set `uid` where it differs",
        )


def _user(draft: Draft, key: str, name: str, uid: int, entry: Mapping[str, Any]) -> None:
    home = _path(draft, key, "home", entry, f"/home/{name}")
    shell = _path(draft, key, "shell", entry, "/bin/bash")
    comment = str(entry.get("description") or "")
    if comment and not _COMMENT.fullmatch(comment):
        draft.remark(f"{key}.description", "is not a comment of an account", "leave it out")
        comment = ""
    comment = '"' + comment.replace("%", "%%") + '"' if comment else "-"
    gid = entry.get("gid")
    if type(gid) is int and _fits(gid):
        if gid not in draft.gids:
            draft.gids.add(gid)
            draft.sysusers.append(f"g {name} {gid}")
        number = f"{uid}:{gid}"
    else:
        number = str(uid)
    draft.sysusers.append(f"u {name} {number} {comment} {home} {shell}")
    for group in entry.get("groups") or []:
        if _named(draft, f"{key}.groups", str(group)):
            draft.sysusers.append(f"m {name} {group}")
    if not draft.refusal(home):
        owner = str(gid) if _fits(gid) else name
        draft.tmpfiles.append(f"d {quoted(draft.real(home))} 0700 {name} {owner} -")


def keys(draft: Draft, customizations: Mapping[str, Any]) -> None:
    """The public keys of `user` and `sshkey`, in files of the image that sshd reads."""
    lines: dict[str, list[str]] = {}
    for table, owner in (("user", "name"), ("sshkey", "user")):
        for number, entry in enumerate(customizations.get(table) or []):
            name, text = str(entry.get(owner) or ""), str(entry.get("key") or "").strip()
            where = f"customizations.{table}[{number}].key"
            if not text or not _named(draft, where, name):
                continue
            if "PRIVATE KEY" in text:
                draft.remark(where, "it is a private key", "give the .pub beside it")
                continue
            for line in text.split("\n"):
                if _KEY.fullmatch(line.strip()):
                    lines.setdefault(name, []).append(line.strip())
                else:
                    draft.remark(where, "a line of it is not a public key", "give the .pub file")
    for name, own in lines.items():
        # sshd reads it as that user, who must be able to.
        draft.put(f"/usr/ssh/{name}.keys", "\n".join(own) + "\n", "customizations.sshkey")
    if lines:
        draft.put(_SSHD, _SSHD_TEXT, "customizations.sshkey")


def _remark_what_is_secret(draft: Draft, key: str, entry: Mapping[str, Any]) -> None:
    if entry.get("password"):
        draft.remark(
            f"{key}.password",
            "an image has no secrets: everyone who can pull it can read it",
            "set it on the machine: `user` or `rootpw` in a kickstart, the systemd credential "
            "passwd.hashed-password.NAME, or `passwd`",
        )
    for name in ("force_password_reset", "expiredate"):
        if entry.get(name):
            draft.remark(
                f"{key}.{name}",
                "sysusers.d does not have it",
                "`chage` in %post of a kickstart, or on the machine",
            )


def _named(draft: Draft, key: str, name: str) -> bool:
    if _NAME.fullmatch(name):
        return True
    draft.remark(
        key,
        f"{ascii(name)[:80]} is not a name that sysusers.d takes",
        "use letters, digits, _ and -, at most 31, with a letter first",
    )
    return False


def _path(draft: Draft, key: str, what: str, entry: Mapping[str, Any], default: str) -> str:
    path = str(entry.get(what) or default).rstrip("/") or "/"
    if path == "/" or (_PATH.fullmatch(path) and ".." not in path.split("/")):
        return path
    draft.remark(f"{key}.{what}", f"{ascii(path)[:80]} is not a plain path", f"use {default}")
    return default


def _fits(number: Any) -> bool:
    """Whether a number can be that of an account."""
    return type(number) is int and 0 < number <= _LARGEST_ID and number != _RESERVED_ID
