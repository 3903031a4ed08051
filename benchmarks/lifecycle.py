"""What the workbook adds to the plain tools, as ratios measured in one run on this host.

    .venv/bin/python benchmarks/lifecycle.py            composes and reading a commit, 5 minutes

The first build of either starts with an empty cache, so that packages come from the network for
the plain tools and for the workbook alike. Either is first in one of two rounds, since a disk's
file system is slower for a while after the other has removed its trees.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import commit_packages

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.sandbox.build import artifacts, base, tree

REF = "debian/13/x86_64/edge"


def timed(action: Callable[[], object]) -> float:
    os.sync()
    began = time.monotonic()
    action()
    return time.monotonic() - began


def plain(directory: Path) -> None:
    """Build the same packages with mmdebstrap and `ostree commit` alone."""
    tar = directory / "plain.tar"
    options = ['--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io"]
    options += [f"--dpkgopt=path-exclude={path}" for path in base.EXCLUDED]
    mode = "root" if os.geteuid() == 0 else "unshare"
    packages = ",".join((*base.PACKAGES, "htop"))
    options += [f"--mode={mode}", "--variant=apt", "--skip=output/dev", f"--include={packages}"]
    run.run(["mmdebstrap", *options, base.SUITE, tar], seconds=1200)
    repository = directory / "plain-repo"
    run.run(["ostree", "init", f"--repo={repository}", "--mode=archive"])
    commit = ["ostree", "commit", f"--repo={repository}", f"--branch={REF}", f"--tree=tar={tar}"]
    run.run(commit, seconds=600)


def compose(directory: Path, name: str, *packages: str) -> Path:
    """Build an artifact as the service does."""
    target = directory / name
    target.mkdir()
    cache = directory / "cache"
    cache.mkdir(exist_ok=True)
    blueprint = Blueprint(name="Edge", version="0.0.1")
    request = tree.Request(name, "edge-commit", REF, blueprint, packages)
    return artifacts.build(request, tree.Work(target, cache, target / "log", Deadline(1200)))


def row(name: str, seconds: float, plain_seconds: float, aim: str) -> None:
    print(
        f"{name:58} {seconds:8.2f} s {plain_seconds:8.2f} s {seconds / plain_seconds:7.3f}  {aim}"
    )


def composes(directory: Path) -> None:
    print(f"{'':58} {'ours':>10} {'against':>10} {'ratio':>7}  aim")
    ours: list[Path] = []
    seconds: dict[str, float] = defaultdict(float)
    for number in (1, 2):
        place = directory / f"round-{number}"
        place.mkdir()
        parts: dict[str, Callable[[], object]] = {
            "first": lambda place=place: ours.append(compose(place, "first", "htop")),
            "plain": lambda place=place: plain(place),
            "second": lambda place=place: compose(place, "second", "htop", "nano"),
        }
        for name in ("first", "plain", "second") if number == 1 else ("plain", "first", "second"):
            seconds[name] += timed(parts[name]) / 2
    first, second = seconds["first"], seconds["second"]
    row("first compose / mmdebstrap + ostree commit", first, seconds["plain"], "<= 0.7")
    row("second compose, one package more / first compose", second, first, "<= 0.1")
    figures = commit_packages.measure(ours[0], repeat=5)
    listing, unpacking = figures["rfe_commit_packages"], figures["tar_xf"]
    row("rfe commit packages on commit.tar / tar xf", listing, unpacking, "<= 0.1")


def main() -> None:
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    print(f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.release()}")
    directory = Path(tempfile.mkdtemp(prefix="rfe-benchmark-", dir="/var/tmp"))
    try:
        composes(directory)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
