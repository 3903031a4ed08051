"""A registry for the container images of a lab's devices, on loopback only.

It is Debian's `docker-registry`, the reference implementation of the OCI distribution API; images
are pushed with skopeo. Virtual machines reach it at `network.HOST_FROM_GUEST`.

On disk, below `registry/` of the lab (this module writes it):

    config.yml      the registry's configuration
    data/           its images
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from rfe_helpers.core import files, run
from rfe_helpers.core.network import HOST_FROM_GUEST, LOOPBACK
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import CommandFailedError, ServeError, ToolMissingError
from rfe_helpers.lab import ports
from rfe_helpers.lab.lab import Lab

PROCESS = "registry"
_PROGRAMS = ("docker-registry", "registry")  # its names in Debian and in Fedora
_START_SECONDS = 60
# An image has a manifest of one of these types.
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)


@dataclass(frozen=True)
class Registry:
    """A registry that answers at `port` of 127.0.0.1.

    >>> registry.address, registry.answers
    ('127.0.0.1:...', True)
    >>> registry.digest(image.name)
    'sha256:...'
    """

    port: int
    log: Path

    @property
    def address(self) -> str:
        """The prefix of an image's name on this machine: host and port."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def guest_address(self) -> str:
        """The prefix of an image's name in virtual machines."""
        return f"{HOST_FROM_GUEST}:{self.port}"

    @property
    def answers(self) -> bool:
        try:
            return self._get("").status_code == 200
        except requests.RequestException:
            return False

    def push(
        self,
        archive: Path,
        name: str,
        deadline: Deadline | float | None = None,
        *,
        compression: str = "gzip",
    ) -> str:
        """Push an OCI archive as `name` ("edge/application:stable") and return its digest; layers
        that are not compressed are, with gzip or zstd.

        An image that had the name before keeps only its digest. Raises ServeError.
        """
        run.require("skopeo")
        argv = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false"]
        argv += [f"--dest-compress-format={compression}", f"oci-archive:{archive}"]
        try:
            run.run([*argv, f"docker://{self.address}/{name}"], deadline=deadline)
        except CommandFailedError as error:
            raise ServeError(
                f"cannot push {archive.name} as {name}:\n{error.tail}",
                remedy=error.remedy or "check that the registry runs: `rfe lab show`",
                log=self.log,
            ) from None
        return self.digest(name)

    def tag(self, name: str, tag: str) -> str:
        """Give an image of this registry ("edge/os:1") another tag as well; returns its digest.
        Raises ServeError."""
        repository = name.rpartition(":")[0]
        argv = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
        source, target = f"{self.address}/{name}", f"{self.address}/{repository}:{tag}"
        try:
            run.run([*argv, f"docker://{source}", f"docker://{target}"], seconds=300)
        except CommandFailedError as error:
            raise ServeError(f"cannot tag {name} as {tag}:\n{error.tail}", log=self.log) from None
        return self.digest(f"{repository}:{tag}")

    def digest(self, name: str) -> str:
        """The digest ("sha256:…") of an image. Raises ServeError if there is none of that name."""
        repository, _, tag = name.rpartition(":")
        answer = self._answer(f"{repository}/manifests/{tag}", name)
        return str(answer.headers["Docker-Content-Digest"])

    def manifest(self, name: str) -> dict[str, Any]:
        """The manifest of an image, whose `layers` have digest and size. Raises ServeError."""
        repository, _, tag = name.rpartition(":")
        document: dict[str, Any] = self._answer(f"{repository}/manifests/{tag}", name).json()
        return document

    def tags(self, repository: str) -> tuple[str, ...]:
        """The tags of a repository, sorted. Raises ServeError if the repository does not exist."""
        answer = self._answer(f"{repository}/tags/list", repository)
        return tuple(sorted(answer.json()["tags"] or ()))

    def _answer(self, path: str, what: str) -> requests.Response:
        try:
            answer = self._get(path)
        except requests.RequestException as error:
            raise ServeError(
                f"the registry at {self.address} does not answer: {error}",
                remedy="start it again: registry.start(lab)",
                log=self.log,
            ) from None
        if answer.status_code != 200:
            raise ServeError(f"the registry has no {what}", remedy="push it first", log=self.log)
        return answer

    def _get(self, path: str) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # no proxy for this machine's own addresses
            return session.get(
                f"http://{self.address}/v2/{path}", headers={"Accept": _MANIFESTS}, timeout=10
            )


def start(lab: Lab, deadline: Deadline | float | None = None) -> Registry:
    """The lab's registry, started if it does not run, on the same port and with the same images.

    >>> from rfe_helpers import serve
    >>> images = serve.registry.start(lab)
    >>> images.answers
    True
    >>> f"{images.guest_address}/{image.name}"  # the name of an image for machines
    '10.0.2.2:.../edge-base:13'

    Raises ToolMissingError, or ServeError with the end of its log.
    """
    program = next(filter(run.which, _PROGRAMS), None)
    if program is None:
        raise ToolMissingError(
            f"not installed: {_PROGRAMS[0]}",
            remedy="run `rfe doctor`: it prints the command that installs it",
        )
    registry = Registry(lab.port(PROCESS, ports.REGISTRY), lab.log(PROCESS))
    with _alone(lab):
        if lab.process(PROCESS) is None:
            config = lab.path("registry", "config.yml")
            files.write_json(config, configuration(lab.path("registry", "data"), registry.port))
            run.start(
                [program, "serve", config],
                log=registry.log,
                on_start=lambda process: lab.add_process(PROCESS, process),
            )

        def answers() -> bool:
            if lab.process(PROCESS) is None:
                raise _ended(registry.log)
            return registry.answers

        limit = Deadline.of(deadline, _START_SECONDS)
        wait_for(answers, limit, f"the registry answers at {registry.address}", every=0.1)
    return registry


def find(lab: Lab) -> Registry | None:
    """The lab's registry; None if it does not run.

    >>> from rfe_helpers import serve
    >>> serve.registry.find(lab) == registry
    True
    """
    if lab.process(PROCESS) is None:
        return None
    return Registry(lab.port(PROCESS, ports.REGISTRY), lab.log(PROCESS))


def stop(lab: Lab) -> None:
    """End the lab's registry; its images stay.

    >>> from rfe_helpers import serve
    >>> from rfe_helpers.lab import Lab
    >>> serve.registry.stop(Lab("another-lab"))  # none runs there
    """
    with _alone(lab):
        process = lab.process(PROCESS)
        if process is not None:
            run.stop(process)
        lab.remove_process(PROCESS)


def configuration(data: Path, port: int) -> dict[str, object]:
    """The content of config.yml, which is written as JSON: that is YAML, too."""
    return {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        "http": {"addr": f"{LOOPBACK}:{port}"},
    }


def _ended(log: Path) -> ServeError:
    text = log.read_text(errors="replace") if log.exists() else ""
    taken = "address already in use" in text
    return ServeError(
        f"the registry has ended:\n{run.tail_of(text, 5)}",
        remedy="another program uses its port: `ss -ltnp` lists what listens" if taken else "",
        log=log,
    )


@contextmanager
def _alone(lab: Lab) -> Iterator[None]:
    """One caller at a time starts or stops the registry of a lab."""
    with files.locked(lab.path("registry", ".lock")):
        yield
