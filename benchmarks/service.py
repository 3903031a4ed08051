"""The sandbox service under load: many clients read status and lists while a compose runs.

    python benchmarks/service.py [--clients 200] [--seconds 10]

Prints requests per second and the median and 99th percentile of the latency, for a service in its
own process on this host, and how many requests for `/api/status` alone it answers in a second. The
compose only waits, so that the figures are those of the service and not of mmdebstrap.
"""

from __future__ import annotations

import argparse
import contextlib
import selectors
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.sandbox_service import Process, UnixConnection

PATHS = (
    "/api/status",
    "/api/v1/compose/queue",
    "/api/v1/compose/status/*",
    "/api/v1/blueprints/list",
    "/api/v1/compose/types",
    "/api/v1/blueprints/info/Edge",
)


def load(process: Process, clients: int, seconds: float) -> tuple[list[float], list[str]]:
    """Let `clients` threads send requests for `seconds`; returns the latency (s) of each request,
    and the failures."""
    latencies: list[float] = []
    failures: list[str] = []
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        own: list[float] = []
        connection = UnixConnection(process.socket)
        try:
            turn = number
            while time.monotonic() < end:
                turn += 1
                path = PATHS[turn % len(PATHS)]
                began = time.monotonic()
                connection.request("GET", path)
                response = connection.getresponse()
                body = response.read()
                own.append(time.monotonic() - began)
                if response.status != 200 or not body.startswith(b"{"):
                    failures.append(f"{path}: {response.status} {body[:100]!r}")
        except Exception as error:
            failures.append(f"client {number}: {error!r}")
        finally:
            connection.close()
            latencies.extend(own)

    threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies, failures


def status_rate(socket_path: Path, connections: int, seconds: float) -> float:
    """Answers per second to GET /api/status; each connection has one request under way."""
    request = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answers = 0
    received: dict[int, bytes] = {}
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as held:
        for _ in range(connections):
            client = held.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(socket_path))
            client.sendall(request)
            selector.register(client, selectors.EVENT_READ, client)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in selector.select(1):
                answer = received[key.fd] = received.get(key.fd, b"") + key.data.recv(65536)
                if not answer.startswith(b"HTTP/1.1 200 OK"):
                    raise SystemExit(f"the service answered {answer[:100]!r}")
                if not answer.endswith(b"}"):  # head and body may come one after the other
                    continue
                received[key.fd] = b""
                answers += 1
                key.data.sendall(request)
    return answers / seconds


def start_service(directory: Path) -> Process:
    """A service with a blueprint, ten finished composes and one that is running."""
    process = Process(directory)
    process.post("/api/v1/blueprints/new", name="Edge", packages=[{"name": "tmux"}])
    for _ in range(10):
        process.post("/api/v1/compose?test=2", blueprint_name="Edge", compose_type="edge-commit")
    process.post("/api/v1/compose", blueprint_name="Edge", compose_type="edge-commit")
    while not process.ask("GET /api/v1/compose/queue").json["run"]:
        time.sleep(0.05)
    return process


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rfe-service-") as directory:
        process = start_service(Path(directory))
        try:
            rate = status_rate(process.socket, 16, arguments.seconds)
            latencies, failures = load(process, arguments.clients, arguments.seconds)
        finally:
            process.terminate()
    hundredths = statistics.quantiles(latencies, n=100)
    print(f"status per second    {rate:.0f}")
    print(f"clients              {arguments.clients}")
    print(f"requests             {len(latencies)}")
    print(f"failures             {len(failures)}")
    print(f"requests per second  {len(latencies) / arguments.seconds:.0f}")
    print(f"median               {statistics.median(latencies) * 1000:.1f} ms")
    print(f"99th percentile      {hundredths[98] * 1000:.1f} ms")
    for failure in failures[:10]:
        print(f"  {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
