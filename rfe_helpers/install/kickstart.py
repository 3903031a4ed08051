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
    url: str = "",
    image: str = "",
    insecure_registry: bool = False,
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
    """A kickstart that installs the commit `ref` of the repository at `url`, or the bootable
    container `image`.

    >>> from rfe_helpers.install import kickstart
    >>> from rfe_helpers.lab import profile
    >>> release, key = profile.load("rhel-9.6"), "ssh-ed25519 AAAA anna@example.com"
    >>> url = "http://10.0.2.2:8000/repo/"
    >>> text = kickstart.render(release, url=url, user="core", ssh_key=key)
    >>> print(text)
    #...
    ostreesetup ... --url=http://10.0.2.2:8000/repo/ --ref=rhel/9/x86_64/edge
    ...

    `image` is a reference without a transport ("registry.example/edge/os:1"), or with that of a
    directory on the boot medium ("oci:/run/install/repo/container"); `insecure_registry` says that
    its registry has no TLS. `url` is the address for the machine; `ref` and `filesystem` (of / and
    /boot) are the profile's if they are None. `user` gets the hashed password, the SSH key (the
    line of a public key file), or both; `plain_password` is written in clear text, and everyone who
    can download the kickstart can read it. `verify` requires a signature by a key that the
    installer has, `signing_key` one by this armoured public key; `ca` is the PEM text of the CA of
    an HTTPS server. `end` is reboot, poweroff or halt; `post` is a shell script that runs in the
    installed system: if it fails, so does the installation. Raises KickstartError if the result is
    not valid for the release.
    """
    accounts = _accounts(user, groups, password_hash, plain_password, ssh_key)
    _refuse_mixture(image, ref=ref, signing_key=signing_key, ca=ca, insecure=insecure_registry)
    text = _template("edge.ks").substitute(
        title=profile.title,
        source=_one_line(url or image),
        payload=_payload(profile, url, image, ref, verify=verify or bool(signing_key)),
        language=_word(language),
        keyboard=_word(keyboard),
        timezone=_word(timezone),
        hostname=_word(hostname),
        filesystem=_word(filesystem or profile.kickstart.filesystem),
        kernel_arguments=_word(kernel_arguments),
        accounts=accounts,
        end=_word(end),
        post=_scripts(
            profile.ostree.remote,
            url,
            signing_key=signing_key,
            ca=ca,
            registry=image.partition("/")[0] if insecure_registry else "",
            post=post,
        ),
    )
    text = text.rstrip() + "\n"
    validate(text, profile.kickstart.version)
    return text


_REPOSITORY = """\
# The operating system: an OSTree commit. The remote stays, so updates come from the same URL.
ostreesetup {verify}--osname={osname} --remote={remote} --url={url} --ref={ref}"""
_CONTAINER = """\
# The operating system: a bootable container. Updates come from the same name.
ostreecontainer --stateroot={osname} {transport}--url={url}{verify}"""


def _refuse_mixture(
    image: str, *, ref: str | None, signing_key: str, ca: str, insecure: bool
) -> None:
    """Raise KickstartError for what belongs to the other kind of payload."""
    if image and (ref or signing_key or ca):
        raise KickstartError(
            "ref, signing_key and ca belong to a repository, not to an image",
            remedy="let `post` write what an image needs: policy.json, /etc/containers/certs.d",
        )
    if insecure and not image:
        raise KickstartError("insecure_registry belongs to an image, not to a repository")


def _payload(profile: Profile, url: str, image: str, ref: str | None, *, verify: bool) -> str:
    """The line of the kickstart that names what is installed."""
    if bool(url) == bool(image):
        raise KickstartError("a kickstart installs either a commit or an image: url or image")
    osname = _word(profile.ostree.osname)
    if url:
        return _REPOSITORY.format(
            verify="" if verify else "--nogpg ",
            osname=osname,
            remote=_word(profile.ostree.remote),
            url=_word(url),
            ref=_word(ref or profile.ostree.ref),
        )
    transport, colon, path = image.partition(":")
    other = bool(colon) and transport in ("oci", "oci-archive")
    return _CONTAINER.format(
        osname=osname,
        transport=f"--transport={transport} " if other else "",
        url=_word(path if other else image),
        verify="" if verify else " --no-signature-verification",
    )


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

    >>> from rfe_helpers.install import kickstart
    >>> print(kickstart.trust_script("edge", "https://shop.example/repo/"))
    mkdir -p /etc/ostree
    ostree remote delete --if-exists edge
    ostree remote add --no-gpg-verify edge https://shop.example/repo/
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


_REGISTRY_ADDRESS = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_REGISTRY = """\
mkdir -p /etc/containers/registries.conf.d
cat > /etc/containers/registries.conf.d/50-lab.conf <<'END'
[[registry]]
location = "{registry}"
insecure = true
END
"""


def registry_script(registry: str) -> str:
    """A shell script that lets bootc, rpm-ostree and podman use a registry (HOST:PORT) without
    TLS. Raises KickstartError for what is not the address of one.

    >>> from rfe_helpers.install import kickstart
    >>> print(kickstart.registry_script("10.0.2.2:5000"))
    mkdir -p /etc/containers/registries.conf.d
    cat > /etc/containers/registries.conf.d/50-lab.conf <<'END'
    [[registry]]
    location = "10.0.2.2:5000"
    insecure = true
    END
    """
    return _REGISTRY.format(registry=registry_address(registry))


def registry_address(registry: str) -> str:
    """The address of a registry as it is, HOST or HOST:PORT. Raises KickstartError for anything
    else.

    >>> from rfe_helpers.install import kickstart
    >>> kickstart.registry_address("10.0.2.2:5000")
    '10.0.2.2:5000'
    """
    if not _REGISTRY_ADDRESS.fullmatch(registry):
        raise KickstartError(
            f"{registry[:80]!a} is not the address of a registry",
            remedy="write HOST or HOST:PORT, as in registry.example:5000",
        )
    return registry


def _scripts(remote: str, url: str, *, signing_key: str, ca: str, registry: str, post: str) -> str:
    """The sections %pre and %post."""
    before = registry_script(registry) if registry else ""
    if signing_key:
        before += _TRUST_KEY_IN_INSTALLER.format(remote=remote, key=_unarmoured(signing_key))
    if ca:
        before += _TRUST_CA_IN_INSTALLER.format(ca=ca.strip())
    after = trust_script(remote, url, signing_key, ca) if signing_key or ca else ""
    after += registry_script(registry) if registry else ""
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
    r"""Parse a kickstart as Anaconda of a release (such as "RHEL9") does; return the warnings.

    Raises KickstartError("line N: …") for what that release does not support. Included files are
    not read.

    >>> from rfe_helpers.install import kickstart
    >>> kickstart.validate("lang en_US.UTF-8\ntimezone UTC", "RHEL9")
    ()
    >>> kickstart.validate("ostreecontainer --url shop.example/os", "RHEL8")
    Traceback (most recent call last):
        ...
    rfe_helpers.errors.KickstartError: line 1: ...
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
    """The SHA-512 crypt hash of a password, with a new salt at each call.

    >>> from rfe_helpers.install import kickstart
    >>> kickstart.hash_password("edge")
    '$6$...'
    """
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
