"""The way into image mode of each release, and the table of what was and what is."""

import re
import subprocess

import pytest

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.imagemode import Counterpart, PlanStep, counterparts, plan
from rfe_helpers.lab import profile

DATED = re.compile(r"\(20\d\d-(0[1-9]|1[0-2])\)")
EARLY = [name for name in profile.names() if not profile.load(name).image_mode.base]
LATER = [name for name in profile.names() if name not in EARLY]


def steps(name: str, blueprint: Blueprint | None = None) -> tuple[PlanStep, ...]:
    return plan(blueprint, profile.load(name), file="my edge.toml")


def commands(name: str, blueprint: Blueprint | None = None) -> str:
    return "\n".join(command for step in steps(name, blueprint) for command in step.commands)


@pytest.mark.parametrize("name", profile.names())
@pytest.mark.parametrize("blueprint", [None, Blueprint("edge", packages="tmux")])
def test_every_step_has_a_reason_and_a_source_and_is_shell(
    name: str, blueprint: Blueprint | None
) -> None:
    for step in steps(name, blueprint):
        assert step.title
        assert step.why
        assert DATED.search(step.source) or step.source.startswith("`rfe imagemode")
        assert not re.search(r"\{[a-z_]+\}", f"{step.why}{step.commands}")
        for command in step.commands:
            checked = subprocess.run(["sh", "-n"], input=command, text=True, capture_output=True)
            assert (checked.returncode, checked.stderr) == (0, ""), command


@pytest.mark.parametrize("name", EARLY)
def test_an_early_release_is_updated_first(name: str) -> None:
    (step,) = steps(name, Blueprint("edge", packages="tmux"))
    assert step.commands[-1] == "rfe imagemode plan --profile rhel-9.8"
    assert profile.load(name).title in step.why


@pytest.mark.parametrize("name", ["rhel-9.4", "rhel-9.6", "rhel-9.8", "centos-stream-9"])
def test_bootc_switches_where_the_commit_has_it_and_rpm_ostree_where_not(name: str) -> None:
    image = "registry.example.com/edge/os:stable"
    switch, rebase = (
        f"sudo bootc switch {image}",
        f"sudo rpm-ostree rebase ostree-unverified-registry:{image}",
    )
    assert switch in commands(name, Blueprint("edge", packages="bootc"))
    assert rebase not in commands(name, Blueprint("edge", packages="bootc"))
    assert rebase in commands(name, Blueprint("edge", packages="tmux"))
    assert switch not in commands(name, Blueprint("edge", packages="tmux"))
    assert f"then {switch}; else {rebase}" in commands(name)


def test_the_traps_of_rhel_are_on_the_way() -> None:
    text = "\n".join(map(str, steps("rhel-9.6")))
    for words in (
        "/etc/ostree/auth.json",
        "ssh_host_*_key",
        "x86-64-v3",
        "Rollback is not container image based",
        "layered packages",
        "Room in /boot",
        "bootc-fetch-apply-updates.timer",
        "podman build --from registry.redhat.io/rhel10/rhel-bootc",
        "registry.redhat.io/rhel9/bootc-image-builder:9.6",
        "ostreecontainer",
    ):
        assert words in text, words


def test_the_sandbox_uses_its_registry_without_tls_and_no_red_hat() -> None:
    text = "\n".join(map(str, steps("sandbox", Blueprint("edge"))))
    assert "podman push 127.0.0.1:5000/edge/os:stable" in text
    assert "sudo bootc switch 10.0.2.2:5000/edge/os:stable" in text
    assert "insecure = true" in text
    assert "registry.redhat.io" not in text
    assert "auth.json" not in text


@pytest.mark.parametrize("name", ["rhel-10", "rhel-10.1", "centos-stream-10"])
def test_a_release_with_image_mode_alone_sends_edge_machines_to_the_one_before(name: str) -> None:
    first, *rest = steps(name)
    (command,) = first.commands
    earlier = command.rpartition(" ")[2]
    assert profile.load(earlier).image_mode.next_base
    assert "sudo bootc upgrade" in str(rest)
    assert "rpm-ostree" not in str([step.commands for step in rest])


def test_image_builder_is_named_where_a_release_has_it() -> None:
    for name in LATER:
        facts = profile.load(name)
        named = "sudo image-builder build --bootc-ref" in commands(name)
        assert named == (facts.install.image_builder and bool(facts.image_mode.builder)), name


def test_a_blueprint_is_translated_and_what_is_missing_is_said() -> None:
    first, second, *_ = steps("rhel-9.6", Blueprint("edge", customizations={"fips": True}))
    assert first.commands == (
        "rfe imagemode containerfile 'my edge.toml' --profile rhel-9.6 --output edge-image",
    )
    assert second.why.startswith("customizations.fips: ")
    assert "customizations" not in str(steps("rhel-9.6", Blueprint("edge", packages="tmux")))


def test_braces_of_a_blueprint_stay_as_they_are() -> None:
    blueprint = Blueprint("edge", customizations={"{image}": 1})
    assert "customizations.{image}: remove it" in str(steps("rhel-9.6", blueprint)[1])


def test_the_table_has_a_source_and_a_date_in_every_row() -> None:
    rows = counterparts()
    assert len({row.edge for row in rows}) == len(rows) > 15
    for row in rows:
        assert isinstance(row, Counterpart)
        assert all((row.edge, row.image_mode, row.note))
        assert DATED.search(row.source), row.edge
    pairs = {row.edge.partition(":")[0]: row.image_mode for row in rows}
    assert pairs["blueprint"] == "Containerfile"
    assert pairs["rpm-ostree rebase"] == "bootc switch"
    assert pairs["edge-installer"].startswith("bootc-image-builder")
