"""The rollout model against fifty real clients and the real web server, as figures and a picture.

usage: python benchmarks/fleet_trial.py [--picture FILE]

The picture stands in notebook 90: notebooks/pictures/model-and-trial.png.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from pathlib import Path

from rfe_helpers import fleet_trial, oci, serve
from rfe_helpers.fleet_plots import plot_trial
from rfe_helpers.lab import Lab
from rfe_helpers.ostree import Repo

REF = "debian/13/x86_64/edge"
FILES = 60


def commit(repo: Repo, directory: Path, version: str) -> None:
    """A commit of FILES small files, all of them others than in another version."""
    path = directory / f"tree-{version}.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("", "usr", "usr/share", *(f"usr/share/d{number}" for number in range(6))):
            oci.add_directory(tar, f"./{name}")
        for number in range(FILES):
            content = f"{version} {number} ".encode() * 500
            oci.add_file(tar, f"./usr/share/d{number % 6}/f{number}", content)
    repo.commit_tar(path, REF, subject=version, version=version, packages=[], bootable=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write it there, as PNG")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rfe-", dir="/var/tmp") as scratch:
        directory = Path(scratch)
        lab = Lab(directory / "lab", "sandbox")
        try:
            old, content = Repo(directory / "old").init(), directory / "new"
            new = Repo(content / "repo").init()
            commit(old, directory, "1")
            commit(new, directory, "2")
            (content / "compose.json").write_text("{}")
            artifact = directory / "commit.tar"
            with tarfile.open(artifact, "w") as tar:
                tar.add(content, arcname=".")
            trial = fleet_trial.compare(lab, serve.publish(lab, artifact), REF, old.path)
        finally:
            lab.clean()
    print(f"{trial.clients} clients, {trial.cost.requests:.0f} requests each, {trial.splay:.0f} s")
    for what, difference in trial.differences.items():
        print(f"{what}: {difference:+.1%} against the model")
    if arguments.picture:
        plot_trial(trial).savefig(arguments.picture, dpi=110, facecolor="white")
    return 0


if __name__ == "__main__":
    sys.exit(main())
