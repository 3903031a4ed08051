"""One installation from a wheel, and one cache, that root owns and two ordinary users work with."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import jupyterlab
import pytest
import requests
import websocket
from support import rooms
from support.ordinary_user import OrdinaryUser, ordinary_user

from rfe_helpers.core import run
from rfe_helpers.core.network import free_port
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.lab import cache_directory
from rfe_helpers.room import Room
from rfe_helpers.workbook.notebooks import all_notebooks

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PASSED_OVER = shutil.ignore_patterns(
    "playwright", "mypy", "ruff*", "hypothesis", "*rfe_helpers*", "__pycache__"
)


@dataclass(frozen=True)
class Installation:
    """`rfe` of a wheel in a virtual environment, and a filled cache: readable for everybody."""

    rfe: Path
    cache: Path


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    directory = Path(tempfile.mkdtemp(prefix="rfe-shared-", dir="/var/tmp"))
    try:
        python = _install(directory / "installed")
        if not any(cache_directory().glob("base-*/base.tar")):
            fill = [python.parent / "rfe", "cache", "tmux"]
            subprocess.run(fill, check=True, timeout=600)
        shutil.copytree(
            cache_directory(),
            directory / "cache",
            copy_function=_link,
            ignore=shutil.ignore_patterns(
                "build", "archive", "lock", "recent", "root-*", "trees.json", "*.tmp"
            ),
        )
        run.run(["chmod", "-R", "go=u-w", directory])
        yield Installation(python.parent / "rfe", directory / "cache")
    finally:
        run.run(["chmod", "-R", "u+w", directory])
        shutil.rmtree(directory)


def _install(target: Path) -> Path:
    """Install our wheel beside the packages of the running environment; returns its Python."""
    run.run([_interpreter(), "-m", "venv", "--without-pip", target])
    installed = Path(jupyterlab.__file__).parents[1]
    packages = next((target / "lib").glob("python3*/site-packages"))
    shutil.copytree(
        installed, packages, copy_function=_link, ignore=PASSED_OVER, dirs_exist_ok=True
    )
    for name in ("share", "etc"):
        shutil.copytree(installed.parents[2] / name, target / name, copy_function=_link)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    wheels = target / "wheels"
    run.run([*pip, "wheel", "-q", "--no-deps", "-w", wheels, ROOT], seconds=300)
    wheel = next(wheels.glob("*.whl"))
    python = target / "bin" / "python"
    run.run([*pip, "--python", python, "install", "-q", wheel], seconds=300)
    return python


def _interpreter() -> Path:
    """A Python that every user can run, with which the installed packages work."""
    name = f"python3.{sys.version_info.minor}"
    candidates = [Path(sys.base_prefix) / "bin" / name, Path("/usr/bin") / name]
    for python in candidates:
        parents = python.resolve().parents
        if python.exists() and all(p.stat().st_mode & 0o005 == 0o005 for p in parents):
            return python
    raise AssertionError(f"no {name} that ordinary users can run; looked for {candidates}")


def _link(source: str, target: str) -> None:
    """Hard links take no time and no room, but only work within one file system."""
    try:
        Path(target).hardlink_to(Path(source).resolve())
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="module")
def users() -> Iterator[list[OrdinaryUser]]:
    with ExitStack() as stack:
        users = [stack.enter_context(ordinary_user()) for _ in range(2)]
        for user in users:
            user.give(user.directory)
        yield users


def _in_a_terminal(address: str, line: str) -> list[str]:
    """The lines that a command prints in a terminal of JupyterLab, of jupyter_server_terminals."""
    server, _, token = address.partition("/lab/tree/00-start-here.ipynb?token=")
    headers = {"Authorization": f"token {token}"}
    request = urllib.request.Request(f"{server}/api/terminals", b"{}", headers)
    with urllib.request.urlopen(request) as answer:
        name = json.load(answer)["name"]
    url = f"ws{server.removeprefix('http')}/terminals/websocket/{name}"
    terminal = websocket.create_connection(url, header=[f"Authorization: token {token}"])
    terminal.send(json.dumps(["stdin", f"echo BEG''IN; {line.strip()}; echo E''ND\n"]))
    shown = ""
    while "END" not in shown:
        kind, text = json.loads(terminal.recv())[:2]
        shown += text if kind == "stdout" else ""
    terminal.close()
    return shown.partition("BEGIN")[2].partition("END")[0].split()


def test_two_users_open_jupyterlab_at_once_and_twice(users, installation):
    def open_lab(user: OrdinaryUser) -> str:
        lab = user.directory / "lab"
        words = user.words(installation.rfe, "lab", "open", "--no-browser", "--lab", lab)
        with subprocess.Popen(words, cwd="/", stdout=subprocess.PIPE, text=True) as server:
            try:
                line = next(line for line in server.stdout if "http://" in line)
                address = line.strip("│ \n")
                with urllib.request.urlopen(address) as answer:
                    assert answer.status == 200
                copied = sorted(path.name for path in (lab / "notebooks").glob("*.ipynb"))
                assert copied == sorted(path.name for path in all_notebooks())
                again = user.run([installation.rfe, "lab", "open", "--no-browser", "--lab", lab])
                *_, top, box, bottom = again.stdout.splitlines()
                assert (top[0], box.strip("│ "), bottom[-1]) == ("┌", address, "┘")
                assert address.partition("token=")[2] not in (lab / "logs/jupyter.log").read_text()
                assert _in_a_terminal(address, "command -v rfe; echo $RFE_LAB\n") == [
                    str(installation.rfe),
                    str(lab),
                ]
                barrier[user.name] = address
                wait_for(lambda: len(barrier) == 2, Deadline(120), "both are open")
                return address
            finally:
                server.terminate()

    barrier: dict[str, str] = {}
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(open_lab, users)
    assert first.partition("/lab")[0] != second.partition("/lab")[0]


def test_two_users_build_with_what_somebody_else_has_cached(users, installation):
    def build(user: OrdinaryUser) -> dict:
        words = [installation.rfe, "run", "00", "10", "20", "--json", "--lab", "lab"]
        environment = ["env", f"RFE_CACHE={installation.cache}"]
        return json.loads(user.run([*environment, *words], seconds=900).stdout)

    before = {path: path.stat().st_mtime for path in installation.cache.rglob("*")}
    with ThreadPoolExecutor() as pool:
        for user, summary in zip(users, pool.map(build, users), strict=True):
            assert summary["status"] == "passed", summary
            own = user.home / ".cache" / "rfe"
            bases = list(own.glob("base-*/base.tar"))
            assert bases
            assert all(base.is_symlink() for base in bases)
    assert {path: path.stat().st_mtime for path in installation.cache.rglob("*")} == before


def test_root_acts_in_the_lab_of_a_user_as_that_user(users, installation, tmp_path):
    if os.getuid() != 0:
        pytest.skip("needs root, to see the labs of others")
    user = users[0]
    lab = user.directory / "watched"
    user.run([installation.rfe, "run", "00", "--lab", lab])
    with rooms.watched(installation.rfe, tmp_path / "watch.log") as (address, token):
        session = requests.Session()
        session.get(f"{address}/?token={token}", timeout=20)
        rows = session.get(f"{address}/state", timeout=60).json()["rows"]
        (row,) = [row for row in rows if row["name"].endswith("watched")]
        assert row["activity"]["notebooks"]["00"]["status"] == "done"
        asked = {"seat": row["name"], "action": "reset", "number": "20"}
        answer = rooms.act(address, session, asked)
        assert answer.status_code == 200, answer.text
        done = lab / "logs/activity.jsonl"
        wait_for(lambda: '"reset"' in done.read_text(), Deadline(60), "the reset is done")
        owners = {path.lstat().st_uid for path in lab.rglob("*")}
        assert owners == {lab.stat().st_uid}
        assert owners != {0}


def test_a_room_of_accounts(installation, tmp_path):
    if os.getuid() != 0:
        pytest.skip("needs root, to make accounts")
    people = [f"rfe-{secrets.token_hex(4)}" for _ in range(2)]
    settings = tmp_path / "room.toml"
    settings.write_text(
        f'engine = "accounts"\nnames = {json.dumps(people)}\nport = {free_port()}\n'
    )
    directory = tmp_path / "room"
    try:
        start = [installation.rfe, "room", "start", "--config", settings, "--room", directory]
        subprocess.run(start, check=True, timeout=200)
        room = Room.existing(directory)
        passwords = rooms.passwords(room)
        for name in people:
            rooms.log_in(room, name, passwords[name])
        servers = run.run(["ps", "-eo", "user:32,args"]).stdout.splitlines()
        owners = {line.split()[0] for line in servers if "jupyterhub.singleuser" in line}
        assert owners >= set(people)
        lab = Path(f"~{people[0]}/rfe-lab").expanduser()
        assert (lab / "lab.json").exists()
        look = ["runuser", "-u", people[1], "--", "ls", lab]
        assert "Permission denied" in run.run(look, check=False).stderr
    finally:
        subprocess.run(
            [installation.rfe, "room", "clean", "--yes", "--room", directory], timeout=200
        )
    accounts = Path("/etc/passwd").read_text()
    assert not [name for name in people if name in accounts]
    assert not lab.parent.exists()
