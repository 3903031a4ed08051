"""An Image Builder on another machine: a guest of the lab, or any machine over SSH.

Its socket is forwarded by an ssh process that belongs to the lab (as "image-builder-socket"): any
notebook finds it, `rfe lab clean` ends it. The same connection leads from there to the lab's web
server, so that the URL of its repository is right for Image Builder, too. The step "guest" of the
lab says which image its guest was made from.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path

from rfe_helpers import serve
from rfe_helpers.build import provision, registration
from rfe_helpers.build.provision import SOCKET, Step
from rfe_helpers.core import run, ssh
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.ssh import Host
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import BuilderError, CommandFailedError, InputError, MachineError
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
    """Whether a builder's name means another machine."""
    return builder == VM or builder.startswith(URL)


def start_guest(
    lab: Lab,
    image: Path,
    *,
    memory_mib: int = 2048,
    deadline: Deadline | None = None,
    on_progress: OnProgress = None,
) -> Guest:
    """Start the lab's guest for Image Builder, or find it running, and wait for cloud-init.

    The image is left as it is: what is installed goes to a disk of the guest's own.
    """
    found = guest.find(lab, NAME)
    if found is None:
        if on_progress is not None:
            on_progress(f"starting {image.name}")
        disk = guest.overlay(lab, image, NAME)
        lab.record("guest", image=image.absolute(), disk=disk, memory_mib=memory_mib)
        arch = guest.architecture(image)
        found = guest.start(lab, disk, NAME, memory_mib=memory_mib, arch=arch)
    found.wait(deadline or Deadline(START_SECONDS), on_progress)
    return found


def host(lab: Lab, builder: str, on_progress: OnProgress = None) -> Host:
    """The machine behind "vm" (which is started if it was switched off) or "ssh://user@host".

    Raises InputError if there has been no guest in this lab yet.
    """
    if builder != VM:
        return ssh.parse(builder)
    found = guest.find(lab, NAME)
    if found is not None:
        return found.host
    if not lab.has("guest"):
        raise InputError(
            "this lab has no guest with Image Builder yet",
            remedy="run notebook 10 with the parameter builder=vm",
        )
    step = lab.step("guest")
    return start_guest(
        lab, Path(step["image"]), memory_mib=step["memory_mib"], on_progress=on_progress
    ).host


def steps(lab: Lab, builder: str, credentials_file: str = "") -> tuple[Step, ...]:
    """What must be done on the machine of the profile's release, in order."""
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
    """Carry the steps out; without any nobody is asked anything. The log is
    `logs/install-image-builder.log` of the lab."""
    if not planned:
        return ()
    shell = host(lab, builder, on_progress)
    log = lab.log("install-image-builder")
    return provision.carry_out(planned, shell, log, on_progress, user=shell.user or "root")


# the socket ---------------------------------------------------------------------------------------


def socket(lab: Lab, builder: str, on_progress: OnProgress = None) -> Path:
    """A socket in the lab that leads to that of the machine; made anew if its ssh has ended.

    Raises BuilderError with what ssh said if it cannot be made.
    """
    path = lab.socket("image-builder-there.sock")
    machine = host(lab, builder, on_progress)
    port = serve.port_of(lab)
    wanted = {"host": machine.name, "port": port}
    known = lab.step(PROCESS) if lab.has(PROCESS) else {}
    same = all(known.get(key) == value for key, value in wanted.items())
    if lab.process(PROCESS) is not None and same and path.is_socket():
        return path
    stop(lab)
    path.unlink(missing_ok=True)
    log = lab.log(PROCESS)
    log.unlink(missing_ok=True)
    failed = BuilderError(
        f"the socket of {machine.name} cannot be forwarded",
        log=log,
        remedy=f"it must work without asking anything: try `{machine.line} true`; and port "
        f"{port}, which is to lead to this lab's web server, must be free there",
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
    lab.record(PROCESS, **wanted)
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
    """End the forwarding; whether there was one. The machine goes on running."""
    process = lab.process(PROCESS)
    if process is not None:
        run.stop(process)
    lab.remove_process(PROCESS)
    return process is not None


def stop_guest(lab: Lab) -> bool:
    """Switch the lab's guest off; whether it was running."""
    stop(lab)
    found = guest.find(lab, NAME)
    if found is None:
        return False
    try:
        found.machine.stop()
    except MachineError:
        found.machine.kill()
    return True


# the sandbox's service ----------------------------------------------------------------------------


def service_step() -> Step:
    """Put the sandbox's service on a guest of its own: it stands in for the package."""
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
        stdin=base64.b64encode(packed).decode() + "\n",
    )


def service_tar() -> bytes:
    """This package and pykickstart, compressed: the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for package in ("rfe_helpers", "lazy_loader", "pykickstart"):
            for name, content in _files(resources.files(package), package):
                _add(tar, name, content)
        # The service says its version.
        described = metadata.distribution("rfe-helpers").read_text("METADATA") or ""
        _add(tar, "rfe_helpers.dist-info/METADATA", described.encode())
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
