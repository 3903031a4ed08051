"""Publish a commit and kickstarts over HTTP, on loopback only.

podman runs a container.tar unchanged. Where podman cannot run, and for a commit.tar or a repository
directory, the host's nginx serves the same files at the same addresses, with `tls` over HTTPS with
a certificate of the lab's own authority. Virtual machines reach the host's loopback at
`network.HOST_FROM_GUEST`.

On disk, below `www/` of the lab:

    site.json           the Site that is published (this module writes it)
    kickstarts/         the kickstarts, mounted into the container's web root (this module)
    containers.conf     settings for podman, only where its own do not work (podman)
    nginx.conf, …       see with_nginx
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import requests

from rfe_helpers.commit import archive
from rfe_helpers.core import files, journal, progress
from rfe_helpers.core.network import HOST_FROM_GUEST, LOOPBACK
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import InputError, PodmanError, StepMissingError
from rfe_helpers.lab import ports
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve import with_nginx, with_podman
from rfe_helpers.serve.server import Content, Server

_SECONDS = 600
_ANSWER_SECONDS = 60  # after the server has started
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Site:
    """A published site: `url` for this machine, `guest_url` for its virtual machines.

    Both end with a slash; the repository is at repo/, each kickstart at its name. `engine` is
    "podman" or "nginx", `note` says why nginx serves a container; `ca` is the path of the CA
    certificate of an HTTPS server, "" for HTTP.

    >>> site.answers
    True
    >>> site.kickstart_url("edge.ks")
    'http://10.0.2.2:.../edge.ks'
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
        """The URL of a kickstart for virtual machines."""
        return f"{self.guest_url}{name}"

    @property
    def answers(self) -> bool:
        """Whether the repository can be downloaded now."""
        return _get(f"{self.url}repo/config", self.ca) is not None


def publish(
    lab: Lab,
    artifact: Path,
    *,
    kickstarts: Mapping[str, str] | None = None,
    port: int = 0,
    engine: str = "",
    tls: bool = False,
    deadline: Deadline | float | None = None,
    on_progress: OnProgress = None,
) -> Site:
    """Serve a container.tar, commit.tar or repository directory, and kickstarts (name -> text).

    >>> from rfe_helpers import serve
    >>> site = serve.publish(lab, artifact.path)
    >>> site.answers, site.repo_url
    (True, 'http://127.0.0.1:.../repo/')

    This replaces the site that was served; with kickstarts=None its kickstarts stay. `port` 0 is
    the port of that site, or the lab's own (8000 for the usual lab); `engine` "nginx" avoids
    podman; `tls` needs nginx. Returns when the repository and every kickstart can be downloaded.
    Raises InputError, CommitError if the artifact cannot be read, ServeError.
    """
    texts = _kickstarts(lab) if kickstarts is None else dict(kickstarts)
    is_container = _check(artifact, texts, engine, tls)
    with files.locked(lab.path("www", ".lock")):
        limit, say = Deadline.of(deadline, _SECONDS), progress.say(on_progress)
        content = Content(lab, artifact, texts, port or port_of(lab), limit, say)
        note = ""
        for name, text in texts.items():
            journal.write(lab.path("www", "kickstarts", name), text)
        if is_container and engine != "nginx" and not tls:
            try:
                return _ready(content, with_podman.start(content, with_nginx.stop))
            except PodmanError as error:
                if engine == "podman":
                    raise
                note = error.message
                say("podman cannot run here, using the host's nginx")
        server = with_nginx.start(content, tls=tls, stop_container=with_podman.stop)
        return _ready(content, server, note)


def _check(artifact: Path, kickstarts: Mapping[str, str], engine: str, tls: bool) -> bool:
    """Whether the artifact is a container. Raises InputError for arguments that do not fit."""
    for name in kickstarts:
        if not _NAME.fullmatch(name) or name == "repo":
            raise InputError(f"a kickstart cannot be named {name!r}", remedy="use edge.ks")
    if engine not in ("", "podman", "nginx"):
        raise InputError(f"no engine {engine!r}", remedy="use podman or nginx")
    is_container = not artifact.is_dir() and archive.is_container(artifact)
    if engine == "podman" and (tls or not is_container):
        reason = "it does not serve HTTPS here" if tls else "there is nothing to run"
        raise InputError(
            f"podman cannot serve {artifact.name}: {reason}",
            remedy="let nginx serve it; for podman build an edge-container",
        )
    return is_container


