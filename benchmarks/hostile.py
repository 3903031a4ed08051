"""The sandbox service under hostile requests: how much memory it takes, and whether it answers.

    python benchmarks/hostile.py [--inputs 50000] [--clients 8]

Generated inputs, each of one to four requests (tests/support/hostile.py), go to a service in its
own process; each answer must be one of the contract. A second process meanwhile asks for the status
every 20 ms. Prints the peak of the service's resident memory and the slowest answers to a status
request: as they came, and without the time in which the two had no processor (schedstat of Linux),
as the machine is not the service. What generates the load gives way to both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hypothesis import HealthCheck, Phase, given, seed, settings
from support.hostile import REQUESTS, Request, check
from support.sandbox_service import Process, UnixConnection

from rfe_helpers.core import run

_EVERY_SECONDS = 0.02
_NICENESS = 10  # of what generates the load
_UNANSWERED = 3600.0


@dataclass
class Figures:
    """What a trial measured. Memory in bytes, times in seconds; `owns` are those in `statuses`
    without the waits for a processor."""

    inputs: int = 0
    requests: int = 0
    refused: int = 0
    seconds: float = 0
    peak_memory: int = 0
    statuses: list[float] = field(default_factory=list)
    owns: list[float] = field(default_factory=list)
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
    words = [sys.executable, __file__, "--watch", process.socket, "--pid", str(process.id.pid)]
    watch = run.start(words, log=watch_log)
    figures = Figures()
    began = time.monotonic()
    try:
        # On Linux, niceness is a thread's; those that it starts inherit it.
        with ThreadPoolExecutor(1, initializer=os.nice, initargs=(_NICENESS,)) as nice:
            nice.submit(_send, process, inputs, clients, figures).result()
        if process.ask("GET /api/status").status != 200:
            figures.failures.append("the service does not answer any more")
        figures.peak_memory = peak_memory(process)
    finally:
        run.stop(watch)
        run.stop(process.id)
    figures.seconds = time.monotonic() - began
    rows = [line.split() for line in watch_log.read_text().splitlines()[:-1]]
    figures.statuses, figures.owns = ([float(row[column]) for row in rows] for column in (0, 1))
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


def waited(pid: int) -> float:
    """How long the main thread of a process has waited for a processor, in seconds."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9


def watch(socket: Path, pid: int) -> None:
    """Print how long each status request took, in seconds, and how long without the waits for a
    processor, until SIGTERM. `pid` is that of the service."""
    pids = (pid, os.getpid())
    while True:
        before = sum(map(waited, pids))
        began = time.monotonic()
        connection = UnixConnection(socket)
        try:
            connection.request("GET", "/api/status")
            answer = connection.getresponse()
            answer.read()
            taken = time.monotonic() - began if answer.status == 200 else _UNANSWERED
        except OSError:
            taken = _UNANSWERED
        finally:
            connection.close()
        own = max(0.0, taken - (sum(map(waited, pids)) - before))
        print(f"{taken:.4f} {own:.4f} {time.time() - taken:.3f}", flush=True)
        time.sleep(_EVERY_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--watch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pid", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.watch:
        with contextlib.suppress(KeyboardInterrupt):
            watch(arguments.watch, arguments.pid)
        return 0
    with tempfile.TemporaryDirectory(prefix="rfe-hostile-") as directory:
        figures = trial(Path(directory), arguments.inputs, arguments.clients)
    print(f"inputs                 {figures.inputs} ({figures.requests} requests)")
    print(f"seconds                {figures.seconds:.0f}")
    print(f"refused as too many    {figures.refused}")
    print(f"failures               {len(figures.failures)}")
    print(f"peak memory            {figures.peak_memory / 2**20:.0f} MiB")
    print(f"status requests        {figures.statuses_asked}")
    print("                          median   999 of 1000   slowest")
    for title, times in (("status", figures.statuses), ("without the machine", figures.owns)):
        ordered = sorted(times)
        shown = (ordered[len(times) // 2], ordered[len(times) * 999 // 1000], ordered[-1])
        print(f"{title:23} {shown[0]:6.3f} s {shown[1]:11.3f} s {shown[2]:7.3f} s")
    for failure in figures.failures[:10]:
        print(f"  {failure}")
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
