"""What a guest image cannot be asked for."""

import pytest

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.errors import BlueprintError, BuilderError
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import customizations, image_types, ostree_options
from rfe_helpers.sandbox.build.ostree_options import OstreeOptions


def test_a_guest_image_has_what_the_service_needs() -> None:
    """So that the steps of provision find it installed: they may run without a network."""
    kind = image_types.find("guest-image")
    assert kind is not None
    needed = {*profile.load().install.packages} - {"ostree"}  # which every tree has
    assert {"python3-msgspec", "isomd5sum"} <= needed
    assert needed <= set(kind.adds)


def test_a_guest_image_has_nothing_to_do_with_commits() -> None:
    kind = image_types.find("qcow2")
    assert kind is not None
    assert kind.name == "guest-image"
    ostree_options.check(OstreeOptions(), kind)
    with pytest.raises(BuilderError, match='OSTree is not supported for "guest-image"'):
        ostree_options.check(OstreeOptions(url="http://10.0.2.2:8000/repo"), kind)
    with pytest.raises(BlueprintError, match="ignition"):
        customizations.check(Blueprint("g", customizations={"ignition": {"x": "y"}}), kind)


def test_a_guest_image_takes_what_cloud_images_of_rhel_take() -> None:
    kind = image_types.find("qcow2")
    assert kind is not None
    requested = {
        "hostname": "builder",
        "user": [{"name": "core", "groups": ["wheel"]}],
        "kernel": {"append": "quiet", "name": "linux-image-amd64"},
        "timezone": {"timezone": "US/Eastern"},
    }
    customizations.check(Blueprint("g", customizations=requested), kind)
    with pytest.raises(BlueprintError, match=r"cloud-init.* conflicts with firewalld"):
        customizations.check(
            Blueprint("g", customizations={"firewall": {"ports": ["1:tcp"]}}), kind
        )
