"""Connect to an Image Builder: the sandbox (started if it is not running), that of this machine, or
that of another machine: a guest of the lab, or any machine over SSH.

The sandbox's service belongs to a lab: its socket, state and log are in the lab directory, and the
lab knows its process (as "image-builder"), so that any notebook finds it and `rfe lab clean` ends
it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.build import provision, remote
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.build.client import Client
from rfe_helpers.core import files, run
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import (
    ApiError,
    BlueprintError,
    BuilderError,
    CommandFailedError,
    ConnectionLostError,
    DeadlineExceededError,
    InputError,
    MediaError,
)
from rfe_helpers.install import download, media, mkksiso
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.lab.lab import Lab
from rfe_helpers.sandbox.build import customizations, image_types

PROCESS = "image-builder"
LOCAL_SOCKET = Path("/run/weldr/api.socket")
_START_SECONDS = 60
_STOP_SECONDS = 30  # to finish requests and to end a running build
_ISO_SECONDS = 1800
_FETCH_SECONDS = 3600


@dataclass(frozen=True)
class BuilderStatus:
    """The state of a lab's sandbox service, with the numbers of its composes. `pid` is None if it
    does not run."""

    pid: int | None
    socket: Path
    log: Path
    backend: str = ""
    build: str = ""
    running: int = 0
    waiting: int = 0

    def __str__(self) -> str:
        if self.pid is None:
            return f"Image Builder is not running (socket {self.socket})"
        return (
            f"{self.backend} {self.build} runs as process {self.pid}, "
            f"{self.running} running and {self.waiting} waiting composes\n"
            f"socket: {self.socket}\nlog: {self.log}"
        )


def connect(
    lab: Lab,
    builder: str = "",
    *,
    deadline: Deadline | float | None = None,
    on_progress: OnProgress = None,
) -> Client:
    """A client of an Image Builder that answers.

    >>> from rfe_helpers import connect
    >>> client = connect(lab)  # the lab's own, see `builder_of`
    >>> client.status().backend
    'osbuild-composer'

    `builder` is "sandbox" (started if it does not run in this lab; several callers may do so at
    once), "local" (osbuild-composer on this machine), "vm" (the guest that notebook 10 sets up,
    started if it is off) or "ssh://user@host". Raises InputError for any other, BuilderError with
    the end of the log if it does not start.
    """
    builder = builder or builder_of(lab)
    if builder == "local":
        client = Client(LOCAL_SOCKET, logs=lab.path("logs"))
        client.status()
        return client
    if remote.is_remote(builder):
        return _remote(lab, builder, on_progress)
    if builder != "sandbox":
        raise InputError(
            f"no Image Builder {builder!r}",
            remedy="use sandbox, local, vm or ssh://user@host",
        )
    if lab.profile.backend != "sandbox":
        raise InputError(
            f"the sandbox does not build {lab.profile.title}",
            remedy="use builder=vm, local or ssh://user@host with this profile, or a lab with the "
            "profile sandbox",
        )
    with _alone(lab):
        return _sandbox(lab, Deadline.of(deadline, _START_SECONDS), on_progress)


def builder_of(lab: Lab) -> str:
    """The builder that notebook 10 has set up in this lab; before that "sandbox" for the sandbox's
    profile and "vm" for a release.

    >>> from rfe_helpers import build
    >>> build.builder_of(lab)
    'sandbox'
    """
    recorded = lab.state["steps"].get("image-builder", {}).get("builder", "")
    return recorded or ("sandbox" if lab.profile.backend == "sandbox" else remote.VM)


def refusal(lab: Lab, blueprint: Blueprint, image_type: str = "") -> str:
    """Why the lab's sandbox refuses to compose a blueprint as `image_type`, by default that of the
    release's commit; "" if it does not, and for any other Image Builder."""
    kind = image_types.find(image_type or lab.profile.types.served)
    if kind is None or builder_of(lab) != "sandbox":
        return ""
    try:
        customizations.check(blueprint, kind)
    except BlueprintError as error:
        return error.message
    return ""


