"""Publish a commit and kickstarts over HTTP, on loopback only.

A container.tar is run as it is, with podman; where podman cannot run, and for a commit.tar or the
directory of a repository, the host's nginx serves the same files at the same addresses. With `tls`
it does so over HTTPS, with a certificate of the lab's own authority. Virtual machines with user
networking reach the host's loopback as 10.0.2.2.

On disk, below `www/` of the lab (this module writes it):

    site.json           the Site that is published
    kickstarts/         what is published; mounted into the container's web root
    containers.conf     podman's settings, only where its own do not work
    nginx.conf          configuration of the host's nginx, which has `current` as its root
    current             link to the site directory that is served, replaced whole
    site-<id>/          repo and kickstarts, for nginx; repo is a link if a repository is published
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import requests

from rfe_helpers import archive, files, podman, run
from rfe_helpers.errors import CommandFailed, InputError, ServeError, StepMissing
from rfe_helpers.lab import Lab, cache_directory, port_is_free
from rfe_helpers.ostree import Repo
from rfe_helpers.podman import CannotRunError, Mount, Podman
from rfe_helpers.tls import Certificates, certificates
from rfe_helpers.wait import Deadline, wait_for

IMAGE = "localhost/rfe-mirror:latest"
HOST_SEEN_BY_GUESTS = "10.0.2.2"
_PORT = 8000
_SECONDS = 600
_ANSWER_SECONDS = 60  # of a server that runs
_PROCESS = "web-server"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Progress = Callable[[str], None] | None


@dataclass(frozen=True)
class Site:
    """What is published: `url` for this machine, `guest_url` for its virtual machines.

    Both end with a slash; the repository is below at repo/, each kickstart under its name.
    `engine` is "podman" or "nginx", `note` says why it is nginx for a container; `ca` is the file
    of the authority whose certificate an HTTPS server has, "" for HTTP.
    """

    url: str
    guest_url: str
    port: int
    engine: str
    artifact: str
    kickstarts: tuple[str, ...] = ()
    container: str = ""
    note: str = ""
    ca: str = ""

    @property
    def repo_url(self) -> str:
        return f"{self.url}repo/"

    @property
    def guest_repo_url(self) -> str:
        return f"{self.guest_url}repo/"

    def kickstart_url(self, name: str) -> str:
        """Where a virtual machine finds a kickstart."""
        return f"{self.guest_url}{name}"

    @property
    def answers(self) -> bool:
        """Whether the repository can be read now."""
        return _get(f"{self.url}repo/config", self.ca) is not None


def publish(
    lab: Lab,
    artifact: Path,
    *,
    kickstarts: Mapping[str, str] | None = None,
    port: int = 0,
    engine: str = "",
    tls: bool = False,
    deadline: Deadline | None = None,
    on_progress: Progress = None,
) -> Site:
    """Serve a container.tar, a commit.tar or the directory of a repository (Publication.repo.path),
    and kickstarts (name -> text), replacing what was served.

    Without `kickstarts` those that are served now stay.
    `port` 0 is the one published on before, or else the lab's own (8000 if it is free at first);
    `engine` "nginx" avoids podman; `tls` is for nginx alone.
    Returns when the repository and every kickstart answer. Raises InputError, CommitError for an
    artifact that is none, ServeError.
    """
    texts = _kickstarts(lab) if kickstarts is None else dict(kickstarts)
    for name in texts:
        if not _NAME.fullmatch(name) or name == "repo":
            raise InputError(f"a kickstart cannot be named {name!r}", remedy="edge.ks is a name")
    if engine not in ("", "podman", "nginx"):
        raise InputError(f"there is no engine {engine!r}", remedy="use podman or nginx")
    limit = deadline or Deadline(_SECONDS)
    say = on_progress or (lambda line: None)
    is_container = not artifact.is_dir() and archive.is_container(artifact)
    if engine == "podman" and (tls or not is_container):
        reason = "serves no HTTPS here" if tls else "has nothing to run"
        raise InputError(
            f"{artifact.name} is not for podman, which {reason}",
            remedy="let nginx serve it; for podman build an edge-container",
        )
    with _alone(lab):
        chosen = port or port_of(lab)
        note = ""
        for name, text in texts.items():
            files.write(lab.path("www", "kickstarts", name), text)
        if is_container and engine != "nginx" and not tls:
            try:
                return _with_podman(lab, artifact, texts, chosen, limit, say)
            except CannotRunError as error:
                if engine == "podman":
                    raise
                note = error.message
                say("podman cannot run here, using the host's nginx")
        return _with_nginx(lab, artifact, texts, chosen, tls, note, limit, say)


def site(lab: Lab) -> Site:
    """What the lab has published last. Raises StepMissing if there is nothing."""
    try:
        found = json.loads(_state(lab).read_text())
    except FileNotFoundError:
        raise StepMissing(
            "this lab has not published anything yet",
            remedy=f"run the notebook that does it first: `{lab.command('run 40')}`",
        ) from None
    return Site(**{**found, "kickstarts": tuple(found["kickstarts"])})


def _kickstarts(lab: Lab) -> dict[str, str]:
    """The kickstarts that are published now."""
    names = site(lab).kickstarts if _state(lab).exists() else ()
    paths = (lab.path("www", "kickstarts", name) for name in names)
    return {path.name: path.read_text() for path in paths if path.is_file()}


def published(lab: Lab) -> dict[str, Any] | None:
    """What is served now, as arguments that make `publish` serve it again; None for nothing."""
    if not _state(lab).exists() or not (found := site(lab)).answers:
        return None
    return {
        "artifact": Path(found.artifact),
        "kickstarts": _kickstarts(lab),
        "port": found.port,
        "engine": found.engine,
        "tls": bool(found.ca),
    }


def port_of(lab: Lab) -> int:
    """The port that the lab publishes on: the one published on last, or else its own."""
    return site(lab).port if _state(lab).exists() else lab.port("web", _PORT)


def stop(lab: Lab) -> None:
    """End serving; what was built and written stays."""
    with _alone(lab):
        _stop_container(lab)
        _stop_nginx(lab)
        _state(lab).unlink(missing_ok=True)


def remove_container(name: str) -> None:
    """End and remove a container and its image, for `Lab.sweep`. Raises ServeError."""
    podman.remove(name)
    with _alone_on_this_machine():
        run.run(
            ["podman", "image", "rm", IMAGE],
            env=podman.runtime_directory(),
            check=False,
            seconds=60,
        )


# podman ---------------------------------------------------------------------------------------


def _with_podman(
    lab: Lab,
    artifact: Path,
    kickstarts: Mapping[str, str],
    port: int,
    deadline: Deadline,
    say: Callable[[str], None],
) -> Site:
    engine = Podman.of(lab)
    log = lab.log("podman")
    name = f"rfe-mirror-{lab.id}"
    facts = lab.profile.container
    directory = lab.path("www", "kickstarts")
    mounts = [Mount(directory / k, f"{facts.web_root}/{k}") for k in kickstarts]
    with _alone_on_this_machine():
        before = engine.image_id(IMAGE)
        say("importing the container")
        engine.import_image(artifact, IMAGE, deadline, log)
        say("starting the container")
        _stop_nginx(lab)
        engine.remove(name)
        _check_port(port)
        lab.add_container(name)
        engine.start(
            name,
            IMAGE,
            port=port,
            container_port=facts.port,
            mounts=mounts,
            deadline=deadline,
            log=log,
        )
        if before and before != engine.image_id(IMAGE):
            engine.remove_image(before)

    def alive() -> None:
        if not engine.is_running(name):
            raise ServeError(
                f"the container {name} has ended:\n{engine.logs(name)}",
                remedy="see that the archive is one of Image Builder's edge containers",
                log=log,
            )

    found = _site(port, "podman", artifact, kickstarts, container=name)
    return _ready(lab, found, kickstarts, alive, deadline, say)


def _stop_container(lab: Lab) -> None:
    name = f"rfe-mirror-{lab.id}"
    if name in lab.state["containers"]:
        Podman.of(lab).remove(name)
        lab.remove_container(name)


# nginx ----------------------------------------------------------------------------------------


def _with_nginx(
    lab: Lab,
    artifact: Path,
    kickstarts: Mapping[str, str],
    port: int,
    tls: bool,
    note: str,
    deadline: Deadline,
    say: Callable[[str], None],
) -> Site:
    run.require("nginx")
    root = lab.path("www", f"site-{secrets.token_hex(4)}")
    try:
        if artifact.is_dir():
            root.mkdir()
            (root / "repo").symlink_to(artifact.absolute())
        else:
            say("unpacking the repository")
            Repo(archive.unpack(artifact, root / "repo")).update_summary()
        for name, text in kickstarts.items():
            files.write(root / name, text)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    _stop_container(lab)
    _swap(lab.path("www", "current"), root)
    owned = certificates(lab.path("keys", "tls")) if tls else None
    if lab.process(_PROCESS) is None or _config(lab, port, owned) != _text(_config_path(lab)):
        _stop_nginx(lab)
        _check_port(port)
        say("starting nginx")
        _start_nginx(lab, port, owned)

    def alive() -> None:
        if lab.process(_PROCESS) is None:
            log = lab.log("nginx")
            raise ServeError(f"nginx has ended:\n{run.tail_of(_text(log))}", log=log)

    ca = str(owned.ca) if owned else ""
    found = _site(port, "nginx", artifact, kickstarts, note=note, ca=ca)
    return _ready(lab, found, kickstarts, alive, deadline, say)


def _config_path(lab: Lab) -> Path:
    return lab.path("www", "nginx.conf")


def _config(lab: Lab, port: int, tls: Certificates | None) -> str:
    access = lab.path("logs", "nginx-access.log")
    directory = _config_path(lab).parent
    return nginx_config(directory, access, port, as_root=os.getuid() == 0, tls=tls)


def _start_nginx(lab: Lab, port: int, tls: Certificates | None) -> None:
    config, log = _config_path(lab), lab.log("nginx")
    (config.parent / "scratch").mkdir(exist_ok=True)
    files.write(config, _config(lab, port, tls))
    argv: list[str | Path] = ["nginx", "-e", log, "-p", config.parent, "-c", config]
    try:
        run.run([*argv, "-t"], seconds=30)
        run.start(argv, log=log, on_start=lambda process: lab.add_process(_PROCESS, process))
    except CommandFailed as error:
        raise ServeError(f"nginx does not start:\n{error.tail}", log=log) from None


def nginx_config(
    directory: Path, access: Path, port: int, *, as_root: bool, tls: Certificates | None = None
) -> str:
    """The configuration of the host's nginx: the container's, on loopback, all files in the lab.

    As root the workers stay root, since nobody else may enter a lab. The access log has the
    time in seconds, the status and the bytes that were sent, then the request.
    """
    quoted, quoted_access = _quoted(str(directory))[1:-1], _quoted(str(access))[1:-1]
    temporary = "\n".join(
        f'    {kind}_temp_path "{quoted}/scratch/{kind}";'
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    secured = ""
    if tls is not None:
        secured = (
            f"\n        ssl_certificate {_quoted(str(tls.certificate))};"
            f"\n        ssl_certificate_key {_quoted(str(tls.key))};"
        )
    return f"""\
{"user root;" if as_root else ""}
worker_processes 2;
daemon off;
pid "{quoted}/nginx.pid";
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    log_format load '$msec $status $bytes_sent "$request"';
    access_log "{quoted_access}" load buffer=64k flush=1s;
    sendfile on;
    # An OSTree client asks for thousands of small files.
    keepalive_requests 100000;
    default_type application/octet-stream;
{temporary}
    server {{
        listen 127.0.0.1:{port}{" ssl" if tls else ""};{secured}
        root "{quoted}/current";
    }}
}}
"""


def _quoted(value: str) -> str:
    """A string for nginx, which knows the escapes of JSON but \\u."""
    return json.dumps(value, ensure_ascii=False)


def _stop_nginx(lab: Lab) -> None:
    process = lab.process(_PROCESS)
    if process is not None:
        run.stop(process)
    lab.remove_process(_PROCESS)


def _swap(link: Path, target: Path) -> None:
    """Let `link` point at `target` from one moment to the next, then remove older sites."""
    temporary = link.with_name(f".current-{secrets.token_hex(4)}")
    temporary.symlink_to(target.name)
    temporary.replace(link)
    for old in link.parent.glob("site-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


# both -----------------------------------------------------------------------------------------


def _ready(
    lab: Lab,
    found: Site,
    kickstarts: Mapping[str, str],
    alive: Callable[[], None],
    deadline: Deadline,
    say: Callable[[str], None],
) -> Site:
    """Wait until the site answers with what was published, then remember it."""
    say("waiting for the first answer")

    def complete() -> bool:
        if not found.answers:
            alive()
            return False
        answers = {name: _get(found.url + name, found.ca) for name in kickstarts}
        return all(answers[name] == text.encode() for name, text in kickstarts.items())

    wait_for(
        complete,
        Deadline(min(_ANSWER_SECONDS, deadline.left)),
        f"the repository and the kickstarts answer at {found.url}",
        every=0.1,
        remedy="look at the logs of podman or nginx in the lab",
    )
    files.write_json(_state(lab), asdict(found), mode=0o600)
    # What notebook 40 has added, such as who may log in, holds for what is published after it.
    before = lab.step("serve") if lab.has("serve") else {}
    lab.record("serve", **{**before, **asdict(found)})
    return found


def _site(
    port: int,
    engine: str,
    artifact: Path,
    kickstarts: Mapping[str, str],
    *,
    container: str = "",
    note: str = "",
    ca: str = "",
) -> Site:
    scheme = "https" if ca else "http"
    return Site(
        url=f"{scheme}://127.0.0.1:{port}/",
        guest_url=f"{scheme}://{HOST_SEEN_BY_GUESTS}:{port}/",
        port=port,
        engine=engine,
        artifact=str(artifact),
        kickstarts=tuple(kickstarts),
        container=container,
        note=note,
        ca=ca,
    )


def _check_port(port: int) -> None:
    """Raise ServeError if the port is taken, a moment after our own server has left it."""
    limit = Deadline(3)
    while not port_is_free(port):
        if limit.expired:
            raise ServeError(
                f"port {port} is taken by another program",
                remedy="stop it (`ss -ltnp` lists what listens), or publish on another port",
            )
        time.sleep(0.1)


def _get(url: str, ca: str = "") -> bytes | None:
    """The body at a URL, None if there is none; `ca` is the authority of an HTTPS server."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy for this machine's own addresses
        try:
            answer = session.get(url, timeout=5, verify=ca or True)
        except requests.RequestException:
            return None
        return answer.content if answer.status_code == 200 else None


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _state(lab: Lab) -> Path:
    return lab.path("www", "site.json")


@contextmanager
def _alone(lab: Lab) -> Iterator[None]:
    """One caller at a time publishes in a lab."""
    with lab.path("www", ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _alone_on_this_machine() -> Iterator[None]:
    """One lab at a time moves the image's name, which all labs share."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "mirror.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
