"""The application's image, made from real Debian packages: pushed, and its programs run."""

import json
import os
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfe_helpers.core import run
from rfe_helpers.fleet import application
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve import registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("application") / "lab", "sandbox")
    yield lab
    lab.clean()


@pytest.fixture(scope="module")
def images(lab: Lab) -> dict[str, Path]:
    return {
        "1": application.build(lab, "1"),
        "2": application.build(lab, "2", broken=True),
    }


def test_versions_share_their_programs_and_are_small(images: dict[str, Path]) -> None:
    layers = []
    for path in images.values():
        assert path.stat().st_size < 4_000_000
        with tarfile.open(path) as tar:
            index = tar.extractfile("index.json")
            assert index is not None
            (entry,) = json.load(index)["manifests"]
            manifest = tar.extractfile(f"blobs/{entry['digest'].replace(':', '/')}")
            assert manifest is not None
            layers.append([layer["digest"] for layer in json.load(manifest)["layers"]])
    assert layers[0][0] == layers[1][0]
    assert layers[0][1] != layers[1][1]


def test_it_runs_and_tells_that_it_is_ready(images: dict[str, Path], tmp_path: Path) -> None:
    """As a container does, without podman: its root, its command, and systemd's socket."""
    root = tmp_path / "root"
    layout = tmp_path / "layout"
    root.mkdir()
    run.run(["skopeo", "copy", "--quiet", f"oci-archive:{images['1']}", f"dir:{layout}"])
    manifest = json.loads((layout / "manifest.json").read_text())
    for layer in manifest["layers"]:
        run.run(["tar", "-xzf", layout / layer["digest"].partition(":")[2], "-C", root])
    (root / "dev").mkdir()
    (root / "dev" / "null").touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        # A relative name: they are limited to 107 bytes.
        here = Path.cwd()
        os.chdir(root)
        systemd.bind("notify")
        os.chdir(here)
        systemd.settimeout(60)
        # A network of its own: port 8080 of this machine may be taken.
        unshare = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"]
        process = subprocess.Popen(
            [*unshare, "sh", "-c", f"ip link set lo up; exec chroot {root} /usr/bin/application"],
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "NOTIFY_SOCKET": "/notify"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert systemd.recv(100) == b"READY=1"
        finally:
            process.kill()  # and with it all that is in its namespace
            said = process.communicate(timeout=60)[0]
    assert "application 1 starts" in said


def test_it_can_be_pushed(lab: Lab, images: dict[str, Path]) -> None:
    found = registry.start(lab)
    digests = [found.push(path, f"{application.REPOSITORY}:stable") for path in images.values()]
    assert digests[0] != digests[1] == found.digest(f"{application.REPOSITORY}:stable")
    assert found.tags(application.REPOSITORY) == ("stable",)
