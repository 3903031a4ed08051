"""The sandbox's boot ISO installs a machine that boots, as its kickstart says; and what it refuses.

Every machine here is real: minutes where KVM does not work.
"""

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rfe_helpers import serve
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.commit import open_commit
from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import MachineError, MediaError
from rfe_helpers.install import kickstart, media
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import disks, installation
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.vm import Machine, VmSpec
from rfe_helpers.sandbox.build import artifacts, image_types, tree
from rfe_helpers.serve.site import Site

pytestmark = pytest.mark.slow

GIB = 1024**3
INSTALL_SECONDS = 900  # the image of a simplified installer is unpacked at 15 MB/s without KVM
BOOT_SECONDS = 400
# What the rendered kickstart does not use, in the words that Anaconda's documentation has.
MANY_WORDS = """\
%pre --log=/tmp/pre.log
test -b /dev/vda || exit 1
echo "autopart --type=plain --fstype=xfs" > /tmp/part.ks
%end
%include /tmp/part.ks
cmdline
lang C.UTF-8
keyboard --vckeymap=us
timezone Europe/Berlin --utc
zerombr
clearpart --all --initlabel --drives=vda
ignoredisk --only-use=vda
network --bootproto=dhcp --hostname=station-7
rootpw --iscrypted HASH
group --name=ops --gid=4000
user --name=core --groups=wheel,ops --uid=2000 --gid=2001 --gecos="The Core"
user --name=gone --lock --plaintext --password=edge
sshkey --username=core "KEY"
sshkey --username=root "KEY"
services --disabled=systemd-timesyncd
bootloader --append="console=tty0 console=ttyS0,115200 edge.word=yes"
ostreesetup --nogpg --osname=debian-edge --remote=edge --url=URL --ref=REF
poweroff
%post --log=/root/post.log
id -un
hostname > /etc/from-post
%end
%post --nochroot --interpreter=/usr/bin/python3 --erroronfail
from pathlib import Path
seen = Path("/mnt/sysimage/ostree/repo").is_dir()
Path("/mnt/sysroot/etc/from-nochroot").write_text(f"disk: {seen}\\n")
%end
%post
exit 3
%end
"""


@dataclass(frozen=True)
class World:
    """A lab with everything an installation needs."""

    lab: Lab
    iso: Path
    site: Site
    ref: str

    def install(self, name: str, kickstart_name: str, firmware: str = "bios") -> list[str]:
        """Install a machine; returns what was said meanwhile."""
        said: list[str] = []
        installation.install(
            self.lab,
            name,
            self.iso,
            self.site.kickstart_url(kickstart_name),
            firmware=firmware,
            deadline=Deadline(INSTALL_SECONDS),
            on_progress=said.append,
        )
        return said

    def boot(self, name: str, firmware: str) -> tuple[Machine, Node]:
        """Start an installed machine and wait until it answers over SSH."""
        port = self.lab.port(f"ssh-{name}", 2222)
        spec = VmSpec(name, disk=self.disk(name), firmware=firmware, forwards=((port, 22),))
        machine = Machine.start(self.lab, spec)
        edge = Node(self.lab, name, port=port, user="core")
        edge.wait(Deadline(BOOT_SECONDS))
        return machine, edge

    def disk(self, name: str) -> Path:
        return self.lab.path("machines", name, "disk.qcow2")

    def compose(self, kind: str, **customizations: object) -> Path:
        """What a compose of a type that deploys makes of the commit that is served."""
        found = image_types.find(kind)
        assert found is not None
        user = {"name": "core", "key": self.lab.public_key, "groups": ["wheel"]}
        wanted = {"user": [user], **customizations}
        blueprint = Blueprint(name="Deployed", version="0.0.1", customizations=wanted)
        url = self.site.guest_repo_url
        request = tree.Request("2", kind, self.ref, blueprint, url=url, size=found.size)
        return artifacts.build(request, work_in(self.lab, kind))

    def publish_next(self) -> str:
        """Build and publish the commit after the one that is served; returns its id."""
        parent = open_commit(self.site.repo_url, self.ref).id
        blueprint = Blueprint(name="Edge", version="0.0.2")
        request = tree.Request("3", "edge-commit", self.ref, blueprint, parent=parent)
        artifact = artifacts.build(request, work_in(self.lab, "next"))
        serve.publish(
            self.lab, artifact, engine="nginx", kickstarts=kickstarts(self.lab, self.site)
        )
        return open_commit(artifact).id


