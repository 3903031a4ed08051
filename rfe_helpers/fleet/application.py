"""A small application for edge devices: a container image made from Debian packages.

It serves one page with busybox and notifies systemd when it is ready (sd_notify), so that podman
can detect an image that does not work. The image has two layers: the programs, the same in all
versions, and the application, a few hundred bytes.

On disk, in `registry/` of the lab (written by this module only):

    application-<version>.tar   an image as an OCI archive
    programs.tar                the unpacked Debian packages, for the images after the first
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
from rfe_helpers.core import files, progress, run
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import InputError
from rfe_helpers.lab.lab import Lab

REPOSITORY = "edge/application"
SUITE = "trixie"
# sd_notify sends to a Unix datagram socket, which busybox's own netcat cannot do.
PACKAGES = ("busybox-static", "netcat-openbsd")
_KEPT = (
    "usr/bin/busybox",
    "usr/bin/nc.openbsd",
    "usr/lib64/*",
    "usr/lib/*/ld-linux-*",
    "usr/lib/*/libbsd.so.*",
    "usr/lib/*/libc.so.*",
    "usr/lib/*/libmd.so.*",
    "usr/lib/*/libresolv.so.*",
)
_DIRECTORIES = {"usr": 0o755, "usr/bin": 0o755, "tmp": 0o1777}
_COMMANDS = ("cat", "echo", "httpd", "ls", "printf", "ps", "sh", "sleep", "wget")
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,40}")
_START = """\
#!/bin/sh
# A shell that is process 1 ignores signals without a trap.
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
    deadline: Deadline | float | None = None,
    on_progress: OnProgress = None,
) -> Path:
    """Build the image of a version; returns the path of its OCI archive. The first in a lab
    downloads its programs with mmdebstrap.

    A `broken` version ends before it is ready. Raises InputError for a version that cannot be a
    tag, CommandFailedError if the packages cannot be downloaded, DeadlineExceededError.

    >>> from rfe_helpers.fleet import application
    >>> archive = application.build(lab, "1", on_progress=print)  # doctest: +SKIP
    >>> digest = registry.push(archive, f"{application.REPOSITORY}:stable")  # doctest: +SKIP
    """
    if not _VERSION.fullmatch(version):
        raise InputError(f"{version!r} cannot be a version", remedy="use one like 1, 2.0 or stable")
    say = progress.say(on_progress)
    target = lab.path("registry", f"application-{version}.tar")
    programs = lab.path("registry", "programs.tar")
    with _scratch_directory() as scratch:
        if not programs.exists():
            say("downloading Debian packages")
            extracted = scratch / "programs.tar"
            run.run(
                extract_argv(extracted),
                env={"TMPDIR": str(scratch)},
                log=lab.log("application"),
                deadline=deadline,
                remedy="see the log for the package or the network error",
            )
            with files.replacing(programs) as temporary:
                shutil.copyfile(extracted, temporary)
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
    """The command line of mmdebstrap that unpacks PACKAGES and their dependencies into a tar file,
    without configuring them."""
    mirror = os.environ.get("RFE_DEBIAN_MIRROR")
    # fmt: off
    return [
        "mmdebstrap", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=extract", "--architectures=amd64", "--format=tar", "--skip=output/dev",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=APT::Install-Recommends "false"',
        SUITE, str(target), *([mirror] if mirror else []),
    ]
    # fmt: on


def start_script(version: str, *, broken: bool) -> str:
    """The script that the container runs."""
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
def _scratch_directory() -> Iterator[Path]:
    """A temporary directory that mmdebstrap's mapped users may enter."""
    path = Path(tempfile.mkdtemp(prefix="rfe-application-", dir="/var/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
