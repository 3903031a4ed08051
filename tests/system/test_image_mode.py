"""From an edge commit to container images and back, on a real machine: the whole way, what must not
break it, and what greenboot does. One installation serves all tests; each writes to a disk layer of
its own. Hours without KVM.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.devices import on_a_layer, running

import rfe_helpers
from rfe_helpers import imagemode, serve
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import MachineError, NodeError
from rfe_helpers.install import kickstart
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import installation
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.vm import Machine
from rfe_helpers.prove import interruptions, powerloss
from rfe_helpers.prove.diskcheck import Expected
from rfe_helpers.prove.link import Link, Quality
from rfe_helpers.sandbox.build import tree
from rfe_helpers.sandbox.installer import iso
from rfe_helpers.serve import registry
from rfe_helpers.serve.registry import Registry

sys.path.append(str(Path(rfe_helpers.__file__).parent / "sandbox/guest/root/usr/lib"))

from edge.image_proxy import open_image
from edge.image_reference import ImageReference
from edge.image_store import ImageStore

pytestmark = [pytest.mark.slow, pytest.mark.full, pytest.mark.timeout(7200)]

SECONDS = 1800
SEED = 20261128
CHECK = "/usr/lib/greenboot/check/required.d/50_application.sh"
CONTAINERFILES = {
    "1": "FROM {base}\nRUN echo one > /usr/share/edition\n",
    "2": "FROM {one}\nRUN echo two > /usr/share/edition\n",
    "sick": (
        "FROM {one}\n"
        f"RUN mkdir -p {CHECK.rpartition('/')[0]} && printf '#!/bin/sh\\nexit 1\\n' > {CHECK} && "
        f"chmod 755 {CHECK}\n"
    ),
    "kernelless": "FROM {one}\nRUN rm -r /usr/lib/modules/*/vmlinuz\n",
    "argued": (
        "FROM {one}\nRUN mkdir -p /usr/lib/bootc/kargs.d && "
        "echo 'kargs = [\"edition=argued\"]' > /usr/lib/bootc/kargs.d/10.toml\n"
    ),
}


@dataclass
class World:
    """A lab with a machine that runs an edge commit, and images in the lab's registry."""

    lab: Lab
    images: Registry
    commit: str
    pushed: dict[str, imagemode.PushedImage]

    @property
    def disk(self) -> Path:
        return self.lab.path("machines", "edge", "disk.qcow2")

    @property
    def port(self) -> int:
        return self.lab.port("ssh-edge", 2222)

    def name(self, tag: str) -> str:
        return f"{self.images.guest_address}/edge/os:{tag}"

    def device(self) -> AbstractContextManager[Node]:
        """The installed machine, running on a layer of its own."""
        return on_a_layer(self.lab, "edge", self.disk, self.port)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    lab = Lab(tmp_path_factory.mktemp("images") / "lab", "sandbox")
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    work = tree.Work(lab.path("build", "x").parent, cache, lab.log("build"), Deadline(3600))
    commits = Repo(lab.path("made")).init()
    blueprint = Blueprint(name="Edge", version="0.0.1")
    request = tree.Request("1", "edge-commit", lab.profile.ostree.ref, blueprint)
    commit = tree.commit(request, work, commits)
    images = registry.start(lab)
    pushed = {"base": imagemode.push_base(lab)}
    for tag, text in CONTAINERFILES.items():
        context = lab.path("contexts", tag)
        context.mkdir(parents=True)
        one = pushed["1"].reference if "1" in pushed else ""
        (context / "Containerfile").write_text(text.format(base=pushed["base"].reference, one=one))
        pushed[tag] = imagemode.build_image(lab, context, tag)
    serve.publish(lab, commits.path)
    text = kickstart.render(
        lab.profile,
        url=serve.published(lab).guest_repo_url,
        user="core",
        ssh_key=lab.public_key,
        post=kickstart.registry_script(images.guest_address),
    )
    serve.publish(lab, commits.path, kickstarts={"edge.ks": text})
    medium = iso.boot_iso(work)
    url = serve.published(lab).kickstart_url("edge.ks")
    installation.install(lab, "edge", medium, url, deadline=Deadline(SECONDS))
    yield World(lab, images, commit, pushed)
    lab.clean(serve.remove_container)


def bootc(device: Node, command: str) -> subprocess.CompletedProcess[str]:
    result = device.sudo(f"bootc {command}", check=False, seconds=SECONDS)
    print(f"bootc {command}: {result.status}\n{result.stdout}{result.stderr}")
    return subprocess.CompletedProcess(command, result.status, result.stdout, result.stderr)


