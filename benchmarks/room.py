"""What a room of people takes of one machine, and how quickly it still answers.

    .venv/bin/python benchmarks/room.py --seats 30      20 minutes on two cores
    .venv/bin/python benchmarks/room.py --seats 3 --real 50 60

Opens a room of containers (`rfe room`, as root) and lets each of its simulated people log in, open
the notebooks 00 to 40 one after the other and run their cells, with pauses to read. The first of
them builds for all: the others begin with a copy of their disk, so that Image Builder answers with
what it has built before. Meanwhile each asks their server for its status once a second, and the
trainer's page looks at all. With `--real` the people run those notebooks without a browser instead,
from nothing, all at once, each with a machine of their own.

Prints per seat the peak of memory and the processor time, and the times of answers. The image is
localhost/rfe-workbook (`make image CACHE=1`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests
import urllib3
import websocket

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import rooms

from rfe_helpers.core import run
from rfe_helpers.core.network import free_port
from rfe_helpers.room import Room, read_settings
from rfe_helpers.workbook.chapters import number_of
from rfe_helpers.workbook.notebooks import all_notebooks

NOTEBOOKS = ("00", "10", "20", "30", "40")
CELL_SECONDS = 900
urllib3.disable_warnings()


@dataclass
class Person:
    """A simulated person: what they did, and how long answers took, in seconds."""

    name: str
    room: Room
    password: str
    login: float = 0.0
    cells: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    peak_memory: int = 0
    processor: float = 0.0
    header: dict[str, str] = field(default_factory=dict)

    @property
    def server(self) -> str:
        return f"{self.room.address}user/{self.name}"

    @property
    def container(self) -> str:
        return f"rfe-room-{self.room.id}-{self.name}"

    def log_in(self) -> None:
        """Fill in the form, and wait for the server, as a browser does."""
        began = time.monotonic()
        rooms.log_in(self.room, self.name, self.password)
        self.login = time.monotonic() - began
        self.header = rooms.seat_header(self.room, self.name)

    def work(self, pause: float) -> None:
        for number in NOTEBOOKS:
            (name,) = [path.name for path in all_notebooks() if number_of(path.name) == number]
            content = self._ask("GET", f"contents/{name}")["content"]
            body = {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}}
            session = self._ask("POST", "sessions", body)
            try:
                for cell in content["cells"]:
                    if cell["cell_type"] == "code":
                        self._run(session["kernel"]["id"], cell)
                        time.sleep(pause)
            finally:
                self._ask("DELETE", f"sessions/{session['id']}")

    def _ask(self, method: str, path: str, body: object = None) -> dict:
        answer = requests.request(
            method, f"{self.server}/api/{path}", json=body, headers=self.header, verify=False,
            timeout=300,
        )  # fmt: skip
        answer.raise_for_status()
        return answer.json() if answer.content else {}

    def _run(self, kernel: str, cell: dict) -> None:
        """Run a cell, as JupyterLab asks for it."""
        url = self.server.replace("https", "wss") + f"/api/kernels/{kernel}/channels"
        socket = websocket.create_connection(
            url, header=self.header, sslopt={"cert_reqs": 0}, timeout=CELL_SECONDS
        )
        identity = uuid.uuid4().hex
        message = {
            "header": {
                "msg_id": identity, "msg_type": "execute_request", "username": self.name,
                "session": identity, "version": "5.3",
            },
            "parent_header": {},
            "metadata": {"cellId": cell["id"]},
            "channel": "shell",
            "content": {
                "code": cell["source"], "silent": False, "store_history": True,
                "user_expressions": {}, "allow_stdin": False, "stop_on_error": True,
            },
        }  # fmt: skip
        began = time.monotonic()
        socket.send(json.dumps(message))
        try:
            while True:
                answer = json.loads(socket.recv())
                if answer["parent_header"].get("msg_id") != identity:
                    continue
                if answer["msg_type"] == "execute_reply":
                    break
            self.cells.append(time.monotonic() - began)
            if answer["content"]["status"] != "ok":
                self.failures.append(f"{cell['id']}: {answer['content'].get('evalue')}")
        finally:
            socket.close()

    def watch(self, end: threading.Event) -> None:
        """Ask for the status once a second."""
        while not end.wait(1.0):
            began = time.monotonic()
            try:
                rooms.ask_seat(self.room, self.name, self.header)
            except requests.RequestException as error:
                self.failures.append(str(error)[:200])
            self.answers.append(time.monotonic() - began)

    def run_really(self, notebooks: list[str]) -> None:
        argv = ["podman", "exec", self.container, "rfe", "run", *notebooks]
        began = time.monotonic()
        result = run.run(argv, seconds=7200, check=False)
        self.cells.append(time.monotonic() - began)
        if result.status:
            self.failures.append(run.tail_of(result.stderr))

    def measure(self) -> None:
        """What its container has taken; files of both versions of control groups."""
        script = (
            "cd /sys/fs/cgroup; cat memory/memory.max_usage_in_bytes memory.peak; echo -;"
            "cat cpuacct/cpuacct.usage; grep usage_usec cpu.stat"
        )
        argv = ["podman", "exec", self.container, "sh", "-c", script]
        memory, _, processor = run.run(argv, check=False).stdout.partition("-")
        self.peak_memory = int(memory.split()[0])
        used = processor.split()
        self.processor = int(used[0]) / 1e9 if len(used) == 1 else int(used[1]) / 1e6


@contextmanager
def opened(seats: int, parent: Path) -> Iterator[Room]:
    with tempfile.TemporaryDirectory(prefix="rfe-room-", dir=parent) as directory:
        settings = read_settings(None, seats=seats, port=free_port(), memory="4 GiB", disk="8 GiB")
        room = Room(Path(directory) / "room")
        room.change(settings)
        room.start(lambda line: print(line, file=sys.stderr, flush=True))
        try:
            yield room
        finally:
            room.clean()


def prepare(room: Room, first: Person, others: list[Person]) -> None:
    """Let one build, and give the others copies of their disk."""
    first.log_in()
    run.run(["podman", "exec", first.container, "rfe", "solve", "40"], seconds=1800)
    room.stop()
    source = room.directory / "disks" / f"{first.name}.ext4"
    for person in others:
        target = source.with_name(f"{person.name}.ext4")
        # Where the file system can (XFS, Btrfs), the copies share their blocks.
        run.run(["cp", "--reflink=auto", source, target], seconds=300)
    room.start()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seats", type=int, default=30)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two cells")
    parser.add_argument("--real", nargs="+", default=[], metavar="NOTEBOOK")
    parser.add_argument(
        "--directory", type=Path, default=Path("/var/tmp"), help="for the disks: 2.5 GiB a seat"
    )
    options = parser.parse_args()
    with opened(options.seats, options.directory) as room:
        cards = rooms.passwords(room)
        people = [Person(name, room, cards[name]) for name in room.settings.people]
        if not options.real:
            prepare(room, people[0], people[1:])
        end = threading.Event()
        began = time.monotonic()
        with ThreadPoolExecutor(2 * len(people) + 1) as pool:
            list(pool.map(Person.log_in, people))
            watching = [pool.submit(person.watch, end) for person in people]
            if options.real:
                working = [pool.submit(p.run_really, options.real) for p in people]
            else:
                working = [pool.submit(p.work, options.pause) for p in people]
            for each in working:
                each.result()
            seconds = time.monotonic() - began
            end.set()
            for each in watching:
                each.result()
        for person in people:
            person.measure()
    answers = [answer for person in people for answer in person.answers]
    cells = [cell for person in people for cell in person.cells]
    failures = [f"{p.name}: {failure}" for p in people for failure in p.failures]
    print(f"| {len(people)} seats | median | 99 of 100 | slowest |\n|---|---|---|---|")
    for title, values in (
        ("memory of a seat, peak, MiB", [p.peak_memory / 2**20 for p in people]),
        ("processor time of a seat, s", [p.processor for p in people]),
        ("from the form to a server, s", [p.login for p in people]),
        ("a run, s" if options.real else "a cell, s", cells),
        ("an answer of a server, s", answers),
    ):
        row = (statistics.median(values), percentile(values, 0.99), max(values))
        print(f"| {title} | " + " | ".join(f"{value:,.2f}" for value in row) + " |")
    print(f"\n{seconds:.0f} s in all; {len(failures)} failures")
    print("\n".join(failures[:20]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
