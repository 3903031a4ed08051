"""An Image Builder on another machine: a guest of the lab, or any machine over SSH.

Its socket is forwarded by an ssh process that belongs to the lab (as "image-builder-socket"): any
notebook finds it, `rfe lab clean` ends it. The same connection forwards the port of the lab's web
server to that machine, so that the URL of the lab's repository is valid there, too. The step
"guest" of the lab records which image its guest was made from.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from rfe_helpers import __version__, serve
from rfe_helpers.build import provision, registration
from rfe_helpers.build.provision import SOCKET, Step
from rfe_helpers.core import run, ssh
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.ssh import Host
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import BuilderError, CommandFailedError, InputError, MachineError
from rfe_helpers.lab import profile
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import guest
from rfe_helpers.machine.guest import Guest

VM, URL = "vm", "ssh://"
NAME = "builder"
PROCESS = "image-builder-socket"
START_SECONDS = 1800
_CONNECT_SECONDS = 120
_PREFIX = "/opt/image-builder"


def is_remote(builder: str) -> bool:
    """Whether a builder is on another machine.

    >>> from rfe_helpers.build import remote
    >>> remote.is_remote("ssh://root@builder"), remote.is_remote("sandbox")
    (True, False)
    """
    return builder == VM or builder.startswith(URL)


def start_guest(
    lab: Lab,
    image: Path,
    *,
    memory_mib: int = 2048,
    deadline: Deadline | float | None = None,
    on_progress: OnProgress = None,
) -> Guest:
    """Start the lab's guest for Image Builder, unless it runs already, and wait for cloud-init.

    The image is not changed: the guest writes to an overlay of its own.

    >>> from rfe_helpers import build
    >>> guest = build.remote.start_guest(lab, build.guest_image(lab))  # doctest: +SKIP
    >>> guest.host.line, guest.console_url  # doctest: +SKIP
    ('ssh -i ...', 'https://127.0.0.1:9090/')
    """
    builder = guest.find(lab, NAME)
    if builder is None:
        if on_progress is not None:
            on_progress(f"starting {image.name}")
        disk = guest.overlay(lab, image, NAME)
        lab.record("guest", image=image.absolute(), disk=disk, memory_mib=memory_mib)
        arch = guest.architecture(image)
        builder = guest.start(lab, disk, NAME, memory_mib=memory_mib, arch=arch)
    builder.wait(Deadline.of(deadline, START_SECONDS), on_progress)
    return builder


def host(lab: Lab, builder: str, on_progress: OnProgress = None) -> Host:
    """The machine of "vm" (which is started if it is off) or "ssh://user@host".

    Raises InputError if this lab has no guest yet.
    """
    if builder != VM:
        return ssh.parse(builder)
    running = guest.find(lab, NAME)
    if running is not None:
        return running.host
    if not lab.has("guest"):
        raise InputError(
            "this lab has no guest with Image Builder yet",
            remedy="run notebook 10 with the parameter builder=vm",
        )
    step = lab.step("guest")
    return start_guest(
        lab, Path(step["image"]), memory_mib=step["memory_mib"], on_progress=on_progress
    ).host


def steps(
    lab: Lab, builder: str, credentials_file: str = "", *, release: str = ""
) -> tuple[Step, ...]:
    """The steps that install Image Builder of the profile's release on a machine, in order.

    The sandbox's own process and an Image Builder of this machine need none: for them these are the
    steps in a guest of the release, to read; with the sandbox's profile that of `release`. Raises
    ProfileError for a release without edge images.

    >>> from rfe_helpers.build import remote
    >>> for step in remote.steps(lab, "sandbox", release="rhel-9.6"):
    ...     print(step.title)
    register with Red Hat
    set its role
    set its service level
    set its usage
    look for room
    install Image Builder
    enable osbuild-composer.socket
    enable cockpit.socket
    let root into the web console
    """
    if not is_remote(builder):
        own = lab.profile.backend == "osbuild" or not release
        shown = lab.profile if own else profile.load(release)
        shown.require_edge()
        return provision.steps(shown, console_for_root=True)
    path = Path(credentials_file) if credentials_file else None
    needed = lab.profile.registration.kind != "none"
    user = (ssh.parse(builder).user or "root") if builder != VM else "root"
    return provision.steps(
        lab.profile,
        user,
        registration.read(path) if needed else None,
        console_for_root=builder == VM,
        before=[service_step()] if lab.profile.backend == "sandbox" else [],
    )


def install(
    lab: Lab, builder: str, planned: tuple[Step, ...], on_progress: OnProgress = None
) -> tuple[provision.StepOutcome, ...]:
    """Carry out the steps; without steps the machine is not contacted. The log is
    `logs/install-image-builder.log` of the lab.

    >>> from rfe_helpers.build import remote
    >>> remote.install(lab, "sandbox", ())  # nothing to do
    ()
    """
    if not planned:
        return ()
    shell = host(lab, builder, on_progress)
    log = lab.log("install-image-builder")
    return provision.carry_out(planned, shell, log, on_progress, user=shell.user or "root")


# the socket ---------------------------------------------------------------------------------------


def socket(lab: Lab, builder: str, on_progress: OnProgress = None) -> Path:
    """A socket in the lab that is forwarded to that of the machine, again if its ssh has ended.

    Raises BuilderError with the message of ssh if that fails.
    """
    path = lab.socket("image-builder-there.sock")
    machine = host(lab, builder, on_progress)
    port = serve.port_of(lab)
    connection = {"host": machine.name, "port": port}
    known = lab.step(PROCESS) if lab.has(PROCESS) else {}
    same = all(known.get(key) == value for key, value in connection.items())
    if lab.process(PROCESS) is not None and same and path.is_socket():
        return path
    stop(lab)
    path.unlink(missing_ok=True)
    log = lab.log(PROCESS)
    log.unlink(missing_ok=True)
    failed = BuilderError(
        f"the socket of {machine.name} cannot be forwarded",
        log=log,
        remedy=f"ssh must log in without asking anything: try `{machine.line} true`; and port "
        f"{port}, which is forwarded to this lab's web server, must be free there",
    )
    try:
        process = run.start(
            machine.forward_argv(path, SOCKET, port),
            log=log,
            env=ssh.agent(),
            on_start=lambda process: lab.add_process(PROCESS, process),
        )
    except CommandFailedError as error:
        failed.message += f": {error.tail}"
        raise failed from None
    lab.record(PROCESS, **connection)
    wait_for(
        lambda: path.is_socket() or not process.alive,
        Deadline(_CONNECT_SECONDS),
        f"the socket of {machine.name} is here",
        every=0.1,
    )
    if not process.alive:
        lab.remove_process(PROCESS)
        failed.message += f": {run.tail_of(log.read_text(errors='replace'), 3)}"
        raise failed
    return path


def stop(lab: Lab) -> bool:
    """End the forwarding; return whether there was one. The machine keeps running."""
    process = lab.process(PROCESS)
    if process is not None:
        run.stop(process)
    lab.remove_process(PROCESS)
    return process is not None


def stop_guest(lab: Lab) -> bool:
    """Switch the lab's guest off; return whether it was running.

    >>> from rfe_helpers.build import remote
    >>> remote.stop_guest(lab)
    False
    """
    stop(lab)
    running = guest.find(lab, NAME)
    if running is None:
        return False
    try:
        running.machine.stop()
    except MachineError:
        running.machine.kill()
    return True


# the sandbox's service ----------------------------------------------------------------------------


def service_step() -> Step:
    """The step that copies the sandbox's service to a guest, in place of the package."""
    packed = service_tar()
    digest = hashlib.sha256(packed).hexdigest()
    new = f"{_PREFIX}.new"
    units = f"{_PREFIX}/rfe_helpers/sandbox/guest/image-builder/osbuild-composer.*"
    script = f"""\
set -eu
rm -rf {new}
mkdir -p {new}
base64 -d | tar -xz -C {new}
echo {digest} >{new}/digest
rm -rf {_PREFIX}
mv {new} {_PREFIX}
groupadd --force --system {provision.GROUP}
cp {units} /etc/systemd/system/
systemctl daemon-reload
systemctl try-restart osbuild-composer.service
"""
    return Step(
        "copy the sandbox's service",
        f"tar -xz -C {_PREFIX}; cp …/osbuild-composer.* /etc/systemd/system/",
        done=f"grep -qx {digest} {_PREFIX}/digest && getent group {provision.GROUP}",
        script=script,
        reason="it stands in for Red Hat's package osbuild-composer",
        stdin=base64.b64encode(packed).decode() + "\n",
    )


def service_tar() -> bytes:
    """This package and its libraries as tar.gz: the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for package in ("rfe_helpers", "lazy_loader", "pykickstart"):
            for name, content in _files(resources.files(package), package):
                _add(tar, name, content)
        # The service reports its version.
        described = f"Metadata-Version: 2.1\nName: rfe-workbook\nVersion: {__version__}\n"
        _add(tar, "rfe_workbook.dist-info/METADATA", described.encode())
    return gzip.compress(buffer.getvalue(), mtime=0)


def _files(directory: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(directory.iterdir(), key=lambda item: item.name):
        if entry.is_dir() and entry.name not in ("__pycache__", "locale"):
            yield from _files(entry, f"{name}/{entry.name}")
        elif entry.is_file() and not entry.name.endswith((".pyc", ".so")):
            yield f"{name}/{entry.name}", entry.read_bytes()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))
