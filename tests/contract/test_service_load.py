"""200 clients read the status and the lists while a compose runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from support.sandbox_service import Process, UnixConnection

CLIENTS, ROUNDS = 200, 5
PATHS = ("/api/v1/compose/status/*", "/api/v1/compose/queue", "/api/v1/blueprints/list")


@pytest.mark.timeout(120)
def test_200_clients_get_their_answers_while_a_compose_runs(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.post("/api/v1/blueprints/new", name="Edge")
    started = process.post("/api/v1/compose", blueprint_name="Edge", compose_type="edge-commit")
    answered: list[int] = []
    failures: list[BaseException] = []
    together = threading.Barrier(CLIENTS)

    def client() -> None:
        connection = UnixConnection(process.socket)
        try:
            together.wait()
            for _ in range(ROUNDS):
                for path in PATHS:
                    connection.request("GET", path)
                    response = connection.getresponse()
                    body = response.read()
                    assert body.startswith(b"{"), body
                    answered.append(response.status)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = process.ask("GET /api/v1/compose/queue").json["run"][0]
    process.terminate()
    assert failures == []
    assert answered == [200] * (CLIENTS * ROUNDS * len(PATHS))
    assert status["id"] == started.json["build_id"]
