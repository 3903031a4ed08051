"""Registering RHEL with Red Hat: the credentials, the command, and the meaning of its failures.

User and password, or organisation and activation key, come from the environment or from a file
that only its owner can read, with lines such as `RHSM_USERNAME=somebody`:

    RHSM_USERNAME, RHSM_PASSWORD            an account of the Customer Portal
    RHSM_ORG, RHSM_ACTIVATION_KEY           used if both pairs are there

The password and the key are passed to subscription-manager by stdin, never on a command line,
which every user of the machine can read.
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
    """Who registers: a user `name` with a password as `secret` or, if `by_key`, an organisation
    with an activation key."""

    name: str
    secret: str = field(repr=False)
    by_key: bool = False

    @property
    def options(self) -> tuple[str, str]:
        """The options of `subscription-manager register`; the last one without its value."""
        if self.by_key:
            return f"--org={self.name}", "--activationkey="
        return f"--username={self.name}", "--password="


def read(path: Path | None = None) -> Credentials | None:
    """Credentials from a file or, without one, from the environment; None if it has none.

    Raises InputError for a file that others can read, or if one half of a pair is missing.
    """
    values = os.environ if path is None else _read_file(path)
    pairs = {name: values.get(name, "") for name in NAMES}
    if any("\n" in value for value in pairs.values()):
        raise InputError("credentials must be single lines of text")
    where = "the environment" if path is None else str(path)
    for name, secret, by_key in ((*NAMES[2:], True), (*NAMES[:2], False)):
        if pairs[name] and pairs[secret]:
            return Credentials(pairs[name], pairs[secret], by_key)
        if pairs[name] or pairs[secret]:
            present, missing = (name, secret) if pairs[name] else (secret, name)
            raise InputError(f"{where} has {present} but no {missing}", remedy="set both")
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
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise InputError(f"cannot read {path}: {reason}") from None
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in pairs}


# the command --------------------------------------------------------------------------------------

# subscription-manager does not read a password from stdin (since 1.29 it prompts only on a
# terminal: src/subscription_manager/cli_command/user_pass.py), and the process list shows every
# option. But it is a Python program: this runs it with the secret, read from stdin, added to
# sys.argv, while the command line that the kernel shows does not have it.
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
    # Another directory may have a link of that name to a helper that asks for a password.
    if [ -x "$candidate" ] && head -c 2 "$candidate" | grep -q '^#!'; then
        program=$candidate
        break
    fi
done
unset IFS
[ -n "$program" ] || { echo 'subscription-manager: command not found' >&2; exit 127; }
"""


def command(credentials: Credentials | None) -> str:
    """The command that a person would type, without the secret."""
    options = ("--username=NAME", "--password=") if credentials is None else credentials.options
    return f"subscription-manager register {shlex.quote(options[0])} {options[1]}…"


def script(credentials: Credentials) -> str:
    """The shell script that registers; it reads the secret as the first line of its stdin."""
    words = shlex.join(["register", *credentials.options])
    python = "$(head -n 1 \"$program\" | sed 's/^#! *//')"
    return f'{_REGISTER}exec {python} -c {shlex.quote(_INSIDE)} "$program" {words}\n'


# what failures mean -------------------------------------------------------------------------------

# Messages of subscription-manager, dnf, yum, apt and sudo; what they mean, and what to do.
_MEANINGS = (
    (
        r"Invalid username or password|Invalid [Cc]redentials|HTTP error \(401|Unauthorized",
        "Red Hat does not accept this user and password",
        "try them in a browser at https://access.redhat.com, then enter them again; some "
        "organisations require an activation key instead",
    ),
    (
        r"None of the activation keys|activation key.*(not found|invalid)|"
        r"Couldn't find (activation key|organization)|Organization \S+ does not exist",
        "this organisation or activation key does not exist",
        "look both up at https://console.redhat.com, Activation Keys",
    ),
    (
        r"Unable to find available subscriptions|No subscriptions are available|"
        r"[Ss]ubscription.*expired|[Ss]tatus code: 403 for https://cdn\.redhat\.com|"
        r"repodata/repomd\.xml.*(HTTP Error 403|403 Forbidden)",
        "the account has no valid subscription for this release",
        "renew it, or get a Developer Subscription for Individuals at https://developers.redhat.com"
        ", then run `subscription-manager refresh` there and try again",
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
        "it has no Internet connection",
        "check that the host has one; if it needs a proxy, set it in /etc/rhsm/rhsm.conf and "
        "/etc/dnf/dnf.conf there",
    ),
    (
        r"subscription-manager: (command )?not found|No module named .?subscription_manager",
        "it has no subscription-manager: it is not RHEL",
        "choose the profile of its release: `rfe profiles` lists them",
    ),
    (
        r"sudo: a (terminal|password) is required|is not in the sudoers file",
        "its user may not become root without a password",
        "use root, or a user who may run sudo without a password",
    ),
    (
        r"Waiting for process with pid|Could not get lock|Another app is currently holding",
        "another program is installing packages there",
        "wait for it to finish, then try again",
    ),
)


def meaning(output: str) -> tuple[str, str] | None:
    """The meaning of a failed command's output, and a remedy; None if it is unknown."""
    for pattern, message, remedy in _MEANINGS:
        if re.search(pattern, output):
            return message, remedy
    return None
