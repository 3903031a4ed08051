"""The container image of the workbook: built, and the short path in it, without root and without a
network."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ordinary_user import OrdinaryUser, ordinary_user

from rfe_helpers.core import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
ROOT = Path(__file__).parents[2]
NAME = "localhost/rfe-workbook-test"
ARTEFACTS = ROOT / "artefacts" / "image"


@pytest.fixture(scope="module")
def user(image: str) -> Iterator[OrdinaryUser]:
    """An ordinary user who has it, too."""
    if os.getuid() != 0:
        pytest.skip("needs root, to make a user")
    with ordinary_user() as someone:
        archive = someone.directory / "image.tar"
        run.run(["podman", "save", "--quiet", "--output", archive, image], seconds=300)
        runtime = someone.home / "run"  # for podman's sockets, whose paths must be short
        runtime.mkdir(mode=0o700)
        someone.give(someone.home)
        podman(someone, "load", "--quiet", "--input", str(archive))
        archive.unlink()
        yield someone
        podman(someone, "system", "reset", "--force")


def podman(user: OrdinaryUser, *words: str) -> str:
    """The output of a command of the user's rootless podman."""
    # Where it finds no fuse-overlayfs, podman 4 copies the whole image for each container.
    settings = [f"XDG_RUNTIME_DIR={user.home}/run", "STORAGE_DRIVER=overlay"]
    return user.run(["env", *settings, "podman", *words], seconds=2000).stdout


def workbook(user: OrdinaryUser, *words: str) -> str:
    """The output of a container with the user's lab and without a network."""
    return podman(user, "run", "--rm", "--network=none", "--volume=rfe:/lab", *words)


def test_it_has_nothing_of_the_clone_and_no_keys(user: OrdinaryUser) -> None:
    facts = json.loads(podman(user, "image", "inspect", NAME))[0]["Config"]
    assert facts["User"] == "rfe"
    assert facts["Entrypoint"][-1] == "rfe"
    assert facts["Labels"]["org.opencontainers.image.title"] == "rfe-workbook"
    script = (
        "ls -A / /lab /opt /etc/ssh; find / -xdev -name '*.git' -o -name pip.conf 2>/dev/null; true"
    )
    listing = workbook(user, "--entrypoint=sh", NAME, "-c", script)
    assert "rfe-image" not in listing
    assert "ssh_host" not in listing
    assert ".git" not in listing
    assert "pip.conf" not in listing


def test_the_doctor_finds_it_ready(user: OrdinaryUser) -> None:
    answer = json.loads(workbook(user, NAME, "doctor", "--json"))
    stopping = [f for f in answer["findings"] if f["status"] not in ("ok", "warning")]
    assert (answer["ready"], stopping) == (True, [])
    (kvm,) = [f for f in answer["findings"] if f["name"] == "KVM"]
    assert "--device /dev/kvm" in kvm["remedy"]


def test_the_life_cycle_passes_in_it_without_a_network(user: OrdinaryUser) -> None:
    output = workbook(user, NAME, "run", "00", "10", "20", "30", "40", "50", "60")
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    (ARTEFACTS / "run.log").write_text(output)
    summary = workbook(user, "--entrypoint=cat", NAME, "/lab/rfe-lab/runs/latest/summary.json")
    assert json.loads(summary)["status"] == "passed"
    # Of the log of the compose, in the volume.
    find = "grep -rl 'no network: take packages from the cache' /lab/rfe-lab/sandbox/composes"
    assert workbook(user, "--entrypoint=sh", NAME, "-c", find)


def test_the_files_around_it_are_what_podman_and_others_take(user: OrdinaryUser) -> None:
    """The Quadlet is read by the podman of the image, which is newer than some hosts'."""
    shutil.copy(ROOT / "container/rfe-workbook.container", user.directory)
    mount = f"--volume={user.directory}:/quadlet:ro"
    generator = "--entrypoint=/usr/lib/systemd/system-generators/podman-system-generator"
    command = [mount, "--env=QUADLET_UNIT_DIRS=/quadlet", generator, NAME, "--dryrun"]
    service = workbook(user, *command)
    assert "-v rfe:/lab" in service
    assert "127.0.0.1:8888:8888" in service
