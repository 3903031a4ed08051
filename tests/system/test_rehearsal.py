"""The way to a real Image Builder, rehearsed: the sandbox's guest image in place of Red Hat's, its
service in place of the package. All between is real: the machine, cloud-init, SSH, systemd's
sockets, the forwarding, the web console.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import chromium
from support.rhel import RELEASES, Rhel, commands, files_with
from support.trees import make_tree

from rfe_helpers import build, serve
from rfe_helpers.build import remote
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import ApiError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import guest
from rfe_helpers.workbook.headless import find_notebooks, run_notebooks

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]

PASSWORD = "correct-horse-battery"
PARAMETERS = {"builder": "vm", "minutes": "45"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab in which notebook 10 has set up a guest."""
    lab = Lab(tmp_path_factory.mktemp("rehearsal") / "lab", "sandbox")
    yield lab
    remote.stop_guest(lab)
    lab.clean()


def notebook_10(lab: Lab) -> dict[str, bool]:
    """Run it; which steps had been done before, by title."""
    summary = run_notebooks(find_notebooks(["10"]), lab, PARAMETERS, print)
    failure = summary.notebooks[0].failure
    assert failure is None, failure
    executed = json.loads(summary.notebooks[0].executed.read_text())
    cell = next(cell for cell in executed["cells"] if cell["id"] == "nb10-21-code")
    texts = ["".join(each.get("data", {}).get("text/plain", "")) for each in cell["outputs"]]
    (text,) = [text for text in texts if text.startswith("step ")]
    rows = [line.rstrip().rpartition("  ") for line in text.splitlines()[2:]]
    return {title.strip(): outcome == "was done" for title, _, outcome in rows}


def test_notebook_10_sets_up_a_guest_once(lab: Lab) -> None:
    first = notebook_10(lab)
    # The image has the packages, so that no network is needed; all else is done now.
    assert {title for title, was_done in first.items() if was_done} == {
        "look for room",
        "install Image Builder",
    }
    assert set(first) > {"copy the sandbox's service", "enable cockpit.socket"}
    again = notebook_10(lab)
    assert set(again) == set(first)
    assert all(again.values())


def test_the_socket_there_is_systemds_and_starts_the_service(lab: Lab) -> None:
    started = guest.find(lab)
    assert started is not None
    assert started.host.run("stat -c '%U %G %a' /run/weldr/api.socket").stdout == "root weldr 660\n"
    shown = started.host.run("systemctl show -P TriggeredBy osbuild-composer.service").stdout
    assert "osbuild-composer.socket" in shown
    assert started.host.run("systemctl is-active osbuild-composer").stdout == "active\n"
    # A service that is stopped is started by the next request, and so is a forwarding.
    started.host.run("systemctl stop osbuild-composer.service")
    assert remote.stop(lab)
    assert build.connect(lab).status().api == "1"


def test_a_compose_goes_through_the_forwarded_socket(lab: Lab) -> None:
    client = build.connect(lab)
    assert client.socket.parent == lab.socket("x").parent
    client.push('name = "rehearsal"\n[customizations.installer]\nunattended = true\n')
    url = "http://10.0.2.2:8000/repo"
    started = client.start_compose("rehearsal", "edge-installer", url=url, test=2)
    assert client.wait(started.id, Deadline(120)).status == "FINISHED"
    assert [each.id for each in client.composes()] == [started.id]


def test_image_builder_there_finds_the_repository_that_is_served_here(lab: Lab) -> None:
    repo = Repo(lab.path("www", "made")).init()
    tar = make_tree(lab.path("build", "tree.tar"), {"usr/bin/hello": "hi"})
    ref = lab.profile.ostree.ref
    repo.commit_tar(tar, ref, subject="s", bootable=False)
    site = serve.publish(lab, repo.path)
    client = build.connect(lab)
    with pytest.raises(ApiError, match="404"):
        client.start_compose("rehearsal", "edge-installer", ref="no/such", url=site.repo_url)
    started = client.start_compose("rehearsal", "edge-installer", ref=ref, url=site.repo_url)
    client.cancel(started.id)
    client.delete_compose(started.id)
    serve.stop(lab)


