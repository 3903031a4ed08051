"""The sandbox service under hostile requests: how much memory it takes, and whether it answers.

    python benchmarks/hostile.py [--inputs 50000] [--clients 8]

Generated inputs, each of one to four requests (tests/support/hostile.py), go to a service in its
own process; each answer must be one of the contract. A second process meanwhile asks for the status
every 20 ms. Prints the peak of the service's resident memory and the slowest answer to a status
request.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hypothesis import HealthCheck, Phase, given, seed, settings
from support.hostile import REQUESTS, Request, check
from support.sandbox_service import Process, UnixConnection

from rfe_helpers.core import run

_EVERY_SECONDS = 0.02


@dataclass
class Figures:
    """What a trial measured. Memory in bytes, times in seconds."""

    inputs: int = 0
    requests: int = 0
    refused: int = 0
    seconds: float = 0
    peak_memory: int = 0
    statuses: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def statuses_asked(self) -> int:
        return len(self.statuses)


def peak_memory(process: Process) -> int:
    """The most resident memory that the service has had, in bytes."""
    lines = Path(f"/proc/{process.id.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def trial(directory: Path, inputs: int, clients: int = 8) -> Figures:
    """Send that many inputs to a service with its state in `directory`."""
    process = Process(directory)
    process.builder.open()
    process.post("/api/v1/blueprints/new", name="Edge", packages=[{"name": "tmux"}])
    watch_log = directory / "watch.log"
    watch = run.start([sys.executable, __file__, "--watch", process.socket], log=watch_log)
    figures = Figures()
    began = time.monotonic()
    try:
        _send(process, inputs, clients, figures)
        if process.ask("GET /api/status").status != 200:
            figures.failures.append("the service does not answer any more")
        figures.peak_memory = peak_memory(process)
    finally:
        run.stop(watch)
        run.stop(process.id)
    figures.seconds = time.monotonic() - began
    figures.statuses = [float(line.split()[0]) for line in watch_log.read_text().splitlines()[:-1]]
    if "Traceback" in process.log.read_text():
        figures.failures.append(process.log.read_text()[-2000:])
    return figures


def _send(process: Process, inputs: int, clients: int, figures: Figures) -> None:
    """Generate inputs in this thread, send them in others."""
    waiting: queue.Queue[list[Request] | None] = queue.Queue(maxsize=4 * clients)
    guard = threading.Lock()

    def client() -> None:
        while (requests := waiting.get()) is not None:
            for request in requests:
                failure = refused = False
                try:
                    answer = process.ask(request.line, request.body, request.content_type)
                    refused = b"try again in a moment" in answer.body
                    check(request, answer, crowded=True)
                except Exception as error:
                    failure = True
                    text = f"{request.line[:200]} {request.body[:200]!r}: {error!r:.500}"
                with guard:
                    figures.requests += 1
                    figures.refused += refused
                    if failure:
                        figures.failures.append(text)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()

    @seed(0)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests=REQUESTS)
    def generate(requests: list[Request]) -> None:
        figures.inputs += 1
        waiting.put(requests)

    try:
        generate()
    finally:
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()


def watch(socket: Path) -> None:
    """Print how long each status request took, in seconds, until SIGTERM."""
    while True:
        began = time.monotonic()
        connection = UnixConnection(socket)
        try:
            connection.request("GET", "/api/status")
            answer = connection.getresponse()
            answer.read()
            taken = time.monotonic() - began if answer.status == 200 else 3600.0
        except OSError:
            taken = 3600.0
        finally:
            connection.close()
        print(f"{taken:.4f} {time.time() - taken:.3f}", flush=True)
        time.sleep(_EVERY_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.watch:
        with contextlib.suppress(KeyboardInterrupt):
            watch(arguments.watch)
        return 0
    with tempfile.TemporaryDirectory(prefix="rfe-hostile-") as directory:
        figures = trial(Path(directory), arguments.inputs, arguments.clients)
    statuses = sorted(figures.statuses)
    print(f"inputs                 {figures.inputs} ({figures.requests} requests)")
    print(f"seconds                {figures.seconds:.0f}")
    print(f"refused as too many    {figures.refused}")
    print(f"failures               {len(figures.failures)}")
    print(f"peak memory            {figures.peak_memory / 2**20:.0f} MiB")
    print(f"status requests        {len(statuses)}")
    print(f"status, median         {statuses[len(statuses) // 2] * 1000:.1f} ms")
    print(f"status, 999 of 1000    {statuses[len(statuses) * 999 // 1000] * 1000:.1f} ms")
    print(f"status, slowest        {statuses[-1] * 1000:.1f} ms")
    for failure in figures.failures[:10]:
        print(f"  {failure}")
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
