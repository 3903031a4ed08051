"""The client's behaviour when things go wrong or take long; the wire itself is in contract/."""

import json
import os
import shutil
import socket
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.canned import Reply, Request, json_reply, serving

from rfe_helpers.build.answers import Source
from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.build.client import Client
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import (
    ApiError,
    BlueprintError,
    BuilderError,
    ComposeFailedError,
    DeadlineExceededError,
)

ID = "5f2d0f3e-0a5e-4b47-9a3c-6f0d3a1b7c21"
OTHER = "0c9a8b7d-6e5f-4a3b-8c2d-1e0f9a8b7c6d"
LOG = """\
Pipeline: tree
Stage: mmdebstrap
Output:
I: extracting
Stage: dracut
Output:
E: no room
"""


@pytest.fixture
def path() -> Iterator[Path]:
    """A short path for a socket."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "api.socket"


def entry(status: str, identity: str = ID, blueprint: str = "Edge") -> dict[str, Any]:
    times = {} if status == "WAITING" else {"job_started": time.time() - 5}
    return {
        "id": identity,
        "blueprint": blueprint,
        "version": "0.0.1",
        "compose_type": "edge-commit",
        "image_size": 0,
        "queue_status": status,
        "job_created": time.time(),
        **times,
    }


@dataclass
class Server:
    """Image Builder as far as composes go: `states` are what it answers, one after the other."""

    states: list[str] = field(default_factory=list)
    composes: list[dict[str, Any]] = field(default_factory=list)
    post: Reply | None = None
    hang: float = 0
    accepts: bool = True
    running_log: str = ""
    log: str = LOG

    def __call__(self, request: Request) -> Reply | None:
        if request.route == "POST /api/v1/compose":
            if self.accepts:
                self.composes.append(entry("WAITING"))
            time.sleep(self.hang)
            return self.post
        if request.route == "GET /api/v1/compose/status/*":
            return json_reply({"uuids": self.composes})
        if request.route == f"GET /api/v1/compose/status/{ID}":
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            return json_reply({"uuids": [entry(state)]})
        assert request.route == f"GET /api/v1/compose/log/{ID}", request.route
        failed = self.states == ["FAILED"]
        return Reply((self.log if failed else self.running_log).encode())


def posts(asked: list[Request]) -> list[Request]:
    return [request for request in asked if request.method == "POST"]


# the socket -----------------------------------------------------------------------------------


def test_no_socket(path: Path) -> None:
    with pytest.raises(BuilderError, match="there is no Image Builder") as caught:
        Client(path).status()
    assert "osbuild-composer.socket" in caught.value.remedy


def test_something_other_than_a_socket(path: Path) -> None:
    path.write_text("")
    with pytest.raises(BuilderError, match="is not a socket"):
        Client(path).status()


def test_a_socket_that_a_dead_service_left(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(BuilderError, match="left over"):
        Client(path).status()


def test_no_permission_names_the_group(path: Path) -> None:
    path.parent.chmod(0o755)
    with serving(path, lambda request: None):
        path.chmod(0)
        root = os.getuid() == 0
        if root:  # permissions do not bind root: be somebody else for a moment
            os.setresuid(65534, 65534, 0)
        try:
            with pytest.raises(BuilderError, match="no permission") as caught:
                Client(path).status()
        finally:
            if root:
                os.setresuid(0, 0, 0)
    assert "usermod -aG" in caught.value.remedy


@pytest.mark.parametrize("name", ["a b.sock", "50%2F.sock", "Ümlaut@:#?&.sock", "UP.sock", "[x]"])
def test_any_path_will_do(path: Path, name: str) -> None:
    odd = path.with_name(name)
    with serving(odd, lambda request: json_reply({"backend": "x"})):
        assert Client(odd).status().backend == "x"


def test_a_connection_that_breaks(path: Path) -> None:
    with (
        serving(path, lambda request: None),
        pytest.raises(BuilderError, match="closed the connection") as caught,
    ):
        Client(path).types()
    assert caught.value.remedy


def test_silence(path: Path) -> None:
    done = threading.Event()

    def silent(request: Request) -> None:
        done.wait(5)

    with serving(path, silent):
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="did not answer GET /api/v1/compose/types"):
            Client(path, timeout=0.2).types()
        assert time.monotonic() - began < 2
        done.set()


def test_resolving_may_take_longer_than_other_answers(path: Path) -> None:
    def slow(request: Request) -> Reply:
        time.sleep(0.5)
        return Reply(b'{"blueprints": [{"blueprint": {"name": "edge"}, "dependencies": []}]}')

    with serving(path, slow):
        assert Client(path, timeout=0.2).depsolve("edge") == ()
        assert Client(path, timeout=0.2).freeze("edge").name == "edge"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(b"<html>hello</html>"), "not JSON: '<html>hello"),
        (Reply(b"[1]"), "not a JSON object"),
        (Reply(b"<html>", status=502), "answered 502"),
        (Reply(b"", status=404), "answered 404"),
        (Reply(b"\xff\xfe", status=500), "answered 500"),
        (Reply(b'{"errors": "odd"}', status=500), "answered 500"),
        (Reply(b"", status=405), "cannot do GET"),
        (Reply(b"", status=501), "cannot do GET"),
    ],
)
def test_answers_that_no_image_builder_gives(path: Path, reply: Reply, message: str) -> None:
    with serving(path, lambda request: reply), pytest.raises(ApiError, match=message) as caught:
        Client(path).types()
    assert caught.value.status == reply.status


def test_a_refusal_keeps_id_and_message_and_says_what_to_do(path: Path) -> None:
    body = {"status": False, "errors": [{"id": "UnknownBlueprint", "msg": "Unknown: X"}]}
    with (
        serving(path, lambda request: json_reply(body, 400)),
        pytest.raises(ApiError) as caught,
    ):
        Client(path).tag("X")
    error = caught.value
    assert (error.status, error.id, error.msg) == (400, "UnknownBlueprint", "Unknown: X")
    assert "push the blueprint first" in error.remedy


# blueprints and sources -----------------------------------------------------------------------


def test_what_push_sends(path: Path, tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        if request.method == "POST":
            return json_reply({"status": True})
        return json_reply({"blueprints": [{"name": "Edge", "version": "0.0.2"}], "errors": []})

    text = 'name = "Edge"\n# kept as it is\nunknown = 1\n'
    file = tmp_path / "edge.toml"
    file.write_text(text)
    with serving(path, answer) as asked:
        client = Client(path)
        assert client.push(Blueprint("Edge", packages=(PackageSpec("tmux"),))).version == "0.0.2"
        assert client.push(text).name == "Edge"
        assert client.push(file).name == "Edge"
        as_object, as_text, as_file = posts(asked)
        assert as_object.headers["Content-Type"] == "text/x-toml"
        assert tomllib.loads(as_object.body.decode())["packages"] == [{"name": "tmux"}]
        assert as_text.headers["Content-Type"] == "text/x-toml"
        assert as_text.body.decode() == as_file.body.decode() == text


@pytest.mark.parametrize("changed", [True, False])
def test_a_draft_is_told_from_a_pushed_blueprint(path: Path, changed: bool) -> None:
    answer = {"blueprints": [{"name": "a"}], "changes": [{"changed": changed, "name": "a"}]}
    with serving(path, lambda request: json_reply({**answer, "errors": []})):
        assert Client(path).has_draft("a") is changed


def test_a_blueprint_that_does_not_exist_has_no_draft(path: Path) -> None:
    errors = [{"id": "UnknownBlueprint", "msg": "a: "}]
    with serving(path, lambda request: json_reply({"blueprints": [], "errors": errors})):
        assert Client(path).has_draft("a") is False


def test_a_malformed_blueprint_is_not_sent(path: Path, tmp_path: Path) -> None:
    with serving(path, lambda request: None) as asked:
        for bad in ("name = ", 'name = "x"\nversion = "1"', tmp_path / "missing.toml"):
            with pytest.raises(BlueprintError):
                Client(path).push(bad)
    assert asked == []


def test_what_add_source_sends(path: Path) -> None:
    with serving(path, lambda request: json_reply({"status": True})) as asked:
        Client(path).add_source(Source(id="extra", url="http://x/", gpgkeys=("KEY",)))
    assert json.loads(asked[0].body) == {
        "id": "extra",
        "name": "extra",
        "type": "yum-baseurl",
        "url": "http://x/",
        "check_gpg": True,
        "check_ssl": True,
        "gpgkeys": ["KEY"],
    }


def test_names_cannot_become_other_paths(path: Path) -> None:
    with serving(path, lambda request: json_reply({"status": True})) as asked:
        Client(path).delete_blueprint("a/b?c#d,e")
    assert asked[0].path == "/api/v1/blueprints/delete/a%2Fb%3Fc%23d%2Ce"


# starting -------------------------------------------------------------------------------------


def test_what_start_compose_sends(path: Path) -> None:
    server = Server(post=json_reply({"build_id": ID, "status": True, "warnings": ["w"]}))
    with serving(path, server) as asked:
        client = Client(path)
        assert client.start_compose("Edge", "edge-commit").warnings == ("w",)
        client.start_compose("Edge", "edge-commit", ref="r", url="http://x/", size=5, test=2)
        plain, full = posts(asked)
    common = {"blueprint_name": "Edge", "compose_type": "edge-commit", "branch": "master"}
    assert json.loads(plain.body) == common
    assert plain.headers["Content-Type"] == "application/json"
    ostree = {"ref": "r", "url": "http://x/"}
    assert json.loads(full.body) == {**common, "size": 5, "ostree": ostree}
    assert full.path == "/api/v1/compose?test=2"


@pytest.mark.parametrize("hang", [0, 1])
def test_a_compose_is_found_when_its_answer_is_lost(path: Path, hang: float) -> None:
    """Whether the connection breaks (0) or the server is silent: one POST, and its job."""
    server = Server(composes=[entry("FINISHED", OTHER)], hang=hang)
    with serving(path, server) as asked:
        started = Client(path).start_compose("Edge", "rhel-edge-commit", seconds=0.2)
        assert started.id == ID
        assert len(posts(asked)) == 1


def test_a_compose_that_was_not_accepted_is_not_taken_for_another(path: Path) -> None:
    server = Server(composes=[entry("FINISHED", OTHER)], accepts=False)
    with serving(path, server) as asked:
        with pytest.raises(DeadlineExceededError, match="not known whether") as caught:
            Client(path, patience=0.5).start_compose("Edge", "edge-commit")
        assert len(posts(asked)) == 1
    assert "before starting it again" in caught.value.remedy


def test_an_answer_without_an_id(path: Path) -> None:
    with (
        serving(path, Server(post=json_reply({"status": True}))),
        pytest.raises(ApiError, match="without an id"),
    ):
        Client(path).start_compose("Edge", "edge-commit")


# waiting --------------------------------------------------------------------------------------


def test_waiting_tells_the_stage(path: Path) -> None:
    server = Server(
        states=["WAITING", "RUNNING", "RUNNING", "FINISHED"],
        running_log="Stage: apt\nOutput:\nx\nStage: dracut\nOutput:\n",
    )
    lines: list[str] = []
    with serving(path, server):
        finished = Client(path).wait(ID, Deadline(10), lines.append, every=0.01)
    assert finished.status == "FINISHED"
    assert lines[0] == "waiting in the queue"
    assert lines[1] == "dracut, 5 s"


def test_a_server_that_has_no_running_log(path: Path) -> None:
    server = Server(states=["RUNNING", "FINISHED"], running_log=f"Build {ID} is still running.\n")
    lines: list[str] = []
    with serving(path, server):
        Client(path).wait(ID, Deadline(10), lines.append, every=0.01)
    assert lines == ["building, 5 s"]


def test_a_failure_says_stage_and_last_lines_and_keeps_the_log(path: Path, tmp_path: Path) -> None:
    with serving(path, Server(states=["FAILED"])), pytest.raises(ComposeFailedError) as caught:
        Client(path, logs=tmp_path).wait(ID, Deadline(10))
    error = caught.value
    assert (error.compose, error.stage) == (ID, "dracut")
    assert error.tail.endswith("E: no room")
    assert error.log is not None
    assert error.log.read_text() == LOG


@pytest.mark.parametrize(
    ("log", "remedy"),
    [
        (LOG, "fix the blueprint"),
        ("Error: /x has no room\nto do: free some space\n", "do what is said there"),
        ("ostree: No space left on device", "free some space where Image Builder runs"),
        ("min-free-space-percent '3%' would be exceeded", "free some space where Image Builder"),
    ],
)
def test_a_failure_says_what_to_do(path: Path, log: str, remedy: str) -> None:
    server = Server(states=["FAILED"], log=log)
    with serving(path, server), pytest.raises(ComposeFailedError) as caught:
        Client(path).wait(ID, 10)
    assert remedy in caught.value.remedy


def test_a_compose_that_has_been_deleted_says_what_to_do(path: Path) -> None:
    answer = json_reply({"uuids": []})
    with serving(path, lambda request: answer), pytest.raises(ApiError) as caught:
        Client(path).compose(ID)
    assert (caught.value.id, "composed again" in caught.value.remedy) == ("UnknownUUID", True)


def test_waiting_ends_in_time(path: Path) -> None:
    with serving(path, Server(states=["RUNNING"])):
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="has not finished"):
            Client(path).wait(ID, Deadline(0.3), every=0.05)
        assert time.monotonic() - began < 2


def test_waiting_survives_a_restart_of_the_service(path: Path) -> None:
    results: list[str] = []

    def wait() -> None:
        results.append(Client(path).wait(ID, Deadline(20), every=0.02).status)

    with serving(path, Server(states=["RUNNING"])) as asked:
        waiting = threading.Thread(target=wait)
        waiting.start()
        while not asked:
            time.sleep(0.01)
    time.sleep(0.2)
    with serving(path, Server(states=["FINISHED"])):
        waiting.join(10)
    assert results == ["FINISHED"]


def test_waiting_survives_an_answer_that_takes_too_long(path: Path) -> None:
    slow = [1.0]

    def server(request: Request) -> Reply:
        if slow:
            time.sleep(slow.pop())
        return quick(request)

    quick = Server(states=["RUNNING", "FINISHED"])
    with serving(path, server):
        finished = Client(path, timeout=0.4, patience=20).wait(ID, Deadline(30), every=0.02)
    assert finished.status == "FINISHED"
    assert slow == []


def test_waiting_gives_up_on_a_service_that_stays_away(path: Path) -> None:
    with pytest.raises(BuilderError, match="there is no Image Builder"):
        Client(path, patience=0.2).wait(ID, Deadline(20), every=0.05)


# downloads ------------------------------------------------------------------------------------


def image(body: bytes, name: str = f"{ID}-commit.tar", length: int | None = None) -> Reply:
    return Reply(
        body, headers={"Content-Disposition": f"attachment; filename={name}"}, length=length
    )


def test_a_download(path: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    body = os.urandom(3_000_000)
    target = tmp_path / "new" / "directory"
    with serving(path, lambda request: image(body)):
        artifact = Client(path).download(ID, target, lines.append)
    assert artifact == target / f"{ID}-commit.tar"
    assert artifact.read_bytes() == body
    assert lines[-1] == "3 of 3 MB"
    assert list(target.iterdir()) == [artifact]


def test_the_size_of_an_artifact_is_known_without_fetching_it(path: Path) -> None:
    with serving(path, lambda request: image(b"x" * 5_000_000)):
        assert Client(path).artifact_size(ID) == 5_000_000


def test_a_short_download_is_started_again(path: Path, tmp_path: Path) -> None:
    replies = [image(b"12345", length=10), image(b"1234567890")]
    with serving(path, lambda request: replies.pop(0)):
        assert Client(path).download(ID, tmp_path).read_bytes() == b"1234567890"
    assert replies == []


def test_a_download_that_stays_short_leaves_nothing(path: Path, tmp_path: Path) -> None:
    with serving(path, lambda request: image(b"12345", length=10)) as asked:
        with pytest.raises(BuilderError, match=r"IncompleteRead|ended after 5 of 10"):
            Client(path).download(ID, tmp_path)
        assert len(asked) == 3
    assert list(tmp_path.iterdir()) == []


def test_a_complete_file_is_not_written_again(path: Path, tmp_path: Path) -> None:
    with serving(path, lambda request: image(b"1234567890")):
        client = Client(path)
        artifact = client.download(ID, tmp_path)
        before = artifact.stat()
        assert client.download(ID, tmp_path).stat().st_ino == before.st_ino
        artifact.write_bytes(b"123")
        assert client.download(ID, tmp_path).read_bytes() == b"1234567890"


def test_no_room(path: Path, tmp_path: Path) -> None:
    length = shutil.disk_usage(tmp_path).total * 2
    with (
        serving(path, lambda request: image(b"", length=length)),
        pytest.raises(BuilderError, match="GB free, the download needs") as caught,
    ):
        Client(path).download(ID, tmp_path)
    assert "free some disk space" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "", ".hidden", "a/b"])
def test_a_hostile_file_name(path: Path, tmp_path: Path, name: str) -> None:
    with serving(path, lambda request: image(b"x", name)):
        artifact = Client(path).download(ID, tmp_path / "here")
    assert artifact == tmp_path / "here" / f"{ID}-image"


def test_a_directory_that_cannot_be_written(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        serving(path, lambda request: image(b"x")),
        pytest.raises(BuilderError, match="cannot write"),
    ):
        Client(path).download(ID, tmp_path / "file" / "below")
