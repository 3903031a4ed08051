"""Notebooks 80 and 85 with one real device: it stages, waits, applies; its application starts,
restarts, is updated, goes back.

What the notebooks check themselves (their `check` cells fail the run) is not repeated here; this
looks at the device afterwards, and at what was shown.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from rfe_helpers import serve
from rfe_helpers.fleet import survey
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.vm import Machine
from rfe_helpers.serve import registry
from rfe_helpers.workbook.chapters import number_of

pytestmark = [pytest.mark.full, pytest.mark.timeout(5400)]
RFE = Path(sys.executable).parent / "rfe"
FLEET = "80-a-fleet-that-updates-itself.ipynb"
APPLICATIONS = "85-applications-of-a-fleet.ipynb"
PROMISES = {
    FLEET: (
        "the commit brings podman",
        "all devices still run the old commit",
        "no device has rebooted: the boot ids are the same",
        "all devices have rebooted",
        "jq has come with the update",
    ),
    APPLICATIONS: (
        "systemd waits until the application says that it is ready",
        "systemd has started the application again",
        "version 2 answers",
        "podman has rolled the application back",
        "version 3 was tried, and failed",
        "no device has anything to update",
    ),
}


def rfe(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RFE, *arguments], capture_output=True, text=True, timeout=5400)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("fleet") / "lab", "sandbox")
    yield lab
    lab.clean(serve.remove_container)


def shown(lab: Lab, name: str, *arguments: str) -> str:
    """What a notebook shows when it runs, after those in `arguments`."""
    options = ["--json", "--lab", str(lab.directory), "-p", "keep", "1"]
    result = rfe("run", *arguments, number_of(name), *options)
    print(result.stderr)
    assert result.returncode == 0, result.stderr[-4000:]
    executed = Path(json.loads(result.stdout)["report"]).parent / name
    cells = nbformat.read(executed, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    texts = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs]
    return "\n".join(texts)


@pytest.fixture(scope="module")
def outputs(lab: Lab) -> dict[str, str]:
    """What each notebook has shown, with one device, which they leave running. In between it is
    off: 85 has to start it again from its disk."""
    fleet = shown(lab, FLEET, "-p", "devices", "1", "10")
    machine = Machine.find(lab, "device-1")
    assert machine is not None
    machine.stop()
    return {FLEET: fleet, APPLICATIONS: shown(lab, APPLICATIONS)}


@pytest.fixture
def device(lab: Lab, outputs: dict[str, str]) -> Node:
    assert Machine.find(lab, "device-1") is not None
    return Node(lab, "device-1", port=lab.port("ssh-device-1", 2230))


def test_the_notebooks_keep_their_promises(outputs: dict[str, str]) -> None:
    for name, promises in PROMISES.items():
        for promise in promises:
            assert f"✔ {promise}" in outputs[name]
    assert re.search(r"application\.service.*rolled back", outputs[APPLICATIONS])
    assert "rebooting from 13." in outputs[FLEET]


def test_exercises_are_open_at_first(outputs: dict[str, str]) -> None:
    assert "○ still open: a maintenance window on Sundays only" in outputs[FLEET]
    assert "○ still open: version 4 of the application on all devices" in outputs[APPLICATIONS]


def test_the_device_is_as_the_lab_has_recorded(lab: Lab, device: Node) -> None:
    fleet = lab.step("fleet")
    found = registry.find(lab)
    assert found is not None
    state = survey.ask(device)
    assert (state.booted, state.staged) == (fleet["update"], "")
    assert state.digest
    rollback = state.status.rollback if state.status else None
    assert rollback is not None
    assert rollback.checksum == fleet["first"]
    assert found.tags("edge/application") == ("stable",)
    assert lab.step("applications")["digest"] == state.digest


def test_all_its_units_pass_verify_where_they_run(device: Node) -> None:
    """With the device's own systemd, and the service that its podman makes of the Quadlet."""
    made = "/run/systemd/generator/application.service"
    units = f"applyupdate.timer applyupdate.service {survey.LOOKS} {survey.PODMAN} {made}"
    result = device.sudo(f"systemd-analyze verify --man=no {units} 2>&1", check=False)
    assert (result.status, result.stdout) == (0, "")


def test_no_unit_of_it_has_failed(device: Node) -> None:
    failed = device.run("systemctl --failed --plain --no-legend", check=False).stdout
    names = [line.split()[0] for line in failed.splitlines()]
    assert not {"applyupdate.service", "application.service"} & set(names)
    assert "rpm-ostreed-automatic.service" not in names


@pytest.mark.parametrize("policy", ["none", "check", "apply"])
def test_the_other_policies_do_what_they_say(device: Node, policy: str) -> None:
    """Nothing new is offered here, so "apply" has nothing to reboot for."""
    text = f"[Daemon]\\nAutomaticUpdatePolicy={policy}\\n"
    device.sudo(f"printf '{text}' > /etc/rpm-ostreed.conf")
    boot = device.boot_id()
    device.sudo("systemctl start --wait rpm-ostreed-automatic.service")
    said = device.sudo(
        "journalctl --no-pager --output=cat --unit=rpm-ostreed-automatic --since=-10min"
    ).stdout
    expected = {
        "none": "automatic updates are disabled",
        "check": "No updates available.",
        "apply": "No upgrade available.",
    }
    assert expected[policy] in said
    assert device.boot_id() == boot