def work_in(lab: Lab, name: str) -> tree.Work:
    directory = lab.path("composes", name, "x").parent
    return tree.Work(directory, cache_directory(), lab.log(name), Deadline(1200))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("install")
    lab = Lab(directory / "lab", "sandbox")
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    facts = lab.profile.ostree
    request = tree.Request("1", "edge-commit", facts.ref, Blueprint(name="Edge", version="0.0.1"))
    artifact = artifacts.build(request, work_in(lab, "commit"))
    # The kickstarts need the URL that publishing them gives: publish twice, on the same port.
    site = serve.publish(lab, artifact, engine="nginx")
    site = serve.publish(lab, artifact, engine="nginx", kickstarts=kickstarts(lab, site))
    command = [sys.executable, "-m", "rfe_helpers.sandbox.installer", "--cache", cache]
    iso = Path(run.run(command, seconds=1200).stdout.splitlines()[-1])
    yield World(lab, iso, site, facts.ref)
    lab.clean(serve.remove_container)


def kickstarts(lab: Lab, site: Site) -> dict[str, str]:
    key = lab.public_key.strip()
    rendered = kickstart.render(
        lab.profile,
        url=site.guest_repo_url,
        user="core",
        password_hash=kickstart.hash_password("edge"),
        ssh_key=key,
        post="echo done > /etc/from-post",
    )
    words = {"KEY": key, "URL": site.guest_repo_url, "REF": lab.profile.ostree.ref}
    many = MANY_WORDS.replace("HASH", kickstart.hash_password("root"))
    for word, value in words.items():
        many = many.replace(word, value)
    return {
        "edge.ks": rendered,
        "many.ks": many,
        "raid.ks": rendered.replace("zerombr", "raid / --level=1 --device=md0 a b"),
        "no-ref.ks": rendered.replace(lab.profile.ostree.ref, "debian/13/x86_64/gone"),
        "post-fails.ks": rendered.replace("echo done", "echo why >&2; exit 4; echo"),
    }


def test_one_installation_boots_with_bios_and_with_uefi(world: World, tmp_path: Path) -> None:
    said = world.install("edge-1", "edge.ks")
    assert "deploying" in said
    machine, edge = world.boot("edge-1", "bios")
    assert edge.run("cat /etc/from-post /etc/hostname").stdout.split() == ["done", "edge-1"]
    assert edge.run("sudo -n id -u").stdout.strip() == "0"
    owner = edge.run("stat -c '%U %a' ~ ~/.ssh ~/.ssh/authorized_keys").stdout.splitlines()
    assert owner == ["core 700", "core 700", "core 600"]
    assert edge.sudo("cut -d: -f2 /etc/shadow | head -1").stdout.startswith(("!", "*"))
    assert world.ref in edge.run("ostree admin status").stdout
    assert edge.run("findmnt -no FSTYPE,OPTIONS /sysroot").stdout.startswith("ext4")
    assert edge.run("findmnt -no FSTYPE /boot").stdout.strip() == "ext4"
    assert edge.sudo("ostree remote show-url edge").stdout.strip() == world.site.guest_repo_url
    assert edge.sudo("ostree remote refs edge").stdout.strip() == f"edge:{world.ref}"
    assert not edge.run("systemctl --failed --no-legend --plain").stdout.strip()
    # OSTree sets the times of files to 0, by which Python would not know its bytecode again.
    imports = edge.run("python3 -v -c 'import argparse, gi' 2>&1").stdout
    assert "matches" in imports
    assert "stale" not in imports
    assert not edge.run("ls -d /sys/firmware/efi", check=False).stdout
    assert machine.screenshot(tmp_path / "screen.png").stat().st_size > 500
    machine.stop()
    machine, edge = world.boot("edge-1", "uefi")
    assert edge.run("ls -d /sys/firmware/efi").stdout
    machine.stop()


