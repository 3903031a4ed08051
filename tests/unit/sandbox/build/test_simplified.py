"""What a simplified installer needs, and what its kernel is told."""

from typing import Any

import pytest

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.errors import BlueprintError
from rfe_helpers.sandbox.build import customizations, image_types, simplified
from rfe_helpers.sandbox.installer.edge_installer import image, source

KIND = next(each for each in image_types.IMAGE_TYPES if each.name == "edge-simplified-installer")


def check(**values: Any) -> None:
    customizations.check(Blueprint("Simplified", customizations=values), KIND)


def test_it_needs_a_disk_as_in_rhel() -> None:
    # The words of osbuild/images (checkOptionsRhel9, 2025).
    message = (
        'boot ISO image type "edge-simplified-installer" requires specifying an installation '
        "device to install to"
    )
    with pytest.raises(BlueprintError, match=message):
        check()
    for device in ("/dev/vda", "vda", "/dev/disk/by-id/nvme-eui.0025-part", "/dev/mapper/a:b+c"):
        check(installation_device=device)
    for device in ("/dev/vda quiet", "/dev/../etc/x", "/dev/", 'vda"', "/etc/x", "vda\n"):
        with pytest.raises(BlueprintError, match="is not a disk"):
            check(installation_device=device)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"fdo": {"manufacturing_server_url": "http://m"}}, "FIDO Device Onboard"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_reason(part: dict[str, Any], reason: str) -> None:
    with pytest.raises(BlueprintError, match=reason):
        check(installation_device="/dev/vda", **part)


def test_the_installer_reads_what_the_iso_tells_it() -> None:
    arguments = source.boot_arguments(simplified.arguments("/dev/vda"))
    assert arguments[image.FILE] == "/run/install/repo/image.raw.xz"
    assert arguments[image.DEVICE] == "/dev/vda"
    assert "rd.live.check" in arguments