def published(lab: Lab) -> Site:
    """The site that the lab published last. Raises StepMissingError if there is none.

    >>> from rfe_helpers import serve
    >>> serve.published(lab).repo_url
    'http://127.0.0.1:.../repo/'
    """
    try:
        recorded = json.loads(_state(lab).read_text())
    except FileNotFoundError:
        raise StepMissingError(
            "this lab has not published anything yet: notebook 40 does it",
            remedy=f"work through notebook 40, or let `{lab.command('solve 40')}` run it and those "
            "before it that are missing",
        ) from None
    return Site(**{**recorded, "kickstarts": tuple(recorded["kickstarts"])})


def _kickstarts(lab: Lab) -> dict[str, str]:
    """The kickstarts that are served now, name -> text."""
    names = published(lab).kickstarts if _state(lab).exists() else ()
    paths = (lab.path("www", "kickstarts", name) for name in names)
    return {path.name: path.read_text() for path in paths if path.is_file()}


@dataclass(frozen=True)
class Earlier:
    """An earlier site with the text of its kickstarts, to be published again.

    >>> from rfe_helpers import serve
    >>> earlier = serve.remember(lab)
    >>> earlier.site.port == site.port
    True
    """

    site: Site
    kickstarts: Mapping[str, str]

    def publish(self, lab: Lab) -> Site:
        """Publish the site again, at the same address and with the same engine."""
        return publish(
            lab,
            Path(self.site.artifact),
            kickstarts=self.kickstarts,
            port=self.site.port,
            engine=self.site.engine,
            tls=bool(self.site.ca),
        )


def remember(lab: Lab) -> Earlier | None:
    """The site that the lab serves now, to be published again later; None if none answers.

    >>> from rfe_helpers import serve
    >>> earlier = serve.remember(lab)
    >>> site = serve.publish(lab, artifact.path, kickstarts={})
    >>> earlier.publish(lab).kickstarts == earlier.site.kickstarts
    True
    """
    if not _state(lab).exists() or not (served := published(lab)).answers:
        return None
    return Earlier(served, _kickstarts(lab))


def port_of(lab: Lab) -> int:
    """The port of the site that the lab published last, or else the lab's own.

    >>> from rfe_helpers import serve
    >>> serve.port_of(lab) == site.port
    True
    """
    return published(lab).port if _state(lab).exists() else lab.port("web", ports.WEB)


def stop(lab: Lab) -> None:
    """End the server; artifacts and kickstarts stay.

    >>> from rfe_helpers import serve
    >>> from rfe_helpers.lab import Lab
    >>> serve.stop(Lab("another-lab"))  # nothing is served there
    """
    with files.locked(lab.path("www", ".lock")):
        with_podman.stop(lab)
        with_nginx.stop(lab)
        _state(lab).unlink(missing_ok=True)


def _ready(content: Content, server: Server, note: str = "") -> Site:
    """Wait until the site serves its content, then record it."""
    scheme = "https" if server.ca else "http"
    site = Site(
        url=f"{scheme}://{LOOPBACK}:{content.port}/",
        guest_url=f"{scheme}://{HOST_FROM_GUEST}:{content.port}/",
        port=content.port,
        engine=server.engine,
        artifact=str(content.artifact),
        kickstarts=tuple(content.kickstarts),
        container=server.container,
        note=note,
        ca=server.ca,
    )
    content.say("waiting for the first answer")

    def complete() -> bool:
        if not site.answers:
            server.check()
            return False
        answers = {name: _get(site.url + name, site.ca) for name in content.kickstarts}
        return all(answers[name] == text.encode() for name, text in content.kickstarts.items())

    wait_for(
        complete,
        Deadline(min(_ANSWER_SECONDS, content.deadline.left)),
        f"the repository and the kickstarts answer at {site.url}",
        every=0.1,
        remedy=f"see why not in {content.lab.log(server.engine)}",
    )
    lab = content.lab
    files.write_json(_state(lab), asdict(site), mode=0o600)
    # Additions of notebook 40, such as who may log in, stay valid for later publications.
    before = lab.step("serve") if lab.has("serve") else {}
    lab.record("serve", **{**before, **asdict(site)})
    return site


def _get(url: str, ca: str = "") -> bytes | None:
    """The content of a URL; None if there is none. `ca` is the CA file of an HTTPS server."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy for this machine's own addresses
        try:
            answer = session.get(url, timeout=5, verify=ca or True)
        except requests.RequestException:
            return None
        return answer.content if answer.status_code == 200 else None


def _state(lab: Lab) -> Path:
    return lab.path("www", "site.json")