def kept(device: Node) -> list[str]:
    return [device.read(path) for path in ("/etc/kept", "/var/lib/kept")]


def edition(device: Node) -> str:
    return device.run("cat /usr/share/edition", check=False).stdout.strip()


def refusal(device: Node, command: str) -> str:
    """What bootc says when it will not; the machine stays as it is."""
    before = device.status()
    result = bootc(device, command)
    assert result.returncode == 1
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    assert device.status() == before
    return result.stderr


def test_commit_image_image_and_back_to_the_commit(world: World) -> None:
    with world.device() as device:
        plain = imagemode.read_host(device)
        assert plain.status.booted is not None
        assert plain.status.booted.image is None
        assert plain.spec.image is None
        assert plain.status.type is None
        device.sudo("echo here > /etc/kept; echo there > /var/lib/kept")
        assert bootc(device, f"switch {world.name('1')}").returncode == 0
        staged = imagemode.read_host(device).status
        assert staged.staged is not None
        assert staged.booted is not None
        assert staged.booted.image is None
        device.reboot(Deadline(SECONDS))
        host = imagemode.read_host(device)
        assert host.digest == world.pushed["1"].digest
        assert host.status.type == "bootcHost"
        assert edition(device) == "one"
        assert [device.read(path) for path in ("/etc/kept", "/var/lib/kept")] == [
            "here\n",
            "there\n",
        ]
        assert "not container image based" in refusal(device, "rollback")
        # The tag moves: one layer is new.
        world.images.tag("edge/os:2", "1")
        checked = bootc(device, "upgrade --check").stdout
        assert "layers needed: 1 " in checked
        upgraded = bootc(device, "upgrade").stdout
        assert "layers needed: 1 " in upgraded
        device.reboot(Deadline(SECONDS))
        assert edition(device) == "two"
        assert bootc(device, "upgrade").stdout.endswith("No update available.\n")
        assert bootc(device, "rollback").stdout == "Next boot: rollback deployment\n"
        assert imagemode.read_host(device).spec.boot_order == "rollback"
        device.reboot(Deadline(SECONDS))
        assert edition(device) == "one"
        # What a commit's ref names is pulled again, and replaces the image.
        device.sudo(f"rpm-ostree rebase edge:{world.lab.profile.ostree.ref}", seconds=SECONDS)
        device.reboot(Deadline(SECONDS))
        assert device.status().booted.checksum == world.commit
        assert imagemode.read_host(device).digest == ""
        assert edition(device) == ""
        assert [device.read(path) for path in ("/etc/kept", "/var/lib/kept")] == [
            "here\n",
            "there\n",
        ]
        assert device.run("systemctl --failed --no-legend --plain").stdout == ""
    restore(world, "1")


def restore(world: World, tag: str) -> None:
    """Let a tag name its own image again."""
    repository, digest = "edge/os", world.pushed[tag].digest
    source = f"docker://{world.images.address}/{repository}@{digest}"
    argv = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
    run.run([*argv, source, f"docker://{world.images.address}/{repository}:{tag}"])
    assert world.images.digest(f"{repository}:{tag}") == digest


