"""Parts of a raw image that can be looked at without making one."""

import ast
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from rfe_helpers.build import blueprint as blueprints
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.core import run
from rfe_helpers.errors import BlueprintError, MediaError
from rfe_helpers.machine import disks
from rfe_helpers.sandbox.build import customizations, disk, disk_image, image_types, raw
from rfe_helpers.sandbox.installer.edge_installer.disk import LAYOUT

MIB = 1024**2
RAW = next(kind for kind in image_types.IMAGE_TYPES if kind.name == "edge-raw-image")


def test_an_image_that_is_too_small_for_its_commit_is_made_larger() -> None:
    assert raw.fitting(RAW.size, 500 * MIB) == RAW.size
    assert raw.fitting(RAW.size, 2048 * MIB) == 5530 * MIB  # two deployments, a tenth, /boot
    # what the web console's form offers
    assert raw.fitting(2 * 1024 * MIB, 500 * MIB) == 3 * 1024 * MIB


def test_an_image_has_room_for_all_its_file_systems() -> None:
    gib = 1024 * MIB
    plain = raw.fitting(0, 500 * MIB)
    assert raw.fitting(0, 500 * MIB, {"/var": gib}) == plain + gib
    assert raw.fitting(0, 500 * MIB, {"/boot": gib}) == plain + 256 * MIB
    assert raw.fitting(0, 500 * MIB, {"/boot": 5}) == plain
    assert raw.fitting(0, 500 * MIB, {"/": 5 * gib}) == 6 * gib
    assert raw.fitting(20 * gib, 500 * MIB, {"/": 5 * gib}) == 20 * gib


def test_plain_partitions_are_file_systems_with_labels() -> None:
    partitions = [
        {"mountpoint": "/var", "minsize": "1 GiB", "label": "data", "fs_type": "ext4"},
        {"type": "plain", "mountpoint": "/", "minsize": 5},
    ]
    customized = {"disk": {"type": "gpt", "minsize": "6 GiB", "partitions": partitions}}
    blueprint = blueprints.parse_json({"name": "Raw", "customizations": customized})
    customizations.check(blueprint, RAW)
    assert raw.filesystems(blueprint) == {"/var": 1024 * MIB, "/": 5}
    assert raw.labels(blueprint) == {"/var": "data"}
    assert raw.minimum(blueprint) == 6 * 1024 * MIB
    assert raw.minimum(Blueprint("Raw")) == 0


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ({"type": "lvm", "name": "vg"}, "LVM needs the device-mapper"),
        ({"type": "btrfs"}, "btrfs"),
        ({"mountpoint": "/var", "fs_type": "xfs"}, "ext4"),
        ({"fs_type": "swap"}, "ext4"),
        ({"mountpoint": "/var", "label": "seventeen letters"}, "at most 16"),
        ({"mountpoint": "/var", "label": 5}, "at most 16"),
        ({"mountpoint": "/var", "part_label": "x"}, "part_label"),
        ({"mountpoint": "/home"}, "/boot, /var or below it"),
        ({}, "/boot, /var or below it"),
        ({"mountpoint": 5}, "/boot, /var or below it"),
    ],
    ids=str,
)
def test_what_partitions_a_raw_image_cannot_have(partition: dict[str, Any], message: str) -> None:
    disk = {"partitions": [{"minsize": 5, **partition}]}
    with pytest.raises(BlueprintError, match=message):
        customizations.check(Blueprint("Raw", customizations={"disk": disk}), RAW)


@pytest.mark.parametrize(
    ("customized", "message"),
    [
        ({"disk": {"type": "dos"}}, "GPT"),
        ({"disk": {"start_offset": "1 MiB"}}, "start_offset"),
        ({"disk": {"type": "zip"}}, "GPT"),
        # the words of osbuild/images
        (
            {
                "disk": {"partitions": [{"mountpoint": "/var", "minsize": 5}]},
                "filesystem": [{"mountpoint": "/var", "minsize": 5}],
            },
            "partitioning customizations cannot be used with custom filesystems",
        ),
        (
            {"disk": {"partitions": [{"mountpoint": "/var", "minsize": 5}] * 2}},
            "is not unique",
        ),
    ],
    ids=str,
)
def test_what_disks_the_sandbox_does_not_make(customized: dict[str, Any], message: str) -> None:
    with pytest.raises(BlueprintError, match=message):
        customizations.check(Blueprint("Raw", customizations=customized), RAW)


def test_more_file_systems_are_put_before_the_root() -> None:
    var = disk.FileSystem("/var/lib/containers", 5 * MIB + 1, "u-u", Path("/x"))
    lines = disk.layout(1024 * MIB, [var]).splitlines()
    assert lines[-3].startswith("size=1024M")
    assert lines[-2] == "size=6M, type=linux, name=var-lib-containe"
    assert lines[-1].endswith("name=root")
    assert var.fstab == "UUID=u-u /var/lib/containers ext4 defaults 0 2\n"
    assert disk.layout(0, []) == LAYOUT
    named = disk.FileSystem("/var", 5, "u-u", Path("/x"), "data")
    assert (var.label, named.label) == ("var-lib-containe", "data")


@pytest.mark.parametrize(
    "refused",
    [
        {"filesystem": [{"mountpoint": "/data", "minsize": 5}]},
        {"filesystem": [{"mountpoint": "/var/home", "minsize": 5}]},
        {"filesystem": [{"mountpoint": "/var/tmp/x", "minsize": 5}]},
        {"filesystem": [{"mountpoint": "/var/../etc", "minsize": 5}]},
        {"filesystem": [{"mountpoint": "/var/a b", "minsize": 5}]},
        {"filesystem": [{"mountpoint": "/var", "minsize": 5}] * 2},
        {"partitioning_mode": "lvm"},
        {"partitioning_mode": "zfs"},
    ],
    ids=str,
)
def test_what_file_systems_a_raw_image_cannot_have(refused: dict[str, Any]) -> None:
    with pytest.raises(BlueprintError):
        customizations.check(Blueprint(name="Raw", customizations=refused), RAW)


def test_what_a_raw_image_can_be_asked_for() -> None:
    wanted = {
        "kernel": {"append": "quiet"},
        "services": {"enabled": ["x.service"]},
        "filesystem": [
            {"mountpoint": "/", "minsize": 5},
            {"mountpoint": "/var", "minsize": "1 GiB"},
        ],
        "partitioning_mode": "raw",
    }
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
    with tarfile.open(fileobj=io.BytesIO(disk_image.contents())) as tar:
        names = {entry.name.removeprefix("./lib/") for entry in tar}
        programs = [entry for entry in tar if "/rfe_helpers/" in entry.name]
        texts = [
            file.read()
            for entry in programs
            if entry.name.endswith(".py") and (file := tar.extractfile(entry))
        ]
    assert "rfe_helpers/sandbox/guest/image.sh" in names
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