@pytest.mark.full
def test_a_kickstart_with_many_words_is_carried_out(world: World) -> None:
    said = world.install("edge-2", "many.ks", firmware="uefi")
    assert "%pre (line 1)" in said
    machine, edge = world.boot("edge-2", "uefi")
    assert "edge.word=yes" in edge.run("cat /proc/cmdline").stdout
    assert edge.run("findmnt -no FSTYPE /sysroot").stdout.strip() == "xfs"
    assert edge.run("id core").stdout.split()[:2] == ["uid=2000(core)", "gid=2001(core)"]
    assert "4000(ops)" in edge.run("id core").stdout
    assert edge.run("hostname").stdout.strip() == "station-7"
    assert edge.run("date +%Z").stdout.strip() in ("CET", "CEST")
    assert edge.run("systemctl is-enabled systemd-timesyncd", check=False).stdout == "disabled\n"
    assert "KEYMAP=us" in edge.read("/etc/vconsole.conf")
    assert edge.read("/etc/from-nochroot") == "disk: True\n"
    assert edge.sudo("cat /root/post.log").stdout == "root\n"
    shadow = edge.sudo("cat /etc/shadow").stdout.splitlines()
    fields = {line.split(":")[0]: line.split(":")[1] for line in shadow}
    assert fields["root"].startswith("$6$")
    assert fields["gone"].startswith("!$")
    assert edge.sudo("grep -c ssh-ed25519 /root/.ssh/authorized_keys").stdout == "1\n"
    log = edge.sudo("cat /var/log/edge-install.log").stdout
    assert "went on after line" in log
    assert "status 3" in log
    machine.stop()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raid.ks", r"line \d+: raid: this directive is not supported here"),
        ("no-ref.ks", r"line \d+: ostreesetup: no debian/13/x86_64/gone from http"),
        ("absent.ks", "absent.ks answers 404 Not Found"),
    ],
)
def test_what_cannot_work_is_said_before_the_disk_is_touched(
    world: World, name: str, message: str
) -> None:
    with pytest.raises(MachineError, match=message) as caught:
        world.install("refused", name)
    assert caught.value.log is not None
    assert "RFE-INSTALL-FAILED" in caught.value.log.read_text(errors="replace")
    assert Machine.find(world.lab, "refused") is None
    assert not written(world.lab.path("machines", "refused", "disk.qcow2"))


def written(disk: Path) -> list[Mapping[str, object]]:
    """The parts of an image that hold data."""
    parts = json.loads(run.run(["qemu-img", "map", "--output=json", disk]).stdout)
    return [part for part in parts if part["data"]]


@pytest.mark.full
def test_a_post_script_that_must_succeed_fails_the_installation(world: World) -> None:
    with pytest.raises(MachineError, match=r"line \d+: %post: status 4: why"):
        world.install("refused", "post-fails.ks")


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_iso_boots_by_its_menu(world: World, firmware: str) -> None:
    """From the CD, with the menu's own entry: it comes as far as missing a kickstart."""
    spec = VmSpec("menu", memory_mib=installation.MEMORY_MIB, cdrom=world.iso, firmware=firmware)
    machine = Machine.start(world.lab, replace(spec, network=False))
    try:
        machine.wait_until(
            lambda: "RFE-INSTALL-FAILED: no kickstart" in machine.console(),
            Deadline(BOOT_SECONDS),
            "the installer starts",
        )
    finally:
        machine.kill()


# machines without a network, and without an installer ---------------------------------------------


@pytest.fixture(scope="module")
def offline_iso(world: World) -> Path:
    """edge-installer: the ISO with the commit inside, which erases the disk and asks nothing."""
    return world.compose("edge-installer", installer={"unattended": True})


def install_by_the_menu(world: World, name: str, iso: Path, firmware: str) -> None:
    """As on a device: the menu's own entry, and no network card at all."""
    disk = disks.create(world.disk(name), 10 * GIB)
    spec = VmSpec(name, disk=disk, memory_mib=installation.MEMORY_MIB, cdrom=iso, cache="unsafe")
    machine = Machine.start(
        world.lab, replace(spec, firmware=firmware, network=False, reboots=False)
    )

    def ended() -> bool:
        state = installation.read_installer(machine.console())
        if state.failure:
            raise MachineError(state.failure)
        return not machine.alive and state.ended

    try:
        machine.wait_until(ended, Deadline(INSTALL_SECONDS), "it is installed")
    finally:
        machine.kill()


@pytest.mark.full
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_an_installer_with_the_commit_inside_needs_no_network(
    world: World, offline_iso: Path, firmware: str
) -> None:
    name = f"offline-{firmware}"
    install_by_the_menu(world, name, offline_iso, firmware)
    machine, edge = world.boot(name, firmware)
    inside = media.payload(offline_iso)
    assert edge.status().booted.checksum == inside.commit
    assert edge.sudo("ostree remote show-url edge").stdout.strip() == world.site.guest_repo_url
    update = world.publish_next()
    edge.upgrade()
    edge.reboot(Deadline(BOOT_SECONDS))
    assert edge.status().booted.checksum == update
    machine.stop()


