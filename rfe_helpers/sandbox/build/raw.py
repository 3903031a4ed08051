"""edge-raw-image: a disk with a commit deployed, to be written as it is and booted.

Made inside the base tree, by its own tools (`inside_image.py`), so that the file systems and GRUB
are those of the system on it; as root or as an ordinary user, like a tree. It boots with BIOS and
with UEFI, and grows its root file system to the disk that it finds itself on.

Smaller than osbuild's, which has 10 GiB at first: the empty part of an image is compressed,
downloaded and written by everybody.
"""

from __future__ import annotations

import io
import shlex
import shutil
import tarfile
from importlib import resources
from pathlib import Path

from rfe_helpers.core import files, run
from rfe_helpers.errors import BuilderError
from rfe_helpers.install import kickstart
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import offline, tree
from rfe_helpers.sandbox.installer import iso as installer
from rfe_helpers.sandbox.installer.edge_installer import disk

PACKAGES = (*installer.PACKAGES, "xz-utils")
_MODULES = ("build/disk.py", "build/inside.py", "build/inside_image.py")


def build(request: tree.Request, work: tree.Work, target: Path) -> Path:
    """Make image.raw.xz of a compose at `target`; `request.parent` is the commit on it.

    Raises CommitError if the commit cannot be fetched, BuilderError if it does not fit.
    """
    with offline.payload(request, work) as repository:
        check_size(request.size, offline.unpacked_bytes(repository))
        packed = work.directory / "payload.tar"
        spec = work.directory / "spec.json"
        try:
            run.run(
                [
                    *("tar", "--create", f"--file={packed}", "--owner=root:0", "--group=root:0"),
                    *(f"--directory={repository.path.parent}", repository.path.name),
                ],
                deadline=work.deadline,
            )
            shutil.rmtree(repository.path)
            files.write_json(spec, _spec(request), mode=0o600)
            _make(work, packed, spec, target)
        finally:
            packed.unlink(missing_ok=True)
            spec.unlink(missing_ok=True)  # it may hold password hashes
    return target


def check_size(size: int, unpacked: int) -> None:
    """Raise BuilderError if an image of `size` bytes cannot hold a tree of `unpacked` bytes."""
    needed = disk.needed_bytes(unpacked)
    if size < needed:
        raise BuilderError(
            f"an image of {size / 1024**3:.1f} GiB is too small for this commit: "
            f"it needs {needed / 1024**3:.1f} GiB",
            remedy="ask for that size, or for none",
        )


def _spec(request: tree.Request) -> dict[str, object]:
    facts = profile.load("sandbox").ostree
    wanted = dict(request.blueprint.customizations)
    append = (wanted.pop("kernel", None) or {}).get("append", "")
    return {
        "ref": request.ref,
        "url": request.url,
        "osname": facts.osname,
        "remote": facts.remote,
        "size": request.size,
        "arguments": [*kickstart.CONSOLES.split(), *append.split()],
        "customizations": wanted,
    }


def _make(work: tree.Work, payload: Path, spec: Path, target: Path) -> None:
    run.require("mmdebstrap")
    base = tree.base(work)
    ours = work.directory / "contents.tar"
    ours.write_bytes(_contents())
    with files.replacing(target) as unfinished:
        hooks = [
            '--setup-hook=mkdir -p "$1/dev"',
            f"--setup-hook=tar-in {_quoted(base.tar)} /",
            f"--customize-hook=tar-in {_quoted(ours)} /",
            f"--customize-hook=tar-in {_quoted(payload)} /rfe",
            f"--customize-hook=upload {_quoted(spec)} /rfe/spec.json",
            '--customize-hook=unshare --mount chroot "$1" env RFE_IMAGE=1 PYTHONPATH=/rfe/lib '
            "python3 -m rfe_helpers.sandbox.build.inside_image /rfe",
            f"--customize-hook=download /rfe/image.raw.xz {_quoted(unfinished)}",
        ]
        tree.mmdebstrap(work, "image", hooks, tree.NOWHERE, variant="custom", include=PACKAGES)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _contents() -> bytes:
    """What runs inside, as a tar, in the packages that it has here."""
    sandbox = resources.files("rfe_helpers.sandbox")
    here = "rfe/lib/rfe_helpers/sandbox"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in _MODULES:
            installer.add_text(tar, f"{here}/{name}", (sandbox / name).read_text())
        installer.add_libraries(tar, "rfe/lib")
        for package in ("rfe/lib/rfe_helpers", here, f"{here}/build", f"{here}/installer"):
            installer.add_text(tar, f"{package}/__init__.py", "")
        programs = sandbox / "installer" / "edge_installer"
        installer.add_tree(tar, programs, f"{here}/installer/edge_installer")
    return buffer.getvalue()
