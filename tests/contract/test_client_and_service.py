"""The two halves together: what a person does, with our client, against our service."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from support.sandbox_service import ARTIFACT, Running

from rfe_helpers.build.answers import Source
from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.build.client import Client
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import ApiError, ComposeFailedError

EDGE = Blueprint("Edge", version="0.0.1", packages=(PackageSpec("tmux", "3.*"),))


@pytest.fixture
def client(service: Running, tmp_path: Path) -> Client:
    return Client(service.socket, logs=tmp_path / "logs")


def test_from_a_blueprint_to_its_artifact(client: Client, service: Running, tmp_path: Path) -> None:
    assert client.push(EDGE).version == "0.0.1"
    assert "tmux" in {package.name for package in client.depsolve("Edge")}
    assert client.freeze("Edge").packages[0].version.startswith("3.5a-3")
    started = client.start_compose("Edge", "rhel-edge-commit")
    assert [compose.id for compose in client.queue()] == [started.id]
    service.builder.open()
    lines: list[str] = []
    done = client.wait(started.id, Deadline(20), lines.append, every=0.01)
    assert (done.type, done.status, done.blueprint) == ("edge-commit", "FINISHED", "Edge")
    info = client.compose_info(started.id)
    assert (info.blueprint, info.status) == (client.blueprint("Edge"), "FINISHED")
    assert "tmux" in {package.name for package in info.packages}
    assert "Stage: ostree.commit" in client.log(started.id)
    assert client.download(started.id, tmp_path).read_bytes() == ARTIFACT
    with tarfile.open(client.download_results(started.id, tmp_path)) as results:
        assert f"{started.id}-commit.tar" in results.getnames()
    for fetch in (client.download_logs, client.download_metadata):
        assert tarfile.is_tarfile(fetch(started.id, tmp_path))
    client.delete_compose(started.id)
    with pytest.raises(ApiError, match="UnknownUUID"):
        client.compose(started.id)


def test_the_stage_of_a_running_compose_is_seen(client: Client, service: Running) -> None:
    client.push(EDGE)
    started = client.start_compose("Edge", "edge-commit")
    lines: list[str] = []

    def watch(line: str) -> None:
        lines.append(line)
        if line.startswith("mmdebstrap"):
            service.builder.open()

    client.wait(started.id, Deadline(20), watch, every=0.02)
    assert any(line.startswith("mmdebstrap, ") for line in lines), lines


def test_a_compose_that_fails_says_why(client: Client, service: Running) -> None:
    client.push(EDGE)
    service.builder.open("fail")
    started = client.start_compose("Edge", "edge-commit")
    with pytest.raises(ComposeFailedError, match="no package in this tree") as caught:
        client.wait(started.id, Deadline(20), every=0.01)
    assert caught.value.stage
    assert caught.value.log is not None
    assert "no package in this tree" in caught.value.log.read_text()


def test_cancelling(client: Client) -> None:
    client.push(EDGE)
    running = client.start_compose("Edge", "edge-commit").id
    waiting = client.start_compose("Edge", "edge-commit").id
    assert client.log(waiting) == ""
    client.cancel(waiting)
    client.cancel(running)
    for compose in (running, waiting):
        with pytest.raises(ComposeFailedError):
            client.wait(compose, Deadline(20), every=0.01)
    with pytest.raises(ApiError, match="BuildInWrongState"):
        client.cancel(running)


def test_the_history_of_a_blueprint(client: Client) -> None:
    client.push(EDGE)
    client.tag("Edge")
    second = client.push(Blueprint("Edge", version="0.0.1", description="again"))
    assert second.version == "0.0.2"
    newest, oldest = client.changes("Edge")
    assert (newest.revision, oldest.revision) == (None, 1)
    assert client.blueprint_at("Edge", oldest.commit).packages == EDGE.packages
    client.push_to_workspace(Blueprint("Edge", packages=(PackageSpec("vim-tiny"),)))
    assert (None, "vim-tiny") in client.workspace_diff("Edge")
    client.delete_from_workspace("Edge")
    client.undo("Edge", oldest.commit)
    assert client.blueprint("Edge").packages == EDGE.packages
    assert len(client.changes("Edge")) == 3
    client.delete_blueprint("Edge")
    assert client.blueprints() == ()


def test_packages_and_sources(client: Client) -> None:
    assert client.search("*tmu*") == ("tmux",)
    assert client.search("nothing-*") == ()
    (tmux,) = client.package_info("tmux")
    assert (tmux.summary, tmux.versions[0].evr) == ("terminal multiplexer", "3.5a-3")
    with pytest.raises(ApiError, match="UnknownProject"):
        client.package_info("no-such-package")
    system = [source.id for source in client.sources()]
    client.add_source(Source("extra", "http://127.0.0.1:9/debian", check_gpg=False))
    (extra,) = [source for source in client.sources() if not source.system]
    assert (extra.id, extra.url, extra.check_gpg) == ("extra", "http://127.0.0.1:9/debian", False)
    client.delete_source("extra")
    assert [source.id for source in client.sources()] == system
    with pytest.raises(ApiError, match="SystemSource"):
        client.delete_source(system[0])


def test_refusals_come_with_a_remedy(client: Client) -> None:
    client.push(EDGE)
    client.push(Blueprint("Broken", packages=(PackageSpec("no-such-package"),)))
    cases = {
        "UnknownBlueprint": ("Nothing", "edge-commit", {}),
        "ComposeError": ("Edge", "floppy", {}),
        "DepsolveError": ("Broken", "edge-commit", {}),
        "OSTreeOptionsError": ("Edge", "edge-commit", {"url": "http://127.0.0.1:9/repo"}),
        "ManifestCreationFailed": ("Edge", "edge-commit", {"parent": "a/b"}),
    }
    for identity, (name, kind, options) in cases.items():
        with pytest.raises(ApiError) as caught:
            client.start_compose(name, kind, **options)
        assert caught.value.id == identity
        assert caught.value.remedy
