"""Boot ISOs, made small with the real xorriso."""

from pathlib import Path

import pytest
from support.trees import make_tree

from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.errors import InputError, MediaError
from rfe_helpers.install import media

LABEL = "CentOS-Stream-9-BaseOS-x86_64"
TREEINFO = "[general]\nfamily = CentOS Stream\nversion = 9\narch = x86_64\n"


def make_iso(directory: Path, files: dict[str, str], label: str = LABEL) -> Path:
    for name, text in files.items():
        path = directory / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    iso = directory / "boot.iso"
    options = ["-quiet", "-R", "-J", "-V", label, "-o", iso]
    run.run(["xorriso", "-as", "mkisofs", *options, directory / "tree"])
    return iso


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    files = {".treeinfo": TREEINFO, media.KERNEL: "a kernel", media.INITRD: "an initramfs"}
    return make_iso(tmp_path, files)


def test_label_and_release_are_read(iso: Path) -> None:
    boot = media.read(iso)
    assert boot.label == LABEL
    assert (boot.family, boot.version, boot.arch) == ("CentOS Stream", "9", "x86_64")
    assert boot.release == "CentOS Stream 9"
    assert boot.size <= iso.stat().st_size


def test_kernel_and_initramfs_are_taken_out(iso: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a second time replaces the first
        kernel, initrd = media.read(iso).extract_kernel(tmp_path / "out")
    assert (kernel.read_text(), initrd.read_text()) == ("a kernel", "an initramfs")
    assert kernel.stat().st_mode & 0o777 == 0o644


def test_what_is_taken_out_can_be_read_by_its_owner(tmp_path: Path) -> None:
    """Root may enter any directory; others need the right to."""
    iso = media.read(make_iso(tmp_path, {"a/b/c": "x"}))
    taken = iso.extract("a", tmp_path / "taken")
    assert taken.stat().st_mode & 0o777 == 0o755
    assert (taken / "b/c").read_text() == "x"


def test_the_arguments_name_medium_and_kickstart(tmp_path: Path) -> None:
    boot = media.read(make_iso(tmp_path, {"x": ""}, label="A LABEL"))
    words = boot.arguments("http://10.0.2.2:8000/edge.ks").split()
    assert "inst.stage2=hd:LABEL=A\\x20LABEL" in words
    assert "inst.ks=http://10.0.2.2:8000/edge.ks" in words
    assert words[-1] == "console=ttyS0,115200"


def test_an_iso_without_treeinfo_or_kernel(tmp_path: Path) -> None:
    boot = media.read(make_iso(tmp_path, {"readme": "hello"}))
    assert boot.release == LABEL
    with pytest.raises(MediaError, match="has no images/pxeboot/vmlinuz"):
        boot.extract_kernel(tmp_path / "out")


def test_a_damaged_treeinfo_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"\.treeinfo cannot be read"):
        media.read(make_iso(tmp_path, {".treeinfo": "no section\n"}))


