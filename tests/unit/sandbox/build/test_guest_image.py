"""What of the guest image needs no tree: its first sector, GRUB's core, what is refused."""

import struct
from pathlib import Path

import pytest

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.core import run
from rfe_helpers.errors import BlueprintError, BuilderError
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.build import customizations, guest_image, image_types, ostree_options
from rfe_helpers.sandbox.build.ostree_options import OstreeOptions

BOOT_IMG = Path("/usr/lib/grub/i386-pc/boot.img")
SECTORS = 20 * 1024 * 1024


def test_the_first_sector_is_grubs_with_one_partition_to_boot_from(tmp_path: Path) -> None:
    boot = BOOT_IMG.read_bytes()
    sector = guest_image.first_sector(boot, SECTORS)
    assert len(sector) == 512
    assert sector[:440] == boot[:440]
    assert sector[510:] == b"\x55\xaa"
    flag, kind, start, length = struct.unpack("<B3xB3xII", sector[446:462])
    assert (flag, kind, start, length) == (0x80, 0x83, 2048, SECTORS - 2048)
    assert sector[462:510] == bytes(48)
    assert guest_image.first_sector(boot, SECTORS)[440:444] != sector[440:444]


def test_grubs_core_fits_before_the_partition_and_follows_the_first_sector(tmp_path: Path) -> None:
    configuration, core = tmp_path / "early.cfg", tmp_path / "core.img"
    configuration.write_text("boot\n")
    run.run(guest_image.grub_argv(configuration, core))
    assert 0 < core.stat().st_size < 2047 * 512
    # boot.img loads sector 1; the core's first sector names the next one as its own continuation.
    (kernel_sector,) = struct.unpack_from("<Q", BOOT_IMG.read_bytes(), 0x5C)
    (next_sector,) = struct.unpack_from("<Q", core.read_bytes(), 512 - 12)
    assert (kernel_sector, next_sector) == (1, 2)


def test_a_guest_image_has_what_the_service_imports() -> None:
    """So that the steps of provision find it installed: they may run without a network."""
    kind = image_types.find("guest-image")
    assert kind is not None
    needed = {name for name in profile.load().install.packages if name.startswith("python3-")}
    assert "python3-msgspec" in needed
    assert needed <= set(kind.adds)


def test_a_guest_image_has_nothing_to_do_with_commits() -> None:
    kind = image_types.find("qcow2")
    assert kind is not None
    assert kind.name == "guest-image"
    ostree_options.check(OstreeOptions(), kind)
    with pytest.raises(BuilderError, match='OSTree is not supported for "guest-image"'):
        ostree_options.check(OstreeOptions(url="http://10.0.2.2:8000/repo"), kind)
    with pytest.raises(BlueprintError, match="hostname"):
        customizations.check(Blueprint("g", customizations={"hostname": "x"}), kind)
