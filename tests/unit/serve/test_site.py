"""The host's nginx is the real one; podman is a fake command where it must fail."""

import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from support.trees import make_commit_tar, make_container, make_tree, write_tar

from rfe_helpers import serve
from rfe_helpers.commit.commit import open_commit
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.errors import CommitError, InputError, ServeError, StepMissingError
from rfe_helpers.lab.lab import Lab

REF = "debian/13/x86_64/edge"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("RFE_CACHE", str(tmp_path / "cache"))
    lab = Lab(tmp_path / "lab with space")
    lab.port("web", random.randrange(20_000, 30_000))  # not where other programs look first
    yield lab
    lab.sweep(lambda name: None)


def compose(directory: Path, note: str) -> Path:
    """A commit.tar whose commit has `note` as its subject."""
    directory.mkdir(parents=True)
    repo = Repo(directory / "out" / "repo").init()
    tree = make_tree(directory / "tree.tar", {"usr/note": note})
    repo.commit_tar(tree, REF, subject=note, packages=[])
    (directory / "out" / "compose.json").write_text("{}")
    return make_commit_tar(directory / "commit.tar", directory / "out")


def container(directory: Path, note: str) -> Path:
    compose(directory, note)
    web = {"usr/share/nginx/html/repo": directory / "out" / "repo"}
    return make_container(directory / "container.tar", [web])


def fake(directory: Path, name: str, script: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/sh\n{script}\n")
    (directory / name).chmod(0o755)


def test_a_lab_may_have_any_name(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "Prüfstand 测试")
    other.port("web", lab.port("web", 0) + 1)
    try:
        site = serve.publish(other, compose(tmp_path / "one", "one"), engine="nginx")
        assert site.answers
    finally:
        serve.stop(other)


def test_a_commit_and_kickstarts_are_served(lab: Lab, tmp_path: Path) -> None:
    lines: list[str] = []
    tar = compose(tmp_path / "one", "one")
    site = serve.publish(
        lab, tar, kickstarts={"edge.ks": "text é", "b.ks": "b"}, on_progress=lines.append
    )
    assert site.engine == "nginx"
    assert site.guest_repo_url == f"http://10.0.2.2:{site.port}/repo/"
    assert site.kickstart_url("edge.ks") == f"http://10.0.2.2:{site.port}/edge.ks"
    assert requests.get(f"{site.url}edge.ks", timeout=5).content.decode() == "text é"
    # With a summary, so that a client need not know the ref.
    assert open_commit(site.repo_url).info.subject == "one"
    assert serve.published(lab) == site
    assert lab.step("serve")["url"] == site.url
    assert "starting nginx" in lines


def test_publishing_again_replaces_without_a_gap(lab: Lab, tmp_path: Path) -> None:
    one, two = compose(tmp_path / "one", "one"), compose(tmp_path / "two", "two")
    site = serve.publish(lab, one, kickstarts={"edge.ks": "1"})
    lab.record("serve", url=site.url, user="core")
    process = lab.process("web-server")
    failures: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            answer = requests.get(f"{site.url}repo/config", timeout=5)
            if answer.status_code != 200:
                failures.append(f"{answer.status_code}")
            time.sleep(0.005)

    reader = threading.Thread(target=read)
    reader.start()
    again = serve.publish(lab, two, kickstarts={"other.ks": "2"})
    done.set()
    reader.join()
    assert failures == []
    assert (again.port, lab.process("web-server")) == (site.port, process)
    assert open_commit(again.repo_url, REF).info.subject == "two"
    assert requests.get(f"{again.url}edge.ks", timeout=5).status_code == 404
    assert len(list(lab.path("www", "x").parent.glob("site-*"))) == 1
    assert lab.step("serve")["user"] == "core"


def test_what_was_published_can_be_published_again(lab: Lab, tmp_path: Path) -> None:
    assert serve.remember(lab) is None
    first = compose(tmp_path / "one", "one")
    serve.publish(lab, first, kickstarts={"edge.ks": "text é"})
    earlier = serve.remember(lab)
    assert earlier is not None
    site = serve.publish(lab, compose(tmp_path / "two", "two"), kickstarts={"b.ks": "b"})
    assert earlier.publish(lab) == serve.published(lab)
    assert open_commit(site.repo_url, REF).info.subject == "one"
    assert requests.get(f"{site.url}edge.ks", timeout=5).content.decode() == "text é"
    assert requests.get(f"{site.url}b.ks", timeout=5).status_code == 404
    serve.stop(lab)
    assert serve.remember(lab) is None


def test_a_killed_server_is_started_again(lab: Lab, tmp_path: Path) -> None:
    from rfe_helpers.core import run

    tar = compose(tmp_path / "one", "one")
    site = serve.publish(lab, tar)
    process = lab.process("web-server")
    assert process is not None
    run.kill(process)
    assert not serve.published(lab).answers
    assert serve.publish(lab, tar).port == site.port
    assert serve.published(lab).answers
    serve.stop(lab)
    assert not site.answers
    assert lab.processes() == {}
    logged = lab.path("logs", "nginx-access.log").read_text().splitlines()
    seconds, status, sent, request = logged[-1].split(" ", 3)
    assert abs(float(seconds) - time.time()) < 60
    assert (status, request) == ("200", '"GET /repo/config HTTP/1.1"')
    assert int(sent) > 100
    with pytest.raises(StepMissingError, match="not published"):
        serve.published(lab)


def test_another_port(lab: Lab, tmp_path: Path) -> None:
    tar = compose(tmp_path / "one", "one")
    first = serve.publish(lab, tar)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port} is taken") as caught:
            serve.publish(lab, tar, port=port)
    assert "ss -ltnp" in caught.value.remedy
    assert serve.publish(lab, tar, port=port).port == port
    assert not first.answers
    assert serve.publish(lab, tar).port == port


