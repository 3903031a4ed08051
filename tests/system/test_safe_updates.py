"""Updates of a real machine that must not go wrong: refused, interrupted, killed, unhealthy.

One installation serves all tests; each writes to a disk layer of its own. Hours without KVM.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.devices import on_a_layer

from rfe_helpers import serve
from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.commit.signing import signing_key
from rfe_helpers.core import run
from rfe_helpers.core.link import Link, Quality
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import NodeError
from rfe_helpers.install import kickstart
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import disks, installation
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.qemu import VmSpec
from rfe_helpers.machine.vm import Machine
from rfe_helpers.prove import interruptions, powerloss
from rfe_helpers.prove.diskcheck import Expected
from rfe_helpers.sandbox.build import tree
from rfe_helpers.sandbox.installer import iso
from rfe_helpers.serve.publication import Publication

pytestmark = [pytest.mark.slow, pytest.mark.full]

SECONDS = 1800
SEED = 20261124
CHECK = "/etc/greenboot/check/required.d/50_application.sh"
SICK = {"path": CHECK, "mode": "0755", "data": "#!/bin/sh\necho no answer from it\nexit 1\n"}


@dataclass
class World:
    """A lab with an installed machine that runs commit "one", and what it may be offered."""

    lab: Lab
    made: Repo
    commits: dict[str, str]
    publication: Publication

    @property
    def ref(self) -> str:
        return self.lab.profile.ostree.ref

    @property
    def disk(self) -> Path:
        return self.lab.path("machines", "edge", "disk.qcow2")

    @property
    def port(self) -> int:
        return self.lab.port("ssh-edge", 2222)

    def offer(self, name: str, publication: Publication | None = None) -> None:
        """Publish one of the commits, signed with the lab's key or by another publication."""
        chosen = publication or self.publication
        self.made.set_ref(self.ref, self.commits[name])
        chosen.publish(self.made.path, self.ref, delta="never")
        serve.publish(self.lab, chosen.repo.path, kickstarts={"edge.ks": self.kickstart()})

    def kickstart(self) -> str:
        assert self.publication.key is not None
        port = self.lab.port("web", 8000)
        return kickstart.render(
            self.lab.profile,
            url=f"http://10.0.2.2:{port}/repo/",
            user="core",
            ssh_key=self.lab.public_key,
            signing_key=self.publication.key.public,
        )

    def device(self) -> AbstractContextManager[Node]:
        """The installed machine, running on a layer of its own."""
        return on_a_layer(self.lab, "edge", self.disk, self.port)


def build_world(directory: Path) -> World:
    """Commits, a signed publication and an installed machine."""
    lab = Lab(directory, "sandbox")
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    work = tree.Work(lab.path("build", "x").parent, cache, lab.log("build"), Deadline(3600))
    made = Repo(lab.path("made")).init()
    commits: dict[str, str] = {}
    for name, packages, customizations in (
        ("one", (), {}),
        ("two", ("tmux",), {}),
        ("sick", ("tmux",), {"files": [SICK]}),
    ):
        blueprint = Blueprint(name="Edge", version="0.0.1", customizations=customizations)
        request = tree.Request(
            *("1", "edge-commit", lab.profile.ostree.ref, blueprint),
            packages=packages,
            parent=commits.get("one"),
        )
        commits[name] = tree.commit(request, work, made)
    key = signing_key(lab.path("keys", "gnupg"))
    world = World(lab, made, commits, Publication(lab.path("www", "publication"), key))
    world.offer("one")
    medium = iso.boot_iso(work)
    url = serve.published(lab).kickstart_url("edge.ks")
    installation.install(lab, "edge", medium, url, deadline=Deadline(SECONDS))
    return world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = build_world(tmp_path_factory.mktemp("updates") / "lab")
    yield world
    world.lab.clean(serve.remove_container)


def refusal(device: Node) -> str:
    """What the device says when it is asked to update and will not; it stays as it is."""
    before = device.status()
    result = device.sudo("rpm-ostree upgrade", check=False, seconds=SECONDS)
    print(result.stderr)
    assert result.status == 1
    assert device.status() == before
    return result.stderr


def follow(device: Node, url: str) -> None:
    device.sudo(f"sed -i 's,^url=.*,url={url},' /etc/ostree/remotes.d/edge.conf")


def offer_forged(world: World, name: str) -> None:
    """Publish one of the commits with the right signature and a changed commit object."""
    forged = Publication(world.lab.path("www", "forged"), world.publication.key)
    world.offer(name, forged)
    commit = world.commits[name]
    file = forged.repo.path / "objects" / commit[:2] / f"{commit[2:]}.commit"
    content = file.read_bytes()
    file.unlink()  # repositories on one disk share their objects
    file.write_bytes(content.replace(b"edge", b"EDGE", 1))


