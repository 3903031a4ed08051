"""What static deltas save: requests, bytes and seconds of an update, with and without.

    .venv/bin/python benchmarks/deltas.py                 10 to 20 minutes
    .venv/bin/python benchmarks/deltas.py --large "git"   another large update

Builds three real commits: a system, and the same with a small and with several large packages in
addition. A real ostree client that has the first pulls each of the others from the host's nginx,
over loopback and over a link of 2 Mbit/s and 200 ms (rfe_helpers.core.link, a proxy that delays
and limits every byte but does not lose packets). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rfe_helpers import serve
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.core.link import DISTANT, FAST, Link, Quality
from rfe_helpers.core.wait import Deadline
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.lab.lab import Lab
from rfe_helpers.sandbox.build import tree
from rfe_helpers.serve.publication import Publication

LINKS = {"loopback": FAST, "2 Mbit/s, 200 ms": DISTANT}


def build(lab: Lab, packages: dict[str, str]) -> tuple[Repo, dict[str, str]]:
    """A repository with a commit for each list of packages, and the commits by name; the commit
    "system" is the parent of the others."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    work = tree.Work(lab.path("build", "x").parent, cache, lab.log("build"), Deadline(3600))
    repo, commits = Repo(lab.path("repo")).init(), dict[str, str]()
    for name, words in packages.items():
        request = tree.Request(
            id="1",
            image_type="edge-commit",
            ref=lab.profile.ostree.ref,
            blueprint=Blueprint(name="Edge", version="0.0.1"),
            packages=tuple(words.split()),
            parent=commits.get("system"),
        )
        commits[name] = tree.commit(request, work, repo)
    return repo, commits


def measure(
    directory: Path,
    publication: Publication,
    old: str,
    ref: str,
    port: int,
    quality: Quality,
    deltas: bool,
) -> tuple[int, int, float]:
    """(requests, bytes, seconds) of one update by a device that has `old`."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        device = Repo(Path(scratch, "device")).init("bare-user")
        device.pull_local(publication.repo.path, old)
        with Link(port, quality) as link:
            device.add_remote("edge", f"http://127.0.0.1:{link.port}/repo/")
            seconds = device.pull_seconds("edge", ref, deltas=deltas)
            return link.requests, link.received, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", default="tmux", help="packages of the small update")
    parser.add_argument("--large", default="git vim", help="packages of the large update")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rfe-deltas-") as name:
        directory = Path(name)
        lab = Lab(directory / "lab", "sandbox")
        try:
            packages = {"system": "", "small": options.small, "large": options.large}
            print_table(directory, lab, *build(lab, packages), packages)
        finally:
            lab.clean(serve.remove_container)


def print_table(
    directory: Path, lab: Lab, repo: Repo, commits: dict[str, str], packages: dict[str, str]
) -> None:
    print(f"ostree {run.run(['ostree', '--version']).stdout.split()[2]}")
    print("| update | link | way | requests | MB | seconds |\n|---|---|---|---|---|---|")
    ref = lab.profile.ostree.ref
    for size in ("small", "large"):
        publication = Publication(lab.path("www", size))
        for name in ("system", size):
            repo.set_ref(ref, commits[name])
            began = time.monotonic()
            published = publication.publish(repo.path, ref, delta="always")
        seconds_to_publish = time.monotonic() - began
        site = serve.publish(lab, publication.repo.path)
        for link, quality in LINKS.items():
            for way, deltas in (("objects", False), ("static delta", True)):
                requests, received, seconds = measure(
                    directory, publication, commits["system"], ref, site.port, quality, deltas
                )
                print(
                    f"| {size} (`{packages[size]}`) | {link} | {way} | {requests} "
                    f"| {received / 1e6:.2f} | {seconds:.1f} |",
                    flush=True,
                )
        print(
            f"<!-- {size}: {published.by_objects} {published.delta}, "
            f"published in {seconds_to_publish:.0f} s -->"
        )


if __name__ == "__main__":
    main()
