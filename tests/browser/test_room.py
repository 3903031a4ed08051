"""A room of three people and their trainer, in the browser, and what one of them can do to others.

All tests share the room, and run in the order of the file, as a day in it goes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page
from support import rooms
from support.browser import barriers, chromium
from support.jupyterlab import ARTEFACTS, BIN, Window, notebook

from rfe_helpers.core import run
from rfe_helpers.core.network import free_port
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.room import Room
from rfe_helpers.workbook import activity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PEOPLE = ("anna", "ben-2", "carla")


@dataclass
class Training:
    """A room, its people's passwords, and their pages."""

    room: Room
    chromium: Browser
    passwords: dict[str, str] = field(default_factory=dict)
    pages: dict[str, Page] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return self.room.address.rstrip("/")

    @property
    def authority(self) -> str:
        """Whose certificates the room's are."""
        return rooms.authority(self.room)

    def log_in(self, name: str, path: str) -> Page:
        """A window of their own, at a path of the room."""
        page = self.chromium.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(self.address + path)
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(self.passwords[name])
        page.get_by_role("button", name="Sign in").click()
        self.pages[name] = page
        return page

    def rfe(self, *words: str | Path) -> str:
        command = [BIN / "rfe", "room", *words, "--room", self.room.directory]
        return run.run(command, seconds=300).stdout

    def inside(self, name: str, script: str, check: bool = True) -> str:
        """The output of a script in a seat's container."""
        container = f"rfe-room-{self.room.id}-{name}"
        argv = ["podman", "exec", container, "timeout", "120", "sh", "-c", script]
        return run.run(argv, check=check, seconds=180).stdout

    def restart(self, name: str) -> None:
        """Stop and start somebody's server, as the trainer."""
        page = self.pages["trainer"]
        page.get_by_role("button", name=name).click()
        page.get_by_role("button", name="Stop server").click()
        self.sees(name, "not there")
        page.get_by_role("button", name="Start server").click()
        self.is_there(name)

    def is_there(self, name: str) -> None:
        """Wait until the trainer sees somebody's server answer."""
        row = self.pages["trainer"].get_by_role("row").filter(has_text=name)
        row.filter(has_not_text=re.compile("not there|starting|does not answer")).wait_for()

    def row(self, name: str) -> str:
        """What the trainer sees of somebody."""
        return self.pages["trainer"].get_by_role("row").filter(has_text=name).inner_text()

    def sees(self, name: str, text: str) -> None:
        """Wait until the trainer sees it."""
        row = self.pages["trainer"].get_by_role("row").filter(has_text=name)
        row.filter(has_text=text).wait_for()

    def shot(self, name: str) -> None:
        """The trainer's page; with RFE_PICTURES=docs "room" becomes the picture of the guide."""
        directory = Path(os.environ.get("RFE_PICTURES") or ARTEFACTS)
        directory.mkdir(parents=True, exist_ok=True)
        page = self.pages["trainer"]
        height = page.evaluate("document.body.getBoundingClientRect().bottom + 12")
        clip = {"x": 0, "y": 0, "width": 1000, "height": height}
        page.screenshot(path=directory / f"{name}.png", full_page=True, clip=clip)
        assert barriers(page) == []


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory, image: str) -> Iterator[Training]:
    directory = tmp_path_factory.mktemp("room")
    port = free_port()
    settings = directory / "room.toml"
    settings.write_text(
        f'names = {json.dumps(PEOPLE)}\nimage = "{image}"\nport = {port}\n'
        'memory = "3 GiB"\ndisk = "6 GiB"\nprocessors = 2\n'
    )
    subprocess.run(
        [BIN / "rfe", "room", "start", "--config", settings, "--room", directory / "room"],
        check=True,
        timeout=300,
    )
    room = Room.existing(directory / "room")
    # What the tests of other windows set, too (support/jupyterlab.py), as anna's own settings.
    settings_of_lab = json.dumps({"LabApp": {"expose_app_in_browser": True}})
    script = f"mkdir .jupyter; echo '{settings_of_lab}' > .jupyter/jupyter_lab_config.json"
    volume = f"rfe-room-{room.id}-anna:/lab"
    argv = ["podman", "run", "--rm", "--volume", volume, "--entrypoint=sh", image, "-c", script]
    config = directory / "room" / "containers.conf"
    env = {"CONTAINERS_CONF": str(config)} if config.exists() else {}
    run.run(argv, env=env, seconds=60)
    certificate, _ = room.certificate()
    with chromium(certificate) as program:
        training = Training(room, program, rooms.passwords(room))
        yield training
    processes, identity = training.room.processes(), training.room.id
    print(training.rfe("clean", "--yes"))
    assert not [process for process in processes.values() if process.alive]
    assert not training.room.directory.exists()
    for kind in (["ps", "--all", "--format", "{{.Names}}"], ["volume", "ls", "--quiet"]):
        assert f"rfe-room-{identity}" not in run.run(["podman", *kind]).stdout