def test_what_a_machine_refuses_and_what_interrupts_it(world: World) -> None:
    with world.device() as device:
        assert "manifest unknown" in refusal(device, f"switch {world.name('gone')}")
        nobody = f"10.0.2.2:{world.port}/edge/os:1"  # SSH of the machine: not a registry
        assert "pinging container registry" in refusal(device, f"switch {nobody}")
        device.sudo("fallocate -l $(($(stat -f -c '%f * %S' /var) - 400000000)) /var/ballast")
        assert "free space" in refusal(device, f"switch {world.name('1')}")
        device.sudo("rm /var/ballast")
        with Link(world.images.port, Quality(cut_after=30_000_000)) as link:
            other = f"10.0.2.2:{link.port}"
            device.sudo(kickstart.registry_script(other).replace("50-lab", "51-link"))
            assert "error: Switching: " in refusal(device, f"switch {other}/edge/os:1")
        kernel = refusal(device, f"switch {world.name('kernelless')}")
        assert "must have one kernel in /usr/lib/modules, not none" in kernel
        # Signatures: the policy asks for one that is not there.
        key = imagemode.signing_key(world.lab)
        device.sudo(imagemode.policy_script(world.images.guest_address, key))
        assert "signature" in refusal(device, f"switch {world.name('1')}")
        imagemode.sign(world.lab, "edge/os:1", key)
        signed = bootc(device, f"switch --enforce-container-sigpolicy {world.name('1')}")
        assert signed.returncode == 0
        device.reboot(Deadline(SECONDS))
        host = imagemode.read_host(device)
        assert host.digest == world.pushed["1"].digest
        assert host.spec.image is not None
        assert host.spec.image.signature == "containerPolicy"
        # A command of rpm-ostree's for the same; and arguments of the kernel.
        imagemode.sign(world.lab, "edge/os:argued", key)
        image = f"ostree-unverified-registry:{world.name('argued')}"
        device.sudo(f"rpm-ostree rebase {image}", seconds=SECONDS)
        device.reboot(Deadline(SECONDS))
        assert "edition=argued" in device.read("/proc/cmdline")
        assert world.pushed["argued"].digest in device.run("rpm-ostree status").stdout
        # What is staged and then replaced has no part in it.
        assert bootc(device, f"switch {world.name('1')}").returncode == 0
        assert bootc(device, f"switch {world.name('argued')}").returncode == 0
        assert bootc(device, f"switch {world.name('1')}").returncode == 0
        device.reboot(Deadline(SECONDS))
        assert "edition=argued" not in device.read("/proc/cmdline")


@pytest.mark.parametrize("first", [True, False], ids=["commit-to-image", "image-to-image"])
def test_a_sick_image_is_left_by_itself(world: World, first: bool) -> None:
    with world.device() as device:
        if not first:
            bootc(device, f"switch {world.name('1')}")
            device.reboot(Deadline(SECONDS))
            wait_for(
                lambda: "GREEN" in device.run("greenboot status").stdout,
                Deadline(SECONDS),
                "its checks have run",
            )
        before = device.status().booted.checksum
        assert bootc(device, f"switch {world.name('sick')}").returncode == 0
        boot = device.boot_id()
        device.sudo("systemd-run --quiet --on-active=1 systemctl reboot")

        def fallback() -> str | None:
            try:
                device.wait(Deadline(SECONDS), not_boot=boot)
                status = device.run("greenboot status", check=False)
            except NodeError:
                return None  # it has gone down between the two, for its next attempt
            return status.stdout if "FALLBACK" in status.stdout else None

        limit = Deadline(2 * SECONDS)
        outcome = wait_for(fallback, limit, "the previous deployment comes back", every=5)
        print(outcome)
        assert f"{CHECK}: status 1" in outcome
        assert device.status().booted.checksum == before


def new_commit(world: World, repo: Repo, tag: str) -> str:
    """Pull an image as the machine does, into a repository here; returns the commit, which is the
    same there: content, metadata and time are."""
    home = world.lab.path("home")
    directory = home / ".config/containers"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{world.images.address}"\ninsecure = true\n'
    )
    there = ImageReference("registry", world.name(tag))
    here = ImageReference("registry", f"{world.images.address}/edge/os:{tag}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge.image_proxy.HOME", str(home))
        with open_image(here) as proxy:
            return ImageStore(repo.path).pull(proxy, proxy.image(), there)


@pytest.fixture(scope="module")
def images_here(world: World) -> Repo:
    """A repository with the commit of the machine and those of images 1 and 2."""
    repo = Repo(world.lab.path("images-here")).init("bare")
    repo.pull_local(world.lab.path("made"), world.commit)
    return repo


def test_twenty_kills_during_a_switch_leave_old_or_new(world: World, images_here: Repo) -> None:
    new = new_commit(world, images_here, "1")
    saved = interruptions.save(
        *(world.lab, "kill", world.disk, world.lab.path("machines", "kill")),
        port=world.lab.port("ssh-kill", 2222),
        new=new,
        update=f"bootc switch {world.name('1')}",
    )
    rounds = interruptions.rounds(world.lab, saved, 20, SEED, on_round=print)
    print(f"seed {SEED}\n{interruptions.table(rounds)}")
    interruptions.discard(saved)
    assert interruptions.problems(rounds) == []
    assert all(one.updated for one in rounds)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts disks")
