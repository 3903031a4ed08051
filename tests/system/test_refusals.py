"""What a device does not take: a real ostree client against a real nginx; its words are shown."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.updates import REF, Publisher, refusal

from rfe_helpers import serve
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve.tls import certificates

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("refusals") / "lab")
    yield lab
    lab.clean(serve.remove_container)


@pytest.fixture(scope="module")
def publisher(lab: Lab) -> Publisher:
    publisher = Publisher(lab)
    publisher.publish(1)
    return publisher


@pytest.fixture
def device(lab: Lab, publisher: Publisher, tmp_path: Path) -> Repo:
    """A device that runs what is published and takes only what the lab has signed."""
    site = serve.publish(lab, publisher.publication.repo.path)
    device = Repo(tmp_path / "device").init("bare-user-only")
    assert publisher.publication.key is not None
    device.add_remote("edge", site.repo_url, key=publisher.publication.key.public)
    device.pull("edge", REF)
    return device


def served(lab: Lab, publisher: Publisher) -> None:
    """Let another publisher answer at the URL that the device knows."""
    serve.publish(lab, publisher.publication.repo.path)


def test_the_key_is_the_owners_alone(lab: Lab, publisher: Publisher) -> None:
    assert publisher.publication.key is not None
    home = publisher.publication.key.home
    assert home.stat().st_mode & 0o777 == 0o700
    secrets = list((home / "private-keys-v1.d").iterdir())
    assert [path.stat().st_mode & 0o777 for path in secrets] == [0o600]
    assert "PRIVATE" not in publisher.publication.key.public


def test_a_signed_update_is_taken(device: Repo, publisher: Publisher) -> None:
    commit = publisher.publish(2)
    assert device.pull("edge", REF, newer=True) == commit


def test_an_unsigned_commit_is_refused(lab: Lab, device: Repo) -> None:
    stranger = Publisher(lab, "unsigned", key=None)
    stranger.publish(3)
    served(lab, stranger)
    assert "no signatures found" in refusal(device)


def test_a_commit_signed_by_another_key_is_refused(lab: Lab, device: Repo) -> None:
    stranger = Publisher(lab, "stranger", key="gnupg-stranger")
    stranger.publish(4)
    served(lab, stranger)
    message = refusal(device)
    assert "Can't check signature: public key not found" in message
    assert stranger.publication.key is not None
    assert stranger.publication.key.id[-16:] in message


def test_a_tampered_commit_is_refused(lab: Lab, device: Repo) -> None:
    """The commit object is another one than its name says."""
    forger = Publisher(lab, "forger")
    commit = forger.publish(5)
    objects = forger.publication.repo.path / "objects" / commit[:2]
    content = bytearray((objects / f"{commit[2:]}.commit").read_bytes())
    content[content.index(b"edge")] ^= 1
    (objects / f"{commit[2:]}.commit").unlink()  # repositories on one disk share their objects
    (objects / f"{commit[2:]}.commit").write_bytes(content)
    served(lab, forger)
    message = refusal(device)  # the first that fails, either of the two
    assert f"Corrupted commit object; checksum expected='{commit}'" in message or (
        "BAD signature" in message
    )


def test_a_signature_of_another_commit_is_refused(lab: Lab, device: Repo) -> None:
    """Somebody who may write to the server puts a true signature beside a commit of their own."""
    forger = Publisher(lab, "copied-signature")
    signed = forger.publish(6)
    stranger = Publisher(lab, "copying", key=None)
    made = stranger.publish(7)
    old, new = (
        publisher.publication.repo.path / "objects" / commit[:2] / f"{commit[2:]}.commitmeta"
        for publisher, commit in ((forger, signed), (stranger, made))
    )
    shutil.copy(old, new)
    stranger.publication.repo.update_summary()
    served(lab, stranger)
    assert "BAD signature" in refusal(device)


def test_a_ref_that_was_rolled_back_is_refused(device: Repo, publisher: Publisher) -> None:
    """An old commit, truly signed, is offered again: with what is wrong in it."""
    old = publisher.newest
    assert old is not None
    publisher.publish(8)
    device.pull("edge", REF)
    publisher.withdraw(old)
    try:
        assert "older" in refusal(device, newer=True)
    finally:
        publisher.publication.publish(publisher.made.path, REF)


def test_a_server_that_the_authority_does_not_know_is_refused(
    lab: Lab, device: Repo, publisher: Publisher, tmp_path: Path
) -> None:
    key = publisher.publication.key
    assert key is not None
    site = serve.publish(lab, publisher.publication.repo.path, tls=True)
    try:
        assert site.answers
        device.add_remote("edge", site.repo_url, key=key.public)
        assert "certificate" in refusal(device)
        other = certificates(tmp_path / "other", "somebody else")
        device.add_remote("edge", site.repo_url, key=key.public, ca=other.ca)
        assert "certificate" in refusal(device)
        device.add_remote("edge", site.repo_url, key=key.public, ca=Path(site.ca))
        assert device.pull("edge", REF) == publisher.newest
    finally:
        serve.publish(lab, publisher.publication.repo.path)
