"""The blueprint twin, composed; and every unit of it, read by the systemd and podman in there."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfe_helpers import build
from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.commit.commit import Commit, open_commit
from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.fleet.description import Device, customizations, enabled, files, packages
from rfe_helpers.lab.lab import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DEVICE = Device(image="10.0.2.2:5000/edge/application:stable", registry="10.0.2.2:5000")
GENERATOR = "/usr/lib/systemd/system-generators/podman-system-generator"


def compose(lab: Lab) -> Commit:
    """A commit with the device's configuration in it, as `rfe fleet blueprint` describes it."""
    client = build.connect(lab)
    twin = Blueprint(
        name="twin",
        version="0.0.1",
        packages=tuple(map(PackageSpec, packages(DEVICE))),
        customizations=customizations(DEVICE),
    )
    started = client.start_compose(client.push(twin).name, "edge-commit")
    client.wait(started.id, Deadline(1500))
    return open_commit(client.download(started.id, lab.path("composes", "")))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Its tree, with /etc in place, as a device has it."""
    directory = tmp_path_factory.mktemp("units")
    lab = Lab(directory / "lab", "sandbox")
    try:
        yield check_out(compose(lab), directory / "root")
    finally:
        lab.clean()


def check_out(commit: Commit, target: Path) -> Path:
    repository = commit.repository.path
    run.run(["ostree", "checkout", "--user-mode", f"--repo={repository}", commit.id, target])
    (target / "usr/etc").rename(target / "etc")
    return target


def inside(root: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A shell in there; no network, no processes of this machine. Masked units need /dev/null."""
    argv = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--mount"]
    enter = 'mount --rbind /dev "$0/dev"; exec chroot "$0" /bin/sh -euc "$1"'
    return subprocess.run(
        [*argv, "/bin/sh", "-euc", enter, root, script],
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": "/usr/bin:/usr/sbin"},
    )


def test_it_has_the_files_and_starts_the_timers(root: Path) -> None:
    for file in files(DEVICE):
        assert (root / file.path[1:]).read_text() == file.text, file.path
    wants = root / "etc/systemd/system/timers.target.wants"
    assert set(enabled(DEVICE)) <= {link.name for link in wants.iterdir()}


def test_podman_makes_a_service_of_the_quadlet_and_all_units_pass_verify(root: Path) -> None:
    made = inside(root, f"mkdir -p /run/made; {GENERATOR} /run/made /run/made /run/made")
    assert (made.returncode, made.stderr) == (0, "")
    service = (root / "run/made/application.service").read_text()
    assert "--label io.containers.autoupdate=registry" in service
    assert "--sdnotify=container" in service
    assert (root / "run/made/multi-user.target.wants/application.service").is_symlink()

    units = f"/run/made/application.service applyupdate.service {' '.join(enabled(DEVICE))}"
    found = inside(root, f"systemd-analyze verify --man=no {units} 2>&1")
    assert (found.returncode, found.stdout) == (0, "")


def test_verify_would_have_told(root: Path) -> None:
    """In the same place, of a unit with a mistake in it."""
    bad = root / "run/made/bad.service"
    bad.write_text("[Service]\nExecStart=/usr/bin/true\nRestrat=always\n")
    found = inside(root, "systemd-analyze verify --man=no /run/made/bad.service 2>&1")
    assert "Unknown key 'Restrat'" in found.stdout
