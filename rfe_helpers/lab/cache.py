"""The cache: what several labs share and what can be made again.

    base-<key>/, nginx-*.tar, boot-<key>/    made by the sandbox (rfe_helpers.sandbox.build.base)
    apt/, packages/                          its package index, and packages stored by `rfe cache`
    media/                                   images that were fetched (rfe_helpers.install.download)
    accelerator.json                         whether KVM boots a guest here

It is `rfe` in the user's cache directory, or RFE_CACHE. Several users of a machine can set
RFE_CACHE to one directory, which one of them fills: whoever may not write to it has a cache of
their own, with links to large files of the shared one and copies of small ones.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

_LINKED = (
    "base-*/base.tar",
    "boot-*/*.iso",
    "nginx-*.tar",
    "packages/*.tar",
    "media/*",
    "apt/lists/*_*",
)
_COPIED = ("apt/system.list", "apt/*/index.sqlite", "accelerator.json")


def cache_directory() -> Path:
    """The cache that this user may write to: RFE_CACHE, or `rfe` in the user's cache directory.

    If RFE_CACHE belongs to somebody else, it is the user's own, and has all that RFE_CACHE has.

    >>> from rfe_helpers.lab import cache_directory
    >>> cache_directory()  # /home/anna/.cache/rfe
    PosixPath('...')
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    own = Path(base).expanduser() / "rfe"
    chosen = os.environ.get("RFE_CACHE")
    if not chosen:
        return own
    shared = Path(chosen).expanduser().absolute()
    if is_writable(shared) or shared == own:
        return shared
    adopt(shared, own)
    return own


def is_writable(cache: Path) -> bool:
    """Whether this user may fill a cache: it, and each directory that others have made in it. What
    is not a directory yet is not judged here, unless its parent is closed to the user."""
    if not cache.is_dir():
        existing = next(path for path in cache.parents if path.exists())
        return os.access(existing, os.W_OK)
    try:
        directories = [path for path in cache.iterdir() if path.is_dir()]
    except OSError:
        return False
    return all(os.access(path, os.W_OK | os.X_OK) for path in (cache, *directories))


def adopt(shared: Path, own: Path) -> None:
    """Make available in `own` what it lacks and `shared` has: links to large files, copies of small
    ones. What cannot be read is left out."""
    for patterns, take in ((_LINKED, os.symlink), (_COPIED, shutil.copy2)):
        for path in (path for pattern in patterns for path in shared.glob(pattern)):
            target = own / path.relative_to(shared)
            if target.exists() or not os.access(path, os.R_OK) or not path.is_file():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # a link to a file that is gone
            with suppress(FileExistsError):  # another program was faster
                take(path, target)
