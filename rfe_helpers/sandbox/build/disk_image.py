"""How a disk image is made: inside the base tree, by its own tools.

The file systems and GRUB are then of the versions that the disk boots with, by BIOS or by UEFI, and
it works as root or as an ordinary user, like a tree. disk.py and inside_image.py run inside.
"""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rfe_helpers.core import files, run
from rfe_helpers.sandbox.build import mmdebstrap, tree
from rfe_helpers.sandbox.installer import iso as installer

PACKAGES = installer.PACKAGES  # the tools that make a disk are among them
# Below /tmp, which inside_image.py leaves out of an image of the tree.
INSIDE = "/tmp/rfe"  # noqa: S108  # in a tree of our own
# Where / is a directory of another system's, as in a chroot, its propagation cannot be changed.
_APART = "unshare --mount --propagation $(mountpoint -q / && echo private || echo unchanged)"
# fmt: off
_FILES = (
    "build/disk.py", "build/inside.py", "build/customize.py", "build/inside_image.py",
    "guest/image.sh",
)
# fmt: on


def make(
    work: tree.Work,
    pipeline: str,
    spec: Mapping[str, Any],
    target: Path,
    *,
    packages: Sequence[str],
    pack: tuple[str, str],
    payload: Path | None = None,
) -> None:
    """Make the disk that `spec` asks for (inside_image.py) at `target`; all or nothing.

    `packages` are added to the base first. `pack` is a stage and the shell command that makes
    `packed` of `image.raw`, with the tree in $1; `payload` a tar for inside_image.py. Raises
    CommandFailedError.
    """
    run.require("mmdebstrap")
    base = tree.base(work)
    work.on_stage(pipeline, "unpack the base")
    ours, specification = work.directory / "contents.tar", work.directory / "spec.json"
    stage, command = pack
    try:
        ours.write_bytes(contents())
        files.write_json(specification, spec, mode=0o600)
        with files.replacing(target) as unfinished:
            hooks = [
                '--setup-hook=mkdir -p "$1/dev"',
                f"--setup-hook=tar-in {_quoted(base.tar)} /",
                f'--customize-hook=mkdir -m 700 "$1{INSIDE}"',
                f"--customize-hook=tar-in {_quoted(ours)} {INSIDE}",
                *([f"--customize-hook=tar-in {_quoted(payload)} {INSIDE}"] if payload else []),
                f"--customize-hook=upload {_quoted(specification)} {INSIDE}/spec.json",
                f'--customize-hook={_APART} chroot "$1" env RFE_IMAGE=1 '
                f"PYTHONPATH={INSIDE}/lib "
                f"python3 -m rfe_helpers.sandbox.build.inside_image {INSIDE}",
                f'--customize-hook=echo RFE-STAGE: {stage}; cd "$1{INSIDE}" && {command}',
                f"--customize-hook=download {INSIDE}/packed {_quoted(unfinished)}",
            ]
            mmdebstrap.build(
                work, pipeline, hooks, mmdebstrap.NOWHERE, variant="custom", include=packages
            )
    finally:
        ours.unlink(missing_ok=True)
        specification.unlink(missing_ok=True)  # it may hold password hashes


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def contents() -> bytes:
    """What runs inside, as a tar, in the packages that it has here."""
    sandbox = resources.files("rfe_helpers.sandbox")
    here = "lib/rfe_helpers/sandbox"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in _FILES:
            installer.add_text(tar, f"{here}/{name}", (sandbox / name).read_text())
        installer.add_libraries(tar, "lib")
        for package in ("lib/rfe_helpers", here, f"{here}/build", f"{here}/installer"):
            installer.add_text(tar, f"{package}/__init__.py", "")
        programs = sandbox / "installer" / "edge_installer"
        installer.add_tree(tar, programs, f"{here}/installer/edge_installer")
    return buffer.getvalue()
