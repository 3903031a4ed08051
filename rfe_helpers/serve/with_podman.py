"""Serve an edge container with podman."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rfe_helpers.core import files, journal, run
from rfe_helpers.errors import ServeError
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve import podman
from rfe_helpers.serve.podman import Mount, Podman
from rfe_helpers.serve.server import Content, Server, check_port

IMAGE = "localhost/rfe-mirror:latest"


def start(content: Content, stop_nginx: Callable[[Lab], None]) -> Server:
    """Import the container and run it in place of the earlier server; kickstarts are mounted into
    its web root. Raises PodmanError if podman cannot run here, ServeError."""
    lab = content.lab
    engine = Podman.of(lab)
    log = lab.log("podman")
    name = _name(lab)
    facts = lab.profile.container
    directory = lab.folder("www", "kickstarts")
    mounts = [Mount(directory / k, f"{facts.web_root}/{k}") for k in content.kickstarts]
    with _alone_on_this_machine():
        before = engine.image_id(IMAGE)
        if engine.config.exists():  # an earlier start needed it
            journal.record_file(engine.config, engine.config.read_text())
        content.say("importing the container")
        engine.import_image(content.artifact, IMAGE, content.deadline, log)
        content.say("starting the container")
        stop_nginx(lab)
        engine.remove(name)
        check_port(content.port)
        lab.add_container(name)
        engine.start(
            name,
            IMAGE,
            port=content.port,
            container_port=facts.port,
            mounts=mounts,
            deadline=content.deadline,
            log=log,
        )
        if before and before != engine.image_id(IMAGE):
            engine.remove_image(before)

    def check() -> None:
        if not engine.is_running(name):
            raise ServeError(
                f"the container {name} has ended:\n{engine.logs(name)}",
                remedy="check that the archive is an edge container of Image Builder",
                log=log,
            )

    return Server("podman", check, container=name)


def stop(lab: Lab) -> None:
    """End the lab's container, if there is one."""
    if _name(lab) in lab.state["containers"]:
        Podman.of(lab).remove(_name(lab))
        lab.remove_container(_name(lab))


def remove_container(name: str) -> None:
    """End and remove a container and its image, for `Lab.sweep`. Raises ServeError.

    >>> from rfe_helpers import serve
    >>> serve.remove_container("rfe-web-0f3a")  # does nothing if it is gone
    """
    podman.remove(name)
    with _alone_on_this_machine():
        run.run(
            ["podman", "image", "rm", IMAGE],
            env=podman.runtime_directory(),
            check=False,
            seconds=60,
        )


def _name(lab: Lab) -> str:
    return f"rfe-mirror-{lab.id}"


@contextmanager
def _alone_on_this_machine() -> Iterator[None]:
    """One lab at a time uses the image's name, which all labs share."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with files.locked(cache / "mirror.lock"):
        yield
