"""What of a disk image can be made without a tree: GRUB where the BIOS looks for it, by the host's
tools."""

import struct
import sys
from pathlib import Path

import pytest

from rfe_helpers.core import run
from rfe_helpers.errors import CommandFailedError
from rfe_helpers.sandbox.build import disk
from rfe_helpers.sandbox.installer.edge_installer.disk import LAYOUT

SECTORS = 4 * 1024 * 1024
# As inside a tree: where mounting and /run are its own affair.
ALONE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
INSTALL = """
import sys
from pathlib import Path
from rfe_helpers.sandbox.build import disk
disk.install_bios(Path(sys.argv[1]))
"""


def partitioned(image: Path, layout: str) -> bytes:
    """An image with these partitions and GRUB for the BIOS; returns its first sector before."""
    with image.open("wb") as file:
        file.truncate(SECTORS * disk.SECTOR)
    run.run(["sfdisk", "--quiet", image], input=layout)
    with image.open("rb") as file:
        before = file.read(disk.SECTOR)
    script = 'mount -t tmpfs tmpfs /run && exec "$@"'
    run.run([*ALONE, script, "sh", sys.executable, "-c", INSTALL, image], seconds=60)
    return before


def test_grub_is_told_where_its_core_lies(tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    before = partitioned(image, LAYOUT)
    with image.open("rb") as file:
        first = file.read(512)
        file.seek(2048 * 512)
        core = file.read(512)
        (second, sectors) = struct.unpack_from("<QH", core, 500)
        following = file.read(sectors * 512)
    boot = Path(disk.I386_PC, "boot.img").read_bytes()
    assert first[0x68:440] == boot[0x68:440]
    assert first[440:] == before[440:]  # the partition table's
    assert struct.unpack_from("<Q", first, 0x5C) == (2048,)
    assert first[0x66:0x68] == b"\x90\x90"
    assert core[:256] == Path(disk.I386_PC, "diskboot.img").read_bytes()[:256]
    assert second == 2049
    # It fits into its partition of 1 MiB.
    assert 100 < sectors < 2047
    assert following[-512:].strip(b"\0")
    assert [path.name for path in tmp_path.iterdir()] == ["image.raw"]


def test_grub_wants_a_partition_that_its_core_fits_into(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="grub-bios-setup"):
        partitioned(tmp_path / "image.raw", LAYOUT.replace("size=1M", "size=64K"))


def test_every_image_has_names_of_its_own(tmp_path: Path) -> None:
    one, other = (disk.new(tmp_path / name, tmp_path) for name in ("one", "other"))
    assert one.root_uuid != other.root_uuid
    assert len(one.esp_uuid) == 9
    assert one.esp_uuid[4] == "-"
