"""What is copied to a guest, and which steps a machine gets; nothing is started."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from rfe_helpers import __version__
from rfe_helpers.build import registration, remote
from rfe_helpers.core import run
from rfe_helpers.errors import InputError, ProfileError
from rfe_helpers.lab.lab import Lab


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in registration.NAMES:
        monkeypatch.delenv(name, raising=False)


def test_the_service_runs_from_what_is_copied(tmp_path: Path) -> None:
    packed = remote.service_tar()
    assert packed == remote.service_tar()
    assert len(packed) < 3_000_000
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        names = tar.getnames()
    assert "rfe_helpers/sandbox/guest/image-builder/osbuild-composer.socket" in names
    assert not [name for name in names if name.endswith((".pyc", ".so"))]
    (tmp_path / "packed.tar.gz").write_bytes(packed)
    run.run(["tar", "-xzf", tmp_path / "packed.tar.gz", "-C", tmp_path])
    script = (
        "import rfe_helpers, rfe_helpers.sandbox.__main__ as service, pykickstart\n"
        "print(service.__file__, pykickstart.__file__, rfe_helpers.__version__)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    service, pykickstart, version = ran.stdout.split()
    assert Path(service).is_relative_to(tmp_path)
    assert Path(pykickstart).is_relative_to(tmp_path)
    assert version == __version__


def test_a_guest_of_the_sandbox_gets_its_service_in_place_of_a_package(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab", "sandbox")
    assert [step.title for step in remote.steps(lab, "vm")] == [
        "look for room",
        "copy the sandbox's service",
        "install Image Builder",
        "enable osbuild-composer.socket",
        "enable cockpit.socket",
        "let root into the web console",
    ]


def test_the_sandbox_shows_the_steps_that_a_guest_of_the_release_gets(tmp_path: Path) -> None:
    shown = remote.steps(Lab(tmp_path / "lab", "sandbox"), "sandbox", release="rhel-9.6")
    assert shown == remote.steps(Lab(tmp_path / "rhel", "rhel-9.6"), "vm")
    local = remote.steps(Lab(tmp_path / "rhel", "rhel-9.6"), "local", release="rhel-8.4")
    assert local == shown
    with pytest.raises(ProfileError, match="no edge images"):
        remote.steps(Lab(tmp_path / "lab", "sandbox"), "sandbox", release="rhel-10")


def test_another_machine_gets_the_release_and_its_user_the_group(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab", "rhel-9.6")
    titles = [step.title for step in remote.steps(lab, "ssh://core@builder.example")]
    assert titles[0] == "register with Red Hat"
    assert titles[-1] == "let core use Image Builder"
    assert "let root into the web console" not in titles


def test_credentials_are_looked_for_only_where_they_are_needed(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    remote.steps(Lab(tmp_path / "stream", "centos-stream-9"), "vm", gone)
    with pytest.raises(InputError, match="cannot read"):
        remote.steps(Lab(tmp_path / "rhel", "rhel-9.6"), "vm", gone)


def test_names_of_builders() -> None:
    assert remote.is_remote("vm")
    assert remote.is_remote("ssh://host")
    assert not remote.is_remote("sandbox")
    assert not remote.is_remote("local")
