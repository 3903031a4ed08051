"""Container images in an OSTree repository, with the real ostree and skopeo and a registry here.

The images are small; the sandbox's own, on a machine, are in the system tests.
"""

import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from edge.failure import Failure
from edge.image_reference import blob_ref
from edge.image_store import BLOBS, size
from support.image_repository import (
    GUEST,
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
PULL = f"""
import sys
sys.path.append({str(GUEST)!r})
from pathlib import Path
from edge import image_proxy
from edge.image_proxy import open_image
from edge.image_reference import ImageReference
from edge.image_store import ImageStore
reference = ImageReference("registry", sys.argv[2])
image_proxy.HOME = sys.argv[3]
with open_image(reference) as proxy:
    print(ImageStore(Path(sys.argv[1])).pull(proxy, proxy.image(), reference))
"""


def test_layers_lie_over_each_other_in_the_layout_of_a_commit(
    store: ImageStore, registry: ImageServer
) -> None:
    upper = layer(
        entry("usr/bin/su", "su", mode=0o4755),
        entry("usr/bin/tool", "two", uid=990),
        entry("etc/.wh.hosts"),
        entry("etc/app.conf", "x"),
        entry("etcetera", "x"),
        entry("usr/share/doc", kind=tarfile.DIRTYPE, mode=0o755),
        entry("usr/share/doc/.wh..wh..opq"),
        entry("usr/share/doc/c", "c"),
    )
    registry.push("1", [layer(BASE), upper])
    commit = pull(store, registry, "1")
    files = listing(store, commit)
    assert files["/usr/bin/su"] == "-04755 0"
    assert files["/usr/bin/tool"] == "-00644 990"
    assert content(store, commit, "/usr/bin/tool") == "two"
    assert "/usr/etc/app.conf" in files
    assert "/etcetera" in files
    assert not {"/etc", "/usr/etc/hosts", "/usr/etc/hostname"} & files.keys()
    assert {path for path in files if path.startswith("/usr/share/doc/")} == {"/usr/share/doc/c"}
    assert not [path for path in files if path.startswith(("/run/", "/tmp/"))]
    assert {"/run", "/tmp", "/var/lib/app/state"} <= files.keys()
    assert not [path for path in files if ".wh." in path]
    fsck(store)


def test_what_changes_its_kind_is_replaced(store: ImageStore, registry: ImageServer) -> None:
    upper = layer(
        entry("usr/bin/tool", kind=tarfile.DIRTYPE, mode=0o755),
        entry("usr/bin/tool/inside", "x"),
        entry("usr/share/doc", kind=tarfile.SYMTYPE, link="/usr/lib/doc"),
    )
    registry.push("1", [layer(BASE), upper])
    files = listing(store, pull(store, registry, "1"))
    assert "/usr/bin/tool/inside" in files
    assert files["/usr/share/doc"].startswith("l")


def test_only_layers_that_are_missing_are_fetched(store: ImageStore, registry: ImageServer) -> None:
    base = layer(BASE)
    registry.push("1", [base])
    first = pull(store, registry, "1")
    registry.requests.clear()
    registry.push("1", [base, WORK])
    second = pull(store, registry, "1")
    fetched = registry.fetched
    assert len(fetched) == 2  # the configuration and the new layer
    assert content(store, second, "/usr/bin/tool") == "two"
    assert content(store, first, "/usr/bin/tool") == "one"
    registry.requests.clear()
    pull(store, registry, "1")
    assert len(registry.fetched) == 1  # its metadata and time are new, no layer is


def test_metadata_say_what_the_image_was(store: ImageStore, registry: ImageServer) -> None:
    digest = registry.push("7", [layer(BASE)])
    commit = pull(store, registry, "7")

    def shown(key: str) -> str:
        argv = ["ostree", "show", f"--repo={store.path}", f"--print-metadata-key={key}", commit]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    assert digest in shown("ostree.manifest-digest")
    assert "'7'" in shown("version")
    assert "diff_ids" in shown("ostree.container.image-config")
    assert shown("ostree.bootable").strip() == "true"
    argv = ["ostree", "show", f"--repo={store.path}", commit]
    assert "2026-11-27 00:31:18" in subprocess.run(argv, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("labels", "architecture", "files", "reason"),
    [
        ({}, "amd64", BASE, "Target image does not have ostree.bootable label"),
        ({"containers.bootc": "1"}, "arm64", BASE, "Image has architecture arm64; expected amd64"),
        ({"containers.bootc": "1"}, "amd64", {"sysroot/x": ""}, "must have one kernel"),
        (
            {"containers.bootc": "1"},
            "amd64",
            {**BASE, "usr/lib/modules/6.13/vmlinuz": "x"},
            "must have one kernel in /usr/lib/modules, not",
        ),
        (
            {"containers.bootc": "1"},
            "amd64",
            {"sysroot/x": "", "usr/lib/modules/6.13/vmlinuz": "x"},
            "has no initramfs.img beside its kernel 6.13",
        ),
    ],
)
def test_what_would_not_boot_is_refused(
    labels: dict[str, str],
    architecture: str,
    files: dict[str, str],
    reason: str,
    store: ImageStore,
    registry: ImageServer,
) -> None:
    registry.push("1", [layer(files)], labels=labels, architecture=architecture)
    with pytest.raises(Failure, match=reason):
        pull(store, registry, "1")
    assert not store.refs("ostree/container/image")
    assert not list((store.path / "tmp").glob("rfe-merge-*"))


def test_a_registry_that_is_silent_is_given_up(
    store: ImageStore, registry: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.push("1", [layer(BASE), WORK])

    def change(path: str, body: bytes) -> bytes | None:
        if body != WORK:
            return body
        time.sleep(5)
        return None

    registry.change = change
    monkeypatch.setattr("edge.image_proxy.SILENCE_SECONDS", 1)
    with pytest.raises(Failure, match=r"has sent nothing for 1 s|has not answered for 1 s"):
        pull(store, registry, "1")
    registry.change = lambda path, body: body
    assert pull(store, registry, "1")


def test_a_tag_that_is_gone_is_named(store: ImageStore, registry: ImageServer) -> None:
    registry.push("1", [layer(BASE)])
    with pytest.raises(Failure, match=r"reading manifest gone in 127\.0\.0\.1"):
        pull(store, registry, "gone")


def test_a_layer_of_an_image_that_is_gone_is_named(
    store: ImageStore, registry: ImageServer
) -> None:
    registry.push("1", [layer(BASE), WORK])
    registry.blobs = {key: value for key, value in registry.blobs.items() if value != WORK}
    with pytest.raises(Failure, match=r"404|not found|unknown"):
        pull(store, registry, "1")


def test_a_full_disk_is_known_before_anything_is_fetched(
    registry: ImageServer, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=True)
    try:
        subprocess.run(["ostree", "init", f"--repo={small}/repo", "--mode=bare"], check=True)
        noise = random.Random(SEED).randbytes(4 << 20).hex()
        registry.push("1", [layer(BASE, {"usr/share/noise": noise})])
        with pytest.raises(Failure, match=r"Insufficient free space .*available: .*required: "):
            pull(ImageStore(small / "repo"), registry, "1")
    finally:
        subprocess.run(["umount", small], check=True)


def test_twenty_kills_leave_the_old_image_and_the_new_one_comes(
    store: ImageStore, registry: ImageServer
) -> None:
    big = layer(BASE, {f"usr/share/{n}": f"{n}\n" * 400 for n in range(400)})
    registry.push("1", [layer(BASE)])
    old = pull(store, registry, "1")
    registry.push("1", [big, WORK])
    home = str(store.path.with_name("home"))
    argv = [sys.executable, "-c", PULL, str(store.path), registry.name("1"), home]
    began = time.monotonic()
    scratch = store.path.with_name("timed")
    subprocess.run(["ostree", "init", f"--repo={scratch}", "--mode=bare"], check=True)
    subprocess.run([*argv[:3], str(scratch), *argv[4:]], check=True)
    seconds = time.monotonic() - began
    chance = random.Random(SEED)
    outcomes = []
    ref = ImageReference("registry", registry.name("1")).ref
    for _ in range(20):
        process = subprocess.Popen(argv, start_new_session=True, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, 1.1) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        resolved = subprocess.run(
            ["ostree", "rev-parse", f"--repo={store.path}", ref],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        tool = content(store, resolved, "/usr/bin/tool")
        assert (tool == "one") == (resolved == old)
        outcomes.append(tool)
        if tool == "two":  # begin with the old one again
            subprocess.run(
                ["ostree", "refs", f"--repo={store.path}", "--force", f"--create={ref}", old],
                check=True,
            )
            store.prune({ref}, [])
    print(outcomes)
    assert "one" in outcomes
    new = pull(store, registry, "1")
    assert content(store, new, "/usr/bin/tool") == "two"
    assert not list((store.path / "tmp").glob("rfe-merge-*"))
    fsck(store)


def test_pruning_keeps_what_deployments_have(store: ImageStore, registry: ImageServer) -> None:
    base = layer(BASE)
    registry.push("1", [base])
    registry.push("2", [base, WORK])
    pull(store, registry, "1")
    reference = ImageReference("registry", registry.name("1"))
    with open_image(reference) as proxy:
        image = proxy.image()
    pull(store, registry, "2")
    store.prune({reference.ref}, list(image.layers))
    assert store.refs("ostree/container/image") == {reference.ref}
    assert store.refs(BLOBS) == {blob_ref(image.layers[0].digest)}


def test_sizes_are_written_as_bootc_writes_them() -> None:
    assert [size(n) for n in (431, 1500, 168_300_000)] == ["431 bytes", "1.5 kB", "168.3 MB"]
