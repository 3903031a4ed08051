"""From a blueprint to an artifact on this machine, in one call: push, compose, wait, download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.build.answers import Compose
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.build.client import Client
from rfe_helpers.build.connect import connect
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.wait import Deadline
from rfe_helpers.lab.lab import Lab

SECONDS = 1800


@dataclass(frozen=True)
class Artifact:
    """The file that a compose produced, in the lab, and the finished compose.

    >>> artifact.path
    PosixPath('...-container.tar')
    >>> artifact.compose.blueprint, artifact.seconds > 0
    ('edge', True)
    """

    path: Path
    compose: Compose

    @property
    def seconds(self) -> float:
        """How many seconds the compose took."""
        return self.compose.seconds


def compose(
    lab: Lab,
    blueprint: Blueprint | str,
    image_type: str = "",
    *,
    client: Client | None = None,
    ref: str = "",
    parent: str = "",
    url: str = "",
    size: int | None = None,
    deadline: Deadline | float | None = None,
    on_progress: OnProgress = None,
) -> Artifact:
    """Compose a blueprint and download the artifact into the lab's `composes/`.

    >>> from rfe_helpers import open_commit
    >>> from rfe_helpers.build import Blueprint, compose
    >>> artifact = compose(lab, Blueprint("edge", packages=["tmux"]))  # doctest: +SKIP
    >>> open_commit(artifact.path).ref
    'debian/13/x86_64/edge'

    `blueprint` is pushed first; a string is the name of one that Image Builder has already.
    `image_type` "" stands for the type with which the lab's release serves a commit. `client` is
    connect(lab) if it is None; `ref`, `parent`, `url` and `size` are those of
    `Client.start_compose`; `deadline` is in seconds or a Deadline, by default half an hour. Raises
    ApiError if Image Builder
    refuses, ComposeFailedError with the stage that failed, DeadlineExceededError.
    """
    limit = Deadline.of(deadline, SECONDS)
    builder = client or connect(lab, on_progress=on_progress)
    name = blueprint if isinstance(blueprint, str) else builder.push(blueprint).name
    started = builder.start_compose(
        name,
        image_type or lab.profile.types.served,
        ref=ref,
        parent=parent,
        url=url,
        size=size,
    )
    finished = builder.wait(started.id, limit, on_progress)
    path = builder.download(finished.id, lab.folder("composes"), on_progress)
    return Artifact(path, finished)
