import pytest

from rfe_helpers import profile
from rfe_helpers.errors import ProfileError

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
    assert loaded.ostree.ref.count("/") == 3


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
        ("port = 8080", 'port = "8080"', "port must be int"),
        ("port = 8080", "port = true", "port must be int"),
        ("port = 8080", "port = 8080\nspeed = 1", "unknown key 'speed'"),
        ('osname = "rhel"\n', "", "osname"),
        ("[iso]", "[disc]", r"table \[iso\] is missing"),
        ('backend = "osbuild"', 'backend = "magic"', "unknown backend 'magic'"),
        ("[types]", "[types", "profile rhel:"),
    ],
)
def test_what_does_not_fit_is_named(old, new, words):
    with pytest.raises(ProfileError, match=words):
        profile.parse("rhel", GOOD.replace(old, new))
