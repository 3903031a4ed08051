"""The lab's registry: the real program, on a port of its own."""

import socket
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.missing_commands import without

from rfe_helpers.commit import oci
from rfe_helpers.core import journal, run
from rfe_helpers.errors import ServeError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve import registry

NAME = "edge/application:stable"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "lab", "sandbox")
    yield lab
    lab.sweep()
    journal.open_journal(None)


def image(directory: Path, version: str) -> Path:
    def fill(tar: tarfile.TarFile) -> None:
        oci.add_file(tar, "version", version.encode())

    layer = oci.write_layer(directory / "layer.tar.gz", fill)
    target = directory / f"{version}.tar"
    oci.write_archive(target, [layer], {"Cmd": ["/version"]}, created_by="a test")
    return target


def test_images_are_pushed_named_and_replaced(lab: Lab, tmp_path: Path) -> None:
    assert registry.find(lab) is None
    running = registry.start(lab)
    assert registry.start(lab) == running == registry.find(lab)
    assert running.guest_address == f"10.0.2.2:{running.port}"
    with pytest.raises(ServeError, match="the registry has no edge/application"):
        running.tags("edge/application")
    first = running.push(image(tmp_path, "1"), NAME)
    second = running.push(image(tmp_path, "2"), NAME)
    running.push(image(tmp_path, "1"), "edge/application:old")
    assert first != second == running.digest(NAME)
    assert running.tags("edge/application") == ("old", "stable")
    kept = run.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{running.address}/{NAME}"]
    ).stdout
    assert second in kept

    registry.stop(lab)
    assert not running.answers
    assert registry.find(lab) is None
    with pytest.raises(ServeError, match="does not answer"):
        running.digest(NAME)
    with pytest.raises(ServeError, match="cannot push"):
        running.push(image(tmp_path, "3"), NAME)
    assert registry.start(lab).digest(NAME) == second  # what was pushed has stayed


def test_it_listens_on_loopback_only_and_belongs_to_the_lab(lab: Lab, tmp_path: Path) -> None:
    config = registry.configuration(tmp_path, 5000)
    assert config["http"] == {"addr": "127.0.0.1:5000"}
    running = registry.start(lab)
    assert "registry" in lab.processes()
    lab.sweep()
    assert not running.answers


def test_a_taken_port_is_named(lab: Lab) -> None:
    port = lab.port("registry", 5000)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(ServeError, match="address already in use") as caught:
            registry.start(lab)
    assert "ss -ltnp" in caught.value.remedy
    assert caught.value.log == lab.log("registry")


def test_without_the_program_the_remedy_is_the_doctor(lab: Lab) -> None:
    start = (
        "import sys\n"
        "from rfe_helpers.lab.lab import Lab\n"
        "from rfe_helpers.serve import registry\n"
        "registry.start(Lab(sys.argv[1]))\n"
    )
    words = [sys.executable, "-c", start, lab.directory]
    result = run.run([*without("docker-registry", "registry"), *words], check=False)
    assert result.status == 1
    error = result.stderr.partition("rfe_helpers.errors.ToolMissingError: ")[2]
    assert error.startswith("not installed: docker-registry\n")
    assert "rfe doctor" in error
