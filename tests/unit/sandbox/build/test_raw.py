"""Parts of a raw image that can be looked at without making one."""

import ast
import io
import struct
import tarfile
from pathlib import Path

import pytest

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.core import run
from rfe_helpers.errors import BlueprintError, BuilderError, MediaError
from rfe_helpers.machine import disks
from rfe_helpers.sandbox.build import customizations, image_types, raw
from rfe_helpers.sandbox.build.disk import Identity, Partition, boot_sectors

MIB = 1024**2
RAW = next(kind for kind in image_types.IMAGE_TYPES if kind.name == "edge-raw-image")


def test_grub_is_told_where_its_core_lies() -> None:
    boot, core = bytes(range(256)) * 2, b"\x11" * 100_000
    first, following = boot_sectors(boot, core, Partition(2 * MIB, MIB))
    assert len(first) == 440  # what comes after it is the partition table's
    assert struct.unpack_from("<Q", first, 0x5C) == (4096,)
    assert first[0x66:0x68] == b"\x90\x90"
    assert struct.unpack_from("<QH", following, 500) == (4097, 195)
    assert following[512:] == core[512:]
    with pytest.raises(ValueError, match="core has 100000 bytes"):
        boot_sectors(boot, core, Partition(MIB, 65_536))


def test_every_image_has_names_of_its_own() -> None:
    one, other = Identity(), Identity()
    assert one.root_uuid != other.root_uuid
    assert len(one.esp_uuid) == 9
    assert one.esp_uuid[4] == "-"


def test_an_image_too_small_for_its_commit_is_refused() -> None:
    raw.check_size(RAW.size, 500 * MIB)
    with pytest.raises(BuilderError, match=r"of 3\.0 GiB is too small .* needs 5\.4 GiB"):
        raw.check_size(RAW.size, 2048 * MIB)


def test_what_a_raw_image_can_be_asked_for() -> None:
    wanted = {"kernel": {"append": "quiet"}, "services": {"enabled": ["x.service"]}}
    customizations.check(Blueprint(name="Raw", version="1.0.0", customizations=wanted), RAW)
    for refused in ({"hostname": "edge"}, {"kernel": {"name": "linux-image-amd64"}}):
        blueprint = Blueprint(name="Raw", version="1.0.0", customizations=refused)
        with pytest.raises(BlueprintError):
            customizations.check(blueprint, RAW)


def test_a_raw_image_becomes_a_larger_disk(tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    image.write_bytes(b"begin" + b"\0" * 5 * MIB + b"end")
    run.run(["truncate", f"--size={8 * MIB}", image])
    run.run(["xz", "-1", image])
    packed = image.with_suffix(".raw.xz")
    for _ in range(2):
        disk = disks.from_raw_xz(packed, tmp_path / "machine/disk.qcow2", 64 * MIB)
    info = run.run(["qemu-img", "info", "--output=json", disk]).stdout
    assert f'"virtual-size": {64 * MIB}' in info
    run.run(["qemu-img", "convert", "-O", "raw", disk, tmp_path / "back"])
    assert (tmp_path / "back").read_bytes().startswith(b"begin\0")
    assert [path.name for path in disk.parent.iterdir()] == ["disk.qcow2"]
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(MediaError, match="cannot be unpacked"):
        disks.from_raw_xz(packed, tmp_path / "machine/other.qcow2")
    assert [path.name for path in disk.parent.iterdir()] == ["disk.qcow2"]


def test_all_that_runs_inside_is_taken_along() -> None:
    with tarfile.open(fileobj=io.BytesIO(raw._contents())) as tar:
        names = {entry.name.removeprefix("./rfe/lib/") for entry in tar}
        programs = [entry for entry in tar if "/pykickstart/" not in entry.name]
        texts = [file.read() for entry in programs if (file := tar.extractfile(entry))]
    wanted = set()
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rfe_helpers"):
                base = str(node.module).replace(".", "/")
                wanted |= {base, *(f"{base}/{name.name}" for name in node.names)}
    found = {name for name in wanted if f"{name}.py" in names or f"{name}/__init__.py" in names}
    assert "rfe_helpers/sandbox/build/disk" in found
    # What was not found are names in modules that were.
    assert {name for name in wanted - found if str(Path(name).parent) not in found} == set()
