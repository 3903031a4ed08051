"""Images whose layers, descriptions or registries are hostile or damaged."""

import fcntl
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from edge.failure import Failure
from edge.image_store import BLOBS
from support.image_repository import (
    ImageReference,
    ImageStore,
    content,
    fsck,
    listing,
    open_image,
    pull,
)
from support.images import BASE, ImageServer, entry, layer

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="a repository as a machine has it takes root: it has files of others"
)
SEED = 20261128
WORK = layer({"usr/bin/tool": "two", "usr/share/new": "new"})


def hostile_layers(outside: Path) -> dict[str, tuple[str, bytes, bytes]]:
    """By name: the words of the refusal, or "" for an image that is taken as far as it is
    harmless; and two layers."""
    link = entry("usr/share/way", kind=tarfile.SYMTYPE, link=str(outside))
    up = "../" * 12 + str(outside).lstrip("/")
    without_etc = {k: v for k, v in BASE.items() if not k.startswith("etc/")}
    without_run = {k: v for k, v in BASE.items() if not k.startswith("run/")}
    kernel = {k: v for k, v in BASE.items() if not k.startswith("usr/lib/modules")}
    modules = "usr/lib/modules/6.12"
    return {
        "through a link": ("", layer(BASE, link), layer(entry("usr/share/way/evil", "evil"))),
        "through a relative link": (
            "",
            layer(BASE, entry("usr/share/way", kind=tarfile.SYMTYPE, link=up)),
            layer(entry("usr/share/way/evil", "evil")),
        ),
        "through the root": (
            "",
            layer(BASE, entry("opt", kind=tarfile.SYMTYPE, link=str(outside.parent))),
            layer(entry("opt/outside/evil", "evil")),
        ),
        "removal through a link": ("", layer(BASE, link), layer(entry("usr/share/way/.wh.victim"))),
        "emptied through a link": (
            "",
            layer(BASE, link),
            layer(entry("usr/share/way/.wh..wh..opq")),
        ),
        "etc leads outside": (
            "",
            layer(without_etc, entry("etc", kind=tarfile.SYMTYPE, link=str(outside))),
            layer({"usr/x": ""}),
        ),
        "removal of a parent": ("unlinkat", layer(BASE), layer(entry("usr/share/.wh...", ""))),
        "dots": ("Invalid|assertion failed", layer(BASE), layer(entry(f"{up}/evil", "evil"))),
        "absolute": ("", layer(BASE), layer(entry(f"{outside}/evil", "evil"))),
        "a hard link": (
            "No such|not found|Invalid",
            layer(BASE),
            layer(entry("usr/share/stolen", kind=tarfile.LNKTYPE, link=f"{outside}/victim")),
        ),
        "a device": ("Unsupported", layer(BASE), layer(entry("usr/disk", kind=tarfile.BLKTYPE))),
        "run leads outside": (
            "",
            layer(without_run),
            layer(entry("run", kind=tarfile.SYMTYPE, link=str(outside))),
        ),
        "a kernel that is a link": (
            "must have one kernel",
            layer(kernel, {f"{modules}/initramfs.img": ""}),
            layer(entry(f"{modules}/vmlinuz", kind=tarfile.SYMTYPE, link="/etc/passwd")),
        ),
        "modules lead outside": (
            "must have one kernel",
            layer(kernel),
            layer(entry("usr/lib/modules", kind=tarfile.SYMTYPE, link=str(outside))),
        ),
    }


@pytest.mark.parametrize("name", hostile_layers(Path("/x/outside")))
def test_a_layer_reaches_nothing_outside(
    name: str, store: ImageStore, registry: ImageServer, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "6.12").mkdir(parents=True)
    contents = {"victim": "whole", "hostname": "", "resolv.conf": "", "6.12/vmlinuz": "kernel"}
    for path, text in contents.items():
        (outside / path).write_text(text)
    words, *layers = hostile_layers(outside)[name]
    registry.push("1", layers)
    if words:
        with pytest.raises(Failure, match=words):
            pull(store, registry, "1")
    else:
        assert listing(store, pull(store, registry, "1"))
    files = [path for path in outside.rglob("*") if path.is_file()]
    assert {str(path.relative_to(outside)): path.read_text() for path in files} == contents
    fsck(store)


def corrupted(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]