def test_each_has_a_card_and_nobody_else_reads_them(training: Training) -> None:
    assert set(training.passwords) == {"trainer", *PEOPLE}
    assert training.room.cards.stat().st_mode & 0o777 == 0o600
    assert training.room.directory.stat().st_mode & 0o777 == 0o700
    secrets = [*training.passwords.values(), *training.room.secrets.values()]
    kept = training.room.directory
    for path in [*kept.glob("*"), *kept.glob("[!d]*/*")]:  # not the disks
        if path.is_file() and path.name not in ("cards.html", "secrets.json"):
            text = path.read_bytes().decode(errors="replace")
            assert not [secret for secret in secrets if secret in text], path
    words = run.run(["ps", "-eo", "args"]).stdout
    assert not [secret for secret in secrets if secret in words]


def test_a_person_works_and_asks_for_help(training: Training) -> None:
    page = training.log_in("anna", "/")
    page.wait_for_function("() => window.jupyterapp")
    window = Window(page, Path(), f"{training.address}/user/anna", "")
    window.open(notebook("00"))
    window.run_all(120)
    window.open(notebook("10"))
    window.run_all(300)
    page.get_by_role("button", name="Raise hand").click()
    page.get_by_role("button", name="Hand is up").wait_for()
    training.inside("anna", "rfe run 20 -p packages hotp", check=False)
    training.inside("anna", "rfe hand up which package do I need for top")
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "seat.png")
    assert window.complaints == []


def test_the_trainer_sees_it_and_helps(training: Training) -> None:
    page = training.log_in("trainer", "/services/room/")
    training.sees("anna", "⚑ which package do I need for top")
    training.sees("anna", "✘")
    training.sees("ben-2", "not there")
    assert training.row("anna").count("✔") == 2
    assert page.get_by_role("row").nth(1).inner_text().startswith("anna"), "who asks comes first"
    page.get_by_role("button", name="anna").click()
    page.get_by_text("notebook 20").filter(has_text="hotp").wait_for()
    assert page.get_by_text("Traceback").count() == 0
    training.shot("room")
    page.get_by_label("Notebook").select_option("20")
    page.get_by_role("button", name="Solve up to it").click()
    page.get_by_text("anna: solve 20 runs").wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#rows tr')].some("
        "row => row.textContent.startsWith('anna') && row.textContent.split('✔').length === 4)",
        timeout=600_000,
    )
    page.get_by_role("button", name="Lower hand").click()
    page.get_by_text("anna: hand lowered").wait_for()
    training.pages["anna"].get_by_role("button", name="Raise hand").wait_for()
    training.shot("room-solved")


def test_nobody_reads_what_is_anothers(training: Training) -> None:
    training.log_in("ben-2", "/").get_by_role("button", name="Raise hand").wait_for()
    cookies = {each["name"]: each["value"] for each in training.pages["ben-2"].context.cookies()}
    for path in ("/user/anna/lab", "/user/anna/rfe/seat", "/user/anna/api/contents"):
        answer = requests.get(
            training.address + path,
            cookies=cookies,
            verify=training.authority,
            timeout=30,
            allow_redirects=True,
        )
        assert answer.status_code in (403, 404) or "Sign in" in answer.text, (path, answer.text)
    for nobody_or_ben in ({}, cookies):
        answer = requests.get(
            f"{training.address}/services/room/state",
            cookies=nobody_or_ben,
            verify=training.authority,
            timeout=30,
            allow_redirects=False,
        )
        assert answer.status_code == 403
    # With all that a program in the seat has: its own token, and the machine's ports.
    token = training.inside("ben-2", "cat /proc/self/environ | tr '\\0' '\\n'; env").strip()
    assert "CONFIGPROXY" not in token
    assert training.room.secrets["page"] not in token
    script = "ls /proc /lab /var/tmp; cat /proc/*/cmdline | tr '\\0' ' '"
    seen = training.inside("ben-2", script, check=False)
    assert "anna" not in seen
    hub = training.room.port("hub")
    curl = "curl -s -o /dev/null -w '%{http_code}' "
    for url in (f"http://10.0.2.2:{hub}/hub/api/users", f"http://10.0.2.2:{hub}/hub/api/proxy"):
        assert training.inside("ben-2", curl + url) == "403"


RECORDING = """
from tornado.web import RequestHandler
prepare = RequestHandler.prepare
def noting(self):
    with open("/lab/headers", "a") as file:
        file.write(self.request.headers.get("Authorization", "") + chr(10))
    return prepare(self)
RequestHandler.prepare = noting
"""