@pytest.mark.parametrize("command", ["switch", "upgrade"])
def test_a_loss_of_power_leaves_old_or_new(world: World, images_here: Repo, command: str) -> None:
    lab = world.lab
    disk, old = world.disk, world.commit
    if command == "upgrade":
        disk = lab.path("machines", "edge", "switched.qcow2")
        with world.device() as device:
            bootc(device, f"switch {world.name('1')}")
            device.reboot(Deadline(SECONDS))
            old = device.status().booted.checksum
            machine = Machine.find(lab, "edge")
            assert machine is not None
            machine.stop()
        run.run(["qemu-img", "convert", "-O", "qcow2", disk.with_name("layer.qcow2"), disk])
        world.images.tag("edge/os:2", "1")
    tag = "1"
    new = new_commit(world, images_here, tag)
    update = f"bootc switch {world.name('1')}" if command == "switch" else "bootc upgrade"
    recording = powerloss.record(
        *(lab, "power", disk, lab.path("recording")),
        port=lab.port("ssh-power", 2222),
        deadline=Deadline(SECONDS),
        update=update,
    )
    restore(world, "1")
    assert recording.old == old
    commits = {"old": old, "new": new, "commit": world.commit}
    expected = Expected.of(images_here, commits, lab.profile.ostree.osname, recording.kept)
    states = powerloss.check(recording, expected, number=100, seed=SEED, fsck_every=5)
    print(f"{command}, seed {SEED}\n{powerloss.table(states)}")
    powerloss.free(recording)
    assert [one for one in states if one.problem] == []
    assert {one.boots for one in states} == {"old", "new"}


def installed(world: World, disk: Path) -> AbstractContextManager[Node]:
    """A machine on a disk that was installed now."""
    return running(world.lab, "fresh", disk, world.lab.port("ssh-fresh", 2222))


def boot_iso(world: World) -> Path:
    lab = world.lab
    return iso.boot_iso(
        tree.Work(lab.path("build"), cache_directory(), lab.log("build"), Deadline(SECONDS))
    )


def test_a_machine_is_installed_from_the_registry_and_upgraded(world: World) -> None:
    lab = world.lab
    text = kickstart.render(
        lab.profile,
        image=world.name("1"),
        insecure_registry=True,
        user="core",
        ssh_key=lab.public_key,
    )
    serve.publish(lab, lab.path("made"), kickstarts={"image.ks": text})
    url = serve.published(lab).kickstart_url("image.ks")
    disk = installation.install(lab, "fresh", boot_iso(world), url, deadline=Deadline(SECONDS))
    with installed(world, disk) as edge:
        host = imagemode.read_host(edge)
        assert host.digest == world.pushed["1"].digest
        assert host.spec.image is not None
        assert host.spec.image.image == world.name("1")
        assert "layers needed: 1 " in bootc(edge, f"switch {world.name('2')}").stdout
        edge.reboot(Deadline(SECONDS))
        assert edition(edge) == "two"
        assert bootc(edge, "rollback").returncode == 0
        assert edge.run("systemctl --failed --no-legend --plain").stdout == ""


def test_what_the_registry_does_not_have_is_not_installed(world: World) -> None:
    lab = world.lab
    text = kickstart.render(
        lab.profile,
        image=world.name("gone"),
        insecure_registry=True,
        user="core",
        ssh_key=lab.public_key,
    )
    serve.publish(lab, lab.path("made"), kickstarts={"gone.ks": text})
    url = serve.published(lab).kickstart_url("gone.ks")
    message = r"line \d+: ostreecontainer: no registry:.*edge/os:gone: .*manifest unknown"
    with pytest.raises(MachineError, match=message):
        installation.install(lab, "fresh", boot_iso(world), url, deadline=Deadline(SECONDS))


def test_a_machine_is_installed_from_an_image_on_its_medium(world: World, tmp_path: Path) -> None:
    """Without a network; its updates come from the registry all the same."""
    lab = world.lab
    medium = imagemode.installer_iso(
        lab,
        boot_iso(world),
        world.pushed["1"],
        tmp_path / "installer.iso",
        update_from=world.name("2"),
        post=kickstart.registry_script(world.images.guest_address),
        user="core",
        ssh_key=lab.public_key,
    )
    where = f"hd:LABEL={lab.profile.iso.label}:/edge.ks"
    deadline = Deadline(SECONDS)
    disk = installation.install(lab, "fresh", medium, where, network=False, deadline=deadline)
    with installed(world, disk) as edge:
        host = imagemode.read_host(edge)
        assert host.digest == world.pushed["1"].digest
        assert host.spec.image is not None
        assert (host.spec.image.image, host.spec.image.transport) == (world.name("2"), "registry")
        assert "layers needed: 1 " in bootc(edge, "upgrade").stdout
        edge.reboot(Deadline(SECONDS))
        assert edition(edge) == "two"
