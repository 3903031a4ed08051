"""What is installed: the commit of a repository or a container image.

Both are looked for before the disk is changed, then brought into the repository on it and deployed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from . import source
from .console import InstallError, run, run_with_progress, step

SCRATCH = Path("/run/install/check-repo")


@dataclass(frozen=True)
class Payload:
    """What `ostreesetup` names, and the number of its line."""

    osname: str
    remote: str
    url: str
    ref: str
    verify: bool
    line: int

    def __str__(self) -> str:
        return f"{self.ref} from {self.url}"

    def check(self, scratch: Path = SCRATCH) -> None:
        """Fetch the commit object, to know that the commit exists. Raises InstallError with the
        line of ostreesetup."""
        if not self.url.startswith("file:"):
            source.wait_for_network(self.url)
        shutil.rmtree(scratch, ignore_errors=True)
        metadata = ("--commit-metadata-only", self.remote, self.ref)
        try:
            run("ostree", "init", f"--repo={scratch}", "--mode=bare-user-only")
            self._add_remote(scratch)
            run("ostree", "pull", f"--repo={scratch}", *metadata)
        except InstallError as error:
            reason = str(error).removeprefix("ostree: ")
            raise InstallError(f"line {self.line}: ostreesetup: no {self}: {reason}") from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def deploy(self, root: Path, arguments: list[str]) -> None:
        """Pull into the repository of the system at `root`, and deploy."""
        repository = root / "ostree/repo"
        self._add_remote(repository)
        step(f"pulling {self.ref}")
        # The whole installation is synced once, at its end.
        pull = ("ostree", "pull", f"--repo={repository}", "--disable-fsync", self.remote, self.ref)
        run_with_progress(pull, "pulling")
        step("deploying")
        where = (f"--sysroot={root}", f"--os={self.osname}")
        # Not --karg: it replaces an argument of the same name, and two console= are common.
        kernel = [f"--karg-append={argument}" for argument in arguments]
        run("ostree", "admin", "deploy", *where, *kernel, f"{self.remote}:{self.ref}")

    def _add_remote(self, repository: Path) -> None:
        options = [f"--repo={repository}", *([] if self.verify else ["--no-gpg-verify"])]
        run("ostree", "remote", "add", *options, self.remote, self.url)


@dataclass(frozen=True)
class ImagePayload:
    """What `ostreecontainer` names, and the number of its line."""

    osname: str
    transport: str
    url: str
    verify: bool
    line: int

    def __str__(self) -> str:
        return f"{self.transport}:{self.url}"

    def check(self) -> None:
        """Fetch the manifest, to know that the image exists and could be deployed. Raises
        InstallError with the line of ostreecontainer."""
        try:
            if self.transport == "registry":
                source.wait_for_network(f"https://{self.url}")
            run("ostree", "container", "image", "metadata", *self._options())
        except InstallError as error:
            reason = str(error).removeprefix("ostree: ")
            raise InstallError(f"line {self.line}: ostreecontainer: no {self}: {reason}") from None

    def deploy(self, root: Path, arguments: list[str]) -> None:
        """As Anaconda does it (DeployOSTreeTask)."""
        step(f"pulling {self.url}")
        options = [f"--sysroot={root}", f"--stateroot={self.osname}", *self._options()]
        kernel = [f"--karg={argument}" for argument in arguments]
        run_with_progress(
            ("ostree", "container", "image", "deploy", *options, *kernel), "pulling and deploying"
        )

    def _options(self) -> list[str]:
        verify = [] if self.verify else ["--no-signature-verification"]
        return [f"--image={self.url}", f"--transport={self.transport}", *verify]