@pytest.mark.full
def test_a_damaged_medium_is_refused_before_the_disk_is_touched(
    world: World, offline_iso: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.iso"
    damaged.write_bytes(offline_iso.read_bytes())
    with damaged.open("r+b") as file:
        # In the last files, which are the commit's: it boots all the same.
        file.seek(media.read(offline_iso).size - 40_000_000)
        file.write(b"something else")
    with pytest.raises(MediaError, match="does not match the checksum"):
        installation.install(world.lab, "refused", damaged, media.read(damaged).own_kickstart)
    with pytest.raises(MachineError, match="the boot medium is damaged"):
        install_by_the_menu(world, "refused", damaged, "bios")
    assert not written(world.disk("refused"))


@pytest.mark.full
def test_a_disk_too_small_for_the_commit_is_refused_before_it_is_touched(
    world: World, offline_iso: Path
) -> None:
    kickstart_url = media.read(offline_iso).own_kickstart
    with pytest.raises(MachineError, match=r"disk vda is too small: 2\.0 GiB, needs 3\.0 GiB"):
        installation.install(
            world.lab, "refused", offline_iso, kickstart_url, network=False, disk_size=2 * GIB
        )
    assert not written(world.disk("refused"))


def ignition_config() -> str:
    """A file in /etc and one in /var, a user, and a unit that is enabled, as base64 of JSON."""
    unit = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/test -e /etc/site\n"
    config = {
        "ignition": {"version": "3.3.0"},
        "passwd": {"users": [{"name": "fitter", "groups": ["wheel"]}]},
        "storage": {
            "files": [
                {"path": path, "mode": 0o644, "contents": {"source": f"data:,{text}%0A"}}
                for path, text in (("/etc/site", "berlin"), ("/var/lib/site/name", "edge"))
            ]
        },
        "systemd": {
            "units": [
                {
                    "name": "site.service",
                    "enabled": True,
                    "contents": f"{unit}[Install]\nWantedBy=multi-user.target\n",
                }
            ]
        },
    }
    return base64.b64encode(json.dumps(config).encode()).decode()


def test_a_simplified_installer_writes_its_image_to_the_disk_it_names(world: World) -> None:
    var = {"mountpoint": "/var", "minsize": GIB // 2, "label": "data"}
    iso = world.compose(
        "edge-simplified-installer",
        installation_device="/dev/vda",
        kernel={"append": "edge.word=yes"},
        disk={"partitions": [var]},
        ignition={"embedded": {"config": ignition_config()}},
    )
    install_by_the_menu(world, "simplified", iso, "bios")
    machine, edge = world.boot("simplified", "bios")
    assert "edge.word=yes" in edge.read("/proc/cmdline")
    assert int(edge.run("findmnt -bno SIZE /sysroot").stdout) > 8 * GIB
    assert edge.run("findmnt -no SOURCE,LABEL /var").stdout.split() == ["/dev/vda4", "data"]
    assert edge.sudo("ostree remote show-url edge").stdout.strip() == world.site.guest_repo_url
    assert edge.run("cat /etc/site /var/lib/site/name").stdout == "berlin\nedge\n"
    assert edge.run("id -nG fitter").stdout.split() == ["fitter", "wheel"]
    assert edge.run("systemctl is-active site.service").stdout.strip() == "active"
    assert not edge.run("systemctl --failed --no-legend --plain").stdout.strip()
    machine.stop()


def test_a_raw_image_boots_grows_and_is_updated(world: World) -> None:
    filesystem = [{"mountpoint": "/var", "minsize": GIB // 2}]
    append = {"append": "edge.word=yes"}
    image = world.compose("edge-raw-image", kernel=append, filesystem=filesystem)
    disks.from_raw_xz(image, world.disk("raw"), 8 * GIB)
    machine, edge = world.boot("raw", "bios")
    assert int(edge.run("findmnt -bno SIZE /sysroot").stdout) > 6 * GIB
    assert edge.run("findmnt -no SOURCE /var").stdout.strip() == "/dev/vda4"
    assert "edge.word=yes" in edge.read("/proc/cmdline")
    assert edge.run("sudo -n id -u").stdout.strip() == "0"
    assert edge.sudo("ostree remote show-url edge").stdout.strip() == world.site.guest_repo_url
    assert not edge.run("systemctl --failed --no-legend --plain").stdout.strip()
    assert edge.sudo("touch /new", check=False).status != 0
    update = world.publish_next()
    edge.upgrade()
    edge.reboot(Deadline(BOOT_SECONDS))
    assert edge.status().booted.checksum == update
    machine.stop()


@pytest.mark.full
def test_a_raw_image_boots_with_uefi(world: World) -> None:
    image = world.compose("edge-raw-image")
    disks.from_raw_xz(image, world.disk("raw-uefi"), 5 * GIB)
    machine, edge = world.boot("raw-uefi", "uefi")
    assert edge.run("ls -d /sys/firmware/efi").stdout
    assert int(edge.run("findmnt -bno SIZE /sysroot").stdout) > 3 * GIB
    machine.stop()
