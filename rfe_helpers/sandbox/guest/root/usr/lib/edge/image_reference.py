"""References to container images, as they stand in the origin of a deployment and as names of refs.

The forms are those of bootc's crate ostree-ext (container/mod.rs, refescape.rs):

    ostree-unverified-registry:HOST/NAME:TAG      the same as ostree-unverified-image:docker://…
    ostree-unverified-image:oci:/directory        another transport
    ostree-image-signed:docker://HOST/NAME:TAG    only if policy.json asks for a signature
"""

import re
from dataclasses import dataclass

from .failure import Failure

# bootc's names of transports, and skopeo's prefixes.
TRANSPORTS = {
    "registry": "docker://",
    "oci": "oci:",
    "oci-archive": "oci-archive:",
    "docker-daemon": "docker-daemon:",
    "containers-storage": "containers-storage:",
}
# [HOST[:PORT]/]PATH[:TAG][@DIGEST], as in github.com/distribution/reference
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"
    rf"{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_LONGEST = 512


@dataclass(frozen=True)
class ImageReference:
    """An image: `transport` is one of TRANSPORTS, `name` what follows it; `signed`: only with a
    signature that policy.json asks for.

    >>> image = ImageReference.parse("ostree-unverified-registry:10.0.2.2:5000/edge/os:stable")
    >>> image.name, image.skopeo
    ('10.0.2.2:5000/edge/os:stable', 'docker://10.0.2.2:5000/edge/os:stable')
    >>> image.ref
    'ostree/container/image/docker_3A__2F__2F_10_2E_0_2E_2_2E_2_3A_5000/edge/os_3A_stable'
    """

    transport: str
    name: str
    signed: bool = False

    def __post_init__(self) -> None:
        valid = _NAME.fullmatch(self.name) if self.transport == "registry" else self.name
        if not valid or len(self.name) > _LONGEST or not self.name.isprintable():
            raise Failure(f"{self.name[:80]!a} is not a reference, as registry.example/name:tag is")

    @classmethod
    def parse(cls, text: str) -> "ImageReference":
        """The image of one of the three forms. Raises Failure for any other text."""
        kind, _, rest = text.partition(":")
        if kind == "ostree-unverified-registry":
            return cls("registry", rest)
        if kind in ("ostree-remote-registry", "ostree-remote-image"):
            raise Failure(f"{kind}: the sandbox takes no images with OSTree commits inside")
        if kind not in ("ostree-unverified-image", "ostree-image-signed"):
            raise Failure(f"{text[:80]!a} is not ostree-unverified-registry:IMAGE")
        for transport, prefix in {**TRANSPORTS, "registry": "docker://"}.items():
            if rest.startswith(prefix):
                return cls(transport, rest.removeprefix(prefix), kind == "ostree-image-signed")
        if rest.startswith("registry:"):
            return cls("registry", rest.removeprefix("registry:"), kind == "ostree-image-signed")
        raise Failure(f"{rest[:80]!a}: the transport must be one of {', '.join(TRANSPORTS)}")

    def __str__(self) -> str:
        if self.signed:
            return f"ostree-image-signed:{self.skopeo}"
        if self.transport == "registry":
            return f"ostree-unverified-registry:{self.name}"
        return f"ostree-unverified-image:{self.skopeo}"

    @property
    def skopeo(self) -> str:
        """The reference as skopeo takes it."""
        return TRANSPORTS[self.transport] + self.name

    @property
    def short(self) -> str:
        """As people read it: without the transport, if that is a registry."""
        return self.name if self.transport == "registry" else self.skopeo

    @property
    def ref(self) -> str:
        """The ref of the image's commit."""
        return f"ostree/container/image/{escaped(self.skopeo)}"


def blob_ref(digest: str) -> str:
    """The ref of a layer's commit; `digest` is sha256:…"""
    return f"ostree/container/blob/{escaped(digest)}"


def escaped(text: str) -> str:
    """A text as the name of a ref: letters, digits and `-` stay, `/` between two parts, `_` is
    doubled, all else becomes its number."""
    parts = []
    for index, character in enumerate(text):
        follows_word = index > 0 and text[index - 1].isalnum()
        between = character == "/" and follows_word and index + 1 < len(text)
        if between or character == "-" or (character.isascii() and character.isalnum()):
            parts.append(character)
        elif character == "_":
            parts.append("__")
        else:
            parts.extend(f"_{byte:02X}_" for byte in character.encode())
    return "".join(parts)
