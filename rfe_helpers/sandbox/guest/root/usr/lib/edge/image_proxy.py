"""Reads container images through `skopeo experimental-image-proxy`, as bootc and rpm-ostree do.

skopeo knows registries, their certificates and passwords, registries.conf and policy.json. It takes
JSON requests on a socket of packets, each with an answer:

    {"method": "GetBlob", "args": [1, "sha256:…", 431]}
    {"success": true, "value": 431, "pipeid": 7, "error": ""}    with a pipe to read from

The pipe ends only after FinishPipe is asked for, whose answer says whether all went well; the
content must be read before that answer comes. (skopeo, cmd/skopeo/proxy.go)
"""

import hashlib
import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .failure import Failure
from .image_description import LARGEST, Image, Layer, parse_image
from .image_reference import ImageReference

PASSWORDS = ("/run/ostree/auth.json", "/etc/ostree/auth.json", "/usr/lib/ostree/auth.json")
PROTOCOL = "0.2."
SILENCE_SECONDS = 120  # without a byte from the registry
LONGEST_SECONDS = 6 * 3600  # for all layers
# Not the caller's: what it has in ~/.config/containers would come before the machine's policy.json.
HOME = "/nonexistent"
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_PASSED_ON = ("PATH", "TMPDIR", *_PROXIES, *(name.upper() for name in _PROXIES))
_PACKET = 32 << 10
_CHUNK = 256 << 10


class ImageProxy:
    """One image of a registry (or a directory, an archive, podman's store). For example:

        with open_image(ImageReference("registry", "10.0.2.2:5000/edge/os:1")) as proxy:
            image = proxy.image()
            proxy.read_layer(image.layers[0], write=file.write)

    Raises Failure in skopeo's words.
    """

    def __init__(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._connection, self._process = connection, process
        self._identity: Any = None
        self._end = time.monotonic() + LONGEST_SECONDS

    def open(self, reference: ImageReference) -> None:
        version = self._ask("Initialize")[0]
        if not str(version).startswith(PROTOCOL):
            raise Failure(f"skopeo speaks version {version} of its protocol, not {PROTOCOL}x")
        self._identity = self._ask("OpenImage", reference.skopeo)[0]

    def image(self) -> Image:
        """The image, from its manifest and configuration, which skopeo has checked."""
        value, pipe = self._ask("GetManifest", self._identity)
        manifest = self._text(pipe, "manifest")
        _, pipe = self._ask("GetFullConfig", self._identity)
        return parse_image(str(value), manifest, self._text(pipe, "configuration"))

    def read_layer(self, layer: Layer, write: Callable[[bytes], object]) -> None:
        """Hand the bytes of a layer to `write`; afterwards they have the layer's digest and size,
        or Failure is raised."""
        _, pipe = self._ask("GetBlob", self._identity, layer.digest, layer.size)
        digest, size = hashlib.sha256(), 0
        for chunk in self._chunks(pipe):
            size += len(chunk)
            if size > layer.size:
                raise Failure(f"layer {layer.digest} has more than its {layer.size} bytes")
            digest.update(chunk)
            write(chunk)
        if f"sha256:{digest.hexdigest()}" != layer.digest or size != layer.size:
            raise Failure(
                f"layer {layer.digest} is damaged: {size} of {layer.size} bytes came, "
                f"with the digest sha256:{digest.hexdigest()}"
            )

    def _text(self, pipe: tuple[int, int], what: str) -> str:
        content = b""
        for chunk in self._chunks(pipe):
            content += chunk
            if len(content) > LARGEST:
                raise Failure(f"the {what} of the image has more than {LARGEST} bytes")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise Failure(f"the {what} of the image is not text") from None

    def _chunks(self, pipe: tuple[int, int]) -> Iterator[bytes]:
        number, descriptor = pipe
        try:
            self._send("FinishPipe", number)
            while True:
                if time.monotonic() > self._end:
                    raise Failure(f"the image has not come within {LONGEST_SECONDS // 3600} hours")
                if not select.select([descriptor], [], [], SILENCE_SECONDS)[0]:
                    raise Failure(f"the registry has sent nothing for {SILENCE_SECONDS} s")
                chunk = os.read(descriptor, _CHUNK)
                if not chunk:
                    break
                yield chunk
            self._answer()
        finally:
            os.close(descriptor)

    def _ask(self, method: str, *arguments: Any) -> tuple[Any, tuple[int, int]]:
        self._send(method, *arguments)
        return self._answer()

    def _send(self, method: str, *arguments: Any) -> None:
        try:
            self._connection.send(json.dumps({"method": method, "args": arguments}).encode())
        except OSError:
            raise self._ended() from None

    def _answer(self) -> tuple[Any, tuple[int, int]]:
        """The value of an answer, and the number and descriptor of its pipe."""
        self._connection.settimeout(SILENCE_SECONDS)
        try:
            packet, descriptors, flags, _ = socket.recv_fds(self._connection, _PACKET, 1)
        except TimeoutError:
            raise Failure(f"the registry has not answered for {SILENCE_SECONDS} s") from None
        except OSError:
            raise self._ended() from None
        if not packet:
            raise self._ended()
        if flags & socket.MSG_TRUNC:
            raise Failure(packet.decode(errors="replace").partition('"error":')[2] or "too long")
        answer = json.loads(packet)
        if not answer["success"]:
            for descriptor in descriptors:
                os.close(descriptor)
            raise Failure(str(answer["error"]))
        return answer["value"], (answer["pipeid"], descriptors[0] if descriptors else -1)

    def _ended(self) -> Failure:
        return Failure(f"skopeo has ended with status {self._process.wait(10)}")


@contextmanager
def open_image(reference: ImageReference) -> Iterator[ImageProxy]:
    """Start skopeo, open the image, and end skopeo at the end of the block."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        process = subprocess.Popen(
            ["skopeo", "experimental-image-proxy", "--sockfd", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
    except FileNotFoundError:
        raise Failure(
            "skopeo, which fetches images, is not installed: it has to be in the commit"
        ) from None
    finally:
        theirs.close()
    try:
        proxy = ImageProxy(ours, process)
        proxy.open(reference)
        yield proxy
    finally:
        ours.close()
        process.kill()
        process.wait()


def _environment() -> dict[str, str]:
    passwords = next((path for path in PASSWORDS if Path(path).exists()), None)
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "HOME": HOME, **({"REGISTRY_AUTH_FILE": passwords} if passwords else {})}