def test_nginx_where_podman_cannot_run(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    fake(tools, "skopeo", "exit 0")
    fake(tools, "podman", 'test "$1" = run || exit 0; echo "crun: no cgroups" >&2; exit 126')
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    tar = container(tmp_path / "one", "one")
    site = serve.publish(lab, tar, kickstarts={"edge.ks": "1"})
    assert site.engine == "nginx"
    assert "crun: no cgroups" in site.note
    assert open_commit(site.repo_url, REF).info.subject == "one"
    # Settings that did not help are not kept.
    assert not lab.path("www", "containers.conf").exists()
    with pytest.raises(ServeError, match="crun: no cgroups"):
        serve.publish(lab, tar, engine="podman")


def test_settings_of_its_own_only_where_podmans_fail(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A podman that starts containers with CONTAINERS_CONF only; this test is its web server."""
    tools = tmp_path / "tools"
    fake(tools, "skopeo", "exit 0")
    script = f"""
        echo "$1 $CONTAINERS_CONF" >>{tmp_path}/calls
        case "$1" in
            run) test -n "$CONTAINERS_CONF" || exit 126 ;;
            container) echo true ;;
        esac"""
    fake(tools, "podman", script)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    tar = container(tmp_path / "one", "one")
    port = lab.port("web", 8000)
    calls = tmp_path / "calls"

    def serve_it() -> None:
        """What the container would do once it has started."""
        while not calls.exists() or f"run {lab.directory}" not in calls.read_text():
            time.sleep(0.05)
        other = Lab(tmp_path / "other")
        serve.publish(other, tmp_path / "one" / "commit.tar", port=port, kickstarts={"a.ks": "a"})

    thread = threading.Thread(target=serve_it)
    thread.start()
    try:
        site = serve.publish(lab, tar, kickstarts={"a.ks": "a"})
    finally:
        thread.join()
        Lab(tmp_path / "other").sweep()
    assert (site.engine, site.container) == ("podman", f"rfe-mirror-{lab.id}")
    config = lab.path("www", "containers.conf")
    assert config.stat().st_mode & 0o777 == 0o600
    assert "runc" in config.read_text()
    runs = [line for line in calls.read_text().splitlines() if line.startswith("run ")]
    assert runs == ["run ", f"run {config}"]
    assert lab.state["containers"] == [site.container]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("write /x: no space left on device", "the disk is full"),
        ("bind: address already in use", "the port is taken"),
    ],
)
def test_what_is_not_podmans_fault_is_an_error(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, expected: str
) -> None:
    tools = tmp_path / "tools"
    fake(tools, "skopeo", "exit 0")
    fake(tools, "podman", f'test "$1" = run || exit 0; echo "{output}" >&2; exit 125')
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    with pytest.raises(ServeError, match=expected) as caught:
        serve.publish(lab, container(tmp_path / "one", "one"))
    assert caught.value.remedy
    assert caught.value.log == lab.log("podman")


@pytest.mark.parametrize("name", ["../x", "repo", "", ".hidden", "a/b", "a b"])
def test_names_that_no_kickstart_can_have(lab: Lab, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be named"):
        serve.publish(lab, tmp_path / "x.tar", kickstarts={name: ""})


def test_what_cannot_be_served(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(CommitError, match="No such file"):
        serve.publish(lab, tmp_path / "missing.tar")
    with pytest.raises(CommitError, match="neither a repository"):
        serve.publish(lab, write_tar(tmp_path / "x.tar", {"hello": b""}))
    with pytest.raises(InputError, match="nothing to run"):
        serve.publish(lab, compose(tmp_path / "one", "one"), engine="podman")
    with pytest.raises(InputError, match="no engine"):
        serve.publish(lab, tmp_path / "x.tar", engine="apache")
    assert not list(lab.path("www", "x").parent.glob("site-*"))
