import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import rfe
from support.missing_commands import without

from rfe_helpers.cli.main import main
from rfe_helpers.workbook import doctor
from rfe_helpers.workbook.chapters import number_of
from rfe_helpers.workbook.doctor import Diagnosis, Tool
from rfe_helpers.workbook.notebooks import all_notebooks

SET_UP = Path(__file__).parents[3] / "set-up"


def tool(*probe: str, minimum: str = "-", need: str = "essential") -> Tool:
    return Tool(
        probe=probe,
        minimum=minimum,
        debian="the-package",
        fedora="its-name-in-fedora",
        need=need,
        purpose="a purpose",
    )


@pytest.fixture
def bin_directory(tmp_path, monkeypatch):
    """A directory at the front of PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def command(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def test_the_table_is_complete_and_names_each_package_for_both_families():
    tools = doctor.tools()
    assert len(tools) > 20
    assert {"ostree", "mmdebstrap", "qemu-system-x86_64", "podman", "ssh"} <= {
        each.name for each in tools
    }
    for each in tools:
        assert each.debian
        assert each.fedora
        assert each.purpose
    assert len({each.probe for each in tools}) == len(tools)


def test_an_installed_tool_is_shown_with_its_version(bin_directory):
    command(bin_directory, "frob", "echo frob version 2.10.1 of today")
    assert doctor.examine_tool(tool("frob", minimum="2.9")) == Diagnosis(
        "frob", "ok", "2.10.1", essential=True
    )


def test_a_version_on_stderr_counts_too(bin_directory):
    command(bin_directory, "frob", "echo 'frob/1.2' >&2")
    assert doctor.examine_tool(tool("frob")).detail == "1.2"


def test_a_tool_that_is_too_old_stops_and_is_not_installed_but_upgraded(bin_directory):
    command(bin_directory, "frob", "echo 2.9.9")
    finding = doctor.examine_tool(tool("frob", minimum="2.10"))
    assert finding.status == "too old"
    assert finding.stops
    assert "2.9.9, at least 2.10" in finding.detail
    assert finding.remedy.startswith("upgrade the system: ")
    old = Diagnosis("ostree", "too old", "2020.1, at least 2022.7", essential=True)
    assert doctor.install_command([old]) == ""
    assert (
        doctor.install_command([old, Diagnosis("xz", "missing", "")]).split()[-1].startswith("xz")
    )


def test_a_missing_tool_stops_only_if_it_is_essential():
    assert doctor.examine_tool(tool("no-such-command")).stops
    optional = doctor.examine_tool(tool("no-such-command", need="optional"))
    assert optional.status == "missing"
    assert not optional.stops
    assert "install" in optional.remedy


def test_a_notebook_names_all_tools_that_it_lacks_and_the_command_that_installs_them():
    program = "from rfe_helpers.workbook import doctor; doctor.require_tools('{}')"
    lacking = without("sfdisk", "xz", "docker-registry", "registry")
    for number, names, packages in (
        ("65", "xz", "xz-utils"),
        ("67", "sfdisk, xz", "fdisk xz-utils"),
        ("85", "docker-registry, xz", "docker-registry xz-utils"),
        ("50", "xz", "xz-utils"),
    ):
        result = subprocess.run(
            [*lacking, sys.executable, "-c", program.format(number)], capture_output=True, text=True
        )
        assert f"notebook {number} needs what is not installed: {names}\n" in result.stderr
        if shutil.which("apt-get"):
            assert result.stderr.rstrip().endswith(f"--no-install-recommends {packages}")


def test_a_tool_that_only_some_notebooks_need_names_them():
    numbers = {number_of(path.name) for path in all_notebooks()}
    for tool in doctor.tools():
        assert tool.need in ("essential", "optional") or {*tool.notebooks} <= numbers
    registry = next(tool for tool in doctor.tools() if tool.name == "docker-registry")
    assert registry.is_for("100")
    assert not registry.is_for("60")


def test_alternatives_and_paths_are_probed(tmp_path):
    (tmp_path / "firmware-4M.fd").write_text("")
    path = tool("no-such-command", f"{tmp_path}/firmware*.fd").find()
    assert path == tmp_path / "firmware-4M.fd"
    assert tool(f"{tmp_path}/nothing*", f"{tmp_path}/neither").find() is None


@pytest.mark.parametrize(
    ("content", "status", "remedy"),
    [
        ("tester:100000:65536\n", "ok", ""),
        (f"{os.getuid()}:100000:65536\n", "ok", ""),
        ("tester:1001:64535\n", "ok", ""),  # what a user of a rootless container can have
        ("tester:100000:1000\n", "missing", "101000-166535 tester"),
        ("other:100000:65536\n", "missing", "--add-subuids 165536-231071 tester"),
        ("", "missing", "--add-subuids 100000-165535 tester"),
    ],
)
def test_subordinate_ids_are_counted_and_a_free_range_proposed(tmp_path, content, status, remedy):
    path = tmp_path / "subuid"
    path.write_text(content)
    finding = doctor.examine_subordinate_ids("tester", path, "--add-subuids")
    assert finding.status == status
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("mark", "words", "remedies"),
    [
        (True, ("--user",), ["--security-opt seccomp=unconfined", "--device /dev/kvm"]),
        (True, ("--map-auto",), ["without --cap-drop", "--device /dev/kvm"]),
        (False, ("--user",), ["sudo sysctl -w", "firmware"]),
    ],
)
def test_in_a_container_the_remedies_are_flags_of_the_container(
    tmp_path, bin_directory, monkeypatch, mark, words, remedies
):
    command(bin_directory, "unshare", f'case "$*" in *{words[0]}*) echo no >&2; exit 1;; esac')
    if mark:
        (tmp_path / "mark").touch()
    monkeypatch.setattr(doctor, "CONTAINER_MARKS", (str(tmp_path / "mark"),))
    monkeypatch.setattr(doctor.os, "getuid", lambda: 1000)
    monkeypatch.setattr(doctor, "find_accelerator", lambda: "tcg")
    monkeypatch.setattr(doctor, "KVM", tmp_path / "kvm")
    namespaces, kvm = doctor.examine_user_namespaces(), doctor.examine_accelerator()
    assert (namespaces.status, kvm.status) == ("missing", "warning")
    assert remedies[0] in namespaces.remedy
    assert remedies[1] in kvm.remedy


def test_a_port_in_use_is_a_warning():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        finding = doctor.examine_port("the web server", port)
    assert finding.status == "warning"
    assert "take another one" in finding.detail
    assert doctor.examine_port("the web server", port).status == "ok"


def test_disk_space_is_examined_per_step(tmp_path, monkeypatch):
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "not-yet"))
    findings = list(doctor.examine_disk())
    assert len(findings) == len(doctor.DISK_STEPS)
    assert all("GiB free" in finding.detail for finding in findings)
    assert str(tmp_path) in findings[0].detail


def test_this_host_is_ready_and_json_says_so(capsys):
    status = main(["doctor", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["ready"] is (status == 0)
    assert answer["ready"], [f for f in answer["findings"] if f["status"] != "ok"]
    names = {finding["name"] for finding in answer["findings"]}
    assert {"python", "ostree", "KVM", "memory", "port 8000", "user namespaces"} <= names
    for finding in answer["findings"]:
        assert finding["status"] == "ok" or finding["remedy"]


def test_yes_is_an_answer_to_install_only():
    result = rfe("doctor", "--yes")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "rfe: --yes needs --install\n"


def test_a_missing_tool_fails_the_command_and_is_named(tmp_path):
    """In a mount namespace in which a file that cannot be executed covers one tool."""
    cover = tmp_path / "cover"
    cover.touch(mode=0o644)
    script = 'mount --bind "$1" "$2" && exec "$3" -c "$4" doctor'
    program = "import sys; from rfe_helpers.cli.main import main; sys.exit(main())"
    arguments = [cover, shutil.which("ostree"), sys.executable, program]
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    ran = subprocess.run(
        [*unshare, "sh", "-c", script, "sh", *arguments], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (1, "")
    out = ran.stdout
    assert "✘ ostree: missing: for repositories and commits" in out
    assert "All missing packages at once:" in out
    assert "Not ready" in out


def test_a_user_without_a_name_has_a_number(monkeypatch):
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 54321")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert doctor.user_name() == str(os.getuid())