def test_what_is_not_a_complete_iso_is_refused(iso: Path, tmp_path: Path) -> None:
    with iso.open("r+b") as file:
        file.truncate(iso.stat().st_size // 2)
    with pytest.raises(MediaError, match="cut off"):
        media.read(iso)
    other = tmp_path / "disk.img"
    other.write_bytes(b"\0" * 50_000)
    with pytest.raises(MediaError, match="not an ISO image"):
        media.read(other)
    other.write_bytes(b"short")
    with pytest.raises(MediaError, match="not an ISO image"):
        media.read(other)
    with pytest.raises(MediaError, match="No such file"):
        media.read(tmp_path / "nowhere.iso")
    with pytest.raises(MediaError, match="directory"):
        media.read(tmp_path)


MENU = """\
set timeout=5
menuentry 'Install' {
\tlinux /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=X quiet
\tinitrd /images/pxeboot/initrd.img
}
menuentry 'Boot the disk' {
\tlinux /other
}
"""


def test_files_and_arguments_are_added_to_a_copy(tmp_path: Path) -> None:
    names = {media.KERNEL: "kernel", media.MENUS[0]: MENU, media.MENUS[1]: MENU, "kept": "as it is"}
    iso = make_iso(tmp_path, names)
    before = iso.read_bytes()
    kickstart, repo = tmp_path / "edge.ks", tmp_path / "repo"
    kickstart.write_text("text\n")
    (repo / "objects").mkdir(parents=True)
    (repo / "config").write_text("[core]\n")
    added = {"osbuild.ks": kickstart, "ostree/repo": repo}
    argument = "inst.ks=hd:LABEL=A\\x20B:/osbuild.ks"
    target = tmp_path / "new.iso"
    copy = media.read(media.add_files(iso, target, added, arguments=argument, timeout=30))
    assert copy.label == LABEL

    def text(name: str) -> str:
        return copy.extract(name, tmp_path / "out").read_text()

    assert text("osbuild.ks") == "text\n"
    assert text("ostree/repo/config") == "[core]\n"
    assert text("kept") == "as it is"
    for menu in media.MENUS[:2]:
        assert f"inst.stage2=hd:LABEL=X quiet {argument}\n" in text(menu)
        assert "linux /other\n" in text(menu)
        assert text(menu).startswith("set timeout=30\n")
    assert iso.read_bytes() == before


def test_a_copy_with_nothing_added_is_refused(iso: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to add"):
        media.add_files(iso, tmp_path / "new.iso", {})
    assert not (tmp_path / "new.iso").exists()


def test_an_iso_that_boots_nothing_takes_no_arguments(iso: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no boot menu"):
        media.add_files(iso, tmp_path / "new.iso", {}, arguments="inst.ks=x")
    with pytest.raises(MediaError, match="could not be made"):
        media.add_files(iso, tmp_path / "new.iso", {"x": tmp_path / "not there"})
    assert not (tmp_path / "new.iso").exists()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


# checksums ----------------------------------------------------------------------------------------


def test_the_checksum_inside_is_the_one_that_isomd5sum_knows(tmp_path: Path) -> None:
    iso = make_iso(tmp_path, {"x": "some text\n" * 90_000})
    assert not media.check(iso)
    size = iso.stat().st_size
    for _ in range(2):  # a former one is replaced
        media.implant_checksum(iso)
    assert iso.stat().st_size == size
    assert media.check(iso)
    run.run(["checkisomd5", iso])
    assert media.read(iso).label == LABEL


def test_an_altered_iso_is_damaged(tmp_path: Path) -> None:
    iso = make_iso(tmp_path, {"x": "some text\n" * 9_000})
    media.implant_checksum(iso)
    flip(iso, iso.stat().st_size // 2)
    with pytest.raises(MediaError, match="does not match the checksum in it"):
        media.check(iso)
    with iso.open("r+b") as file:
        file.truncate(iso.stat().st_size // 2)
    with pytest.raises(MediaError, match="cut off"):
        media.check(iso)


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_a_stick_has_all_of_an_iso_or_the_place_is_reported(tmp_path: Path) -> None:
    iso, stick = tmp_path / "x.iso", tmp_path / "stick"
    iso.write_bytes(bytes(range(256)) * 10_000)
    size = iso.stat().st_size
    stick.write_bytes(iso.read_bytes() + b"what was on it before")
    assert media.verify_written(stick, iso) == size
    for place in (0, 1_048_575, 1_048_576, size - 1):
        flip(stick, place)
        with pytest.raises(MediaError, match=f"at byte {place}: "):
            media.verify_written(stick, iso)
        flip(stick, place)
    stick.write_bytes(iso.read_bytes()[:-1])
    with pytest.raises(MediaError, match=f"ends at byte {size - 1}, .* has {size}: it was cut off"):
        media.verify_written(stick, iso)
    with pytest.raises(MediaError, match="No such file"):
        media.verify_written(tmp_path / "sdx", iso)


# a commit inside ----------------------------------------------------------------------------------


def test_the_commit_inside_an_installer_is_read(tmp_path: Path) -> None:
    repository = Repo(tmp_path / "repo").init()
    tar = make_tree(tmp_path / "tree.tar", {"usr/share/note": "x"})
    ref = "debian/13/x86_64/edge"
    commit = repository.commit_tar(tar, ref, subject="x", version="13.1")
    # isomd5sum does not recognize its own checksum in an ISO of a few kilobytes.
    iso = make_iso(tmp_path, {media.MENUS[0]: MENU, "filler": "some text\n" * 90_000})
    with pytest.raises(MediaError, match="it is not an edge-installer"):
        media.payload(iso)
    kickstart = tmp_path / "osbuild.ks"
    kickstart.write_text("text\n")
    added = {media.REPOSITORY: repository.path, media.KICKSTART: kickstart}
    installer = media.add_files(iso, tmp_path / "installer.iso", added, arguments="inst.ks=x")
    payload = media.payload(installer)
    assert (payload.ref, payload.commit, payload.version) == (ref, commit, "13.1")
    assert payload.kickstart == "text\n"
    assert media.check(installer)
    assert media.read(installer).own_kickstart == f"hd:LABEL={LABEL}:/osbuild.ks"