def guest_image(lab: Lab, image: str = "", on_progress: OnProgress = None) -> Path:
    """The path of the guest image in which to install Image Builder: `image`, or the profile's.

    The sandbox makes its own, once for each lab; that of a release is expected in the cache, where
    `rfe fetch` puts it. Raises MediaError, with where to get it, if it is missing.

    >>> from rfe_helpers import build
    >>> build.guest_image(lab, "rhel-9.6-x86_64-kvm.qcow2")
    Traceback (most recent call last):
        ...
    rfe_helpers.errors.MediaError: there is no guest image rhel-9.6-x86_64-kvm.qcow2...
    """
    if image or lab.profile.backend != "sandbox":
        path = Path(image).expanduser() if image else download.kept(lab.profile.media.guest_image)
        if not path.is_file():
            raise MediaError(
                f"there is no guest image {path}", remedy=download.advice(lab.profile, "guest")
            )
        return path
    target = lab.path("composes", lab.profile.media.guest_image)
    if target.exists():
        return target
    with _alone(lab):
        client = _sandbox(lab, Deadline(_START_SECONDS), on_progress)
    client.push('name = "guest-image"\ndescription = "A guest to install Image Builder in"')
    started = client.start_compose("guest-image", "guest-image")
    client.wait(started.id, Deadline(_ISO_SECONDS), on_progress)
    client.download(started.id, target.parent, on_progress).replace(target)
    client.delete_compose(started.id)
    return target


def _remote(lab: Lab, builder: str, on_progress: OnProgress) -> Client:
    """A client of another machine's Image Builder; a broken forwarding is set up again."""
    client = Client(remote.socket(lab, builder, on_progress), logs=lab.path("logs"))
    try:
        client.status()
    except ConnectionLostError:
        remote.stop(lab)
        client = Client(remote.socket(lab, builder, on_progress), logs=lab.path("logs"))
        try:
            client.status()
        except ConnectionLostError as error:
            raise BuilderError(
                f"no Image Builder answers at {provision.SOCKET} of {builder}",
                remedy="run notebook 10, which installs it there; the user must be in the group "
                f"{provision.GROUP}",
                log=lab.log(remote.PROCESS),
            ) from error
    return client


def stop(lab: Lab) -> bool:
    """End the lab's sandbox service and its running composes; return whether it was running.

    >>> from rfe_helpers import build
    >>> from rfe_helpers.lab import Lab
    >>> build.stop(Lab("another-lab"))  # nothing runs there
    False
    """
    with _alone(lab):
        process = lab.process(PROCESS)
        if process is not None:
            run.stop(process, grace=_STOP_SECONDS)
        lab.remove_process(PROCESS)
        return process is not None


def status(lab: Lab) -> BuilderStatus:
    """The state of the lab's sandbox service.

    >>> from rfe_helpers import build
    >>> print(build.status(lab))
    osbuild-composer rfe-sandbox-... runs as process ..., 0 running and 0 waiting composes
    socket: ...
    log: ...
    """
    process = lab.process(PROCESS)
    socket, log = _socket(lab), lab.log(PROCESS)
    if process is None:
        return BuilderStatus(None, socket, log)
    client = _client(lab)
    server, queue = client.status(), client.queue()
    running = sum(compose.status == "RUNNING" for compose in queue)
    return BuilderStatus(
        process.pid, socket, log, server.backend, server.build, running, len(queue) - running
    )


def boot_iso(
    lab: Lab,
    on_progress: OnProgress = None,
    *,
    deadline: Deadline | float | None = None,
    iso: str = "",
) -> Path:
    """The path of the lab's boot ISO: `iso`, or the one that `rfe fetch` has put into the cache.

    The sandbox's is built at the first call and then taken from the cache. Raises MediaError if it
    cannot be built (with the last lines of the log), is missing (with where to get it), or belongs
    to another release.

    >>> from rfe_helpers import build
    >>> build.boot_iso(lab)  # /home/anna/.cache/rfe/boot-…/boot.iso
    PosixPath('....iso')
    """
    if iso or lab.profile.backend != "sandbox":
        path = Path(iso).expanduser() if iso else download.kept(lab.profile.media.boot_iso)
        if not path.is_file():
            advice = download.advice(lab.profile, "iso")
            raise MediaError(f"there is no boot ISO {path}", remedy=advice)
        mkksiso.check_release(media.read(path), lab.profile)
        return path
    return _from_sandbox(lab, "installer", "boot ISO", "boot-iso", on_progress, deadline)


def base_image(
    lab: Lab, on_progress: OnProgress = None, *, deadline: Deadline | float | None = None
) -> Path:
    """The path of the sandbox's base image for bootable containers, an OCI archive; built at the
    first call and then taken from the cache. Raises MediaError, with the last lines of the log, if
    it cannot be built.

    >>> from rfe_helpers import build
    >>> build.base_image(lab)  # /home/anna/.cache/rfe/edge-base-…/…
    PosixPath('...')
    """
    return _from_sandbox(lab, "base_image", "base image", "edge-base", on_progress, deadline)


