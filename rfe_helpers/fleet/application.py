"""A small application for edge devices: a container image made from Debian packages.

It serves one page with busybox and tells systemd when it is ready (sd_notify), which is what
lets podman see that a new image is no good. The image has two layers: the programs, the same in
all versions, and the application, a few hundred bytes.

On disk, below `registry/` of the lab (this module writes it):

    application-<version>.tar   an image, an OCI archive
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rfe_helpers.commit import oci
from rfe_helpers.core import progress, run
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import InputError
from rfe_helpers.lab.lab import Lab

REPOSITORY = "edge/application"
SUITE = "trixie"
# netcat because busybox's cannot send to a unix datagram socket, as sd_notify does.
PACKAGES = ("busybox-static", "netcat-openbsd")
_KEPT = (
    "usr/bin/busybox",
    "usr/bin/nc.openbsd",
    "usr/lib64/*",
    *(f"usr/lib/*/{name}" for name in ("ld-linux-*", "libc.so.*", "libresolv.so.*")),
    *(f"usr/lib/*/{name}" for name in ("libbsd.so.*", "libmd.so.*")),
)
_DIRECTORIES = {"usr": 0o755, "usr/bin": 0o755, "tmp": 0o1777}
_COMMANDS = ("cat", "echo", "httpd", "ls", "printf", "ps", "sh", "sleep", "wget")
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,40}")
_START = """\
#!/bin/sh
# As process 1 a shell has to be told what ends it.
trap 'exit 0' TERM
echo "application {version} starts"
{body}
httpd -p 8080 -h /www
wget -q -O /dev/null http://127.0.0.1:8080/version || exit 1
[ -z "$NOTIFY_SOCKET" ] || printf READY=1 | nc.openbsd -u -U -w 1 "$NOTIFY_SOCKET" || exit 1
echo "application {version} is ready"
while :; do sleep 60 & wait $!; done
"""
_BROKEN = 'echo "application {version} finds no price list"; exit 1'


def build(
    lab: Lab,
    version: str,
    *,
    broken: bool = False,
    deadline: Deadline | None = None,
    on_progress: OnProgress = None,
) -> Path:
    """Write the image of a version; a `broken` one ends before it is ready. Returns its archive.

    Raises InputError for a version that can be no tag, CommandFailedError if the packages cannot be
    fetched.
    """
    if not _VERSION.fullmatch(version):
        raise InputError(f"{version!r} cannot be a version", remedy="1, 2.0 and stable can")
    say = progress.say(on_progress)
    target = lab.path("registry", f"application-{version}.tar")
    with _scratch() as scratch:
        programs = scratch / "programs.tar"
        say("fetching Debian packages")
        run.run(
            extract_argv(programs),
            env={"TMPDIR": str(scratch)},
            log=lab.log("application"),
            deadline=deadline,
            remedy="the log names the package or the network error",
        )
        say("writing the image")
        layers = [
            oci.write_layer(scratch / "programs.tar.gz", lambda tar: _programs(tar, programs)),
            oci.write_layer(
                scratch / "application.tar.gz",
                lambda tar: _application(tar, start_script(version, broken=broken), version),
            ),
        ]
        config = {"Env": ["PATH=/usr/bin"], "Cmd": ["/usr/bin/application"]}
        oci.write_archive(target, layers, config, created_by="rfe_helpers.fleet.application")
    return target


def extract_argv(target: Path) -> list[str]:
    """mmdebstrap, unpacking the packages and what they need, configuring nothing."""
    mirror = os.environ.get("RFE_DEBIAN_MIRROR")
    return [
        *("mmdebstrap", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}"),
        *("--variant=extract", "--architectures=amd64", "--format=tar", "--skip=output/dev"),
        f"--include={','.join(PACKAGES)}",
        '--aptopt=APT::Install-Recommends "false"',
        *(SUITE, str(target)),
        *([mirror] if mirror else []),
    ]


def start_script(version: str, *, broken: bool) -> str:
    """What the container runs."""
    body = _BROKEN.format(version=version) if broken else ""
    return _START.format(version=version, body=body)


def _programs(tar: tarfile.TarFile, extracted: Path) -> None:
    for name, mode in _DIRECTORIES.items():
        oci.add_directory(tar, name, mode)
    with tarfile.open(extracted) as source:
        for entry in source:
            entry.name = entry.name.removeprefix("./")
            if any(fnmatch.fnmatch(entry.name, pattern) for pattern in _KEPT):
                content = source.extractfile(entry) if entry.isreg() else None
                tar.addfile(oci.anonymous(entry), content)
    for name in ("bin", "lib", "lib64"):
        oci.add_link(tar, name, f"usr/{name}")
    for name in _COMMANDS:
        oci.add_link(tar, f"usr/bin/{name}", "busybox")


def _application(tar: tarfile.TarFile, script: str, version: str) -> None:
    oci.add_directory(tar, "www")
    oci.add_file(tar, "www/version", f"{version}\n".encode())
    oci.add_file(tar, "usr/bin/application", script.encode(), 0o755)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A directory that mmdebstrap's mapped users may enter, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="rfe-application-", dir="/var/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
