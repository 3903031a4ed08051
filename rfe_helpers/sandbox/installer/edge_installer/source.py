"""Reads the kickstart that `inst.ks=` names, as Anaconda does; waits for the network."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from .console import InstallError, run, step

MEDIUM = Path("/run/install/repo")  # where the initramfs has mounted the boot medium
MOUNT = Path("/run/install/ks-device")
NETWORK_SECONDS = 60


def boot_arguments(text: str) -> dict[str, str]:
    """The kernel's command line as a dictionary; the last of repeated arguments counts."""
    pairs = (word.partition("=") for word in text.split())
    return {key: value for key, _, value in pairs}


def read_kickstart(location: str) -> str:
    """The text of the kickstart at http(s)://…, file:…, cdrom:/path or hd:DEVICE:/path."""
    scheme, _, rest = location.partition(":")
    if scheme in ("http", "https"):
        return fetch(location)
    if scheme == "file":
        return _read(Path("/" + rest.lstrip("/")), location)
    if scheme == "cdrom":
        return _read(MEDIUM / (rest.rpartition(":")[2] or "ks.cfg").lstrip("/"), location)
    if scheme == "hd":
        device, _, path = rest.partition(":")
        return _read_from_device(device, path.lstrip("/") or "ks.cfg", location)
    raise InstallError(f"inst.ks={location}: use http://, https://, file:, cdrom: or hd:")


def fetch(url: str) -> str:
    """The text at a URL, waiting for the network. Raises InstallError with the reason."""
    wait_for_network(url)

    def attempt() -> str:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310
            return str(answer.read().decode())

    try:
        return _patiently(attempt)
    except urllib.error.HTTPError as error:
        raise InstallError(f"{url} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise InstallError(f"{url} cannot be fetched: {getattr(error, 'reason', error)}") from None


def _patiently(attempt: Callable[[], str], tries: int = 3) -> str:
    """Retry after a failure to connect, not after an HTTP error such as 404."""
    for _ in range(tries - 1):
        try:
            return attempt()
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(2)
    return attempt()


def wait_for_network(url: str) -> None:
    """Wait until DHCP has set a route, if the host of `url` is another machine."""
    if urlsplit(url).hostname in (None, "localhost", "127.0.0.1"):
        return
    step("waiting for the network")
    end = time.monotonic() + NETWORK_SECONDS
    while time.monotonic() < end:
        if run("ip", "route", "show", "default").strip():
            return
        time.sleep(0.5)
    raise InstallError(f"no network: DHCP gave no route within {NETWORK_SECONDS} s, for {url}")


def device_path(spec: str) -> Path:
    """The device that `LABEL=x`, `UUID=x`, `sda1` or `/dev/sda1` names."""
    kind, _, value = spec.partition("=")
    if value and kind in ("LABEL", "UUID"):
        return Path(f"/dev/disk/by-{kind.lower()}", value)
    return Path("/dev") / spec.removeprefix("/dev/")


def _read_from_device(spec: str, path: str, location: str) -> str:
    device = device_path(spec)
    if not device.exists():
        raise InstallError(f"inst.ks={location}: no device {spec}")
    if device.resolve() == medium_device():
        return _read(MEDIUM / path, location)
    MOUNT.mkdir(parents=True, exist_ok=True)
    run("mount", "-o", "ro", device, MOUNT)
    try:
        return _read(MOUNT / path, location)
    finally:
        run("umount", MOUNT)


def medium_device() -> Path | None:
    """The device of the boot medium, None if it is not mounted."""
    for line in Path("/proc/mounts").read_text().splitlines():
        device, mount = line.split()[:2]
        if mount == str(MEDIUM):
            return Path(device).resolve()
    return None


def check_medium() -> None:
    """Raise InstallError if the boot medium contains a checksum that does not match."""
    if (device := medium_device()) is None:
        return
    output = run("checkisomd5", device, check=False)
    if "result is: PASS" not in output and "No checksum information" not in output:
        raise InstallError(
            "the boot medium is damaged: its content does not match the checksum in it"
        )


def payload_bytes(url: str) -> int:
    """The unpacked size of the commit of a repository on the medium, 0 if it is not known.

    The sandbox's edge-installer images have it in `payload.json` beside the repository.
    """
    facts = Path(url.removeprefix("file://")).parent / "payload.json"
    if not url.startswith("file:") or not facts.exists():
        return 0
    return int(json.loads(facts.read_text())["bytes"])


def _read(path: Path, location: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InstallError(f"inst.ks={location}: {path}: {reason}") from None
