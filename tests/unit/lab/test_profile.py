import re
import tomllib
from pathlib import Path

import pytest
from msgspec.structs import asdict
from pykickstart.version import versionMap

from rfe_helpers.errors import InputError, ProfileError
from rfe_helpers.lab import profile, releases
from rfe_helpers.lab.lab import Lab

GOOD = """
title = "A release"
backend = "osbuild"
distro = "rhel-9.6"
arch = "x86_64"
[ostree]
ref = "rhel/9/x86_64/edge"
osname = "rhel"
remote = "edge"
[types]
commit = "edge-commit"
[container]
port = 8080
web_root = "/usr/share/nginx/html"
[kickstart]
version = "RHEL9"
[iso]
label = "RHEL-9-6-0-BaseOS-x86_64"
"""


@pytest.mark.parametrize("name", profile.names())
def test_every_profile_of_the_package_loads_under_its_name(name):
    loaded = profile.load(name)
    assert loaded.name == name
    assert loaded.ostree.ref.count("/") == (0 if loaded.instead else 3)
    assert loaded.kickstart.version in versionMap


EDGE = [name for name in profile.names() if not profile.load(name).instead]


def test_the_releases_come_in_their_order():
    names = profile.names()
    assert names[0] == "sandbox"
    assert names.index("rhel-8.9") + 1 == names.index("rhel-8.10")
    assert {f"rhel-8.{minor}" for minor in range(3, 11)} <= set(names)
    assert {f"rhel-9.{minor}" for minor in range(9)} <= set(names)


@pytest.mark.parametrize("name", profile.names())
def test_every_fact_from_outside_names_its_source_and_date(name):
    """The sandbox's facts are our own decisions. What a file sets itself, it has a source for,
    or the profile that it extends has one for all releases of its kind."""
    if name == "sandbox":
        return
    sources = profile.load(name).sources
    for key, value in tomllib.loads(profile.read(name)).items():
        if key in ("extends", "title", "backend", "arch", "sources"):
            continue
        names = [f"{key}.{each}" for each in value] if isinstance(value, dict) else []
        missing = [each for each in names or [key] if not {each, key} & set(sources)]
        assert missing == []
    for source in sources.values():
        assert re.search(r"\S.* \(20\d\d-(0[1-9]|1[0-2])\)$", source), source


@pytest.mark.parametrize("name", EDGE)
def test_a_release_is_named_in_what_belongs_to_it(name):
    """A file that extends another must not take over what is that one's own."""
    loaded = profile.load(name)
    version = name.rpartition("-")[2]
    if name.startswith("rhel-"):
        assert loaded.title.endswith(f" {version}")
        assert loaded.distro == f"rhel-{version}"
        assert loaded.iso.label == f"RHEL-{version.replace('.', '-')}-0-BaseOS-x86_64"
        assert f"rhel-{version}-x86_64" in loaded.media.guest_image
        assert f"rhel-{version}-x86_64" in loaded.media.boot_iso
        assert loaded.registration.kind == "rhsm"
    else:
        assert loaded.registration == profile.RegistrationFacts()


def test_what_differs_between_releases():
    """The rows of the table that people stumble over."""
    loaded = {name: profile.load(name) for name in profile.names()}
    assert loaded["rhel-8.3"].types.container == ""
    assert loaded["rhel-8.3"].types.served == "rhel-edge-commit"
    assert loaded["rhel-8.3"].types.commit == "rhel-edge-commit"
    assert loaded["rhel-8.4"].types.container == "rhel-edge-container"
    assert loaded["rhel-8.4"].container == profile.ContainerFacts(80, "/var/www/html")
    assert loaded["rhel-8.5"].container == profile.ContainerFacts(8080, "/usr/share/nginx/html")
    assert (loaded["rhel-8.5"].types.raw, loaded["rhel-8.6"].types.raw) == ("", "edge-raw-image")
    assert "subscription-manager attach" in loaded["rhel-8.4"].registration.commands
    assert not any("attach" in each for each in loaded["rhel-8.5"].registration.commands)
    assert (loaded["rhel-9.4"].ostree.osname, loaded["rhel-9.5"].ostree.osname) == (
        "rhel",
        "rhel-edge",
    )
    assert [
        loaded[name].kickstart.ostreecontainer for name in ("rhel-8.10", "rhel-9.3", "rhel-9.4")
    ] == [False, False, True]
    assert loaded["centos-stream-9"].ostree.ref == "centos/9/x86_64/edge"
    assert loaded["fedora-iot"].types.container == "iot-container"


@pytest.mark.parametrize("name", ["rhel-10", "rhel-10.1", "centos-stream-10"])
def test_a_release_without_edge_images_says_what_to_do(name, tmp_path):
    loaded = profile.load(name)
    assert set(asdict(loaded.types).values()) == {""}
    with pytest.raises(ProfileError, match="has no edge images") as caught:
        Lab(tmp_path / "lab", name)
    assert "bootc" in caught.value.remedy
    named = re.search(r"profile (\S+)\)", caught.value.remedy)
    assert named is not None
    assert named[1] in EDGE


