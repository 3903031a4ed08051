"""Known traps in blueprints; and the templates, which have none."""

from pathlib import Path
from typing import Any

import pytest

from rfe_helpers.build import templates
from rfe_helpers.build.blueprint import Blueprint, PackageSpec, parse_toml, to_toml
from rfe_helpers.build.linter import lint
from rfe_helpers.cli import main
from rfe_helpers.errors import InputError, KickstartError
from rfe_helpers.fleet import description
from rfe_helpers.fleet.description import Device
from rfe_helpers.install import kickstart
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import customizations, image_types

EDGE = [name for name in profile.names() if not profile.load(name).instead]
HASH = "$6$salt$hash"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE somebody@somewhere"


def places(blueprint: Blueprint, name: str = "rhel-9.6", **options: Any) -> list[str]:
    findings = lint(blueprint, profile.load(name), **options)
    for finding in findings:
        assert finding.message
        assert finding.remedy
        assert finding.releases
        assert finding.releases in str(finding)
    return [finding.where for finding in findings]


def asking(**values: Any) -> Blueprint:
    return Blueprint(name="b", customizations=values)


def file(path: str, data: str = "") -> dict[str, Any]:
    return {"files": [{"path": path, "data": data}]}


def test_a_plain_blueprint_has_no_findings() -> None:
    blueprint = Blueprint(name="b", packages=(PackageSpec("tmux"),))
    for name in EDGE:
        assert places(blueprint, name) == []


@pytest.mark.parametrize("key", ["user", "group", "sshkey"])
def test_accounts_belong_to_the_kickstart(key: str) -> None:
    blueprint = asking(**{key: [{"name": "core", "user": "core", "password": HASH}]})
    assert places(blueprint) == [f"customizations.{key}"]
    assert places(blueprint, image_type="edge-container") == [f"customizations.{key}"]
    assert places(blueprint, image_type="edge-installer") == []
    (finding,) = lint(blueprint, profile.load("rhel-9.6"))
    assert "9.2" in finding.releases
    assert "2968" in finding.message


@pytest.mark.parametrize("image_type", ["edge-installer", "rhel-edge-installer", "edge-raw-image"])
def test_what_deploys_a_commit_has_no_packages(image_type: str) -> None:
    blueprint = Blueprint(name="b", packages=(PackageSpec("tmux"),), groups=("core",))
    assert places(blueprint, image_type=image_type) == ["packages", "groups"]


def test_a_distro_that_the_server_does_not_have() -> None:
    blueprint = Blueprint(name="b", distro="rhel-96")
    assert places(blueprint, distros=("rhel-9.6", "rhel-8.10")) == []
    assert places(blueprint, distros=("rhel-8.10",)) == ["distro"]
    (finding,) = lint(blueprint, profile.load("rhel-9.6"), distros=("rhel-8.10",))
    assert "RHEL 8 server only RHEL 8" in finding.releases
    # The server's distributions are not known: only the profile counts.
    assert places(blueprint) == []
    assert places(blueprint, "rhel-8.10") == ["distro"]


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("/etc/motd", True),
        ("/usr/local/bin/x", True),
        ("/root/.bashrc", True),
        ("/etc/passwd", False),
        ("/usr/bin/x", False),
        ("/var/lib/x", False),
        ("/etc/../usr/x", False),
        ("/etcetera", False),
    ],
)
def test_files_have_their_places(path: str, fits: bool) -> None:
    assert places(asking(**file(path))) == ([] if fits else ["customizations.files[0]"])
    listed = asking(directories=[{"path": path}])
    fits = fits and path.startswith("/etc/")
    assert places(listed) == (
        [] if fits or path == "/etc/passwd" else ["customizations.directories[0]"]
    )


def test_quadlets_own_directory_and_its_releases() -> None:
    wrong, right = "/etc/container/systemd/a.container", "/etc/containers/systemd/a.container"
    for name in ("rhel-8.4", "rhel-9.6"):
        assert places(asking(**file(wrong)), name) == ["customizations.files[0]"]
    assert places(asking(**file(right)), "rhel-9.2") == []
    assert places(asking(**file(right)), "rhel-9.1") == ["customizations.files[0]"]


def test_the_policy_apply_and_its_releases() -> None:
    applying = asking(**file("/etc/rpm-ostreed.conf", "[Daemon]\nAutomaticUpdatePolicy=apply\n"))
    assert places(applying, "rhel-9.6") == []
    assert places(applying, "rhel-9.2") == ["customizations.files[0]"]
    staging = asking(**file("/etc/rpm-ostreed.conf", "[Daemon]\nAutomaticUpdatePolicy=stage\n"))
    assert places(staging, "rhel-9.2") == []


