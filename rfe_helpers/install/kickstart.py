"""Kickstarts: rendered from a template and a profile, and checked with pykickstart before use.

Pure, except for `hash_password`, which runs openssl.
"""

from __future__ import annotations

import re
import shlex
import warnings
from importlib import resources
from string import Template

from pykickstart.errors import KickstartError as PykickstartError
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion, versionMap

from rfe_helpers.core import run
from rfe_helpers.errors import KickstartError
from rfe_helpers.lab.profile import Profile

# The screen shows the boot, too; /dev/console is the last one, the serial port.
CONSOLES = "console=tty0 console=ttyS0,115200"


def render(
    profile: Profile,
    *,
    url: str,
    user: str,
    password_hash: str | None = None,
    plain_password: str | None = None,
    ssh_key: str | None = None,
    hostname: str = "edge-1",
    groups: tuple[str, ...] = ("wheel",),
    ref: str | None = None,
    language: str = "en_US.UTF-8",
    keyboard: str = "us",
    timezone: str = "UTC",
    filesystem: str | None = None,
    kernel_arguments: str = CONSOLES,
    verify: bool = False,
    signing_key: str = "",
    ca: str = "",
    end: str = "reboot",
    post: str = "",
) -> str:
    """A kickstart that installs the commit `ref` of the repository at `url`.

        text = render(lab.profile, url=site.guest_repo_url, user="core", ssh_key=lab.public_key)
        serve.publish(lab, artifact.path, kickstarts={"edge.ks": text})

    `url` is the address for the machine; `ref` and `filesystem` (of / and /boot) are the profile's
    if they are None. `user` gets the hashed password, the SSH key (the line of a public key file),
    or both; `plain_password` is written in clear text, and everyone who can download the kickstart
    can read it. `verify` requires a signature by a key that the installer has, `signing_key` one
    by this armoured public key; `ca` is the PEM text of the CA of an HTTPS server. `end` is reboot,
    poweroff or halt; `post` is a shell script that runs in the installed system: if it fails, so
    does the installation. Raises KickstartError if the result is not valid for the release.
    """
    accounts = _accounts(user, groups, password_hash, plain_password, ssh_key)
    text = _template("edge.ks").substitute(
        title=profile.title,
        url=_word(url),
        language=_word(language),
        keyboard=_word(keyboard),
        timezone=_word(timezone),
        hostname=_word(hostname),
        filesystem=_word(filesystem or profile.kickstart.filesystem),
        kernel_arguments=_word(kernel_arguments),
        accounts=accounts,
        verify="" if verify or signing_key else "--nogpg ",
        osname=_word(profile.ostree.osname),
        remote=_word(profile.ostree.remote),
        ref=_word(ref or profile.ostree.ref),
        end=_word(end),
        post=_scripts(profile.ostree.remote, url, signing_key, ca, post),
    )
    text = text.rstrip() + "\n"
    validate(text, profile.kickstart.version)
    return text


def _accounts(
    user: str,
    groups: tuple[str, ...],
    password_hash: str | None,
    plain_password: str | None,
    ssh_key: str | None,
) -> str:
    """The lines `user` and `sshkey`. Raises KickstartError if the user could not log in."""
    lines = [f"user --name={_word(user)} --groups={_word(','.join(groups))}"]
    if password_hash is not None:
        lines[0] += f" --iscrypted --password={_word(password_hash)}"
    elif plain_password is not None:
        lines[0] += f" --plaintext --password={_word(plain_password)}"
    elif ssh_key is None:
        raise KickstartError(
            f"user {user} could not log in", remedy="pass a password_hash, an ssh_key, or both"
        )
    if ssh_key is not None:
        lines.append(f"sshkey --username={_word(user)} {_word(ssh_key.strip())}")
    return "\n".join(lines)