def test_image_mode_begins_with_rhel_9_4_in_images_of_the_release():
    facts = {name: profile.load(name).image_mode for name in profile.names()}
    without = [name for name in facts if not facts[name].base]
    assert {name.rpartition(".")[0] for name in without} == {"rhel-8", "rhel-9"}
    assert "rhel-9.3" in without
    assert "rhel-9.4" not in without
    for name in without:
        assert facts[name] == profile.ImageModeFacts(), name
    for minor in range(4, 9):
        assert facts[f"rhel-9.{minor}"].base.endswith(f"/rhel9/rhel-bootc:9.{minor}")
        assert facts[f"rhel-9.{minor}"].builder.endswith(f":9.{minor}")
    assert facts["rhel-10.1"].base == "registry.redhat.io/rhel10/rhel-bootc:10.1"
    assert facts["rhel-10"].bootc == "1.1.6"
    for name in ("rhel-10", "rhel-10.1", "centos-stream-10"):
        assert facts[name].next_base == ""
    assert facts["sandbox"].packager == "apt"


def test_the_command_image_builder_is_where_a_source_says_so():
    named = {name for name in profile.names() if profile.load(name).install.image_builder}
    assert {"rhel-9.7", "rhel-9.8", "rhel-10.1", "centos-stream-9", "fedora-iot"} <= named
    assert not named & {"sandbox", "rhel-8.10", "rhel-9.6", "rhel-10"}


def test_no_profile_names_a_type_that_is_gone():
    assert all(
        "iot-bootable-container" not in asdict(profile.load(name).types).values()
        for name in profile.names()
    )


def test_a_lab_that_was_refused_can_have_another_profile(tmp_path):
    with pytest.raises(ProfileError):
        Lab(tmp_path / "lab", "rhel-10")
    assert Lab(tmp_path / "lab", "rhel-9.6").profile.distro == "rhel-9.6"


def test_a_profile_is_typed():
    loaded = profile.parse("rhel", GOOD)
    assert loaded.container.port == 8080
    assert loaded.types.container == ""


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(ProfileError, match=r"choose one of: .*sandbox"):
        profile.load("../../etc/passwd")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("port = 8080", 'port = "8080"', "rhel: Expected `int`, got `str` .*container.port`"),
        ("port = 8080", "port = true", "Expected `int`, got `bool` .*container.port`"),
        ("port = 8080", "port = 8080\nspeed = 1", "unknown field `speed` .*container`"),
        ('osname = "rhel"\n', "", "missing required field `osname` .*ostree`"),
        ("[iso]", "[[iso]]", "Expected `object`, got `array` .*iso`"),
        ("[iso]", "[disc]", "unknown field `disc`"),
        ('[iso]\nlabel = "RHEL-9-6-0-BaseOS-x86_64"', "", "missing required field `iso`"),
        ('backend = "osbuild"', 'backend = "magic"', "Invalid enum value 'magic' .*backend`"),
        ("[types]", "[types", "profile rhel:"),
        ("[types]", "[install]\ntool = 'pacman'\n[types]", "'pacman' .*install.tool`"),
        (
            "[types]",
            "[install]\npackages = 'lorax'\n[types]",
            "Expected `array`, got `str` .*packages`",
        ),
        (
            "[types]",
            "[device]\nquadlet = 'yes'\n[types]",
            "Expected `bool`, got `str` .*device.quadlet`",
        ),
        ("[types]", "[sources]\nx = 1\n[types]", "Expected `str`, got `int` .*sources"),
        ('title = "A', 'extends = "rhel-9.0"\ntitle = "A', "rhel-9.0 extends another"),
        ('title = "A', 'extends = "rhel"\ntitle = "A', "cannot extend 'rhel'"),
        ('title = "A release"', 'extends = "rhel-9.6"', "title is missing"),
    ],
)
def test_what_does_not_fit_is_named(old, new, words):
    with pytest.raises(ProfileError, match=words):
        profile.parse("rhel", GOOD.replace(old, new))


@pytest.mark.parametrize("release", ["8.4", "8.5", "8.6", "9.0"])
def test_early_releases_take_a_parent_or_a_url(release: str) -> None:
    facts = profile.load(f"rhel-{release}").ostree
    facts.check_parent("a" * 64, "")
    facts.check_parent("", "http://localhost/repo/")
    with pytest.raises(InputError, match="a parent or a url, not both"):
        facts.check_parent("a" * 64, "http://localhost/repo/")


@pytest.mark.parametrize("name", ["rhel-8.7", "rhel-9.1", "rhel-9.6", "sandbox"])
def test_later_releases_look_a_parent_up_at_the_url(name: str) -> None:
    facts = profile.load(name).ostree
    facts.check_parent("some/ref", "http://localhost/repo/")
    facts.check_parent("", "")
    with pytest.raises(InputError, match="looks the parent some/ref up"):
        facts.check_parent("some/ref", "")


def test_the_page_of_the_releases_is_written_from_the_profiles():
    page = Path(__file__).parents[3] / "docs/releases.md"
    assert page.read_text() == releases.document(), (
        "run: python -m rfe_helpers.lab.releases > docs/releases.md"
    )
