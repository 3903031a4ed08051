"""Kickstarts in boot ISOs: lorax's program in its forms (a fake on PATH), and xorriso for real."""

from pathlib import Path

import pytest

from rfe_helpers.cli import main
from rfe_helpers.core import run
from rfe_helpers.errors import MediaError
from rfe_helpers.install import kickstart, media, mkksiso
from rfe_helpers.lab import profile

LABEL = "RHEL-9-4-0-BaseOS-x86_64"
TREEINFO = "[general]\nfamily = Red Hat Enterprise Linux\nversion = 9.4\narch = x86_64\n"
LINUX = f"linux /images/pxeboot/vmlinuz inst.stage2=hd:LABEL={LABEL} quiet"
MENU = f"menuentry 'Install' {{\n  {LINUX}\n}}\n"
OLD = "usage: mkksiso [-h] [-a ADD_PATHS] [-c CMDLINE] ks input_iso output_iso\n"
NEW = "usage: mkksiso [-h] [--ks KS] [--skip-mkefiboot] input_iso output_iso\n"


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    for name, text in {".treeinfo": TREEINFO, "boot/grub2/grub.cfg": MENU}.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    options = ["-quiet", "-R", "-J", "-V", LABEL, "-o", tmp_path / "boot.iso"]
    run.run(["xorriso", "-as", "mkisofs", *options, tmp_path / "tree"])
    return tmp_path / "boot.iso"


@pytest.fixture
def edge_ks(tmp_path: Path) -> Path:
    path = tmp_path / "edge.ks"
    key = "ssh-ed25519 AAAA x"
    text = kickstart.render(profile.load("rhel-9.4"), url="http://h/repo/", user="u", ssh_key=key)
    path.write_text(text)
    return path


def test_the_form_is_that_of_the_installed_lorax() -> None:
    paths = (Path("/ks"), Path("/i"), Path("/o"))
    assert mkksiso.argv(OLD, *paths) == ["mkksiso", *paths]
    assert mkksiso.argv(NEW, *paths) == ["mkksiso", "--ks", *paths]
    skipping = ["mkksiso", "--skip-mkefiboot", "--ks", *paths]
    assert mkksiso.argv(NEW, *paths, root=False) == skipping
    assert mkksiso.argv(OLD, *paths, root=False) == ["mkksiso", *paths]


@pytest.mark.parametrize(("help_text", "words"), [(OLD, ""), (NEW, "--ks ")])
def test_lorax_makes_it_where_it_is_installed(
    help_text: str,
    words: str,
    iso: Path,
    edge_ks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments, binary = tmp_path / "arguments", tmp_path / "bin" / "mkksiso"
    binary.parent.mkdir()
    # As lorax's, it refuses an output that exists.
    binary.write_text(
        f'#!/bin/sh\n[ "$1" = --help ] && {{ echo "{help_text}"; exit; }}\n'
        f'echo "$@" > {arguments}\nfor last; do :; done\n[ ! -e "$last" ] && echo made > "$last"\n'
    )
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}:/usr/bin:/bin")
    target = tmp_path / "out.iso"
    for _ in range(2):  # a second time replaces the first
        assert mkksiso.with_kickstart(iso, edge_ks, target).read_text() == "made\n"
    assert f"{words}{edge_ks} {iso} " in arguments.read_text()
    assert not list(tmp_path.glob(".mkksiso-*"))
    binary.write_text("#!/bin/sh\necho must be root >&2; exit 1\n")
    with pytest.raises(MediaError, match="must be root"):
        mkksiso.with_kickstart(iso, edge_ks, target)
    assert target.read_text() == "made\n"


def test_xorriso_makes_it_where_lorax_is_missing(
    iso: Path, edge_ks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.which("mkksiso") is None
    target = tmp_path / "out.iso"
    words = ["kickstart-iso", str(edge_ks), str(iso), str(target), "--profile", "rhel-9.4"]
    assert main.main(words) == 0
    assert capsys.readouterr().out == f"{target}\n"
    copy = media.read(target)
    assert copy.label == LABEL
    assert copy.extract("edge.ks", tmp_path / "copy").read_text() == edge_ks.read_text()
    menu = copy.extract("boot/grub2/grub.cfg", tmp_path / "menu").read_text()
    assert f"quiet inst.ks=hd:LABEL={LABEL}:/edge.ks\n" in menu


def test_a_kickstart_that_the_release_cannot_read_is_not_put_in(
    iso: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.ks"
    bad.write_text("frobnicate\n")
    words = ["kickstart-iso", str(bad), str(iso), str(tmp_path / "o.iso")]
    assert main.main(words) == 1
    assert "line 1" in capsys.readouterr().err
    words[1] = str(tmp_path / "gone.ks")
    assert main.main(words) == 1
    assert "gone.ks: No such file" in capsys.readouterr().err


def test_an_iso_of_another_release_is_named_with_both(iso: Path) -> None:
    boot = media.read(iso)
    mkksiso.check_release(boot, profile.load("rhel-9.4"))
    with pytest.raises(MediaError) as caught:
        mkksiso.check_release(boot, profile.load("rhel-8.10"))
    assert "is Red Hat Enterprise Linux 9.4" in caught.value.message
    assert "this lab is for Red Hat Enterprise Linux 8.10" in caught.value.message
    assert "boot ISO of that release" in caught.value.remedy
