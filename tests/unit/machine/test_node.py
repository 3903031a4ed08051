"""The node's client, with `ssh` replaced by a fake command on PATH."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer

import pytest
from support.greeting import greeting

from rfe_helpers.core.network import free_port
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import DeadlineExceededError, NodeError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.node import Node

BOOTED = {
    "checksum": "a" * 64,
    "version": "13.1",
    "origin": "edge:debian/13/x86_64/edge",
    "osname": "debian-edge",
    "timestamp": 1795468038,
    "booted": True,
    "staged": False,
    "pinned": False,
}
STAGED = {**BOOTED, "checksum": "b" * 64, "version": "13.2", "booted": False, "staged": True}
OLD = {**BOOTED, "checksum": "c" * 64, "version": "13.0", "booted": False}


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[int]:
    down = tmp_path / "down"  # how often it does not greet yet, one line for each time

    def greets() -> bool:
        lines = down.read_text().splitlines() if down.exists() else []
        if lines:
            down.write_text("\n".join(lines[1:]))
        return not lines

    with greeting(greets) as port:
        yield port


@pytest.fixture
def node(tmp_path: Path, sshd: int) -> Node:
    return Node(Lab(tmp_path / "lab"), "edge-1", port=sshd)


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake ssh: it records its last argument (the command) and runs the script `answer`."""
    answer = tmp_path / "answer"
    answer.write_text("")
    binary = tmp_path / "bin" / "ssh"
    binary.parent.mkdir()
    commands = tmp_path / "commands"
    binary.write_text(f'#!/bin/sh\nfor c; do :; done; echo "$c" >> {commands}\n. {answer}\n')
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}:/usr/bin:/bin")
    return answer


def answer_with(ssh: Path, *deployments: dict[str, object]) -> None:
    document = json.dumps({"deployments": list(deployments)})
    ssh.write_text(f"cat <<'END'\n{document}\nEND\n")


def test_status_tells_booted_pending_and_rollback_apart(node: Node, ssh: Path) -> None:
    answer_with(ssh, STAGED, BOOTED, OLD)
    status = node.status()
    assert status.booted.version == "13.1"
    assert status.pending is not None
    assert status.pending.staged
    assert status.rollback is not None
    assert status.rollback.version == "13.0"


def test_one_deployment_has_no_pending_and_no_rollback(node: Node, ssh: Path) -> None:
    answer_with(ssh, BOOTED)
    assert node.status().pending is None
    assert node.status().rollback is None


def test_a_status_that_cannot_be_parsed_is_one_clear_error(node: Node, ssh: Path) -> None:
    ssh.write_text("echo '{\"deployments\": [{}]}'\n")
    with pytest.raises(NodeError, match="rpm-ostree status --json cannot be parsed"):
        node.status()


def test_a_failing_command_keeps_its_message(node: Node, ssh: Path) -> None:
    ssh.write_text("echo 'error: no such remote' >&2; exit 1\n")
    with pytest.raises(NodeError, match="ended with 1: error: no such remote"):
        node.upgrade()


def test_a_machine_that_is_not_there_names_the_remedy(node: Node, ssh: Path) -> None:
    ssh.write_text("echo 'Connection refused' >&2; exit 255\n")
    with pytest.raises(NodeError, match="does not answer over SSH") as caught:
        node.run("true")
    assert f"-p {node.port} core@127.0.0.1" in caught.value.remedy


def test_root_commands_are_quoted_once(node: Node, ssh: Path, tmp_path: Path) -> None:
    node.sudo("echo 'a b' > /etc/marker")
    commands = (tmp_path / "commands").read_text()
    assert commands == "sudo sh -c 'echo '\"'\"'a b'\"'\"' > /etc/marker'\n"


def test_waiting_ends_only_with_another_boot(node: Node, ssh: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    ssh.write_text(f"echo x >> {count}; [ $(wc -l < {count}) -gt 1 ] && echo new || echo old\n")
    assert node.wait(Deadline(20), not_boot="old") == "new"


def test_a_reboot_asks_nothing_of_a_system_that_goes_down(
    node: Node, ssh: Path, tmp_path: Path
) -> None:
    down = tmp_path / "down"
    ssh.write_text(
        f"""case $c in
        *reboot*) printf 'x\nx\n' > {down};;
        *) test -e {down} && echo new || echo old; test ! -s {down} || echo asked too early;;
        esac"""
    )
    assert node.reboot(Deadline(20)) == "new"


def test_a_machine_that_never_answers_ends_with_the_deadline(node: Node, ssh: Path) -> None:
    ssh.write_text("exit 255\n")
    with pytest.raises(DeadlineExceededError, match="edge-1 answers over SSH: not within 1 s"):
        node.wait(Deadline(1))


def test_no_ssh_is_started_before_the_machine_greets(ssh: Path, tmp_path: Path) -> None:
    node = Node(Lab(tmp_path / "lab"), "edge-1", port=free_port() or 0)
    with pytest.raises(DeadlineExceededError):
        node.wait(Deadline(1))
    assert not (tmp_path / "commands").exists()


def test_another_host_key_than_before_is_not_waited_for(node: Node, ssh: Path) -> None:
    ssh.write_text("echo 'Host key verification failed.' >&2; exit 255\n")
    with pytest.raises(NodeError, match="edge-1 has another host key than before") as caught:
        node.wait(Deadline(20))
    assert "known_hosts-edge-1" in caught.value.remedy
    with pytest.raises(NodeError, match="another host key"):
        node.run("true")


class Booting:
    """A machine whose console is a text."""

    text = "Started ssh.service, in the boot before\n"

    @property
    def console_size(self) -> int:
        return len(self.text)

    def console(self, begins: int = 0) -> str:
        return self.text[begins:]

    def wait_until(self, ready, deadline, what, on_progress=None, *, every):  # type: ignore[no-untyped-def]
        return wait_for(ready, deadline, what, every=every)


@pytest.mark.parametrize(
    "line",
    [
        "[  OK  ] Started ssh.service - OpenBSD Secure Shell server.",
        "[  OK  ] Started OpenSSH server daemon.",
    ],
)
def test_the_server_is_tried_when_the_console_says_that_it_runs(
    line: str, ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, tries = Booting(), []
    monkeypatch.setattr("rfe_helpers.machine.node.Machine.find", lambda lab, name: machine)
    ssh.write_text("echo new\n")

    def greets() -> bool:
        tries.append(len(tries))
        return len(tries) > 1

    def appears() -> None:
        machine.text += f"{line}\n"

    with greeting(greets) as port:
        node = Node(Lab(tmp_path / "lab"), "edge-1", port=port)
        timer = Timer(1, appears)
        timer.start()
        assert node.wait(Deadline(4)) == "new"
        timer.join()
    assert len(tries) == 2


def test_a_server_that_runs_may_greet_late(
    ssh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Booting()
    monkeypatch.setattr("rfe_helpers.machine.node.Machine.find", lambda lab, name: machine)
    ssh.write_text("echo new\n")

    def greets() -> bool:
        machine.text += "[  OK  ] Started ssh.service\n"
        time.sleep(2)
        return True

    with greeting(greets) as port:
        assert Node(Lab(tmp_path / "lab"), "edge-1", port=port).wait(Deadline(9)) == "new"