@pytest.mark.parametrize("damage", ["corrupted", "truncated", "another"])
def test_a_damaged_layer_is_refused_and_the_next_attempt_succeeds(
    damage: str, store: ImageStore, registry: ImageServer
) -> None:
    registry.push("1", [layer(BASE)])
    old = pull(store, registry, "1")
    registry.push("1", [layer(BASE), WORK])
    changes = {
        "corrupted": corrupted,
        "truncated": lambda body: body[: len(body) // 2],
        "another": lambda body: layer({"usr/bin/tool": "bad", "usr/share/new": "new"}),
    }

    def change(path: str, body: bytes) -> bytes:
        return changes[damage](body) if body == WORK else body

    registry.change = change
    with pytest.raises(Failure):
        pull(store, registry, "1")
    assert store.refs("ostree/container/image") == {
        ImageReference("registry", registry.name("1")).ref
    }
    assert content(store, old, "/usr/bin/tool") == "one"
    assert len(store.refs(BLOBS)) == 1
    registry.change = lambda path, body: body
    new = pull(store, registry, "1")
    assert content(store, new, "/usr/bin/tool") == "two"
    fsck(store)


def test_a_layer_is_as_long_as_its_manifest_says(store: ImageStore, registry: ImageServer) -> None:
    registry.push("1", [layer(BASE), WORK])
    manifest = registry.blobs[registry.tags["1"]]
    short = manifest.replace(b'"size": %d}]' % len(WORK), b'"size": 10}]')
    assert short != manifest
    registry.add_manifest("1", short)
    with pytest.raises(Failure, match=r"has more than its 10 bytes|size"):
        pull(store, registry, "1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"created": 5}, "parsing time"),
        ({"created": "0001-01-01T00:00:00+23:59"}, ""),
        ({"created": "20261127T003118Z"}, "parsing time"),
        (
            {"config": {"Labels": {"containers.bootc": "1", "version": "2\nDEFAULT x"}}},
            "not a line",
        ),
        ({"config": {"Labels": {"containers.bootc": "1", "version": "\0"}}}, "not a line"),
        ({"config": {"Labels": {"containers.bootc": "1", "version": "\ud800"}}}, ""),
        ({"config": {"Labels": {"containers.bootc": "\x1b[2J"}}}, "not a line"),
        ({"config": {"Labels": {"containers.bootc": "1", "version": "x" * 500}}}, "not a line"),
        ({"config": {"Labels": {"containers.bootc": "1", "x": "y" * 200_000}}}, "more than"),
    ],
)
def test_odd_descriptions_are_one_message(
    change: dict[str, object], words: str, store: ImageStore, registry: ImageServer
) -> None:
    registry.push("1", [layer(BASE)], change=change)
    if words:
        with pytest.raises(Failure, match=words):
            pull(store, registry, "1")
    else:
        assert pull(store, registry, "1")


def test_names_of_files_are_utf8_whatever_the_language_is(
    store: ImageStore, registry: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.push("1", [layer({**BASE, "usr/share/Főtanúsítvány.pem": "x"})])
    monkeypatch.setenv("LC_ALL", "C")
    commit = pull(store, registry, "1")
    assert content(store, commit, "/usr/share/Főtanúsítvány.pem") == "x"


def test_a_repository_that_is_served_takes_no_images(registry: ImageServer, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    subprocess.run(["ostree", "init", f"--repo={path}", "--mode=archive"], check=True)
    registry.push("1", [layer(BASE)])
    with pytest.raises(Failure, match="of mode archive: images need mode bare"):
        pull(ImageStore(path), registry, "1")


def test_one_program_at_a_time(store: ImageStore, registry: ImageServer) -> None:
    registry.push("1", [layer(BASE)])
    with (store.path / "tmp/rfe-import.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Failure, match="another program is pulling"):
            pull(store, registry, "1")
    assert pull(store, registry, "1")


def test_what_a_failed_attempt_has_left_does_not_take_the_room(
    store: ImageStore, registry: ImageServer
) -> None:
    ballast = layer({"usr/share/ballast": random.Random(SEED).randbytes(3 << 20).hex()})
    registry.push("1", [layer(BASE), ballast, layer({"usr/lib/modules/7/vmlinuz": ""})])
    with pytest.raises(Failure, match="must have one kernel"):
        pull(store, registry, "1")

    def used() -> int:
        return sum(path.stat().st_size for path in store.path.rglob("*.file"))

    assert used() > 6 << 20
    registry.push("1", [layer(BASE)])
    with open_image(ImageReference("registry", registry.name("1"))) as proxy:
        store.prune(set(), proxy.image().layers)
    pull(store, registry, "1")
    assert used() < 1 << 20
