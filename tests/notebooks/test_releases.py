"""Notebook 10 for releases that cannot be had here: the machine is reached through a fake ssh, its
programs are recorders, its Image Builder answers as osbuild-composer does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import asdict
from support.canned import Reply, Request, json_reply, serving
from support.rhel import Rhel, commands, files_with

from rfe_helpers.core import journal
from rfe_helpers.lab import profile
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.headless import find_notebooks, run_notebooks

pytestmark = pytest.mark.timeout(300)

PASSWORD = "correct-horse-battery"
PARAMETERS = {"builder": "ssh://core@builder.example"}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rhel]:
    socket = tmp_path / "api.sock"

    def answer(request: Request) -> Reply:
        if request.path == "/api/status":
            return json_reply(
                {"api": "1", "backend": "osbuild-composer", "build": "of the release"}
            )
        if "distros" in request.path:
            return json_reply({"distros": [profile.load(name).distro for name in profile.names()]})
        distro = request.path.partition("distro=")[2]
        known = next(p for p in map(profile.load, profile.names()) if p.distro == distro)
        types = [name for name in asdict(known.types).values() if name]
        return json_reply({"types": [{"name": name, "enabled": True} for name in types]})

    found = Rhel(tmp_path / "there", socket)
    monkeypatch.setenv("PATH", f"{found.path}:/usr/bin:/bin:/usr/sbin")
    monkeypatch.setenv("RHSM_USERNAME", "somebody")
    monkeypatch.setenv("RHSM_PASSWORD", PASSWORD)
    with serving(socket, answer):
        socket.chmod(0o660)
        yield found


@pytest.mark.parametrize("name", ["rhel-8.3", "rhel-9.4", "centos-stream-9"])
def test_notebook_10_does_what_the_release_needs_once(
    name: str, there: Rhel, tmp_path: Path
) -> None:
    lab = Lab(tmp_path / "lab", name)
    for expected in (commands(name, "somebody", PASSWORD), []):
        there.forget_calls()
        summary = run_notebooks(find_notebooks(["10"]), lab, PARAMETERS, lambda line: None)
        assert summary.notebooks[0].failure is None
        assert there.done() == expected
    assert lab.step("image-builder")["builder"] == PARAMETERS["builder"]
    log = lab.log("install-image-builder").read_text()
    assert "$ dnf install" in log or "$ yum install" in log
    assert files_with(PASSWORD, tmp_path) == []
    lab.sweep()
    journal.open_journal(None)


def test_a_wrong_password_ends_the_notebook_with_the_reason(there: Rhel, tmp_path: Path) -> None:
    there.fail("register", 70, f"Invalid username or password {PASSWORD}.")
    lab = Lab(tmp_path / "lab", "rhel-9.4")
    summary = run_notebooks(find_notebooks(["10"]), lab, PARAMETERS, lambda line: None)
    failure = summary.notebooks[0].failure
    assert failure is not None
    assert "does not accept this user and password" in failure.message
    assert files_with(PASSWORD, lab.directory) == []
    journal.open_journal(None)
