"""Which configurations of Ignition the sandbox takes, and what it puts on the medium."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.errors import BlueprintError
from rfe_helpers.sandbox.build import customizations, image_types
from rfe_helpers.sandbox.installer.edge_installer import ignition as installer

SIMPLIFIED = image_types.find("edge-simplified-installer")


def embedded(config: object) -> dict[str, Any]:
    return {"embedded": {"config": base64.b64encode(json.dumps(config).encode()).decode()}}


def check(value: dict[str, Any], kind: image_types.ImageType | None = SIMPLIFIED) -> None:
    assert kind is not None
    requested = {"ignition": value}
    if "installation_device" in kind.customizations:
        requested["installation_device"] = "/dev/vda"  # type: ignore[assignment]
    customizations.check(Blueprint("Ignition", customizations=requested), kind)


@pytest.mark.parametrize("version", ["3.0.0", "3.3.0"])
def test_a_configuration_and_a_url_are_taken(version: str) -> None:
    check(embedded({"ignition": {"version": version}, "passwd": {"users": [{"name": "x"}]}}))
    check({"firstboot": {"url": "http://10.0.2.2:8000/x.ign"}})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"embedded": {"config": "not base64"}}, r"embedded\.config: it is not a configuration"),
        ({"embedded": {"config": "bm8="}}, "not a configuration of Ignition in base64"),
        ({"embedded": {"config": base64.b64encode(b"[" * 99999).decode()}}, "not a configuration"),
        (embedded([]), "ignition.version is not one of 3.0.0"),
        (embedded({"ignition": "3.3.0"}), "ignition.version is not one of"),
        (embedded({"ignition": {"version": ["3.3.0"]}}), "ignition.version is not one of"),
        (embedded({"ignition": {"version": "2.2.0"}}), "ignition.version is not one of"),
        (
            embedded({"ignition": {"version": "3.3.0"}, "storage": {"disks": [{}], "raid": [{}]}}),
            r"storage\.disks, storage\.raid: the installer of the sandbox runs Ignition when",
        ),
        (
            embedded(
                {"ignition": {"version": "3.3.0"}, "kernelArguments": {"shouldExist": ["quiet"]}}
            ),
            "kernelArguments: ",
        ),
        ({"firstboot": {"url": "ftp://host/x"}}, r"firstboot\.url: it is not an http or https"),
        ({"firstboot": {"url": "http://host/a b"}}, r"firstboot\.url: it is not an http or https"),
        ({"firstboot": {"empty": True}}, "neither embedded.config nor firstboot.url"),
        (
            {**embedded({"ignition": {"version": "3.3.0"}}), "firstboot": {"url": "http://h/x"}},
            "exclude each other|both ignition",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_reason(value: dict[str, Any], reason: str) -> None:
    with pytest.raises(BlueprintError, match=reason):
        check(value)


@pytest.mark.parametrize("name", ["edge-commit", "edge-installer", "edge-raw-image", "qcow2"])
def test_other_types_refuse_it(name: str) -> None:
    with pytest.raises(BlueprintError, match="no first boot runs it"):
        check({"firstboot": {"url": "http://i/x.ign"}}, image_types.find(name))


def test_a_medium_without_a_configuration_needs_no_ignition(tmp_path: Path) -> None:
    assert installer.fetch(tmp_path) is False
