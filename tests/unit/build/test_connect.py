"""With the real sandbox service, which needs neither network nor root just to answer."""

import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from support.canned import Reply, Request, json_reply, serving
from support.rhel import Rhel

from rfe_helpers import build, serve
from rfe_helpers.build import remote
from rfe_helpers.build.connect import refusal
from rfe_helpers.core import files, network, run
from rfe_helpers.errors import BuilderError, InputError, MediaError
from rfe_helpers.lab.lab import Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "cache"))
    lab = Lab(tmp_path / "lab")
    yield lab
    lab.sweep()


def test_the_service_is_started_once_and_found_again(lab: Lab) -> None:
    lines: list[str] = []
    client = build.connect(lab, on_progress=lines.append)
    assert lines == ["starting Image Builder"]
    process = lab.process("image-builder")
    assert process is not None
    assert {"edge-commit", "edge-container", "edge-installer"} <= set(client.types())

    again = build.connect(Lab(lab.directory), on_progress=lines.append)
    assert lines == ["starting Image Builder"]
    assert again.status() == client.status()
    assert lab.process("image-builder") == process

    shown = build.status(lab)
    assert (shown.pid, shown.running, shown.waiting) == (process.pid, 0, 0)
    assert str(process.pid) in str(shown)

    assert build.stop(lab)
    assert not process.alive
    assert build.status(lab).pid is None
    assert "not running" in str(build.status(lab))
    assert not build.stop(lab)


def test_a_killed_service_is_started_again(lab: Lab) -> None:
    client = build.connect(lab)
    client.push('name = "kept"')
    process = lab.process("image-builder")
    assert process is not None
    run.kill(process)
    with pytest.raises(BuilderError):
        client.status()
    assert build.connect(lab).blueprints() == ("kept",)
    assert lab.process("image-builder") not in (None, process)


def test_two_callers_at_once_start_one_service(lab: Lab) -> None:
    processes: list[object] = []

    def get() -> None:
        build.connect(Lab(lab.directory)).status()
        processes.append(lab.process("image-builder"))

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(processes) == 3
    assert len(set(processes)) == 1


def test_a_service_that_does_not_start_shows_its_log(lab: Lab) -> None:
    in_the_way = lab.socket("image-builder.sock")
    (in_the_way / "something").mkdir(parents=True)
    with pytest.raises(BuilderError, match="did not start") as caught:
        build.connect(lab)
    assert caught.value.log == lab.log("image-builder")
    assert "image-builder.sock" in caught.value.message
    assert lab.processes() == {}


def test_the_machines_own_image_builder_is_named_when_it_is_missing(lab: Lab) -> None:
    with pytest.raises(BuilderError, match=r"/run/weldr/api\.socket") as caught:
        build.connect(lab, "local")
    assert "osbuild-composer.socket" in caught.value.remedy


@pytest.mark.parametrize("name", ["sandbx", "VM", "http://host"])
def test_other_builders_are_refused_by_name(lab: Lab, name: str) -> None:
    with pytest.raises(InputError, match=f"no Image Builder {name!r}"):
        build.connect(lab, name)
    assert lab.processes() == {}


def test_the_builder_of_a_lab_is_the_one_that_was_set_up(tmp_path: Path, lab: Lab) -> None:
    assert build.builder_of(lab) == "sandbox"
    assert build.builder_of(Lab(tmp_path / "rhel", "rhel-9.6")) == "vm"
    lab.record("image-builder", builder="ssh://core@host")
    assert build.builder_of(lab) == "ssh://core@host"


def test_the_sandbox_says_beforehand_what_it_refuses(tmp_path: Path, lab: Lab) -> None:
    fips = build.Blueprint("edge", customizations={"fips": True})
    assert 'image type "edge-container": fips' in refusal(lab, fips)
    assert 'image type "edge-commit": fips' in refusal(lab, fips, "edge-commit")
    assert "is not a host name" in refusal(
        lab, build.Blueprint("edge", customizations={"hostname": "my host!"})
    )
    assert refusal(lab, build.Blueprint("edge", packages=["tmux"])) == ""
    assert refusal(Lab(tmp_path / "rhel", "rhel-9.6"), fips) == "", "it is asked, not guessed"
    lab.record("image-builder", builder="ssh://core@host")
    assert refusal(lab, fips) == ""


