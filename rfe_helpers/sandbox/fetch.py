"""`python -m rfe_helpers.sandbox.fetch --cache DIR PACKAGE…`: fetch what composes need.

Makes the base tree with its commit, nginx and the boot ISO unless they are fresh in the cache,
fetches the package index, and stores, in the cache's `packages/`:

    lists.tar      apt's lists of packages as they are now
    archives.tar   the .deb files of the packages, of what makes raw images, and of their
                   dependencies beyond the base

tree.py uses these two when there is no network. They get their names once they are complete.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from rfe_helpers.build.blueprint import PackageSpec
from rfe_helpers.core import files
from rfe_helpers.errors import BuilderError, InputError
from rfe_helpers.sandbox.build import artifacts, disk_image, ignition, mmdebstrap, tree
from rfe_helpers.sandbox.build.standalone import build_alone
from rfe_helpers.sandbox.installer import iso
from rfe_helpers.sandbox.service.packages import Index

SECONDS = 3600


def fetch(work: tree.Work, packages: Sequence[str]) -> Path:
    """Fill the cache; returns the directory of the stored packages. Raises InputError for packages
    that do not exist."""
    work.on_stage("packages", "read the package index")
    index = Index(work.cache)
    known = index.names()
    if unknown := [name for name in packages if not _exists(index, name)]:
        near = difflib.get_close_matches(unknown[0], known, 3, 0.8)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"Debian 13 has no package {', '.join(unknown)}{hint}")
    base = tree.base(work)
    lists, archives = mmdebstrap.kept_packages(work.cache)
    target = work.directory / "tree.tar"
    with files.replacing(archives) as new_archives, files.replacing(lists) as new_lists:
        hooks = [
            '--setup-hook=mkdir -p "$1/dev"',
            f"--setup-hook=tar-in {quote(str(base.tar))} /",
            "--skip=essential/unlink",
            f"--customize-hook=tar-out /var/lib/apt/lists {quote(str(new_lists))}",
            f"--customize-hook=tar-out /var/cache/apt/archives {quote(str(new_archives))}",
        ]
        include = [*packages, *disk_image.PACKAGES, ignition.PACKAGE]
        mmdebstrap.build(work, "packages", hooks, target, variant="custom", include=include)
    if tree.lacks_base_commit(base):
        tree.commit_base(work, base)
    artifacts.nginx(work)
    iso.boot_iso(work)
    return archives.parent


def _exists(index: Index, package: str) -> bool:
    try:
        return bool(index.resolve([PackageSpec.parse(package)]))
    except BuilderError:
        return False


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each stage and, as the last one, the directory; return the exit status."""
    parser = argparse.ArgumentParser(prog="rfe_helpers.sandbox.fetch", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="directory to fill")
    parser.add_argument("packages", nargs="+", metavar="PACKAGE")
    options = parser.parse_args(arguments)
    return build_alone(options.cache, "fetch", SECONDS, lambda work: fetch(work, options.packages))


if __name__ == "__main__":
    sys.exit(main())