def test_what_a_device_refuses_and_what_interrupts_it(world: World) -> None:
    lab = world.lab
    world.offer("one")
    with world.device() as device:
        url = serve.published(lab).guest_repo_url
        assert "GPGVerify: yes" in device.run("rpm-ostree status -v").stdout
        world.offer("two", Publication(lab.path("www", "unsigned")))
        assert "no signatures found" in refusal(device)
        stranger = signing_key(lab.path("keys", "stranger"))
        world.offer("two", Publication(lab.path("www", "stranger"), stranger))
        assert "public key not found" in refusal(device)
        # Another commit: of "two" the device has kept the true commit object by now.
        offer_forged(world, "sick")
        message = refusal(device)
        assert "Corrupted commit object" in message or "BAD signature" in message
        world.offer("two")
        port = serve.published(lab).port
        with Link(port, Quality(cut_after=500_000)) as link:
            follow(device, f"http://10.0.2.2:{link.port}/repo/")
            assert "While fetching" in refusal(device)
        follow(device, url)
        serve.stop(lab)
        assert "connect" in refusal(device)
        serve.publish(lab, world.publication.repo.path, tls=True)
        follow(device, url.replace("http:", "https:"))
        assert "certificate" in refusal(device)
        serve.publish(lab, world.publication.repo.path)
        follow(device, url)
        device.sudo("fallocate -l $(($(stat -f -c '%f * %S' /var) - 30000000)) /var/ballast")
        full = refusal(device)
        assert "min-free-space" in full or "No space left" in full
        device.sudo("rm /var/ballast")
        device.upgrade()
        device.reboot(Deadline(SECONDS))
        assert device.status().booted.checksum == world.commits["two"]
        world.publication.withdraw(world.ref, world.commits["one"])
        assert "older" in refusal(device)


def test_a_sick_update_is_left_by_itself(world: World) -> None:
    world.offer("sick")
    with world.device() as device:
        assert "GREEN" in device.run("greenboot status").stdout
        device.upgrade()
        first = device.boot_id()
        device.sudo("systemd-run --quiet --on-active=1 systemctl reboot")

        def back() -> str | None:
            try:
                device.wait(Deadline(SECONDS), not_boot=first)
                said = device.run("greenboot status; cat /run/motd.d/boot-status", check=False)
            except NodeError:
                return None  # it has gone down between the two, for its next attempt
            return said.stdout if "FALLBACK" in said.stdout else None

        said = wait_for(back, Deadline(2 * SECONDS), "the previous deployment comes back", every=5)
        print(said)
        assert f"Deployment {world.commits['sick']} was not healthy: {CHECK}: status 1" in said
        status = device.status()
        assert status.booted.checksum == world.commits["one"]
        journal = device.sudo("journalctl --no-pager -o cat -u 'greenboot*' -u 'redboot*'").stdout
        attempts = [f"attempt {n} of 3 of deployment" in journal for n in (1, 2, 3, 4)]
        assert attempts == [True, True, True, False]
        wait_for(
            lambda: "GREEN" in device.run("greenboot status").stdout,
            Deadline(SECONDS),
            "its checks have run",
        )


def test_a_killed_machine_runs_the_old_commit_or_the_new(world: World) -> None:
    world.offer("two")
    directory = world.lab.path("machines", "kill")
    saved = interruptions.save(
        *(world.lab, "kill", world.disk, directory),
        port=world.lab.port("ssh-kill", 2222),
        new=world.commits["two"],
    )
    found = interruptions.rounds(world.lab, saved, 10, SEED)
    print(f"seed {SEED}\n{interruptions.table(found)}")
    assert interruptions.problems(found) == []
    assert all(one.updated for one in found)
    interruptions.discard(saved)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts disks")
def test_a_loss_of_power_leaves_the_old_commit_or_the_new(world: World, tmp_path: Path) -> None:
    world.offer("two")
    lab = world.lab
    recording = powerloss.record(
        *(lab, "power", world.disk, lab.path("recording")),
        port=lab.port("ssh-power", 2222),
        deadline=Deadline(SECONDS),
    )
    commits = {"old": world.commits["one"], "new": world.commits["two"]}
    expected = Expected.of(world.made, commits, lab.profile.ostree.osname, recording.kept)
    samples: dict[str, Path] = {}

    def keep(index: int, outcome: powerloss.Outcome, image: Path) -> None:
        if outcome.kind == "before a flush" and outcome.boots not in samples:
            samples[outcome.boots] = tmp_path / f"{outcome.boots}.raw"
            run.run(["cp", "--sparse=always", image, samples[outcome.boots]])

    found = powerloss.check(recording, expected, number=50, seed=SEED, on_outcome=keep)
    print(f"seed {SEED}\n{powerloss.table(found)}")
    assert [one for one in found if one.problem] == []
    # What XFS could not stand, see docs/interruptions.md.
    assert any(one.kind == "early part lost" and one.unflushed > 2 * 1024**2 for one in found)
    assert {one.boots for one in found if not one.problem} == {"old", "new"}
    assert set(samples) == {"old", "new"}
    for name, image in samples.items():
        layer = image.with_suffix(".qcow2")
        disks.overlay(image, layer, backing_format="raw")
        machine = Machine.start(lab, VmSpec("edge", disk=layer, forwards=((world.port, 22),)))
        try:
            edge = Node(lab, "edge", port=world.port)
            edge.forget_host_key()
            edge.wait(Deadline(SECONDS))
            assert edge.status().booted.checksum == commits[name]
        finally:
            machine.kill()
    powerloss.free(recording)
