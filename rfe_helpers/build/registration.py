"""Registering a RHEL with Red Hat: who registers, how, and what its failures mean.

User and password, or organisation and activation key, come from the environment or from a file
that only its owner can read, with lines such as `RHSM_USERNAME=somebody`:

    RHSM_USERNAME, RHSM_PASSWORD            an account of the Customer Portal
    RHSM_ORG, RHSM_ACTIVATION_KEY           where both are there, the key is taken

The password and the key reach subscription-manager by stdin, never as a word of a command line,
which every user of a machine can read.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rfe_helpers.errors import InputError

NAMES = ("RHSM_USERNAME", "RHSM_PASSWORD", "RHSM_ORG", "RHSM_ACTIVATION_KEY")


@dataclass(frozen=True)
class Credentials:
    """Who registers: `name` is a user or an organisation, `secret` a password or the key of an
    activation, as `option` says."""

    name: str
    secret: str = field(repr=False)
    by_key: bool = False

    @property
    def options(self) -> tuple[str, str]:
        """The options of `subscription-manager register`; the last one lacks its value."""
        if self.by_key:
            return f"--org={self.name}", "--activationkey="
        return f"--username={self.name}", "--password="


def read(path: Path | None = None) -> Credentials | None:
    """Credentials from a file, or else from the environment; None if there are none.

    Raises InputError for a file that others can read, or that lacks half of a pair.
    """
    values = os.environ if path is None else _read_file(path)
    found = {name: values.get(name, "") for name in NAMES}
    if any("\n" in value for value in found.values()):
        raise InputError("credentials must be single lines of text")
    where = "the environment" if path is None else str(path)
    for name, secret, by_key in ((*NAMES[2:], True), (*NAMES[:2], False)):
        if found[name] and found[secret]:
            return Credentials(found[name], found[secret], by_key)
        if found[name] or found[secret]:
            here, missing = (name, secret) if found[name] else (secret, name)
            raise InputError(f"{where} has {here} but no {missing}", remedy="both are needed")
    if path is not None:
        raise InputError(f"{path} has none of {', '.join(NAMES)}", remedy=MISSING)
    return None


MISSING = (
    "set RHSM_ORG and RHSM_ACTIVATION_KEY, or RHSM_USERNAME and RHSM_PASSWORD, in the environment "
    "or in a file with mode 0600 that the parameter `registration` names"
)


def _read_file(path: Path) -> Mapping[str, str]:
    try:
        with path.expanduser().open() as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise InputError(f"others can read {path}", remedy=f"chmod 600 {path}")
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "this is no text"
        raise InputError(f"cannot read {path}: {reason}") from None
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in pairs}


# the command --------------------------------------------------------------------------------------

# subscription-manager takes no password from stdin (since 1.29 it refuses to ask where nobody is:
# src/subscription_manager/cli_command/user_pass.py), and what is given as an option can be read in
# the list of processes. But it is a Python program: this runs it in a Python whose own list of
# words gets the secret from stdin, while the one that the kernel shows does not have it.
_INSIDE = """\
import runpy, sys
sys.argv = sys.argv[1:]
sys.argv[-1] += sys.stdin.readline().rstrip(chr(10))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_REGISTER = """\
program=
IFS=:
for directory in $PATH /usr/sbin; do
    candidate=$directory/subscription-manager
    # Beside the program itself there may be a link to a helper that asks for a password.
    if [ -x "$candidate" ] && head -c 2 "$candidate" | grep -q '^#!'; then
        program=$candidate
        break
    fi
done
unset IFS
[ -n "$program" ] || { echo 'subscription-manager: command not found' >&2; exit 127; }
"""


def command(credentials: Credentials | None) -> str:
    """What a person would type, with the secret left out."""
    options = ("--username=NAME", "--password=") if credentials is None else credentials.options
    return f"subscription-manager register {shlex.quote(options[0])} {options[1]}…"


def script(credentials: Credentials) -> str:
    """The shell script that registers, with the secret as the first line of its stdin."""
    words = shlex.join(["register", *credentials.options])
    python = "$(head -n 1 \"$program\" | sed 's/^#! *//')"
    return f'{_REGISTER}exec {python} -c {shlex.quote(_INSIDE)} "$program" {words}\n'


# what failures mean -------------------------------------------------------------------------------

# Words of subscription-manager, dnf and yum, and systemd, what they mean, and what to do.
_MEANINGS = (
    (
        r"Invalid username or password|Invalid [Cc]redentials|HTTP error \(401|Unauthorized",
        "Red Hat does not know this user with this password",
        "try them in a browser at https://access.redhat.com, then give them again; an organisation "
        "may demand an activation key instead",
    ),
    (
        r"None of the activation keys|activation key.*(not found|invalid)|"
        r"Couldn't find (activation key|organization)|Organization \S+ does not exist",
        "there is no such organisation or activation key",
        "look both up at https://console.redhat.com, Activation Keys",
    ),
    (
        r"Unable to find available subscriptions|No subscriptions are available|"
        r"[Ss]ubscription.*expired|[Ss]tatus code: 403 for https://cdn\.redhat\.com|"
        r"repodata/repomd\.xml.*(HTTP Error 403|403 Forbidden)",
        "the account has no subscription that is valid now for this release",
        "renew it, or get a Developer Subscription for Individuals at https://developers.redhat.com"
        ", then run `subscription-manager refresh` there and do this again",
    ),
    (
        r"no enabled repositories|no repositories available|"
        r"not registered|No match for argument: osbuild-composer|No package osbuild-composer",
        "the system has no repository with Image Builder",
        "see `subscription-manager identity` and `dnf repolist` there; BaseOS and AppStream of the "
        "release are needed",
    ),
    (
        r"No space left on device|more space needed on the|disk requirements|Disk quota exceeded",
        "its disk is full",
        "free some space there, or give it a larger disk: a compose needs 20 GB",
    ),
    (
        r"Network error, unable to connect|Unable to reach the server|Could not resolve host|"
        r"Name or service not known|Temporary failure (in name resolution|resolving)|"
        r"Network is unreachable|Connection timed out|No route to host|Proxy error",
        "it has no way to the Internet",
        "see that the host has one, and set a proxy in /etc/rhsm/rhsm.conf and /etc/dnf/dnf.conf "
        "there if it needs one",
    ),
    (
        r"subscription-manager: (command )?not found|No module named .?subscription_manager",
        "it has no subscription-manager: it is no RHEL",
        "choose the profile that fits: `rfe profiles` lists them",
    ),
    (
        r"sudo: a (terminal|password) is required|is not in the sudoers file",
        "its user may not become root without a password",
        "name root, or a user whom sudo asks nothing",
    ),
    (
        r"Waiting for process with pid|Could not get lock|Another app is currently holding",
        "another program is installing packages there",
        "wait for it to end, then do this again",
    ),
)


def meaning(output: str) -> tuple[str, str] | None:
    """What the output of a command that failed means, and what to do; None for what is unknown."""
    for pattern, message, remedy in _MEANINGS:
        if re.search(pattern, output):
            return message, remedy
    return None