def test_kernel_arguments_and_file_systems_are_not_of_a_commit() -> None:
    assert places(asking(kernel={"name": "kernel-rt"})) == []
    assert places(asking(kernel={"append": "quiet"})) == ["customizations.kernel.append"]
    assert places(asking(filesystem=[{"mountpoint": "/var"}])) == ["customizations.filesystem"]
    assert places(asking(hostname="x"), image_type="edge-installer") == ["customizations.hostname"]
    assert places(asking(kernel={"append": "quiet"}), image_type="edge-raw-image") == []


def test_a_simplified_installer_needs_a_disk_and_one_key() -> None:
    kind = {"image_type": "edge-simplified-installer"}
    assert places(Blueprint(name="b"), **kind) == ["customizations.installation_device"]
    assert places(asking(installation_device="/dev/vda"), **kind) == []
    fdo = {"manufacturing_server_url": "http://m", "diun_pub_key_insecure": "true"}
    assert places(asking(installation_device="/dev/vda", fdo=fdo), **kind) == []
    two = {**fdo, "diun_pub_key_hash": "x"}
    assert places(asking(installation_device="/dev/vda", fdo=two), **kind) == ["customizations.fdo"]
    both = {"embedded": {"config": "e"}, "firstboot": {"url": "http://i"}}
    assert places(asking(installation_device="/dev/vda", ignition=both), **kind) == [
        "customizations.ignition"
    ]


def test_a_password_in_clear_text() -> None:
    user = {"name": "core", "password": "edge"}
    assert places(asking(user=[user]), image_type="edge-installer") == [
        "customizations.user[0].password"
    ]


def test_a_type_that_the_release_does_not_have() -> None:
    plain = Blueprint(name="b")
    assert places(plain, "rhel-8.3", image_type="edge-container") == ["image type"]
    assert places(plain, "rhel-8.4", image_type="edge-container") == []
    assert places(plain, "fedora-iot", image_type="edge-commit") == ["image type"]
    assert places(plain, "rhel-10", image_type="edge-commit") == ["image type"]
    assert places(plain, image_type="guest-image") == []


# templates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EDGE)
def test_the_templates_are_blueprints_without_findings(name: str) -> None:
    release = profile.load(name)
    kinds = {
        "edge": release.types.container or release.types.commit,
        "installer": release.types.installer,
        "demo": release.types.commit,
    }
    assert set(kinds) == {*templates.NAMES, "demo"}
    demo = to_toml(description.demo(release))
    for template, kind in kinds.items():
        blueprint = parse_toml(demo if template == "demo" else templates.text(template))
        assert lint(blueprint, release, kind) == ()
        # The rules of the API contract, as the sandbox's service holds them.
        mine = {"edge": "edge-container", "installer": "edge-installer", "demo": "edge-commit"}
        image_type = image_types.find(mine[template])
        assert image_type is not None
        customizations.check(blueprint, image_type)
    with pytest.raises(InputError, match="no blueprint"):
        templates.text("nonsense")


@pytest.mark.parametrize("name", EDGE)
def test_both_kickstarts_are_read_by_the_installer_of_the_release(name: str) -> None:
    """edge.ks and edge2.ks; `render` reads what it has made with pykickstart."""
    release = profile.load(name)
    described = Device(quadlet=release.device.quadlet, image="10.0.2.2:5000/edge/application:1")
    for post in ("", description.post(described)):
        text = kickstart.render(
            release,
            url=f"http://10.0.2.2:{release.container.port}/repo/",
            user="core",
            password_hash=HASH,
            ssh_key=KEY,
            post=post,
        )
        assert kickstart.validate(text, release.kickstart.version) == ()
        assert f"--osname={release.ostree.osname} --remote={release.ostree.remote}" in text
        assert f"--ref={release.ostree.ref}" in text
    with pytest.raises(KickstartError, match="line 1"):
        kickstart.validate("frobnicate\n", release.kickstart.version)


def test_commands_print_templates_and_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["blueprint", "template", "demo", "--profile", "rhel-8.4"]) == 0
    path = tmp_path / "b.toml"
    path.write_text(capsys.readouterr().out)
    assert main.main(["blueprint", "lint", str(path), "--profile", "rhel-8.4"]) == 0
    assert "nothing to say" in capsys.readouterr().out
    path.write_text('name = "b"\n[[customizations.user]]\nname = "core"\npassword = "edge"\n')
    assert main.main(["blueprint", "lint", str(path), "--profile", "rhel-9.6"]) == 1
    output = capsys.readouterr().out
    assert "issue 2968" in output
    assert "clear text" in output
    assert main.main(["blueprint", "lint", str(path), "--json"]) == 1
    assert '"where": "customizations.user"' in capsys.readouterr().out
    assert main.main(["blueprint", "lint", str(tmp_path / "gone")]) == 1
    assert "No such file" in capsys.readouterr().err