def test_a_guest_that_was_never_set_up_is_sent_to_notebook_10(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no guest") as caught:
        build.connect(Lab(tmp_path / "rhel", "rhel-9.6"))
    assert "notebook 10" in caught.value.remedy


def test_media_of_a_release_are_looked_for_and_named(lab: Lab, tmp_path: Path) -> None:
    rhel = Lab(tmp_path / "rhel", "rhel-9.4")
    with pytest.raises(MediaError, match=r"rhel-9\.4-x86_64-kvm\.qcow2") as caught:
        build.guest_image(rhel)
    assert "access.redhat.com" in caught.value.remedy
    with pytest.raises(MediaError, match=r"there is no boot ISO .*rhel-9\.4-x86_64-boot\.iso"):
        build.boot_iso(rhel)
    mine = tmp_path / "mine.qcow2"
    with pytest.raises(MediaError, match=r"mine\.qcow2"):
        build.guest_image(lab, str(mine))
    mine.touch()
    assert build.guest_image(lab, str(mine)) == mine


def test_a_boot_iso_of_another_release_is_refused(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    iso = tmp_path / "boot.iso"
    options = ["-quiet", "-V", "CentOS-Stream-9-BaseOS-x86_64", "-o", iso]
    run.run(["xorriso", "-as", "mkisofs", *options, tmp_path / "tree"])
    with pytest.raises(MediaError, match="this lab is for Sandbox"):
        build.boot_iso(lab, iso=str(iso))
    stream = Lab(tmp_path / "stream", "centos-stream-9")
    assert build.boot_iso(stream, iso=str(iso)) == iso


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rhel]:
    """A machine over SSH with an Image Builder of RHEL 9.6."""
    socket = tmp_path / "api.sock"

    def answer(request: Request) -> Reply:
        if request.path == "/api/status":
            return json_reply({"api": "1", "backend": "osbuild-composer", "build": "rhel"})
        return json_reply({"distros": ["rhel-9.6"]})

    rhel = Rhel(tmp_path / "there", socket)
    monkeypatch.setenv("PATH", f"{rhel.path}:/usr/bin:/bin:/usr/sbin")
    with serving(socket, answer):
        yield rhel


def test_the_socket_of_another_machine_is_forwarded_and_found_again(
    there: Rhel, tmp_path: Path
) -> None:
    lab = Lab(tmp_path / "rhel", "rhel-9.6")
    client = build.connect(lab, "ssh://core@builder.example")
    assert client.status().backend == "osbuild-composer"
    process = lab.process(remote.PROCESS)
    assert process is not None
    assert build.connect(lab, "ssh://core@builder.example").distros() == ("rhel-9.6",)
    assert lab.process(remote.PROCESS) == process
    # The connection has broken: it is made again.
    run.kill(process)
    assert build.connect(lab, "ssh://core@builder.example").status().api == "1"
    # Another machine is another connection, and so is another port of the web server.
    assert build.connect(lab, "ssh://core@other.example").status().api == "1"
    own = lab.port("web", 8000)
    other = network.free_port()
    site = serve.Site(url="", guest_url="", port=other, engine="nginx", artifact="")
    files.write_json(lab.path("www", "site.json"), asdict(site))
    assert build.connect(lab, "ssh://core@other.example").status().api == "1"
    started = (there.state / "ssh").read_text()
    assert started.count("-L") == 4
    assert started.count(f"-R127.0.0.1:{own}:127.0.0.1:{own} ") == 3
    assert started.count(f"-R127.0.0.1:{other}:127.0.0.1:{other} ") == 1
    assert remote.stop(lab)
    assert not remote.stop(lab)
    lab.sweep()


def test_a_socket_that_cannot_be_forwarded_shows_what_ssh_said(there: Rhel, tmp_path: Path) -> None:
    fake = there.path / "ssh"
    fake.write_text("#!/bin/sh\necho Permission denied >&2\nexit 255\n")
    lab = Lab(tmp_path / "rhel", "rhel-9.6")
    with pytest.raises(BuilderError, match="cannot be forwarded: Permission denied") as caught:
        build.connect(lab, "ssh://core@builder.example")
    assert "without asking" in caught.value.remedy
    assert lab.processes() == {}


def test_a_boot_iso_that_cannot_be_made(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "file"))
    with pytest.raises(MediaError, match="boot ISO could not be made") as caught:
        build.boot_iso(lab)
    assert caught.value.log == lab.log("boot-iso")
