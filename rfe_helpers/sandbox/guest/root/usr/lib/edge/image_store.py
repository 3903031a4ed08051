"""Container images in an OSTree repository: layers that are commits, and a commit of all of them.

As bootc does it (its crate ostree-ext, container/store.rs), each layer becomes a commit below
`ostree/container/blob/`, named by its digest, so that it is fetched once; and an image becomes a
commit below `ostree/container/image/` of all its layers, one over the other, with the manifest and
the configuration in its metadata. In a layer /etc is /usr/etc, as in every commit.

Layers are laid over each other in a directory in the repository. They come from elsewhere: before
a layer is laid over, whatever stands in the place of one of its directories is removed, so that
none of its files is written through a link to somewhere else.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .failure import Failure, printable
from .image_description import BOOTABLE, Image, Layer
from .image_proxy import ImageProxy
from .image_reference import ImageReference, blob_ref

IMAGES, BLOBS = "ostree/container/image", "ostree/container/blob"
IMPORTER = "sandbox"
_MERGING = "rfe-merge-"
_LOCK = "rfe-import.lock"  # has the word `busy` in it after an attempt that was interrupted
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# What no image brings: mount points, which stay, but empty.
_EMPTY = ("run", "tmp", "proc", "sys", "dev")
_FROM_BUILDAH = ("usr/etc/hostname", "usr/etc/resolv.conf")
_ETC = r"^etc(/|$),usr/etc\1"


class ImageStore:
    """The images of the repository at `path`.

    store = ImageStore(Path("/ostree/repo"))
    with open_image(reference) as proxy:
        commit = store.pull(proxy, proxy.image(), reference)
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def missing(self, image: Image) -> list[Layer]:
        """The layers of an image that are not here, each once, lowest first."""
        refs = self.refs(BLOBS)
        layers = dict.fromkeys(image.layers)
        return [layer for layer in layers if blob_ref(layer.digest) not in refs]

    def pull(self, proxy: ImageProxy, image: Image, reference: ImageReference) -> str:
        """Fetch what is missing and commit the image; returns the commit's id. Until it is there,
        the ref of the image stays as it was; layers that have come stay for the next attempt.
        Raises Failure."""
        check(image, reference)
        with self._alone():
            self._check_repository(reference)
            missing = self.missing(image)
            self._require_room(missing, reference)
            for number, layer in enumerate(missing, 1):
                name = layer.digest.removeprefix("sha256:")[:19]
                note(f"[{number}/{len(missing)}] Fetching layer {name} ({size(layer.size)})")
                self._import_layer(proxy, layer)
            note("Committing the image")
            return self._commit(image, reference)

    def refs(self, prefix: str) -> set[str]:
        return set(self._ostree("refs", "--list", prefix).splitlines())

    def prune(self, images: set[str], layers: Iterable[Layer]) -> None:
        """Remove all but the images of these refs and these layers."""
        kept_layers = {blob_ref(layer.digest) for layer in layers}
        unused = [*(self.refs(IMAGES) - images), *(self.refs(BLOBS) - kept_layers)]
        if unused:
            self._ostree("refs", "--delete", *unused)
            self._ostree("prune", "--refs-only")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One import at a time; what an interrupted one has left is removed before."""
        with (self.path / "tmp" / _LOCK).open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Failure("another program is pulling an image into the repository") from None
            lock.seek(0)
            if lock.read():
                self._remove_leftovers()
                self._ostree("prune", "--refs-only")
            else:
                lock.write("busy")
                lock.flush()
            try:
                yield
            finally:
                self._remove_leftovers()
            lock.truncate(0)

    def _check_repository(self, reference: ImageReference) -> None:
        """Refuse before anything is fetched what could not be committed after it."""
        mode = self._ostree("config", "get", "core.mode").strip().removesuffix("-z2")
        if mode != "bare":
            raise Failure(f"{self.path} is a repository of mode {mode}: images need mode bare")
        for ref in self.refs(IMAGES):
            if ref.startswith(f"{reference.ref}/") or reference.ref.startswith(f"{ref}/"):
                raise Failure(f"{reference.short}: a name below it, or above, is an image already")

    def _import_layer(self, proxy: ImageProxy, layer: Layer) -> None:
        """Commit a layer, and name it only once its digest is known to be right."""
        argv = ["ostree", "commit", f"--repo={self.path}", "--orphan", "--no-bindings"]
        argv += ["--tar-autocreate-parents", f"--tar-pathname-filter={_ETC}"]
        argv += [f"--add-metadata-string=ostree.importer.version={IMPORTER}"]
        argv += [f"--subject=layer {layer.digest}", "--tree=tar=/proc/self/fd/0"]
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        ) as process:
            try:
                proxy.read_layer(layer, lambda chunk: _write(process, chunk))
            except BaseException:
                process.kill()
                raise
            output, errors = process.communicate()
        if process.returncode != 0:
            raise Failure(f"layer {layer.digest}: {_reason(errors.decode(errors='replace'))}")
        self._ostree("refs", f"--create={blob_ref(layer.digest)}", output.decode().strip())

    def _commit(self, image: Image, reference: ImageReference) -> str:
        with self._directory() as tree:
            for layer in image.layers:
                self._lay_over(blob_ref(layer.digest), tree)
            _clean(tree)
            require_bootable(tree, reference)
            metadata = {
                "version": image.version,
                "ostree.manifest-digest": image.digest,
                "ostree.manifest": image.manifest,
                "ostree.container.image-config": image.config,
                "ostree.importer.version": IMPORTER,
            }
            commit = self._ostree(
                "commit",
                *("--no-bindings", "--parent=none", f"--tree=dir={tree}"),
                *("--link-checkout-speedup", "--bootable", f"--branch={reference.ref}"),
                f"--subject={reference.short}",
                *([f"--timestamp={image.time.isoformat()}"] if image.time else []),
                *(f"--add-metadata-string={key}={value}" for key, value in metadata.items()),
            )
        return commit.strip()

    def _lay_over(self, ref: str, tree: Path) -> None:
        listing = self._ostree("ls", "--dironly", "-R", "--nul-filenames-only", ref, "/")
        for name in listing.split("\0"):
            path = tree / name.lstrip("/")
            is_link = path != tree and path.is_symlink()
            if is_link or (path.exists() and not path.is_dir()):
                path.unlink()
        self._ostree("checkout", "-H", "--union", "--whiteouts", ref, str(tree))

    @contextlib.contextmanager
    def _directory(self) -> Iterator[Path]:
        """A directory where files of commits can be linked: in the repository."""
        directory = Path(tempfile.mkdtemp(prefix=_MERGING, dir=self.path / "tmp"))
        try:
            yield directory / "tree"
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        for directory in (self.path / "tmp").glob(f"{_MERGING}*"):
            shutil.rmtree(directory, ignore_errors=True)

    def _require_room(self, layers: list[Layer], reference: ImageReference) -> None:
        """As bootc does, by the compressed size, less what OSTree leaves free."""
        status = os.statvfs(self.path)
        available = max(0, status.f_bavail - status.f_blocks * 3 // 100) * status.f_frsize
        required = sum(layer.size for layer in layers)
        if required > available:
            raise Failure(
                f"Insufficient free space for {reference.short} "
                f"(available: {size(available)} required: {size(required)})"
            )

    def _ostree(self, command: str, *arguments: str) -> str:
        argv = ["ostree", command, f"--repo={self.path}", *arguments]
        result = subprocess.run(argv, capture_output=True, check=False, env=_environment())
        if result.returncode != 0:
            raise Failure(_reason(result.stderr.decode(errors="replace")))
        return result.stdout.decode()


def _write(process: subprocess.Popen[bytes], chunk: bytes) -> None:
    """Hand a chunk to a process. One that was content before the end does not keep the rest from
    being read and checked; one that has failed does."""
    assert process.stdin is not None
    try:
        process.stdin.write(chunk)
    except BrokenPipeError:
        if process.wait() != 0:
            errors = process.stderr.read() if process.stderr else b""
            raise Failure(_reason(errors.decode(errors="replace"))) from None


def _environment() -> dict[str, str]:
    """Names of files are UTF-8, whatever the caller's language is."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def check(image: Image, reference: ImageReference) -> None:
    """Raise Failure for an image that cannot be booted here. `notice: …` is printed where the label
    of a bootable container is missing."""
    if not any(label in image.labels for label in BOOTABLE):
        raise Failure(f"Target image does not have {BOOTABLE[1]} label")
    expected = ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    if image.architecture != expected:
        raise Failure(f"Image has architecture {image.architecture}; expected {expected}")
    value = image.labels.get(BOOTABLE[0])
    if value is None:
        note(f"notice: Image is missing label: {BOOTABLE[0]}")
    elif value != "1":
        note(f"notice: Unknown {BOOTABLE[0]} value {value}")


