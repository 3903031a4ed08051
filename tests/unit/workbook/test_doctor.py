import json
import os
import socket
from pathlib import Path

import pytest

from rfe_helpers.cli.main import main
from rfe_helpers.workbook import doctor
from rfe_helpers.workbook.doctor import Diagnosis, Tool

SET_UP = Path(__file__).parents[3] / "set-up"


def tool(*probe: str, minimum: str = "-", essential: bool = True) -> Tool:
    return Tool(probe, minimum, "the-package", "its-name-in-fedora", essential, "a purpose")


@pytest.fixture
def bin_directory(tmp_path, monkeypatch):
    """A directory at the front of PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def command(directory: Path, name: str, says: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{says}\n")
    (directory / name).chmod(0o755)


def test_the_table_is_complete_and_names_each_package_for_both_families():
    listed = doctor.tools()
    assert len(listed) > 20
    assert {"ostree", "mmdebstrap", "qemu-system-x86_64", "podman", "ssh"} <= {
        each.name for each in listed
    }
    for each in listed:
        assert each.debian
        assert each.fedora
        assert each.purpose
    assert len({each.probe for each in listed}) == len(listed)


def test_a_tool_that_is_there_is_shown_with_its_version(bin_directory):
    command(bin_directory, "frob", "echo frob version 2.10.1 of today")
    assert doctor._tool(tool("frob", minimum="2.9")) == Diagnosis(
        "frob", "ok", "2.10.1", essential=True
    )


def test_a_version_on_stderr_counts_too(bin_directory):
    command(bin_directory, "frob", "echo 'frob/1.2' >&2")
    assert doctor._tool(tool("frob")).detail == "1.2"


def test_a_tool_that_is_too_old_stops_with_the_command_that_mends_it(bin_directory):
    command(bin_directory, "frob", "echo 2.9.9")
    found = doctor._tool(tool("frob", minimum="2.10"))
    assert found.status == "too old"
    assert found.stops
    assert "2.9.9, at least 2.10" in found.detail
    assert "the-package" in found.remedy


def test_what_is_missing_stops_only_if_it_is_essential():
    assert doctor._tool(tool("no-such-command")).stops
    optional = doctor._tool(tool("no-such-command", essential=False))
    assert optional.status == "missing"
    assert not optional.stops
    assert "install" in optional.remedy


def test_alternatives_and_paths_are_probed(tmp_path):
    (tmp_path / "firmware-4M.fd").write_text("")
    found = tool("no-such-command", f"{tmp_path}/firmware*.fd").find()
    assert found == tmp_path / "firmware-4M.fd"
    assert tool(f"{tmp_path}/nothing*", f"{tmp_path}/neither").find() is None


@pytest.mark.parametrize(
    ("content", "status", "remedy"),
    [
        ("tester:100000:65536\n", "ok", ""),
        (f"{os.getuid()}:100000:65536\n", "ok", ""),
        ("tester:100000:1000\n", "missing", "101000-166535 tester"),
        ("other:100000:65536\n", "missing", "--add-subuids 165536-231071 tester"),
        ("", "missing", "--add-subuids 100000-165535 tester"),
    ],
)
def test_subordinate_ids_are_counted_and_a_free_range_proposed(tmp_path, content, status, remedy):
    path = tmp_path / "subuid"
    path.write_text(content)
    found = doctor._subid("tester", path, "--add-subuids")
    assert found.status == status
    assert remedy in found.remedy


def test_a_port_in_use_is_a_warning():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        found = doctor._port("the web server", port)
    assert found.status == "warning"
    assert "next free one" in found.detail
    assert doctor._port("the web server", port).status == "ok"


def test_disk_is_looked_at_per_step(tmp_path, monkeypatch):
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "not-yet"))
    found = list(doctor._disk())
    assert len(found) == len(doctor.DISK_STEPS)
    assert all("GiB free" in finding.detail for finding in found)
    assert str(tmp_path) in found[0].detail


def test_examine_finds_this_machine_fit_and_json_says_so(capsys):
    status = main(["doctor", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["ready"] is (status == 0)
    assert told["ready"], [f for f in told["findings"] if f["status"] != "ok"]
    names = {finding["name"] for finding in told["findings"]}
    assert {"python", "ostree", "KVM", "memory", "port 8000", "user namespaces"} <= names
    for finding in told["findings"]:
        assert finding["status"] == "ok" or finding["remedy"]


def test_a_missing_tool_fails_the_command_and_is_named(capsys, monkeypatch, tmp_path):
    """With a PATH that holds the tools of the system but for one."""
    monkeypatch.setattr(
        "rfe_helpers.core.run._SYSTEM_PATH", str(tmp_path)
    )  # where `run` looks at last
    for directory in [*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin"]:
        for item in Path(directory).iterdir() if Path(directory).is_dir() else ():
            if item.name != "ostree" and not (tmp_path / item.name).exists():
                (tmp_path / item.name).symlink_to(item)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "✘ ostree: missing: for repositories and commits" in out
    assert "All missing packages at once:" in out
    assert "Not ready" in out


def test_somebody_with_a_number_only(monkeypatch):
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr(doctor.getpass, "getuser", unknown)
    assert doctor._user() == str(os.getuid())
