"""Signatures of images: a key of the lab, images signed with it, and machines that ask for it.

The signatures are sigstore's: they lie in the registry beside the image, and podman and bootc
check them by policy.json (containers-policy.json(5), containers-registries.d(5)). In `keys/` of
the lab, mode 0600:

    sigstore.private, sigstore.pub   the key, made by `skopeo generate-sigstore-key`
    sigstore.pass                    the passphrase of the private one
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core import files, journal
from rfe_helpers.core.wait import Deadline
from rfe_helpers.imagemode.image import base_by_digest
from rfe_helpers.install import kickstart
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve import registry
from rfe_helpers.serve.podman import Mount, Podman

_NAME = "sigstore"
_SECONDS = 300
_KEYS, _ATTACHMENTS = "/keys", "/attachments"  # in a container
_PUBLIC_KEY = "/etc/pki/containers/lab.pub"
_POLICY = """\
set -e
mkdir -p /etc/pki/containers /etc/containers/registries.d
cat > {path} <<'END'
{key}
END
cat > /etc/containers/registries.d/lab.yaml <<'END'
{attachments}END
cat > /etc/containers/policy.json <<'END'
{policy}
END
"""


@dataclass(frozen=True)
class ImageKey:
    """A key for images: files of its private part and passphrase, and the public part as PEM.

    >>> from rfe_helpers import imagemode
    >>> key = imagemode.signing_key(lab)
    >>> key.public.splitlines()[0]
    '-----BEGIN PUBLIC KEY-----'
    """

    private: Path
    passphrase: Path
    public: str


def signing_key(lab: Lab) -> ImageKey:
    """The lab's key, made now if need be. By hand: `skopeo generate-sigstore-key --output-prefix
    KEY`. Raises PodmanError, or StepMissingError before `push_base`.

    >>> from rfe_helpers import imagemode
    >>> imagemode.signing_key(lab).private.parent.name
    'keys'
    """
    directory = lab.path("keys")
    private, public, passphrase = (
        directory / f"{_NAME}.{suffix}" for suffix in ("private", "pub", "pass")
    )
    with files.locked(directory / f".{_NAME}.lock"):
        if not public.exists():
            with tempfile.TemporaryDirectory(dir=directory, prefix="new-") as name:
                scratch = Path(name)
                journal.write(scratch / passphrase.name, secrets.token_urlsafe(32), mode=0o600)
                command = ["generate-sigstore-key", f"--output-prefix={_KEYS}/{_NAME}"]
                command += [f"--passphrase-file={_KEYS}/{passphrase.name}"]
                _skopeo(lab, command, Mount(scratch, _KEYS, writable=True))
                for target in (passphrase, private, public):  # the public one last: it is whole
                    (scratch / target.name).chmod(0o600)
                    (scratch / target.name).replace(target)
    return ImageKey(private, passphrase, public.read_text())


def sign(lab: Lab, name: str, key: ImageKey) -> None:
    """Sign an image of the lab's registry ("edge/os:1"); the image stays as it is. Raises
    PodmanError with skopeo's words.

    >>> from rfe_helpers import imagemode
    >>> imagemode.sign(lab, image.name, imagemode.signing_key(lab))
    """
    images = registry.start(lab)
    reference = f"docker://{images.address}/{name}"
    with tempfile.TemporaryDirectory(prefix="rfe-sign-") as scratch:
        Path(scratch, "lab.yaml").write_text(_attachments(images.address))
        command = [f"--registries.d={_ATTACHMENTS}", "copy", "--quiet", "--preserve-digests"]
        command += ["--src-tls-verify=false", "--dest-tls-verify=false"]
        # Machines know the registry by another address than this host.
        command += [f"--sign-identity={images.guest_address}/{name}"]
        command += [f"--sign-by-sigstore-private-key={_KEYS}/{key.private.name}"]
        command += [f"--sign-passphrase-file={_KEYS}/{key.passphrase.name}", reference, reference]
        secret = (key.private, key.passphrase)
        mounts = [Mount(path, f"{_KEYS}/{path.name}") for path in secret]
        _skopeo(lab, command, *mounts, Mount(Path(scratch), _ATTACHMENTS))


def _skopeo(lab: Lab, command: Sequence[str], *mounts: Mount) -> None:
    """Run the skopeo of the sandbox's base image: that of Debian 12 knows nothing of sigstore."""
    Podman.of(lab).run_once(
        base_by_digest(lab),
        ["skopeo", *command],
        Deadline(_SECONDS),
        lab.log("signatures"),
        mounts=mounts,
        network="host",
    )


def _attachments(registry_address: str) -> str:
    """The file in registries.d that has signatures looked for in the registry."""
    return f"docker:\n  {registry_address}:\n    use-sigstore-attachments: true\n"


def policy_script(registry_address: str, key: ImageKey) -> str:
    """A shell script that makes a machine take images from a registry (HOST:PORT) only if they are
    signed with a key; other registries are refused. Raises KickstartError for another address.

    >>> from rfe_helpers import imagemode
    >>> key = imagemode.signing_key(lab)
    >>> print(imagemode.policy_script("10.0.2.2:5000", key))
    set -e
    mkdir -p /etc/pki/containers /etc/containers/registries.d
    ...
    """
    kickstart.registry_address(registry_address)
    policy = {
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {
                registry_address: [
                    {
                        "type": "sigstoreSigned",
                        "keyPath": _PUBLIC_KEY,
                        "signedIdentity": {"type": "matchRepository"},
                    }
                ]
            }
        },
    }
    return _POLICY.format(
        path=_PUBLIC_KEY,
        key=key.public.strip(),
        attachments=_attachments(registry_address),
        policy=json.dumps(policy, indent=2),
    )
