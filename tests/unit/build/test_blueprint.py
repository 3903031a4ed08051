from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfe_helpers.build import blueprint
from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.errors import BlueprintError

EXAMPLE = """
name = "Edge"
description = "a device"
version = "0.0.1"

[[packages]]
name = "tmux"
version = "3.*"

[[modules]]
name = "nginx"

[[groups]]
name = "tools"

[customizations]
hostname = "edge-1"

[[customizations.user]]
name = "core"
groups = ["wheel"]
uid = 1000

[customizations.services]
enabled = ["ssh.service"]
"""


def test_toml_is_parsed_into_fields() -> None:
    parsed = blueprint.parse_toml(EXAMPLE)
    assert parsed == Blueprint(
        name="Edge",
        description="a device",
        version="0.0.1",
        packages=(PackageSpec("tmux", "3.*"),),
        modules=(PackageSpec("nginx"),),
        groups=("tools",),
        customizations={
            "hostname": "edge-1",
            "user": [{"name": "core", "groups": ["wheel"], "uid": 1000}],
            "services": {"enabled": ["ssh.service"]},
        },
    )


@pytest.mark.parametrize(
    "packages",
    ["tmux podman=5.*", " tmux,\tpodman=5.* ", ["tmux", "podman=5.*"], ("tmux", "podman=5.*")],
)
def test_strings_are_taken_as_packages(packages: str) -> None:
    expected = (PackageSpec("tmux"), PackageSpec("podman", "5.*"))
    assert Blueprint("edge", packages=packages).packages == expected  # type: ignore[arg-type]
    assert Blueprint("edge", modules=packages).modules == expected  # type: ignore[arg-type]


def test_no_words_are_no_packages() -> None:
    assert Blueprint("edge", packages="").packages == ()  # type: ignore[arg-type]


def test_toml_round_trip() -> None:
    parsed = blueprint.parse_toml(EXAMPLE)
    assert blueprint.parse_toml(blueprint.to_toml(parsed)) == parsed


def test_json_has_four_lists_always_and_the_rest_when_set() -> None:
    assert blueprint.to_json(Blueprint("x")) == {
        "name": "x",
        "version": "0.0.0",
        "packages": [],
        "modules": [],
        "enabled_modules": [],
        "groups": [],
    }


def test_keys_match_without_case_and_null_is_not_set_and_unknown_keys_are_kept() -> None:
    parsed = blueprint.parse_json(
        {
            "NAME": "x",
            "Packages": [{"Name": "tmux", "Version": None}],
            "customizations": {"HostName": "h", "kernel": None, "unheard_of": 1},
            "whatever": [],
            "description": None,
        }
    )
    assert parsed.name == "x"
    assert parsed.packages == (PackageSpec("tmux"),)
    assert parsed.customizations == {"hostname": "h", "unheard_of": 1}
    assert parsed.other == {"whatever": []}


def test_an_empty_version_is_0_0_0() -> None:
    assert blueprint.parse_json({"name": "x", "version": ""}).version == "0.0.0"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "a table"),
        ({"name": 1}, "name must be a string"),
        ({"name": "x", "version": "1.0"}, "Semantic Versioning"),
        ({"name": "x", "version": "1.0.٣"}, "Semantic Versioning"),
        ({"name": "x", "version": "01.0.0"}, "Semantic Versioning"),
        ({"name": "x", "packages": {}}, "packages must be a list"),
        ({"name": "x", "packages": ["tmux"]}, "packages[0] must be a table"),
        ({"name": "x", "packages": [{"version": "1"}]}, "Entry #1 has version '1' but no name"),
        ({"name": "x", "modules": [{"name": "a"}, {}]}, "Entry #2 has no name"),
        ({"name": "x", "customizations": {"hostname": ["h"]}}, "customizations.hostname must be"),
        ({"name": "x", "customizations": {"user": [{"uid": True}]}}, "user[0].uid must be an int"),
        ({"name": "x", "customizations": {"dnf": float("nan")}}, "JSON cannot hold"),
    ],
)
def test_malformed_blueprints_are_named(data: object, words: str) -> None:
    with pytest.raises(BlueprintError) as failure:
        blueprint.parse_json(data)
    assert words in failure.value.message


@pytest.mark.parametrize("text", ["name = ", b"name = '\xff'", "a=" + "[" * 3000 + "]" * 3000])
def test_what_is_not_toml_is_refused(text: str | bytes) -> None:
    with pytest.raises(BlueprintError, match="not TOML"):
        blueprint.parse_toml(text)


def test_bumped_raises_the_patch_number() -> None:
    assert blueprint.bumped("1.2.9") == "1.2.10"
    assert blueprint.bumped("1.2.3-rc1+build") == "1.2.4"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    name=TEXT,
    description=TEXT,
    packages=st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=3),
    hostname=TEXT,
)
def test_what_is_parsed_survives_json_and_toml(
    name: str, description: str, packages: list[tuple[str, str]], hostname: str
) -> None:
    example = Blueprint(
        name,
        description,
        packages=tuple(PackageSpec(*spec) for spec in packages),
        customizations={"hostname": hostname},
    )
    assert blueprint.parse_json(blueprint.to_json(example)) == example
    assert blueprint.parse_toml(blueprint.to_toml(example)) == example


def test_writing_many_packages_costs_no_more_than_reading_them() -> None:
    many = Blueprint("x", packages=[PackageSpec(f"p{n}", "1.*") for n in range(3000)])
    began = time.process_time()
    text = blueprint.to_toml(many)
    written = time.process_time()
    assert blueprint.parse_toml(text) == many
    assert written - began < 2 * (time.process_time() - written)  # it is a quarter, usually


@pytest.mark.parametrize("name", ["a\x7fb", 'say "a\\b"', "\U0001f427\n\t\x01"])
def test_packages_of_any_name_are_written(name: str) -> None:
    for spec in (PackageSpec(name, name), PackageSpec(name, other={"arch": name})):
        example = Blueprint("x", packages=[spec], modules=["vim"], customizations={"fips": True})
        assert blueprint.parse_toml(blueprint.to_toml(example)) == example


def test_comments_count_as_parts_beyond_as_many_as_there_may_be_parts() -> None:
    few, many = ('name = "x"\n' + "#.\n" * number for number in (290_000, 700_000))
    assert blueprint.parse_toml(few).name == "x"
    with pytest.raises(BlueprintError, match="more than 300000 parts"):
        blueprint.parse_toml(many)
