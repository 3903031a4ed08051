"""The decisions of the kickstart installer, and the contents of its ISO."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from pykickstart import constants
from pykickstart.version import RHEL9, makeVersion

from rfe_helpers.core import run
from rfe_helpers.install import kickstart, media
from rfe_helpers.lab import profile
from rfe_helpers.sandbox.installer import iso
from rfe_helpers.sandbox.installer.edge_installer import console, disk, image, payload, plan, source
from rfe_helpers.sandbox.installer.edge_installer.console import InstallError
from rfe_helpers.sandbox.installer.edge_installer.disk import Disk
from rfe_helpers.sandbox.installer.edge_installer.plan import Disks

GIB = 1024**3
WHOLE = """\
lang C.UTF-8
keyboard --vckeymap=de
timezone Europe/Berlin --utc
zerombr
clearpart --all --initlabel --drives=vda
ignoredisk --only-use=vda
autopart --type=plain --fstype=ext4
network --bootproto=dhcp --device=link --hostname=edge-1
rootpw --iscrypted $6$root
group --name=ops --gid=4000
user --name=core --groups=wheel,ops --uid=2000 --gid=2001 --password=edge --shell=/bin/sh
sshkey --username=core "ssh-ed25519 AAAA core@here"
services --enabled=one,two --disabled=three
bootloader --append="console=ttyS0 quiet"
ostreesetup --osname=os --remote=edge --url=http://10.0.2.2/repo/ --ref=a/b
poweroff
%pre
one
%end
%post --nochroot --erroronfail --interpreter=/usr/bin/python3 --log=/root/post.log
two
%end
"""
LEAST = "autopart\nostreesetup --osname=os --url=http://x/ --ref=a/b --nogpg\n"


# kickstart to plan --------------------------------------------------------------------------------


def test_everything_that_a_kickstart_specifies_is_in_the_plan() -> None:
    install_plan = plan.parse(WHOLE)
    assert install_plan.payload == payload.Payload(
        "os", "edge", "http://10.0.2.2/repo/", "a/b", True, 15
    )
    assert install_plan.disks == Disks(("vda",), (), True, ("vda",))
    assert install_plan.filesystem == "ext4"
    assert install_plan.kernel_arguments == ("console=ttyS0", "quiet")
    assert install_plan.groups == (("ops", "4000"),)
    user = install_plan.users[0]
    assert (user.name, user.uid, user.gid, user.shell) == ("core", "2000", "2001", "/bin/sh")
    assert (user.password, user.hashed, user.groups) == ("edge", False, ("wheel", "ops"))
    assert install_plan.root == plan.Root("$6$root", True, False)
    assert install_plan.ssh_keys == (("core", "ssh-ed25519 AAAA core@here"),)
    assert (install_plan.hostname, install_plan.timezone) == ("edge-1", "Europe/Berlin")
    assert (install_plan.language, install_plan.keyboard) == ("C.UTF-8", "de")
    assert (install_plan.enabled, install_plan.disabled) == (("one", "two"), ("three",))
    assert install_plan.end == "poweroff"
    post = install_plan.scripts_of(constants.KS_SCRIPT_POST)[0]
    assert (post.inChroot, post.errorOnFail, post.interp) == (False, True, "/usr/bin/python3")
    assert [script.script for script in install_plan.scripts_of(constants.KS_SCRIPT_PRE)] == [
        "one\n"
    ]


def test_the_defaults_are_those_of_anaconda() -> None:
    install_plan = plan.parse(LEAST)
    assert install_plan.payload.remote == "os"
    assert install_plan.filesystem == "xfs"
    assert install_plan.end == "halt"
    assert not install_plan.disks.clear
    assert (install_plan.hostname, install_plan.users, install_plan.root) == (
        None,
        (),
        plan.Root(None, False, False),
    )


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("10.0.2.2:5000/edge/os:1", ("registry", "10.0.2.2:5000/edge/os:1", False)),
        ("oci:/run/install/repo/container", ("oci", "/run/install/repo/container", False)),
    ],
)
def test_a_rendered_kickstart_may_install_an_image(
    image: str, expected: tuple[str, str, bool]
) -> None:
    release = profile.load("sandbox")
    text = kickstart.render(release, image=image, user="core", password_hash="$6$h")
    install_plan = plan.parse(text)
    line = 1 + [row.split(" ")[0] for row in text.splitlines()].index("ostreecontainer")
    assert install_plan.payload == payload.ImagePayload(release.ostree.osname, *expected, line)
    assert str(install_plan.payload) == ":".join(expected[:2])


def test_an_image_whose_signature_is_required() -> None:
    install_plan = plan.parse("autopart\nostreecontainer --url=a.example/os:1\n")
    assert install_plan.payload == payload.ImagePayload(
        "default", "registry", "a.example/os:1", True, 2
    )
    with pytest.raises(InstallError, match="line 2: ostreecontainer: option --remote is not"):
        plan.parse("autopart\nostreecontainer --url=a.example/os:1 --remote=edge\n")


def test_the_installer_can_carry_out_the_rendered_kickstart() -> None:
    text = kickstart.render(
        profile.load("sandbox"), url="http://x/", user="core", password_hash="$6$h", post="true"
    )
    install_plan = plan.parse(text)
    assert install_plan.disks.clear
    assert install_plan.users[0].hashed
    assert install_plan.end == "reboot"


@pytest.mark.parametrize(
    ("line", "keymap"),
    [
        ("keyboard us", "us"),
        ("keyboard --vckeymap=de --xlayouts='fr (oss)'", "de"),
        ("keyboard --xlayouts='cz (qwerty)','us'", "cz"),
    ],
)
def test_the_keymap_is_read_from_each_of_its_options(line: str, keymap: str) -> None:
    assert plan.parse(LEAST + line + "\n").keyboard == keymap


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("raid / --level=1", "line 3: raid: this directive is not supported here"),
        ("part / --size=1", "line 3: part: this directive is not supported here"),
        ("firewall --disabled", "line 3: firewall: this directive is not supported here"),
        ("nonsense", "line 3: nonsense: this directive is not supported here"),
        ("reboot --eject", "line 3: reboot: option --eject is not supported here"),
        ("user --name=a --gecos=b --homedir=/x --frobnicate", "line 3: user: option --frobnicate"),
        ("autopart --type=lvm", "line 3: autopart: only --type=plain is supported here"),
        ("autopart --type=plain --fstype=ext3", "line 3: autopart: --fstype must be xfs or ext4"),
        ("network --bootproto=static", "line 3: network: only --bootproto=dhcp"),
        ("bootloader --location=partition", "line 3: bootloader: only --location=mbr"),
        ("user --name=Core;reboot", "line 3: user: 'Core;reboot' is not a user name"),
        ("user", "line 3: user: the following arguments are required: --name"),
        ("%packages\nvim\n%end", "line 3: Unknown kickstart section: %packages"),
        ("%post\ntrue", "line 4: Section %post does not end with %end."),
        ("lang 'en", "kickstart: No closing quotation"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_line(line: str, message: str) -> None:
    with pytest.raises(InstallError) as caught:
        plan.parse(LEAST + line + "\n")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["ostreesetup", "autopart"])
def test_a_kickstart_without_the_essential_is_refused(missing: str) -> None:
    kept = [line for line in LEAST.splitlines() if not line.startswith(missing)]
    with pytest.raises(InstallError, match=f"has no {missing} directive"):
        plan.parse("\n".join(kept) + "\n")


def test_a_file_that_pre_writes_may_be_missing_before_it_has_run(tmp_path: Path) -> None:
    generated = tmp_path / "part.ks"
    text = f"%include {generated}\n" + LEAST.splitlines()[1] + "\n"
    assert plan.parse(text, follow_includes=False).payload.ref == "a/b"
    generated.write_text("autopart --fstype=ext4\n")
    assert plan.parse(text).filesystem == "ext4"
    generated.write_text("raid x\n")
    with pytest.raises(InstallError, match="raid"):
        plan.parse(text)


def test_every_supported_directive_is_one_of_the_release() -> None:
    assert plan.SUPPORTED.keys() <= makeVersion(RHEL9).commands.keys()


# choosing the disk --------------------------------------------------------------------------------


def device(name: str, **changes: Any) -> dict[str, Any]:
    """A device as lsblk describes it."""
    path = f"/dev/{name}"
    empty = {"type": "disk", "size": 10 * GIB, "ro": False, "fstype": None, "pttype": None}
    return {"name": name, "path": path, **empty, **changes}


def test_only_disks_that_can_be_written_are_offered() -> None:
    stick = device("sda", children=[device("sda1", type="part", fstype="iso9660")])
    devices = [
        device("vda"),
        device("sr0", type="rom"),
        device("loop0", type="loop"),
        device("vdb", ro=True),
        device("sdb", size=0),
        device("zram0"),
        stick,
    ]
    assert disk.usable(devices, Path("/dev/sda1")) == [Disk("vda", 10 * GIB, "")]
    stick_too = disk.usable(devices, Path("/dev/sr0"))
    assert [candidate.name for candidate in stick_too] == ["vda", "sda"]
    assert stick_too[1].holds == "iso9660"


EMPTY = Disk("vda", 10 * GIB, "")
FULL = Disk("vda", 10 * GIB, "gpt, xfs")
NO_RULES = Disks((), (), False, ())
CLEAR_ALL = Disks((), (), True, ())


def test_an_empty_disk_needs_no_permission_and_a_full_one_does() -> None:
    assert disk.choose(NO_RULES, [EMPTY]) == EMPTY
    assert disk.choose(CLEAR_ALL, [FULL]) == FULL
    with pytest.raises(InstallError, match=r"vda is not empty \(gpt, xfs\): clearpart --all"):
        disk.choose(NO_RULES, [FULL])
    other = Disks(("vda",), (), True, ("vdb",))
    with pytest.raises(InstallError, match="vda is not empty"):
        disk.choose(other, [FULL])


def test_of_several_disks_one_must_be_named() -> None:
    disks = [EMPTY, Disk("vdb", 20 * GIB, "")]
    with pytest.raises(InstallError, match=r"several disks \(vda \(10.0 GiB\), vdb \(20.0 GiB\)\)"):
        disk.choose(CLEAR_ALL, disks)
    assert disk.choose(Disks(("vdb",), (), True, ()), disks).name == "vdb"
    assert disk.choose(Disks(("/dev/vdb",), (), True, ()), disks).name == "vdb"
    assert disk.choose(Disks((), ("vda",), True, ()), disks).name == "vdb"
    assert disk.choose(Disks((), (), True, ("vdb",)), disks).name == "vdb"
    with pytest.raises(InstallError, match="no disk to install to; disks of this machine: vda"):
        disk.choose(Disks(("sdz",), (), True, ()), disks)
    with pytest.raises(InstallError, match="disks of this machine: none"):
        disk.choose(CLEAR_ALL, [])


def test_a_disk_that_is_too_small_is_refused() -> None:
    with pytest.raises(InstallError, match=r"disk vda is too small: 1\.0 GiB, needs 3\.0 GiB"):
        disk.choose(CLEAR_ALL, [Disk("vda", GIB, "")])
    assert disk.choose(CLEAR_ALL, [EMPTY], disk.needed_bytes(400_000_000)) == EMPTY
    with pytest.raises(InstallError, match=r"too small: 10\.0 GiB, needs 12\.0 GiB"):
        disk.choose(CLEAR_ALL, [EMPTY], disk.needed_bytes(5 * GIB))


def test_a_medium_tells_the_unpacked_size_of_its_commit(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/repo"
    assert source.payload_bytes(url) == 0
    (tmp_path / "payload.json").write_text('{"bytes": 42}')
    assert source.payload_bytes(url) == 42
    assert source.payload_bytes("http://10.0.2.2:8000/repo/") == 0


def test_an_image_is_written_to_the_disk_that_is_named_if_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "image.raw.xz"
    run.run(["sh", "-c", 'truncate --size=3M "$1" && xz "$1"', "sh", packed.with_suffix("")])
    lsblk = tmp_path / "lsblk"
    disks = json.dumps({"blockdevices": [device("vdq", size=GIB), device("vdr", size=1024**2)]})
    lsblk.write_text(f"#!/bin/sh\necho '{disks}'\n")
    lsblk.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("RFE_IMAGE", "1")  # it has no consoles of its own
    monkeypatch.setattr(console, "LOG", tmp_path / "install.log")
    assert image.unpacked_bytes(packed) == 3 * 1024**2
    with pytest.raises(InstallError, match=r"disks of this machine: vdq \(1\.0 GiB\), vdr"):
        image.write(packed, "/dev/vda")
    with pytest.raises(InstallError, match=r"no disk: give the kernel coreos\.inst"):
        image.write(packed, "")
    with pytest.raises(InstallError, match="vdr is too small"):
        image.write(packed, "vdr")


# kernel arguments, devices, kickstarts ------------------------------------------------------------


def test_kernel_arguments() -> None:
    text = "BOOT_IMAGE=/vmlinuz quiet inst.ks=http://x/?a=b console=tty0 console=ttyS0\n"
    assert source.boot_arguments(text) == {
        "BOOT_IMAGE": "/vmlinuz",
        "quiet": "",
        "inst.ks": "http://x/?a=b",
        "console": "ttyS0",
    }


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("LABEL=A-B", "/dev/disk/by-label/A-B"),
        ("UUID=1-2", "/dev/disk/by-uuid/1-2"),
        ("sdb1", "/dev/sdb1"),
        ("/dev/sdb1", "/dev/sdb1"),
    ],
)
def test_devices_are_named_as_in_anaconda(spec: str, path: str) -> None:
    assert source.device_path(spec) == Path(path)


def test_a_kickstart_from_a_file_or_a_device(tmp_path: Path) -> None:
    file = tmp_path / "edge.ks"
    file.write_text("text\n")
    assert source.read_kickstart(f"file:{file}") == "text\n"
    assert source.read_kickstart(f"file://{file}") == "text\n"
    with pytest.raises(InstallError, match="No such file"):
        source.read_kickstart(f"file:{tmp_path}/other.ks")
    with pytest.raises(InstallError, match="use http"):
        source.read_kickstart("nfs:server:/edge.ks")
    with pytest.raises(InstallError, match="no device LABEL=NOT-THERE"):
        source.read_kickstart("hd:LABEL=NOT-THERE:/edge.ks")


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("error: one\n", "one"),
        ("first\nReceiving: 5%\n\x1b[0K\x1b8\n", "Receiving: 5%"),
        ("\x1b7\x1b[2KWriting\x1b[0K", "Writing"),
        ("\x1b7Receiving: 5/9   \x1b8\x1b[0KReceiving: 7/9   \x1b8", "Receiving: 7/9"),
        ("", "ended with status 3"),
    ],
)
def test_the_last_line_that_is_not_empty(output: str, line: str) -> None:
    assert console.last_line(output, 3) == line


# the ISO ------------------------------------------------------------------------------------------


def contents() -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(iso.contents("A-LABEL"))) as tar:
        files = {entry.name: tar.extractfile(entry) for entry in tar}
        return {name: file.read() for name, file in files.items() if file is not None}


def test_the_contents_are_the_same_bytes_each_time() -> None:
    assert iso.contents("A-LABEL") == iso.contents("A-LABEL")
    assert iso.contents("A-LABEL") != iso.contents("ANOTHER")


def test_installer_library_and_menu_are_in_the_iso() -> None:
    files = contents()
    library = "./usr/lib/edge-installer"
    assert f"{library}/edge_installer/__main__.py" in files
    assert f"{library}/pykickstart/parser.py" in files
    assert not [name for name in files if "__pycache__" in name]
    menu = files["./rfe/grub.cfg"].decode()
    assert "linux /images/pxeboot/vmlinuz inst.stage2=hd:LABEL=A-LABEL " in menu
    assert "Install Debian 13 Edge" in menu
    for name, text in files.items():
        if name.startswith("./rfe/") and name != "./rfe/prepare.sh":
            assert b"@" not in text, name


def test_shell_scripts_are_well_formed(tmp_path: Path) -> None:
    scripts = {name: text for name, text in contents().items() if name.endswith(".sh")}
    assert len(scripts) == 5
    for name, text in scripts.items():
        path = tmp_path / Path(name).name
        path.write_bytes(text)
        run.run(["sh", "-n", path])


@pytest.mark.parametrize(
    ("argument", "device", "image"),
    [
        ("hd:LABEL=A-B", "/dev/disk/by-label/A-B", "images/install.img"),
        ("hd:LABEL=A-B:/other/install.img", "/dev/disk/by-label/A-B", "other/install.img"),
        ("hd:UUID=1-2", "/dev/disk/by-uuid/1-2", "images/install.img"),
        ("hd:sdb1", "/dev/sdb1", "images/install.img"),
        ("hd:/dev/sdb1", "/dev/sdb1", "images/install.img"),
        ("cdrom", "/dev/sr0", "images/install.img"),
        ("cdrom:/dev/sr1", "/dev/sr1", "images/install.img"),
    ],
)
def test_the_initramfs_finds_stage2_as_anacondas(argument: str, device: str, image: str) -> None:
    """The hook, with stand-ins for the two functions of dracut that it calls."""
    hook = contents()["./usr/lib/dracut/modules.d/80edge-stage2/find-stage2.sh"].decode()
    dracut = f"getarg() {{ echo '{argument}'; }}; wait_for_dev() {{ echo \"waits for $1\"; }}\n"
    result = run.run(["sh", "-c", f'{dracut}{hook}\necho "$stage2_image $root $rootok"'])
    assert result.stdout.splitlines() == [f"waits for {device}", f"{image} edge-stage2 1"]


def test_xorriso_makes_an_iso_that_boots_both_ways(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for name in ("eltorito.img", "efiboot.img", "pxeboot/vmlinuz"):
        file = root / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode().ljust(1024 * 1024, b"\0"))
    mbr, target = tmp_path / "mbr.img", tmp_path / "out.iso"
    mbr.write_bytes(bytes(512))
    run.run(iso.iso_argv(root, mbr, "A-LABEL", target))
    assert media.read(target).label == "A-LABEL"
    report = run.run(["xorriso", "-indev", target, "-report_el_torito", "plain"]).stdout
    assert "BIOS" in report
    assert "UEFI" in report
