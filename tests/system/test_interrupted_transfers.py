"""Transfers that do not come to their end: a real ostree client, a real nginx, a bad line.

Each time the device says why, what it has stays whole, and the next try succeeds.
"""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.updates import REF, Publisher, refusal

from rfe_helpers import serve
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.core.link import Link, Quality
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import DeadlineExceededError
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve.site import Site

pytestmark = pytest.mark.slow
HALF = 600_000  # about half of what an update of the publisher's takes on the line
# How libcurl names a connection that ends early, by where it was then: inside a file, before an
# answer, or while reading.
CUT = re.compile(
    "Transferred a partial file|Server returned nothing|Failure when receiving data from the peer"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("transfers") / "lab")
    yield lab
    lab.clean(serve.remove_container)


@pytest.fixture(scope="module")
def publisher(lab: Lab) -> Publisher:
    publisher = Publisher(lab)
    publisher.publish(1, delta="never")
    return publisher


@pytest.fixture
def site(lab: Lab, publisher: Publisher) -> Site:
    return serve.publish(lab, publisher.publication.repo.path)


@pytest.fixture
def device(site: Site, publisher: Publisher, tmp_path: Path) -> Repo:
    device = Repo(tmp_path / "device").init("bare-user-only")
    follow(device, publisher, site.port)
    device.pull("edge", REF)
    return device


def follow(device: Repo, publisher: Publisher, port: int) -> None:
    assert publisher.publication.key is not None
    url = f"http://127.0.0.1:{port}/repo/"
    device.add_remote("edge", url, key=publisher.publication.key.public)


def test_a_connection_that_is_cut(device: Repo, site: Site, publisher: Publisher) -> None:
    commit = publisher.publish(2, delta="never")
    with Link(site.port, Quality(cut_after=HALF)) as link:
        follow(device, publisher, link.port)
        message = refusal(device, retries=0)
        assert link.broken
    assert CUT.search(message)
    follow(device, publisher, site.port)
    assert device.pull("edge", REF) == commit


def test_a_server_that_is_killed(lab: Lab, device: Repo, site: Site, publisher: Publisher) -> None:
    commit = publisher.publish(3, delta="never")
    with Link(site.port, Quality(rate=HALF)) as link:
        follow(device, publisher, link.port)
        said: list[str] = []
        update = threading.Thread(target=lambda: said.append(refusal(device, retries=1)))
        update.start()
        wait_for(lambda: link.received > HALF // 4, Deadline(60), "the transfer has begun")
        process = lab.process("web-server")
        assert process is not None
        run.kill(process)
        update.join()
    assert CUT.search(said[0])
    follow(device, publisher, site.port)
    assert "Couldn't connect to server" in refusal(device, retries=0)
    serve.publish(lab, publisher.publication.repo.path)
    assert device.pull("edge", REF) == commit


def test_a_slow_line(device: Repo, site: Site, publisher: Publisher) -> None:
    commit = publisher.publish(4, delta="never")
    with Link(site.port, Quality(delay=0.02, rate=HALF)) as link:
        follow(device, publisher, link.port)
        assert device.pull("edge", REF) == commit


def test_a_line_that_stands_still(device: Repo, site: Site, publisher: Publisher) -> None:
    """ostree waits for as long as the connection is open: who starts it gives it a time."""
    commit = publisher.publish(5, delta="never")
    before = device.refs()
    with Link(site.port, Quality(stall_after=HALF)) as link:
        follow(device, publisher, link.port)
        with pytest.raises(DeadlineExceededError, match="ostree"):
            device.pull("edge", REF, deadline=Deadline(10))
    assert device.refs() == before
    device.fsck()
    follow(device, publisher, site.port)
    assert device.pull("edge", REF) == commit


def test_a_damaged_object_on_the_server(device: Repo, site: Site, publisher: Publisher) -> None:
    commit = publisher.publish(6, delta="never")
    repo = publisher.publication.repo
    first, second = (
        repo.path / "objects" / entry.checksum[:2] / f"{entry.checksum[2:]}.filez"
        for entry in repo.ls(commit)
        if entry.path in ("/usr/share/7", "/usr/share/8")
    )
    whole = first.read_bytes()
    first.unlink()  # repositories on one disk share their objects
    first.write_bytes(whole[:1000] + bytes([whole[1000] ^ 255]) + whole[1001:])
    assert "Invalid compressed data" in refusal(device, retries=0)
    first.write_bytes(second.read_bytes())
    assert "Corrupted file object; checksum expected=" in refusal(device, retries=0)
    first.write_bytes(whole)
    assert device.pull("edge", REF) == commit


def test_a_disk_that_is_full(site: Site, publisher: Publisher, tmp_path: Path) -> None:
    """The device's repository lies on a file system of 4 MiB, which the update does not fit in."""
    assert publisher.publication.key is not None
    (tmp_path / "key.asc").write_text(publisher.publication.key.public)
    commit = publisher.publish(7, delta="never")
    script = f"""
        mount -t tmpfs -o size=4m tmpfs {tmp_path}/disk && cd {tmp_path}/disk
        ostree init --repo=. --mode=bare-user-only
        ostree remote add --repo=. --gpg-import={tmp_path}/key.asc edge {site.repo_url}
        head -c 2500000 /dev/zero > ballast
        ostree pull --repo=. --depth=0 edge {REF} 2>&1 && exit 9
        ostree fsck --repo=. --quiet && ostree refs --repo=. && rm ballast
        ostree pull --repo=. --depth=0 edge {REF} && ostree rev-parse --repo=. edge:{REF}
    """
    (tmp_path / "disk").mkdir()
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    said = run.run(unshare, seconds=120).stdout
    print(said)
    assert "min-free-space" in said or "No space left" in said
    assert said.split()[-1] == commit
