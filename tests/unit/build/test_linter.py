"""Known traps in blueprints; and the templates, which have none."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from rfe_helpers.build import templates
from rfe_helpers.build.blueprint import Blueprint, PackageSpec, parse_toml, to_toml
from rfe_helpers.build.linter import lint
from rfe_helpers.cli import main
from rfe_helpers.cli.shared import LONGEST_TEXT
from rfe_helpers.errors import InputError, KickstartError
from rfe_helpers.fleet import description
from rfe_helpers.fleet.description import Device
from rfe_helpers.install import kickstart
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import customizations, image_types

from .test_blueprint import EXAMPLE

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
    account = {"user": {"name": "core", "password": HASH}, "group": {"name": "core"}}
    blueprint = asking(**{key: [account.get(key, {"user": "core", "key": KEY})]})
    assert places(blueprint) == [f"customizations.{key}"]
    assert places(blueprint, image_type="edge-container") == [f"customizations.{key}"]
    assert places(blueprint, "centos-stream-9", image_type="edge-installer") == []
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


def test_what_image_builder_refuses_at_push_is_reported_once() -> None:
    assert places(asking(**file("/etc/../usr/x"))) == ["customizations.files[0].path"]
    wrong = asking(filesystem=[{"mountpoint": "/", "minsize": "5 gib"}])
    assert places(wrong, image_type="edge-raw-image") == ["customizations.filesystem[0].minsize"]


def test_what_contradicts_itself() -> None:
    twice = [{"path": "/etc/app"}, {"path": "/etc/app/x"}]
    assert places(asking(files=twice)) == ["customizations.files[0].path"]
    both = asking(files=twice[:1], directories=twice[:1])
    assert places(both) == ["customizations.files[0].path"]
    contents = {"kickstart": {"contents": "text\n"}}
    contrary = asking(installer=contents, group=[{"name": "ops"}])
    place = ["customizations.installer.kickstart"]
    assert places(contrary, "rhel-9.4", image_type="edge-installer") == place


def test_kernel_arguments_and_file_systems_are_not_of_a_commit() -> None:
    assert places(asking(kernel={"name": "kernel-rt"})) == []
    assert places(asking(kernel={"append": "quiet"})) == ["customizations.kernel.append"]
    filesystem = [{"mountpoint": "/var", "minsize": "1 GiB"}]
    assert places(asking(filesystem=filesystem)) == ["customizations.filesystem"]
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


# the commonest mistakes -----------------------------------------------------------------------

MISTAKES = """\
version = "1.0"
hostname = "edge-1"

[[package]]
name = "tmux"

[[packages]]
nmae = "htop"

[customizations]
hostnmae = "edge"
HostName = "my host!"
name = "edge"
frobnicate = 1

[customizations.timezone]
timezone = "Mars/Base"

[[customizations.firewall.zones]]
name = "a"
[[customizations.firewall.zones]]
source = ["x"]

