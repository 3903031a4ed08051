"""How ssh is called; and with a fake ssh on PATH, what becomes of its answers."""

from dataclasses import replace
from pathlib import Path

import pytest

from rfe_helpers.core import run, ssh
from rfe_helpers.core.ssh import Host
from rfe_helpers.errors import InputError, NodeError
from rfe_helpers.lab import keys
from rfe_helpers.lab.lab import Lab

OF_LAB = Host("127.0.0.1", "root", 2222, Path("/k"), Path("/h"))


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script that a fake ssh runs."""
    script, binary = tmp_path / "answer", tmp_path / "bin" / "ssh"
    binary.parent.mkdir()
    binary.write_text(f"#!/bin/sh\n. {script}\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}:/usr/bin:/bin")
    return script


def test_a_machine_of_the_lab_is_reached_without_the_callers_configuration() -> None:
    argv = OF_LAB.argv("true")
    assert argv[:5] == ["ssh", "-F", "none", "-i", "/k"]
    assert {"IdentitiesOnly=yes", "UserKnownHostsFile=/h", "BatchMode=yes"} <= set(argv)
    assert argv[-4:] == ["-p", "2222", "root@127.0.0.1", "true"]


def test_a_machine_of_a_person_is_reached_as_they_reach_it() -> None:
    argv = ssh.parse("ssh://me@builder.example:22022").argv("true")
    assert "-F" not in argv
    assert "-i" not in argv
    assert "StrictHostKeyChecking=accept-new" not in argv
    assert "BatchMode=yes" in argv
    assert argv[-4:] == ["-p", "22022", "me@builder.example", "true"]
    assert ssh.parse("ssh://builder").argv("true")[-2:] == ["builder", "true"]


def test_a_remote_socket_is_forwarded() -> None:
    argv = OF_LAB.forward_argv(Path("/lab/s.sock"), "/run/weldr/api.socket", 8000)
    assert "-N" in argv
    assert "-L/lab/s.sock:/run/weldr/api.socket" in argv
    assert "-R127.0.0.1:8000:127.0.0.1:8000" in argv
    assert "-oExitOnForwardFailure=yes" in argv
    assert argv[-1] == "root@127.0.0.1"


def test_commands_share_a_connection_and_what_is_forwarded_has_its_own() -> None:
    shared = replace(OF_LAB, control=Path("/lab/sockets/edge-1.ssh"))
    options = {"ControlMaster=auto", "ControlPath=/lab/sockets/edge-1.ssh", "ControlPersist=20"}
    assert options <= set(shared.argv("true"))
    assert not options & set(shared.forward_argv(Path("/s"), "/run/s", 8000))
    assert "Control" not in shared.line
    # ssh would refuse a longer path of a socket instead of doing without it
    long = replace(OF_LAB, control=Path("/" + 90 * "x"))
    assert long.argv("true") == OF_LAB.argv("true")


def test_a_connection_to_an_earlier_boot_is_not_used_again(tmp_path: Path) -> None:
    control = tmp_path / "edge-1.ssh"
    shared = replace(OF_LAB, control=control)
    shared.disconnect()
    control.touch()
    shared.disconnect()
    assert not control.exists()


@pytest.mark.parametrize(
    "url",
    ["ssh://", "http://a", "ssh://a b", "ssh://-oProxyCommand=x", "ssh://u@h:0", "ssh://h:99999"],
)
def test_what_is_not_an_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="not an SSH address"):
        ssh.parse(url)


def test_a_command_keeps_its_status_and_reads_its_input(answer: Path) -> None:
    answer.write_text("read word; echo got $word; echo oh >&2; exit 3\n")
    result = OF_LAB.run("anything", input="a secret\n")
    assert (result.status, result.stdout, result.stderr) == (3, "got a secret\n", "oh\n")
    lines: list[str] = []
    OF_LAB.run("anything", input="x\n", on_line=lines.append)
    assert sorted(lines) == ["got x", "oh"]


def test_no_answer_is_an_error_with_the_line_to_try(answer: Path) -> None:
    answer.write_text("echo Connection refused >&2; exit 255\n")
    with pytest.raises(NodeError, match=r"root@127\.0\.0\.1:2222 does not answer") as caught:
        OF_LAB.run("true")
    assert OF_LAB.line in caught.value.remedy
    with pytest.raises(NodeError) as caught:
        ssh.parse("ssh://me@there").run("true")
    assert "without asking" in caught.value.remedy


def test_the_key_of_a_lab_is_made_once_and_private(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab")
    first = lab.public_key
    assert first.startswith("ssh-ed25519 ")
    assert lab.public_key == first
    assert lab.path("keys", "id_ed25519").stat().st_mode & 0o777 == 0o600
    assert keys.host(lab, "builder", 2222).key == lab.path("keys", "id_ed25519")


def test_half_a_key_is_made_again(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab")
    # As a program leaves it that was killed before the secret half was there.
    lab.path("keys", "id_ed25519.pub").write_text("ssh-ed25519 old")
    line = lab.public_key
    derived = run.run(["ssh-keygen", "-y", "-f", lab.path("keys", "id_ed25519")]).stdout
    assert line.split()[1] == derived.split()[1]
    names = sorted(path.name for path in lab.path("keys", "x").parent.iterdir())
    assert names == [".lock", "id_ed25519", "id_ed25519.pub"]
    assert lab.path("keys", "id_ed25519").stat().st_mode & 0o777 == 0o600
