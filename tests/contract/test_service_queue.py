"""Composes over time: the queue, cancelling, logs, and the requests that builds get."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from pathlib import Path

from support import sandbox_service
from support.sandbox_service import ARTIFACT, Answer, Running, silent_server, web_server

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.build.tree import Request, Work
from rfe_helpers.sandbox.service.app import MAXIMUM_BODY
from rfe_helpers.sandbox.service.packages import Index
from rfe_helpers.sandbox.service.queue import Queue, _processes_of
from rfe_helpers.sandbox.service.store import ComposePlan, Store


def test_one_compose_runs_at_a_time_in_order(service: Running) -> None:
    service.push()
    first, second, third = (service.compose() for _ in range(3))
    service.wait(first, "RUNNING")
    queue = service.ask("GET /api/v1/compose/queue").json
    assert [entry["id"] for entry in queue["run"]] == [first]
    assert [entry["id"] for entry in queue["new"]] == [second, third]
    service.builder.open()
    service.wait(third, "FINISHED")
    times = [
        service.ask(f"GET /api/v1/compose/status/{i}").json["uuids"][0] for i in (first, second)
    ]
    assert times[0]["job_finished"] <= times[1]["job_started"]


def test_the_build_gets_what_was_requested(service: Running) -> None:
    parent = "ab" * 32
    service.push(packages=[{"name": "tmux", "version": "3.*"}], modules=[{"name": "vim-*"}])
    service.builder.open()
    with web_server({"/repo/refs/heads/debian/13/x86_64/edge": parent.encode()}) as address:
        url = f"{address}/repo"
        identity = service.compose(compose_type="rhel-edge-container", ostree={"url": url})
    service.wait(identity, "FINISHED")
    (request,) = service.builder.requests
    assert request.id == identity
    assert request.image_type == "edge-container"
    assert (request.ref, request.parent, request.url) == ("debian/13/x86_64/edge", parent, url)
    assert request.packages == ("tmux=3.5a-3", "vim-tiny")
    assert request.kernel == "linux-image-cloud-amd64"


def test_a_disk_has_the_requested_size_and_no_size_is_refused(service: Running) -> None:
    """A raw image that is too small for what is in it grows (sandbox/build/raw.py)."""
    service.push()
    service.builder.open()
    gib = 1024**3
    with web_server({"/repo/refs/heads/debian/13/x86_64/edge": b"ab" * 32}) as address:
        options = {"compose_type": "edge-raw-image", "ostree": {"url": f"{address}/repo"}}
        for size in (5 * gib, 0, gib):
            service.wait(service.compose(**options, size=size), "FINISHED")
    sizes = [request.size for request in service.builder.requests]
    assert sizes == [5 * gib, 3 * gib, gib]


def test_a_compose_builds_what_the_blueprint_was_when_it_was_queued(service: Running) -> None:
    service.push(packages=[{"name": "tmux"}])
    service.compose()
    second = service.compose()
    service.push(packages=[{"name": "vim-tiny"}])
    service.builder.open()
    service.wait(second, "FINISHED")
    assert [request.packages for request in service.builder.requests] == [("tmux",)] * 2


def test_cancelling_ends_the_build_and_the_next_compose_starts(service: Running) -> None:
    service.push()
    first, second = service.compose(), service.compose()
    service.wait(first, "RUNNING")
    process = None
    while process is None:
        process = service.service.store.compose(first).process
    assert process.alive
    assert service.ask(f"DELETE /api/v1/compose/cancel/{first}").status == 200
    assert service.status(first) == "FAILED"
    build = process
    wait_for(lambda: not build.alive, Deadline(10), "the build has ended", every=0.02)
    assert "cancelled" in service.ask(f"GET /api/v1/compose/log/{first}").body.decode()
    service.wait(second, "RUNNING")


def test_a_waiting_compose_that_is_cancelled_never_runs(service: Running) -> None:
    service.push()
    service.wait(service.compose(), "RUNNING")
    waiting, last = service.compose(), service.compose()
    assert service.ask(f"DELETE /api/v1/compose/cancel/{waiting}").status == 200
    service.builder.open()
    service.wait(last, "FINISHED")
    assert waiting not in [request.id for request in service.builder.requests]


def test_a_failed_build_logs_the_reason_and_leaves_only_its_log(service: Running) -> None:
    service.push()
    service.builder.open("fail")
    identity = service.compose()
    service.wait(identity, "FAILED")
    text = service.ask(f"GET /api/v1/compose/log/{identity}").body.decode()
    assert text.startswith("Pipeline: tree\nStage: mmdebstrap\nOutput:\nI: extracting\n")
    assert "no package in this tree" in text
    left = [path.name for path in (service.state / "composes" / identity).iterdir()]
    assert left == ["osbuild.log"]


def test_a_full_disk_is_named_in_the_log(service: Running) -> None:
    service.push()
    service.builder.open("full")
    identity = service.compose()
    service.wait(identity, "FAILED")
    text = service.ask(f"GET /api/v1/compose/log/{identity}").body.decode()
    assert f"Error: the disk of {service.state / 'composes' / identity} is full (" in text
    assert "to do: free some space on it" in text


def test_the_tail_of_a_running_log_stands_under_its_stage(service: Running) -> None:
    service.push()
    identity = service.compose()
    service.wait(identity, "RUNNING")
    log = service.state / "composes" / identity / "osbuild.log"
    while not log.exists() or not log.stat().st_size:
        pass  # the file is there a moment before the stage's name is in it
    with log.open("a") as file:
        file.write("".join(f"line {number}\n" for number in range(1000)))
    text = service.ask(f"GET /api/v1/compose/log/{identity}?size=1").body.decode()
    lines = text.splitlines()
    assert lines[:3] == ["Pipeline: tree", "Stage: mmdebstrap", "Output:"]
    assert lines[-1] == "line 999"
    assert 900 < len(text) < 1200
    plain = service.ask(f"GET /api/v1/compose/log/{identity}").body.decode()
    assert plain == f"Build {identity} is still running.\n"


def test_deleting_removes_the_files(service: Running) -> None:
    service.push()
    service.builder.open()
    identity = service.compose()
    service.wait(identity, "FINISHED")
    assert (service.state / "composes" / identity / "commit.tar").read_bytes() == ARTIFACT
    service.ask(f"DELETE /api/v1/compose/delete/{identity}")
    assert not (service.state / "composes" / identity).exists()


def test_results_hold_the_bytes_of_the_artifact_and_the_log(service: Running) -> None:
    service.push()
    service.builder.open()
    identity = service.compose()
    service.wait(identity, "FINISHED")
    answer = service.ask(f"GET /api/v1/compose/results/{identity}")
    assert answer.headers.get("Transfer-Encoding") == "chunked"
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
        content = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
    assert content[f"{identity}-commit.tar"] == ARTIFACT
    assert content["logs/osbuild.log"].endswith(b"committed\n")
    assert json.loads(content[f"{identity}.json"]) == {"ref": "debian/13/x86_64/edge"}


def test_a_password_is_crypted_on_push_and_never_returned(service: Running) -> None:
    users = [
        {"name": "plain", "password": "open sesame"},
        {"name": "crypted", "password": "$6$salt$hash"},
        {"name": "empty", "password": ""},
    ]
    service.push(customizations={"user": users})
    blueprint = service.ask("GET /api/v1/blueprints/info/Edge").json["blueprints"][0]
    plain, crypted, empty = blueprint["customizations"]["user"]
    assert plain["password"].startswith("$6$")
    assert crypted["password"] == "$6$salt$hash"
    assert "password" not in empty
    for path in service.state.iterdir():
        assert path.is_dir() or b"open sesame" not in path.read_bytes()


def test_a_body_that_is_too_large_is_refused_and_the_service_keeps_running(
    service: Running,
) -> None:
    body = b"[" * (MAXIMUM_BODY + 1)
    answer = service.ask("POST /api/v1/blueprints/new", body, "application/json")
    assert answer.status == 400
    assert "larger than" in answer.json["errors"][0]["msg"]
    assert service.ask("GET /api/status").status == 200


def test_undo_restores_a_version_and_adds_it_to_the_history(service: Running) -> None:
    service.push(version="1.0.0", description="first")
    service.push(version="2.0.0", description="second")
    history = service.ask("GET /api/v1/blueprints/changes/Edge").json["blueprints"][0]["changes"]
    oldest = history[-1]["commit"]
    service.ask("DELETE /api/v1/blueprints/delete/Edge")
    assert service.ask(f"POST /api/v1/blueprints/undo/Edge/{oldest}").status == 200
    blueprint = service.ask("GET /api/v1/blueprints/info/Edge").json["blueprints"][0]
    assert (blueprint["version"], blueprint["description"]) == ("1.0.0", "first")
    newest = service.ask("GET /api/v1/blueprints/changes/Edge").json["blueprints"][0]["changes"][0]
    assert newest["message"] == f"Edge.toml reverted to commit {oldest}"


def test_a_frozen_blueprint_can_be_pushed_and_solved(service: Running) -> None:
    service.push(packages=[{"name": "tm*", "version": "3.*"}, {"name": "vim-tiny"}])
    frozen = service.ask("GET /api/v1/blueprints/freeze/Edge").json["blueprints"][0]["blueprint"]
    assert frozen["packages"] == [
        {"name": "tmux", "version": "3.5a-3.x86_64"},
        {"name": "vim-tiny", "version": "2:9.1.1230-2.x86_64"},
    ]
    service.push(**{**frozen, "name": "Frozen"})
    answer = service.ask("GET /api/v1/blueprints/depsolve/Frozen").json
    assert answer["errors"] == []
    assert len(answer["blueprints"][0]["dependencies"]) == 4


def test_sources_are_used_by_composes_that_follow(service: Running, tmp_path: Path) -> None:
    packages = "Package: site-tool\nVersion: 1.0\nArchitecture: all\nDescription: x\n"
    root = tmp_path / "site"
    sandbox_service.debian_repository(root, packages)
    paths = {f"/{p.relative_to(root)}": p.read_bytes() for p in root.rglob("*") if p.is_file()}
    service.push(packages=[{"name": "site-tool"}])
    with web_server(paths) as address:
        url = f"{address} trixie main"
        source = {"id": "site", "name": "Site", "type": "yum-baseurl", "url": url}
        answer = service.ask(
            "POST /api/v1/projects/source/new", json.dumps(source), "application/json"
        )
        assert answer.json == {"status": True}
        service.builder.open()
        service.wait(service.compose(), "FINISHED")
    (request,) = service.builder.requests
    assert request.sources == (
        f"Types: deb\nURIs: {address}\nSuites: trixie\nComponents: main\nTrusted: yes\n",
    )


def test_a_service_that_ends_in_an_orderly_way_queues_its_compose_again(
    tmp_path: Path, index: Index
) -> None:
    with sandbox_service.running(tmp_path, index) as service:
        service.push()
        identity = service.compose()
        service.wait(identity, "RUNNING")
    with sandbox_service.running(tmp_path, index) as service:
        service.builder.open()
        service.wait(identity, "FINISHED")
        assert service.service.store.compose(identity).attempts == 1


def test_enormous_lists_end_in_errors_of_the_contract(service: Running) -> None:
    service.push("Packages", packages=[{"name": "tmux", "version": "*"}] * 50_000)
    service.push("Names", packages=[{"name": f"p{number}"} for number in range(50_000)])
    service.push("Users", customizations={"user": [{"name": f"u{n}"} for n in range(5_000)]})
    service.push("Units", customizations={"services": {"enabled": ["ssh"] * 5_000}})
    for name, status, identity in (
        ("Packages", 200, ""),
        ("Names", 500, "DepsolveError"),
        ("Users", 400, "ManifestCreationFailed"),
        ("Units", 400, "ManifestCreationFailed"),
    ):
        body = json.dumps({"blueprint_name": name, "compose_type": "edge-commit"})
        answer = service.ask("POST /api/v1/compose?test=2", body, "application/json")
        assert answer.status == status, answer.body
        assert identity in str(answer.json.get("errors", ""))


def test_servers_that_do_not_answer_do_not_keep_a_compose_from_being_cancelled(
    service: Running,
) -> None:
    service.push()
    identity = service.compose()
    service.wait(identity, "RUNNING")
    with silent_server() as url:
        body = json.dumps(
            {"blueprint_name": "Edge", "compose_type": "edge-commit", "ostree": {"url": url}}
        )
        asking = [
            threading.Thread(
                target=service.ask, args=("POST /api/v1/compose", body, "application/json")
            )
            for _ in range(4)
        ]
        for thread in asking:
            thread.start()
        time.sleep(0.5)
        assert service.ask(f"DELETE /api/v1/compose/cancel/{identity}").status == 200
        assert service.status(identity) == "FAILED"
    for thread in asking:
        thread.join(30)
        assert not thread.is_alive()


def test_a_compose_that_is_deleted_while_it_ends_leaves_nothing(tmp_path: Path) -> None:
    """A client may delete a compose while another is cancelling it."""
    begun, go_on = threading.Event(), threading.Event()

    def builder(request: Request, work: Work) -> Path:
        (work.directory / "tree").mkdir()
        begun.set()
        go_on.wait(20)
        raise BuilderError("ended")

    store = Store(tmp_path)
    queue = Queue(store, tmp_path / "composes", tmp_path / "cache", builder)
    queue.start()
    plan = ComposePlan(Blueprint("Edge"), "edge-commit", "a/b")
    first, second = store.add_compose(plan), store.add_compose(plan)
    queue.wake()
    assert begun.wait(20)
    begun.clear()
    ending = [threading.Thread(target=queue.cancel, args=(first,))]
    ending[0].start()
    wait_for(lambda: store.compose(first).ended, Deadline(10), "it is cancelled", every=0.01)
    ending.append(threading.Thread(target=queue.delete, args=(first,)))
    ending[1].start()
    time.sleep(0.2)
    go_on.set()
    for thread in ending:
        thread.join(10)
        assert not thread.is_alive()
    assert begun.wait(5), "the next one is built at once"
    assert not queue.path(first).exists()
    wait_for(lambda: store.compose(second).ended, Deadline(10), "it has ended", every=0.01)
    queue.stop()
    store.close()


def test_a_compose_that_is_given_up_leaves_no_half_built_tree(tmp_path: Path) -> None:
    store = Store(tmp_path)
    queue = Queue(store, tmp_path / "composes", tmp_path / "cache", lambda *_: Path())
    identity = store.add_compose(ComposePlan(Blueprint("Edge"), "edge-commit", "a/b"))
    for _ in range(2):
        started = store.start_next()
        assert started is not None
        if started.attempts < 2:
            store.requeue(identity, forgive=False)
    (queue.path(identity) / "content").mkdir(parents=True)
    for name in ("spec.json", "tree.tar", "osbuild.log"):
        queue.path(identity, name).write_text("x")
    queue.start()
    queue.stop()
    assert store.compose(identity).status == "FAILED"
    assert [path.name for path in queue.path(identity).iterdir()] == ["osbuild.log"]
    store.close()


def test_a_program_that_reads_a_log_is_not_ended_with_the_build(tmp_path: Path) -> None:
    for name in ("osbuild.log", "tree.tar"):
        (tmp_path / name).touch()
    reader = run.start(["tail", "-f", tmp_path / "osbuild.log"], log=tmp_path / "log")
    build = run.start(["tail", "-f", tmp_path / "tree.tar"], log=tmp_path / "log")
    try:
        for process in (reader, build):  # the command line is empty for a moment during exec
            command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes
            wait_for(command_line, Deadline(10), "tail runs", every=0.01)
        assert _processes_of(tmp_path) == [build]
    finally:
        run.stop(reader)
        run.stop(build)


def test_an_unexpected_error_is_an_answer_of_the_contract(service: Running) -> None:
    def push(body: str, kind: str = "application/json") -> Answer:
        return service.ask("POST /api/v1/blueprints/new", body, kind)

    deep = '{"a":' * 900 + "1" + "}" * 900
    for body, kind in (
        (f'{{"name": "deep", "customizations": {{"disk": {deep}}}}}', "application/json"),
        (json.dumps({"name": "long", "version": f"0.0.{'9' * 5000}"}), "application/json"),
        (
            f'name = "big"\n[[customizations.user]]\nname = "a"\nuid = 0x{"f" * 4000}\n',
            "text/x-toml",
        ),
    ):
        answer = push(body, kind)
        assert answer.status == 400, answer.body
        assert answer.json["errors"][0]["id"] == "BlueprintsError"
    service.service.store.blueprint_names = lambda: 1 / 0  # type: ignore[method-assign]
    answer = service.ask("GET /api/v1/blueprints/list")
    assert answer.status == 500
    assert answer.json["errors"][0]["msg"].startswith("ZeroDivisionError")


def test_an_empty_distro_or_architecture_is_unset(service: Running) -> None:
    for query in ("distro=", "arch=", "distro=&arch="):
        assert service.ask(f"GET /api/v1/compose/types?{query}").status == 200
        assert service.ask(f"GET /api/v1/distros/list?{query}").json["distros"] == ["debian-13"]