# The installer verifies what it installs, so it needs the key and the CA before the installed
# system has them: in ostree's directory of keys for all remotes, and in the CA bundles of Red Hat's
# and Debian's installers. These files are not copied to the disk.
_TRUST_KEY_IN_INSTALLER = """\
mkdir -p /usr/share/ostree/trusted.gpg.d
base64 -d > /usr/share/ostree/trusted.gpg.d/{remote}.gpg <<'KEY'
{key}
KEY
"""
_TRUST_CA_IN_INSTALLER = """\
for bundle in /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/certs/ca-certificates.crt; do
    if [ -e "$bundle" ]; then cat >> "$bundle" <<'CA'; fi
{ca}
CA
done
"""
# In the installed system only the remote trusts them. It is created again, since installers differ
# in where they put it.
_TRUST_IN_SYSTEM = """\
mkdir -p /etc/ostree
{files}ostree remote delete --if-exists {remote}
ostree remote add {options} {remote} {url}
"""
_FILE = "cat > {path} <<'END'\n{text}\nEND\n"


def trust_script(remote: str, url: str, signing_key: str = "", ca: str = "") -> str:
    """A shell script that sets the remote of an installed system to `url`, and makes it accept only
    commits signed with this armoured public key, from a server with a certificate of this CA (PEM).

    Without `signing_key` signatures are not checked; without `ca` the system's CAs are trusted.
    """
    files, options = "", ["--no-gpg-verify"]
    if signing_key:
        files += _FILE.format(path=f"/etc/ostree/{remote}.asc", text=signing_key.strip())
        options = ["--set=gpg-verify=true", f"--gpg-import=/etc/ostree/{remote}.asc"]
    if ca:
        files += _FILE.format(path=f"/etc/ostree/{remote}-ca.pem", text=ca.strip())
        options.append(f"--set=tls-ca-path=/etc/ostree/{remote}-ca.pem")
    words = {"remote": remote, "url": _word(url), "options": " ".join(options)}
    return _TRUST_IN_SYSTEM.format(files=files, **words)


def _scripts(remote: str, url: str, signing_key: str, ca: str, post: str) -> str:
    """The sections %pre and %post."""
    before = ""
    if signing_key:
        before += _TRUST_KEY_IN_INSTALLER.format(remote=remote, key=_unarmoured(signing_key))
    if ca:
        before += _TRUST_CA_IN_INSTALLER.format(ca=ca.strip())
    after = trust_script(remote, url, signing_key, ca) if before else ""
    text = ""
    for section, script in (("%pre", before), ("%post", after + post.strip())):
        if script:
            text += f"\n{section} --erroronfail\n{script.strip()}\n%end\n"
    return text


def _unarmoured(key: str) -> str:
    """The base64 lines of an armoured key, without headers and checksum (RFC 4880, 6.2): ostree
    reads only keys without armour from its directory."""
    match = re.search(r"^$\n((?:[A-Za-z0-9+/]+=*\n)+)", key, re.MULTILINE)
    if not key.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----") or match is None:
        raise KickstartError("the signing key is not an armoured public key of GPG")
    return match[1].strip()


def validate(text: str, version: str) -> tuple[str, ...]:
    """Parse a kickstart as Anaconda of a release (such as "RHEL9") does; return the warnings.

    Raises KickstartError("line N: …") for what that release does not support. Included files are
    not read.
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
        except ValueError as error:  # a quotation without an end
            raise KickstartError(f"kickstart: {error}") from None
    return tuple(_one_line(warning.message) for warning in caught)


def hash_password(password: str) -> str:
    """The SHA-512 crypt hash of a password, with a new salt at each call."""
    if not password or "\n" in password:
        raise KickstartError("a password must be one line of text")
    return run.run(["openssl", "passwd", "-6", "-stdin"], input=password + "\n").stdout.strip()


def _template(name: str) -> Template:
    return Template((resources.files("rfe_helpers.install") / name).read_text())


def _word(value: str) -> str:
    """A value as one word of a kickstart line, which is split as in a shell."""
    if "\n" in value or not value:
        raise KickstartError(
            f"{value!r} cannot be used in a kickstart: it must be one line of text"
        )
    return shlex.quote(value)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