[customizations.user]
name = "core"
"""
LINES = [
    (0, "name", "missing", 'name = "edge"'),
    (1, "version", "1.0 is not X.Y.Z", "0.0.1"),
    (2, "hostname", "unknown key", "did you mean `customizations.hostname`?"),
    (4, "package", "unknown key", "did you mean `packages`?"),
    (7, "packages[0]", "has no name", "tmux"),
    (8, "packages[0].nmae", "unknown key", "did you mean `name`?"),
    (11, "customizations.hostnmae", "unknown key", "did you mean `hostname`?"),
    (12, "customizations.hostname", "'my host!' is not a host name", "letters"),
    (13, "customizations.name", "unknown key", "move `name` to the top"),
    (
        14,
        "customizations.frobnicate",
        "unknown key",
        "remove it; known here are bootloader, cacerts, ",
    ),
    (17, "customizations.timezone.timezone", "no time zone 'Mars/Base'", "list-timezones"),
    (22, "customizations.firewall.zones[1].source", "unknown key", "did you mean `sources`?"),
    (24, "customizations.user", "must be a list", "write [[customizations.user]]"),
]


def test_a_text_has_all_its_mistakes_reported_at_once_with_their_lines() -> None:
    findings = lint(MISTAKES, profile.load("rhel-9.6"))
    assert [(each.line, each.where) for each in findings] == [line[:2] for line in LINES]
    for finding, (_, _, message, remedy) in zip(findings, LINES, strict=True):
        assert message in finding.message
        assert remedy in finding.remedy
        assert finding.column == 0


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ('name = "edge"\n[[packages]\n', 2, 11, "Expected ']]'"),
        ('name = "edge"\nname = "edge"\n', 2, 14, "Cannot overwrite a value"),
        ("name = edge\n", 1, 8, "Invalid value"),
        ('\nname = """edge', 2, 0, "Unterminated string"),
        ("name = [1,", 1, 0, "Invalid value (at end of document)"),
        ("a=" + "[" * 3000 + "]" * 3000, 0, 0, "nested too deeply"),
        ("name = 99999999999999999999", 0, 0, "more than 64 bits"),
    ],
)
def test_what_is_not_toml_has_its_line_and_column(
    text: str, line: int, column: int, words: str
) -> None:
    (finding,) = lint(text, profile.load())
    assert (finding.line, finding.column) == (line, column)
    assert words in finding.message
    assert "(at line" not in finding.message


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ('packages = ["tmux"]', "must be a table", 'below it name = "tmux"'),
        ('packages = "tmux"', "must be a list", "write [[packages]]"),
        ("[[customizations]]", "must be a table", "write [customizations]"),
        ('customizations.locale.languages = "C"', "must be a list", 'write ["…", "…"]'),
        ("version = 1", "must be a string, not int", 'text in quotes: "…"'),
        ('customizations.fips = "yes"', "must be true or false, not str", "without quotes"),
        ('description = "a"\n[[groups]]\nnam = "b"', "unknown key", "`name`"),
        ('"we[ird" = 1', "unknown key", "remove it"),
        ('[[customizations.repositories]]\nbaseurl = ["x"]', "unknown key", "`baseurls`"),
        ("[customizations.openscap.tailoring]\nselect = []", "unknown key", "`selected`"),
    ],
)
def test_each_mistake_says_how_to_write_it(text: str, message: str, remedy: str) -> None:
    (finding,) = lint(f'name = "b"\n{text}\n', profile.load(), "guest-image")
    assert message in finding.message
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("zone", "remedy"),
    [("Europe/Berlni", "did you mean `Europe/Berlin`?"), ("Mars/Base", "timedatectl")],
)
def test_an_unknown_time_zone(zone: str, remedy: str) -> None:
    (finding,) = lint(asking(timezone={"timezone": zone}), profile.load("rhel-9.6"))
    assert finding.where == "customizations.timezone.timezone"
    assert remedy in finding.remedy


@pytest.mark.parametrize("name", ["my host!", "-edge", "a..b", "a" * 64 + ".b", "é", "a" * 65])
def test_what_is_not_a_host_name(name: str) -> None:
    assert places(asking(hostname=name)) == ["customizations.hostname"]


@pytest.mark.parametrize("name", ["edge-1", "Edge.example.com", "edge_1", "1", "a" * 63])
def test_what_is_a_host_name(name: str) -> None:
    assert places(asking(hostname=name)) == []


def test_a_name_that_cannot_be_stored() -> None:
    assert places(Blueprint(name="my edge!")) == ["name"]
    assert places(Blueprint(name="")) == ["name"]


def test_an_unknown_key_in_customizations_that_were_written_in_python() -> None:
    assert places(asking(hostnmae="edge")) == ["customizations.hostnmae"]


def test_a_blueprint_has_the_findings_of_its_text() -> None:
    """As panels have the one and the command line the other."""
    blueprint = asking(hostname="my host!", timezone={"timezone": "Mars/Base"}, hostnmae="x")
    release = profile.load("rhel-9.6")
    of_blueprint = {(f.where, f.message) for f in lint(blueprint, release)}
    assert of_blueprint == {(f.where, f.message) for f in lint(to_toml(blueprint), release)}
    assert len(of_blueprint) == 3


