"""What an update costs the mirror, measured with a real `ostree pull`.

With OSTREE_DEBUG_HTTP set, ostree prints libcurl's report of each request and response. Requests
and bytes are counted from the report of one pull; the time is that of another, without the report.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from rfe_helpers import serve
from rfe_helpers.commit.commit import open_commit
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import memory, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError, CommitError, StepMissingError
from rfe_helpers.fleet.rollout import Pull
from rfe_helpers.lab.lab import Lab

# Measured in the sandbox for an update of 3 small packages out of 226, without a static delta; the
# time is that of `rpm-ostree upgrade` in an emulated machine.
RECORDED = Pull(requests=45, bytes=667_277, seconds=11, check_requests=5, check_bytes=1_816)
RECORDED_AS = "as recorded for three small packages without a static delta"

_REQUEST = re.compile(r"^> GET ", re.MULTILINE)
# A header line: the report has "< " in place of the line end, so that the lengths agree.
_RESPONSE_LINE = re.compile(r"^< [^\r\n]*", re.MULTILINE)
_LENGTH = re.compile(r"^< Content-Length: (\d+)", re.MULTILINE | re.IGNORECASE)


def measure(
    url: str,
    ref: str,
    *,
    installed: tuple[Path, str] | None = None,
    deadline: Deadline | float | None = None,
) -> Pull:
    """The cost of updating one device to `ref` at `url`, and of a check without an update.

    `installed` is what the device has already: a local repository and a revision in it; without
    it the cost is that of a first pull. Raises CommitError if the pull fails.
    """
    limit = Deadline.of(deadline, 3600)
    # The objects of a bare repository, and an update of all of them.
    size = 6 * _size(installed[0]) if installed else None
    parent = memory.directory(size, attributes=True)
    with tempfile.TemporaryDirectory(prefix="rfe-", dir=parent) as scratch:
        counted = _device(Path(scratch) / "counted", url, installed)
        # ostree replaces files and never changes one: links are another device, made in no time.
        copy = shutil.copytree(counted.path, Path(scratch) / "timed", copy_function=os.link)
        requests, size, _ = _pull(counted, ref, limit, count=True)
        check_requests, check_size, _ = _pull(counted, ref, limit, count=True)
        seconds = _pull(Repo(copy), ref, limit, count=False)[2]
    return Pull(
        requests=requests,
        bytes=size,
        seconds=seconds,
        check_requests=check_requests,
        check_bytes=check_size,
    )


def of_lab(lab: Lab, deadline: Deadline | float | None = None) -> tuple[Pull, str]:
    """The cost of the update that the lab serves, and the source of the figures in words.

    Measured from the commit of step "commit" to the one that is served; RECORDED if the lab
    serves nothing, or that same commit.

    >>> from rfe_helpers.fleet import cost
    >>> from rfe_helpers.lab import Lab
    >>> pull, source = cost.of_lab(Lab("another-lab"))  # which serves nothing
    >>> pull.requests, source
    (45, 'as recorded for three small packages without a static delta')
    """
    try:
        built, site = lab.step("commit"), serve.published(lab)
    except StepMissingError:
        return RECORDED, RECORDED_AS
    if not site.answers:
        return RECORDED, RECORDED_AS
    served = open_commit(site.repo_url, built["ref"])
    if served.id == built["commit"]:
        return RECORDED, RECORDED_AS
    old = open_commit(built["artifact"], built["ref"])
    installed = (old.repository.path, old.id)
    cost = measure(site.repo_url, served.ref, installed=installed, deadline=deadline)
    return cost, f"as measured now, from {old.id[:12]} to {served.id[:12]}"


def _size(repository: Path) -> int:
    """The bytes of a repository's objects."""
    return sum(path.lstat().st_size for path in (repository / "objects").glob("*/*"))


def _device(path: Path, url: str, installed: tuple[Path, str] | None) -> Repo:
    """A repository as on a device, with the installed commit."""
    # Not bare-user-only: that refuses the setuid files of an operating system.
    repo = Repo(path).init("bare-user")
    if installed is not None:
        repo.pull_local(*installed)
    repo.add_remote("mirror", url)
    return repo


def _pull(repo: Repo, ref: str, deadline: Deadline, *, count: bool) -> tuple[int, int, float]:
    """The requests, the bytes from the server, and the seconds of one pull."""
    argv = ["ostree", "pull", f"--repo={repo.path}", "mirror", ref]
    env = {"OSTREE_DEBUG_HTTP": "1"} if count else {}
    try:
        result = run.run(argv, env=env, deadline=deadline)
    except CommandFailedError as error:
        reason = error.tail.splitlines()[-1] if error.tail else error.message
        raise CommitError(f"cannot measure a pull of {ref}: {reason}") from None
    report = result.stdout + result.stderr
    requests = len(_REQUEST.findall(report))
    if count and not requests:
        raise CommitError(
            "ostree does not report its requests on this host",
            remedy="its HTTP client must be libcurl: `ostree --version` lists the features",
        )
    headers = sum(len(line) for line in _RESPONSE_LINE.findall(report))
    bodies = sum(int(length) for length in _LENGTH.findall(report))
    return requests, headers + bodies, result.seconds
