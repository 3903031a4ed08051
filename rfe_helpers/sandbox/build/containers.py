"""Container images that a blueprint embeds in a commit.

As Image Builder does, they are put into an image store at /usr/share/containers/storage, which the
podman of the device reads beside its own: no device pulls them. skopeo fetches them, and fills the
store from outside of the tree; inside.py prepares it for OSTree.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BlueprintError

if TYPE_CHECKING:  # tree.py imports this module
    from rfe_helpers.sandbox.build.tree import Work

STORE = "usr/share/containers/storage"
RESOLVE_SECONDS = 60
# [HOST[:PORT]/]PATH[:TAG][@DIGEST], as in github.com/distribution/reference
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


def check(entries: Sequence[Mapping[str, Any]]) -> None:
    """Raise BlueprintError unless skopeo can fetch what the entries name."""
    for number, entry in enumerate(entries):
        for key in ("source", "name"):
            value = entry.get(key) or ""
            if (value or key == "source") and not _is_reference(value):
                raise BlueprintError(
                    f"containers[{number}].{key}: {value[:80]!a} is not a reference",
                    remedy="write it as in registry.example/path/name:tag",
                )
        if entry.get("local-storage"):
            raise BlueprintError(
                f"containers[{number}].local-storage: the sandbox takes images from registries",
                remedy="push it to one: `skopeo copy containers-storage:NAME docker://…`",
            )


def _is_reference(value: str) -> bool:
    return len(value) <= 512 and bool(_REFERENCE.fullmatch(value))


def resolve(entries: Sequence[Mapping[str, Any]]) -> None:
    """Ask the registries for the images, so that a wrong name is known before anything is built.

    Raises CommandFailedError with skopeo's words, DeadlineExceededError if they do not answer,
    ToolMissingError without skopeo.
    """
    if entries:
        run.require("skopeo")
    deadline = Deadline(RESOLVE_SECONDS)  # for all of them
    for entry in entries:
        argv = ["skopeo", "inspect", "--raw", _verify("--tls-verify", entry)]
        run.run([*argv, f"docker://{entry['source']}"], deadline=deadline)


def fetch(entries: Sequence[Mapping[str, Any]], work: Work) -> list[Path]:
    """Fetch the images into archives in the work directory."""
    archives = []
    for number, entry in enumerate(entries):
        run.require("skopeo")
        work.on_stage("tree", f"fetch {entry['source']}")
        archive = work.directory / f"container-{number}.tar"
        archive.unlink(missing_ok=True)
        run.run(
            [
                "skopeo",
                "copy",
                "--quiet",
                "--override-arch=amd64",
                _verify("--src-tls-verify", entry),
                f"docker://{entry['source']}",
                f"oci-archive:{archive}",
            ],
            log=work.log,
            deadline=work.deadline,
            on_start=work.on_process,
        )
        archives.append(archive)
    return archives


def _verify(option: str, entry: Mapping[str, Any]) -> str:
    return f"{option}={'false' if entry.get('tls-verify') is False else 'true'}"


def hooks(entries: Sequence[Mapping[str, Any]], archives: Sequence[Path]) -> list[str]:
    """mmdebstrap's options that put archives into the store of a tree, which has /rfe.

    Hooks run as a mapped user, who cannot read the work directory: the archive goes through /rfe.
    """
    options = []
    for entry, archive in zip(entries, archives, strict=True):
        name = entry.get("name") or entry["source"]
        store = f'"containers-storage:[overlay@$1/{STORE}+$1/rfe/run]"{shlex.quote(name)}'
        options += [
            f"--customize-hook=upload {shlex.quote(str(archive))} /rfe/container.tar",
            f"--customize-hook=echo RFE-STAGE: embed {shlex.quote(name)}; "
            # In a mount namespace of its own: the overlay driver mounts the store onto itself. The
            # caller's home is closed to a mapped user.
            f'HOME="$1/rfe" unshare --mount skopeo copy --quiet '
            f'"oci-archive:$1/rfe/container.tar" {store}',
            '--customize-hook=rm -rf "$1/rfe/container.tar" "$1/rfe/run"',
        ]
    return options