def test_a_seat_that_records_what_it_is_asked_gets_nothing_of_others(training: Training) -> None:
    config = ".jupyter/jupyter_server_config.py"
    training.inside("ben-2", f"mkdir -p .jupyter; cat > {config} <<'E'{RECORDING}E")
    training.restart("ben-2")
    wait_for(
        lambda: "token" in training.inside("ben-2", "cat /lab/headers", check=False),
        Deadline(120),
        "the page has asked the seat",
    )
    lines = training.inside("ben-2", "cat /lab/headers").split()
    for token in {word for word in lines if word != "token"}:
        header = {"Authorization": f"token {token}"}
        assert token != training.room.secrets["page"]
        assert rooms.ask_seat(training.room, "anna", header).status_code in (302, 403)
        url = f"{training.address}/hub/api/users"
        answer = requests.get(url, headers=header, verify=training.authority, timeout=30)
        assert answer.status_code == 403
    training.inside("ben-2", f"rm {config}")
    training.restart("ben-2")


def test_a_full_disk_and_a_fork_bomb_are_one_persons(training: Training) -> None:
    if os.getuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("needs root and loop devices: without them the disks of seats are not limited")
    free = shutil.disk_usage(training.room.directory).free
    training.inside(
        "ben-2", "dd if=/dev/zero of=/lab/full bs=1M count=7000 2>/dev/null", check=False
    )
    assert shutil.disk_usage(training.room.directory).free > free - (7 << 30)
    training.sees("ben-2", "100 %")
    disk = training.room.directory / "disks" / "ben-2.ext4"
    training.inside("ben-2", "rm /lab/full && sync -f /lab")
    wait_for(
        lambda: disk.stat().st_blocks < 4 << 21,
        Deadline(60),
        "what was deleted is free for others",
        every=1,
    )
    # Bounded by time, and by the seat's number of processes.
    bomb = "f() { f | f & }; f"
    training.inside("ben-2", f"timeout 20 sh -c '{bomb}'; sleep 5", check=False)
    seen = activity.decode(_of_seat(training, "anna"))
    assert seen.disk_free > 1 << 30
    training.sees("anna", "20")


def _of_seat(training: Training, name: str) -> bytes:
    return rooms.ask_seat(training.room, name, rooms.seat_header(training.room, name)).content


def test_a_container_that_is_killed_is_seen_and_comes_back(training: Training) -> None:
    run.run(["podman", "kill", f"rfe-room-{training.room.id}-ben-2"])
    page = training.pages["trainer"]
    page.get_by_role("row").filter(has_text="ben-2").filter(
        has_text=re.compile("not there|does not answer")
    ).wait_for()
    training.sees("ben-2", "not there")
    page.get_by_role("button", name="ben-2").click()
    page.get_by_role("button", name="Start server").click()
    training.is_there("ben-2")


def test_the_hub_is_killed_and_labs_run_on(training: Training) -> None:
    hub = training.room.processes()["hub"]
    header = rooms.seat_header(training.room, "anna")
    assert rooms.ask_seat(training.room, "anna", header).status_code == 200
    run.kill(hub)
    wait_for(lambda: not hub.alive, Deadline(20), "the hub is gone")
    answer = rooms.ask_seat(training.room, "anna", header)
    assert activity.decode(answer.content).notebooks["00"].status == "done"
    status = subprocess.run(
        [BIN / "rfe", "room", "status", "--room", training.room.directory],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert status.returncode == 1
    assert "rfe room start" in status.stderr
    training.rfe("start")
    assert "anna: running" in training.rfe("status")
    page = training.pages["anna"]
    page.reload()
    page.get_by_role("button", name="Raise hand").wait_for()
    # The trainer is still logged in: the page continues, also when it is loaded again.
    trainer = training.pages["trainer"]
    trainer.locator("#summary").filter(has_text="are there").wait_for()
    trainer.reload()
    training.sees("anna", "✔")


def test_a_wrong_password_does_not_open_the_room(training: Training) -> None:
    page = training.chromium.new_page()
    page.goto(training.address)
    for _ in range(2):
        page.get_by_label("Username").fill("carla")
        page.get_by_label("Password").fill("wrong-wrong-wrong")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("Invalid username or password").wait_for()
    page.close()


def test_a_seat_is_reset(training: Training) -> None:
    before = training.passwords["ben-2"]
    earlier = training.pages["ben-2"]
    training.rfe("reset", "ben-2")
    training.passwords |= rooms.passwords(training.room)
    assert training.passwords["ben-2"] != before
    training.log_in("ben-2", "/").get_by_role("button", name="Raise hand").wait_for()
    assert training.inside("ben-2", "ls /lab").split() == ["rfe-lab"]
    assert not activity.decode(_of_seat(training, "ben-2")).notebooks
    earlier.goto(f"{training.address}/user/ben-2/lab")
    earlier.get_by_label("Password").wait_for()  # who had the seat is shut out


def test_the_report_says_what_was_done(training: Training) -> None:
    text = training.rfe("report")
    assert "# A room of" in text
    assert re.search(r"\| 20 \| 1 \| 1 \|", text), text