def test_cloud_init_takes_what_it_was_told(lab: Lab) -> None:
    started = guest.find(lab)
    assert started is not None
    ran = started.host.run(
        "cloud-init schema --system && hostname && df --output=size -BG / | tail -1"
    )
    assert ran.status == 0, ran.stdout + ran.stderr
    # The disk is that of the lab, and its file system has grown into it.
    assert "builder\n" in ran.stdout
    assert int(ran.stdout.split()[-1].rstrip("G")) > 35


def test_the_web_console_lets_root_in(lab: Lab, tmp_path: Path) -> None:
    started = guest.find(lab)
    assert started is not None
    with chromium() as browser:
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.set_default_timeout(240_000)
        page.goto(started.console_url)
        page.fill("#login-user-input", "root")
        page.screenshot(path=lab.path("logs", "console-login.png"))
        page.fill("#login-password-input", guest.PASSWORD)
        page.click("#login-button")
        page.wait_for_selector("#content", state="attached")
        page.screenshot(path=lab.path("logs", "console.png"))
        assert page.locator("#login-user-input:visible").count() == 0


def test_a_release_is_registered_and_installed_over_the_same_way(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RHEL's programs are recorders in the guest; the person's own ssh leads there."""
    name = "rhel-9.4"
    started = guest.find(lab)
    assert started is not None
    host = started.host
    rhel = Rhel(tmp_path / "rhel")
    for program in ("subscription-manager", "dnf", "rpm"):
        text = (tmp_path / "rhel/there" / program).read_text()
        text = text.replace(sys.executable, "/usr/bin/python3").replace(
            str(rhel.state), "/root/state"
        )
        target = f"/usr/local/bin/{program}"
        host.run(f"mkdir -p /root/state/fails; cat >{target}; chmod 755 {target}", input=text)
    monkeypatch.setenv("RHSM_USERNAME", "somebody")
    monkeypatch.setenv("RHSM_PASSWORD", PASSWORD)
    own = tmp_path / "config"
    own.write_text(
        f"Host builder.example\n  HostName 127.0.0.1\n  Port {host.port}\n  User root\n"
        f"  IdentityFile {host.key}\n  UserKnownHostsFile {host.known_hosts}\n"
    )
    binary = tmp_path / "bin" / "ssh"
    binary.parent.mkdir()
    binary.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {own} "$@"\n')
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}:/usr/bin:/bin:/usr/sbin")
    there = Lab(tmp_path / "lab", name)
    where = "ssh://builder.example"
    planned = remote.steps(there, where)
    remote.install(there, where, planned)
    again = remote.install(there, where, planned)
    assert all(outcome.was_done for outcome in again)
    calls = host.run("cat /root/state/calls.jsonl").stdout.splitlines()
    done = [" ".join(call["argv"]) for call in map(json.loads, calls) if call["do"]]
    # The sockets are enabled since notebook 10, by the real systemctl.
    assert done == commands(name, "somebody", PASSWORD)[: 1 + len(RELEASES[name])]
    assert build.connect(there, where).status().build.startswith("rfe-sandbox")
    there.sweep()
    assert files_with(PASSWORD, tmp_path, lab.directory / "logs") == []
    found = host.run(f"grep -rlF {PASSWORD} /root /etc /var /tmp /run /opt 2>/dev/null").stdout
    assert found == ""


def test_a_machine_that_was_switched_off_is_started_again(lab: Lab) -> None:
    assert remote.stop_guest(lab)
    assert guest.find(lab) is None
    client = build.connect(lab)
    assert client.blueprints() == ("rehearsal",)
    again = guest.find(lab)
    assert again is not None


def test_vm_runs_an_image_and_forgets_what_was_written(lab: Lab, tmp_path: Path) -> None:
    remote.stop_guest(lab)
    image = build.guest_image(lab)
    before = image.stat().st_mtime_ns
    command = [sys.executable, "-m", "rfe_helpers.cli.vm", str(image), "--headless"]
    command += ["--lab", str(lab.directory), "--name", "try", "--memory", "1G"]
    # A shell's job in the background ignores Ctrl-C, and so would what it starts.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            said += process.stdout.readline()
        started = guest.find(lab, "try")
        assert started is not None
        started.wait(Deadline(1200))
        assert started.host.run("echo x >/root/written; sync").status == 0
        process.send_signal(signal.SIGINT)
        said += process.stdout.read()
        assert process.wait(timeout=300) == 0
    assert f"127.0.0.1:{started.port(22)} -> 22" in said
    assert "switching it off" in said
    assert guest.find(lab, "try") is None
    assert image.stat().st_mtime_ns == before
