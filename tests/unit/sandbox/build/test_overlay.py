"""What a tree has over its base, and over which earlier tree it is committed."""

from __future__ import annotations

import json
import subprocess
import tarfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from rfe_helpers.core import run
from rfe_helpers.errors import CommandFailedError
from rfe_helpers.sandbox.build import overlay

BASE = {
    "etc/os": "debian",
    "etc/old": "of the base",
    "usr/bin/tool": "1",
    "usr/lib/kernel/vmlinuz": "kernel",
    "var/lib/dpkg/status": "base",
    "run/pid": "1",
}
PLAIN = "echo ref > $1/etc/ref; rm $1/etc/old"


def place(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


class Bench:
    """Trees over one base; `lay(script)` runs a shell script in place of mmdebstrap."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.base = place(directory / "base", BASE)
        self.count = 0

    def lay(self, script: str, *trees: overlay.Tree) -> tuple[overlay.Tree, dict[str, str]]:
        """The tree, and its tar as path -> content, "/" for a directory."""
        self.count += 1
        area = self.directory / f"area-{self.count}"
        area.mkdir()
        overlay.prepare(area)
        spec = {"base": str(self.base), "trees": [asdict(tree) for tree in trees]}
        (area / "spec.json").write_text(json.dumps(spec))
        tar = area / "tree.tar"
        command = ["sh", "-euc", script, "sh", str(area / overlay.MERGED)]
        run.run(overlay.argv(self.base, area, tar, command), seconds=60)
        content = {}
        with tarfile.open(tar) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isreg() else None
                text = file.read().decode().strip() if file else "/" if entry.isdir() else "?"
                content[entry.name.removeprefix("./")] = text
        return overlay.Tree(**json.loads((area / "tree.json").read_text())), content


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    area = tmp_path / "try"
    area.mkdir()
    (tmp_path / "empty").mkdir()
    if not overlay.is_usable(tmp_path / "empty", area):
        pytest.skip("this machine cannot mount an overlay in a namespace: composes do without")
    return Bench(tmp_path)


def test_the_first_tree_is_packed_whole_with_its_paths_in_place(bench: Bench) -> None:
    tree, content = bench.lay(PLAIN)
    files = {name: text for name, text in content.items() if text != "/"}
    assert files == {
        "usr/etc/os": "debian",
        "usr/etc/ref": "ref",
        "usr/bin/tool": "1",
        "usr/lib/kernel/vmlinuz": "kernel",
        "usr/lib/sysimage/dpkg/status": "base",
    }
    assert {"run", "var"} <= content.keys(), "they are mount points"
    assert (tree.commit, tree.removed) == ("", ["usr/etc/old"])
    assert tree.changed == ["usr/etc/", "usr/etc/ref"]
    assert (bench.base / "etc/old").read_text() == "of the base"


def test_later_trees_have_only_what_is_new(bench: Bench) -> None:
    plain = replace(bench.lay(PLAIN)[0], commit="1" * 64)
    tree, content = bench.lay(f"{PLAIN}; echo 2 > $1/usr/bin/more", plain)
    assert tree.commit == plain.commit
    files = {name: text for name, text in content.items() if text != "/"}
    assert files == {"usr/etc/ref": "ref", "usr/bin/more": "2"}


def test_a_tree_that_lacks_something_goes_over_an_earlier_one_or_over_none(bench: Bench) -> None:
    plain = replace(bench.lay(PLAIN)[0], commit="1" * 64)
    more = replace(bench.lay(f"{PLAIN}; echo 2 > $1/usr/bin/more", plain)[0], commit="2" * 64)
    tree, _ = bench.lay(f"{PLAIN}; echo 3 > $1/usr/bin/other", more, plain)
    assert tree.commit == plain.commit
    tree, content = bench.lay(f"{PLAIN}; rm $1/usr/bin/tool", more, plain)
    assert tree.commit == ""
    assert "usr/bin/tool" not in content
    assert "usr/lib/kernel/vmlinuz" in content
    kind = f"{PLAIN}; rm $1/usr/bin/tool; mkdir $1/usr/bin/tool"
    assert bench.lay(kind, more, plain)[0].commit == "", "a directory cannot replace a file"


def test_what_an_earlier_tree_has_removed_comes_back(bench: Bench) -> None:
    plain = replace(bench.lay(PLAIN)[0], commit="1" * 64)
    tree, content = bench.lay("echo ref > $1/etc/ref", plain)
    assert tree.commit == plain.commit
    assert content["usr/etc/old"] == "of the base"


def test_what_an_earlier_tree_has_changed_is_as_in_the_base_again(bench: Bench) -> None:
    plain = replace(bench.lay(f"{PLAIN}; echo 2 > $1/usr/bin/tool")[0], commit="1" * 64)
    _, content = bench.lay(PLAIN, plain)
    assert content["usr/bin/tool"] == "1"


def test_links_owners_and_modes_are_packed(bench: Bench) -> None:
    script = (
        "ln -s /etc/x $1/etc/link; ln $1/etc/os $1/etc/hard; echo > $1/etc/mode; "
        "chown 0:42 $1/etc/mode; chmod 4750 $1/etc/mode"
    )
    bench.lay(script)
    with tarfile.open(bench.directory / "area-1/tree.tar") as archive:
        link, mode = archive.getmember("./usr/etc/link"), archive.getmember("./usr/etc/mode")
        assert link.linkname == "/etc/x", "the target of a symbolic link stays"
        assert (mode.mode, mode.gid) == (0o4750, 42)
        hard = next(entry for entry in archive if entry.islnk())
        assert hard.linkname.startswith("./usr/etc/")


def test_a_build_that_fails_packs_nothing(bench: Bench) -> None:
    with pytest.raises(CommandFailedError):
        bench.lay("echo no packages >&2; exit 25")
    assert not (bench.directory / "area-1/tree.tar").exists()


def test_a_killed_build_leaves_no_process_and_no_mount(bench: Bench) -> None:
    area = bench.directory / "killed"
    area.mkdir()
    overlay.prepare(area)
    command = ["sh", "-c", "echo up; sleep 600"]
    argv = overlay.argv(bench.base, area, area / "tar", command)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.kill()
        assert process.stdout.read() == "", "the last process that could write is gone"
    assert str(area) not in Path("/proc/mounts").read_text()
    overlay.remove_mapped(area)
    assert not area.exists()