ALL_KEYS = """
name = "edge"
minimal = true
[[packages]]
name = "tmux"
[customizations]
HOSTNAME = "edge-1"
containers-storage = { destination-path = "/x" }
firstboot = { type = "custom" }
[[customizations.repositories]]
id = "example"
baseurls = ["http://10.0.2.2/repo"]
gpgcheck = false
[[customizations.disk.partitions]]
type = "plain"
minsize = "2 GiB"
[customizations.rhsm.config.subscription_manager.rhsm]
manage_repos = true
[customizations.installer]
menu-timeout = 5
[customizations.ignition.firstboot]
empty = true
[customizations.timezone]
timezone = "US/Eastern"
ntpservers = ["0.pool.ntp.org"]
[[customizations.user]]
name = "core"
gid = 1000
[[customizations.filesystem]]
mountpoint = "/var"
size = "10 GiB"
[[customizations.files]]
path = "/etc/motd"
data = '''
hostnmae = "this is a text"
'''
"""


@pytest.mark.parametrize("text", [ALL_KEYS, EXAMPLE])
def test_what_is_not_known_to_be_wrong_is_not_reported(text: str) -> None:
    """For a type whose support for customizations is not known here."""
    assert lint(text, profile.load("rhel-9.6"), "guest-image") == ()


@pytest.mark.parametrize("name", EDGE)
def test_image_types_have_their_aliases(name: str) -> None:
    release = profile.load(name)
    known = [kind for kind in asdict(release.types).values() if kind]
    plain = [kind.removeprefix("rhel-") for kind in known]
    longer = [f"{'fedora' if kind.startswith('iot-') else 'rhel'}-{kind}" for kind in plain]
    for kind in [*known, *plain, *longer]:
        assert "image type" not in places(Blueprint("b"), name, image_type=kind)
    assert places(Blueprint("b"), "fedora-iot", image_type="iot-raw-image") == []
    for other in ("qcow2", "server-ami", "image-installer", "minimal-raw-xz", "generic-wsl"):
        assert places(Blueprint("b"), name, image_type=other) == []


@pytest.mark.parametrize(
    ("image_type", "hint"),
    [("edge-comit", "did you mean `edge-commit`?"), ("frobnicate", "it has edge-commit, edge-")],
)
def test_an_unknown_type_says_which_exist(image_type: str, hint: str) -> None:
    (finding,) = lint(Blueprint("b"), profile.load("rhel-9.6"), image_type)
    assert f"has no {image_type}" in finding.message
    assert finding.remedy.startswith(hint)
    assert "edge-simplified-installer" in finding.remedy


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
        text = demo if template == "demo" else templates.text(template)
        blueprint = parse_toml(text)
        assert lint(text, release, kind) == lint(blueprint, release, kind) == ()
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


def test_findings_name_file_line_and_column_and_are_read_by_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.toml"
    path.write_text(MISTAKES)
    assert main.main(["blueprint", "lint", str(path)]) == 1
    out = capsys.readouterr().out
    assert f"{path}: name: it is missing" in out
    assert f"{path}:11: customizations.hostnmae: unknown key" in out
    path.write_text("name = edge")
    assert main.main(["blueprint", "lint", str(path)]) == 1
    assert capsys.readouterr().out.startswith(f"{path}:1:8: TOML: this is not TOML: Invalid value")
    assert main.main(["blueprint", "lint", str(path), "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert (finding["line"], finding["column"]) == (1, 8)
    path.write_text('name = "b"')
    assert main.main(["blueprint", "lint", str(path), "--json", "--type", "edge-comit"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["where"] == "image type"


def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\xff")
    (tmp_path / "zeros").write_bytes(b"name\0")
    (tmp_path / "long").write_text("#" * (LONGEST_TEXT + 1))
    reasons = {
        "gone": "No such file or directory",
        ".": "Is a directory",
        "binary": "it is not text",
        "zeros": "it is not text",
        "long": "it is longer than 10,000,000 characters",
    }
    for name, reason in reasons.items():
        for words in (["lint"], ["lint", "--json"], ["push"]):
            assert main.main(["blueprint", *words, str(tmp_path / name)]) == 1
            told = capsys.readouterr()
            assert (told.out, told.err) == ("", f"rfe: cannot read {tmp_path / name}: {reason}\n")


def test_push_names_the_file_and_leads_to_the_linter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.toml"
    path.write_text(MISTAKES)
    assert main.main(["blueprint", "push", str(path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"rfe: {path}: ")
    assert f"`rfe blueprint lint {path}`" in told