def require_bootable(tree: Path, reference: ImageReference) -> None:
    """Raise Failure for a tree that ostree could deploy and no machine could boot."""
    if not is_inside(tree, "sysroot") or not (tree / "sysroot").is_dir():
        raise Failure(f"{reference.short} has no directory /sysroot")
    kernels = [
        path.parent
        for path in (tree / "usr/lib/modules").glob("*/vmlinuz")
        if is_inside(tree, str(path.relative_to(tree))) and path.is_file()
    ]
    if len(kernels) != 1:
        names = ", ".join(printable(path.name) for path in kernels) or "none"
        raise Failure(f"{reference.short} must have one kernel in /usr/lib/modules, not {names}")
    initramfs = kernels[0] / "initramfs.img"
    if not is_inside(tree, str(initramfs.relative_to(tree))) or not initramfs.is_file():
        raise Failure(f"{reference.short} has no initramfs.img beside its kernel {kernels[0].name}")


def is_inside(tree: Path, name: str) -> bool:
    """Whether a path in a tree that came from elsewhere leads to a place in it: neither it nor a
    directory above it is a symbolic link."""
    path = tree
    for part in Path(name).parts:
        path /= part
        if path.is_symlink():
            return False
    return True


def _clean(tree: Path) -> None:
    for name in _EMPTY:
        directory = tree / name
        if not is_inside(tree, name) or not directory.is_dir():
            continue
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    for name in _FROM_BUILDAH:
        path = tree / name
        if is_inside(tree, name) and path.is_file() and path.stat().st_size == 0:
            path.unlink()


def _reason(errors: str) -> str:
    return errors.strip().rpartition("error: ")[2] or "ostree has failed"


def size(count: int) -> str:
    """A number of bytes as bootc writes it: 431 bytes, 12.3 MB."""
    if count < 1000:
        return f"{count} bytes"
    value, units = float(count), iter(("kB", "MB", "GB", "TB", "PB"))
    unit = ""
    while value >= 1000:
        value, unit = value / 1000, next(units)
    return f"{value:.1f} {unit}"


def note(line: str) -> None:
    """Progress and notices are for people: stdout may be read by a program."""
    print(printable(line), file=sys.stderr, flush=True)
