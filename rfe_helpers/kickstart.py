"""Kickstarts: rendered from a template and a profile, read with pykickstart before anything boots.

Pure but for `hash_password`, which asks openssl.
"""

from __future__ import annotations

import shlex
import warnings
from importlib import resources
from string import Template

from pykickstart.errors import KickstartError as PykickstartError
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion, versionMap

from rfe_helpers import run
from rfe_helpers.errors import KickstartError
from rfe_helpers.profile import Profile

# The screen shows the boot, too; programs write to the last console, the serial port.
CONSOLES = "console=tty0 console=ttyS0,115200"


def render(
    profile: Profile,
    *,
    url: str,
    user: str,
    password_hash: str | None = None,
    ssh_key: str | None = None,
    hostname: str = "edge-1",
    groups: tuple[str, ...] = ("wheel",),
    ref: str | None = None,
    language: str = "en_US.UTF-8",
    keyboard: str = "us",
    timezone: str = "UTC",
    filesystem: str = "xfs",
    kernel_arguments: str = CONSOLES,
    verify: bool = False,
    end: str = "reboot",
    post: str = "",
) -> str:
    """A kickstart that installs the commit `ref` (the profile's) of the repository at `url`.

    `url` is as the machine sees it; `user` gets the hashed password, the SSH key (the line of a
    public key file), or both; `verify` demands a signature; `end` is reboot, poweroff or halt;
    `post` is the text of a script to run in the installed system, whose failure fails the
    installation. Raises KickstartError if the result is no valid kickstart of the release.
    """
    accounts = [f"user --name={_word(user)} --groups={_word(','.join(groups))}"]
    if password_hash is not None:
        accounts[0] += f" --iscrypted --password={_word(password_hash)}"
    elif ssh_key is None:
        raise KickstartError(
            f"user {user} could not log in", remedy="give a password_hash, an ssh_key, or both"
        )
    if ssh_key is not None:
        accounts.append(f"sshkey --username={_word(user)} {_word(ssh_key.strip())}")
    text = _template("edge.ks").substitute(
        title=profile.title,
        url=_word(url),
        language=_word(language),
        keyboard=_word(keyboard),
        timezone=_word(timezone),
        hostname=_word(hostname),
        filesystem=_word(filesystem),
        kernel_arguments=_word(kernel_arguments),
        accounts="\n".join(accounts),
        verify="" if verify else "--nogpg ",
        osname=_word(profile.ostree.osname),
        remote=_word(profile.ostree.remote),
        ref=_word(ref or profile.ostree.ref),
        end=_word(end),
        post=f"\n%post --erroronfail\n{post.strip()}\n%end\n" if post.strip() else "",
    )
    text = text.rstrip() + "\n"
    validate(text, profile.kickstart.version)
    return text


def validate(text: str, version: str) -> tuple[str, ...]:
    """Read a kickstart as Anaconda of a release (such as "RHEL9") does; returns its warnings.

    Raises KickstartError("line N: …") for what that release does not understand. Files that it
    includes are not read.
    """
    if version not in versionMap:
        raise KickstartError(
            f"unknown kickstart version {version!r}",
            remedy=f"choose one of: {', '.join(sorted(versionMap))}",
        )
    parser = KickstartParser(makeVersion(versionMap[version]), followIncludes=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            parser.readKickstartFromString(text)
        except PykickstartError as error:
            where = "kickstart" if error.lineno is None else f"line {error.lineno}"
            raise KickstartError(f"{where}: {_one_line(error.message)}") from None
        except ValueError as error:  # a quotation that does not end
            raise KickstartError(f"kickstart: {error}") from None
    return tuple(_one_line(warning.message) for warning in caught)


def hash_password(password: str) -> str:
    """A password as SHA-512 crypt, with a salt of its own at each call."""
    if not password or "\n" in password:
        raise KickstartError("a password must be one line of text")
    return run.run(["openssl", "passwd", "-6", "-stdin"], input=password + "\n").stdout.strip()


def _template(name: str) -> Template:
    return Template((resources.files("rfe_helpers") / "templates" / name).read_text())


def _word(value: str) -> str:
    """A value as one word of a kickstart line, which is split like a shell's."""
    if "\n" in value or not value:
        raise KickstartError(f"{value!r} cannot stand in a kickstart: it must be one line of text")
    return shlex.quote(value)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