def _from_sandbox(
    lab: Lab,
    module: str,
    what: str,
    log_name: str,
    on_progress: OnProgress,
    deadline: Deadline | float | None,
) -> Path:
    """The file that a program of the sandbox makes, or has made, in the cache."""
    log = lab.log(log_name)
    program = [sys.executable, "-m", f"rfe_helpers.sandbox.{module}"]
    try:
        result = run.run(
            [*program, "--cache", cache_directory()],
            deadline=Deadline.of(deadline, _ISO_SECONDS),
            log=log,
            on_line=on_progress,
        )
    except CommandFailedError as error:
        raise MediaError(
            f"the {what} could not be made:\n{error.tail}",
            remedy=error.remedy or "install what `rfe doctor` names, then try again",
            log=log,
        ) from None
    lines = result.stdout.split("\n")
    path = Path(next((line for line in reversed(lines) if line.strip()), ""))
    if not path.is_file():
        raise MediaError(f"the {what} was made, but its file is missing", log=log)
    return path


def fill_cache(
    packages: Sequence[str] | str,
    on_progress: OnProgress = None,
    *,
    deadline: Deadline | float | None = None,
) -> Path:
    """Download everything that the sandbox needs into the cache, and `packages` (names, or "tmux
    jq") for blueprints with their dependencies; after that composes and installations work without
    a network.

    Returns the directory of the packages. Raises InputError for packages that do not exist,
    CommandFailedError with the last lines of output.

    >>> from rfe_helpers import build
    >>> build.fill_cache("tmux jq", print)  # doctest: +SKIP
    PosixPath('/home/anna/.cache/rfe/packages')
    """
    program = [sys.executable, "-m", "rfe_helpers.sandbox.fetch"]
    names = packages.split() if isinstance(packages, str) else packages
    try:
        result = run.run(
            [*program, "--cache", cache_directory(), *names],
            deadline=Deadline.of(deadline, _FETCH_SECONDS),
            on_line=on_progress,
            remedy=f"check the network, then try again; {cache_directory()}/fetch.log has it all",
        )
    except CommandFailedError as error:
        if error.status != 2:
            raise
        raise InputError(error.tail.rpartition("\n")[2]) from None
    return Path(result.stdout.strip().rpartition("\n")[2])


def _sandbox(lab: Lab, deadline: Deadline, on_progress: OnProgress) -> Client:
    client = _client(lab)
    if lab.process(PROCESS) is None:
        if on_progress is not None:
            on_progress("starting Image Builder")
        _start(lab)
    wait_for(
        lambda: _answers(lab, client),
        deadline,
        "the sandbox's Image Builder answers",
        every=0.1,
        remedy=f"look at {lab.log(PROCESS)}; `rfe sandbox stop` ends the service",
    )
    return client


def _start(lab: Lab) -> None:
    state = lab.path("sandbox")
    state.mkdir(exist_ok=True)
    argv: list[str | Path] = [sys.executable, "-m", "rfe_helpers.sandbox", "--socket", _socket(lab)]
    argv += ["--state", state, "--cache", cache_directory()]
    try:
        run.start(
            argv,
            log=lab.log(PROCESS),
            on_start=lambda process: lab.add_process(PROCESS, process),
        )
    except CommandFailedError as error:
        raise _did_not_start(lab) from error


def _answers(lab: Lab, client: Client) -> bool:
    if lab.process(PROCESS) is None:
        raise _did_not_start(lab)
    try:
        client.status()
    except ApiError:
        raise
    except (BuilderError, DeadlineExceededError):
        return False
    return True


def _did_not_start(lab: Lab) -> BuilderError:
    log = lab.log(PROCESS)
    lab.remove_process(PROCESS)
    tail = run.tail_of(log.read_text(errors="replace")) if log.exists() else ""
    return BuilderError(
        "the sandbox's Image Builder did not start:\n" + tail,
        remedy="fix what the log names, then try again; `rfe doctor` looks for what is missing",
        log=log,
    )


def _client(lab: Lab) -> Client:
    return Client(_socket(lab), logs=lab.path("logs"))


def _socket(lab: Lab) -> Path:
    return lab.socket("image-builder.sock")


@contextmanager
def _alone(lab: Lab) -> Iterator[None]:
    """One caller at a time starts or stops the service of a lab."""
    with files.locked(lab.path("sandbox.lock")):
        yield
