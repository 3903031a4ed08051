"""A room: JupyterHub, its proxy, and what its seats run in.

On disk, in the room's directory (0700):

    room.json          settings, hashes of passwords, ports, processes (this module writes it)
    secrets.json       tokens of the proxy and of the trainer's page (0600)
    cards.html         names and passwords to print (0600); only those that are new
    hub/               JupyterHub's database and cookie secret
    tls/               a certificate, unless one was given
    disks/             the disks of seats, where the machine can mount them (seats.py)
    activity/          what each seat had done when it was last seen, for `rfe room report`
    logs/              one log per process

The parts are processes of their own: people stay connected through the proxy when the hub ends, and
their seats run on; `Room.start` starts what does not run.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import requests

from rfe_helpers.core import files, network, run
from rfe_helpers.core.network import LOOPBACK
from rfe_helpers.core.progress import OnProgress, Say, say
from rfe_helpers.core.run import ProcessId
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import InputError, LabError
from rfe_helpers.room import passwords, seats
from rfe_helpers.room.settings import DEFAULT, TRAINER, Settings
from rfe_helpers.serve import tls
from rfe_helpers.workbook import activity

HUB, PROXY, ENGINE = "hub", "proxy", "engine"
_PORTS = ("hub", "proxy-api", "page")
# All that is in the directory of a room.
_NAMES = (
    "room.json", "room.lock", "parts.lock", "secrets.json", "cards.html", "hub", "tls", "disks",
    "activity", "logs", "podman.sock", "containers.conf",
)  # fmt: skip
_START_SECONDS = 90
_NODE_PATH = "/usr/share/nodejs"  # of Debian's packages, which only Debian's node knows
_CONFIG = Path(__file__).parent / "jupyterhub_config.py"


class _State(msgspec.Struct, forbid_unknown_fields=True):
    """The content of room.json. `former` are seats that are no longer in the settings."""

    id: str = msgspec.field(default_factory=lambda: os.urandom(4).hex())
    settings: Settings = msgspec.field(default_factory=Settings)
    hashes: dict[str, str] = {}  # msgspec copies it
    ports: dict[str, int] = {}
    processes: dict[str, dict[str, Any]] = {}
    former: list[str] = []


class Room:
    """A room directory, created if it does not exist; `Room.change` gives it settings.

    Raises LabError if the directory cannot be used.

    >>> from rfe_helpers import room
    >>> training = room.Room("room")
    >>> training.change(room.read_settings(None, seats=12))
    >>> training.settings.people[0], training.cards
    ('seat-01', PosixPath('.../room/cards.html'))
    """

    def __init__(self, directory: str | Path = DEFAULT) -> None:
        self.directory = Path(directory).expanduser().absolute()
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            strange = [p.name for p in self.directory.iterdir() if p.name not in _NAMES]
            if strange and not (self.directory / "room.json").exists():
                raise InputError(
                    f"{self.directory} is not a room: it has {strange[0]}",
                    remedy="choose another directory with --room",
                )
            self.directory.chmod(0o700)
        except OSError as error:
            raise LabError(f"cannot use {self.directory} as a room: {error.strerror}") from None

    @classmethod
    def existing(cls, directory: str | Path = DEFAULT) -> Room:
        """The room in a directory. Raises LabError if there is none."""
        path = Path(directory).expanduser()
        if not (path / "room.json").exists():
            raise LabError(f"there is no room in {path}", remedy="make one with `rfe room start`")
        return cls(path)

    # what it has ------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        return self._read().settings

    @property
    def hashes(self) -> dict[str, str]:
        """name -> hash of its password."""
        return self._read().hashes

    @property
    def id(self) -> str:
        return self._read().id

    @property
    def engine(self) -> seats.SeatEngine:
        """How its seats are made."""
        state = self._read()
        return seats.engine_of(self.directory, state.id, state.settings)

    def port(self, name: str) -> int:
        """A port on loopback for a part of the room."""
        return self._read().ports[name]

    @property
    def address(self) -> str:
        """Where people find it: for one that listens everywhere, this machine's name."""
        settings = self.settings
        host = os.uname().nodename if settings.is_everywhere else settings.address
        return f"https://{host}:{settings.port}/"

    @property
    def cards(self) -> Path:
        return self.directory / "cards.html"

    def log(self, name: str) -> Path:
        path = self.directory / "logs" / f"{name}.log"
        path.parent.mkdir(exist_ok=True)
        return path

    @property
    def secrets(self) -> dict[str, str]:
        """The tokens of the room's own parts, made at the first call."""
        path = self.directory / "secrets.json"
        with files.locked(self.directory / "room.lock"):
            if not path.exists():
                tokens = {name: secrets.token_hex(32) for name in ("proxy", "page")}
                files.write_json(path, tokens, mode=0o600)
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        except msgspec.DecodeError:
            raise LabError(f"{path} is damaged", remedy=f"delete it: rm {path}") from None

    def certificate(self) -> tuple[Path, Path]:
        """The files of its certificate and key."""
        settings = self.settings
        if settings.certificate:
            return Path(settings.certificate), Path(settings.key)
        own = tls.certificates(
            # One for each address that it has had.
            self.directory / "tls" / settings.address.replace(":", "_"),
            "RFE room CA",
            (settings.address, os.uname().nodename),
        )
        return own.certificate, own.key

    def processes(self) -> dict[str, ProcessId]:
        """Its parts that are alive."""
        known = {n: ProcessId(**entry) for n, entry in self._read().processes.items()}
        return {name: process for name, process in known.items() if process.alive}

    # start and stop ---------------------------------------------------------------------------

    def change(self, settings: Settings) -> None:
        """Give the room settings. Parts that run with other ones are ended, and seats stay.

        Raises InputError for another engine than the room's seats have.
        """
        with self._alone():
            earlier = self._read()
            if earlier.hashes and settings.engine != earlier.settings.engine:
                raise InputError(
                    f"the seats of this room are {earlier.settings.engine}",
                    remedy="delete it first with `rfe room clean`, or use another with --room",
                )
            if settings == earlier.settings:
                return
            served = ("address", "port", "certificate", "key")
            moved = any(getattr(settings, n) != getattr(earlier.settings, n) for n in served)
            self._end(HUB, *([PROXY] if moved else []))
            with self._changing() as state:
                gone = {*state.hashes, *state.former} - {*settings.people, TRAINER}
                state.former = sorted(gone)
                state.hashes = {n: h for n, h in state.hashes.items() if n not in gone}
                state.settings = settings

    def start(self, on_progress: OnProgress = None) -> None:
        """Start what does not run, and return when people can log in.

        Raises InputError for settings that this machine cannot meet, ToolMissingError for a part
        that is not installed, LabError, with the end of its log, for one that does not start.
        """
        with self._alone():
            self._start_all(say(on_progress))

    def _start_all(self, tell: Say) -> None:
        settings = self.settings
        run.require("configurable-http-proxy")
        certificate, key = self.certificate()
        self._choose_ports()
        tokens = self.secrets
        engine = self.engine
        engine.prepare(tell)
        if new := self._add_passwords():
            tell(f"cards for {', '.join(new)}: {self.cards}")
        if ENGINE not in self.processes() and (argv := engine.service()):
            self._start(ENGINE, argv, engine.environment)
            wait_for(engine.is_ready, Deadline(_START_SECONDS), "podman's service answers")
        if PROXY not in self.processes():
            if not network.port_is_free(settings.port):
                raise InputError(
                    f"port {settings.port} is taken on this machine",
                    remedy="choose another one: port = 9443 in the room's file, or --port",
                )
            # fmt: off
            self._start(PROXY, [
                "configurable-http-proxy",
                "--ip", settings.address, "--port", settings.port,
                "--api-ip", LOOPBACK, "--api-port", self.port("proxy-api"),
                "--ssl-cert", certificate, "--ssl-key", key,
                "--error-target", f"http://{LOOPBACK}:{self.port('hub')}/hub/error",
            ], {"CONFIGPROXY_AUTH_TOKEN": tokens["proxy"], "NODE_PATH": _NODE_PATH})
            # fmt: on
        if HUB not in self.processes():
            (self.directory / "hub").mkdir(exist_ok=True, mode=0o700)
            argv = [sys.executable, "-m", "jupyterhub", "--config", str(_CONFIG)]
            self._start(HUB, argv, {**engine.environment, "RFE_ROOM": str(self.directory)})
        wait_for(self._answers, Deadline(_START_SECONDS), "the hub answers")
        for name in self._read().former:
            self._api("DELETE", f"users/{name}", allowed=(404,))
        tell(f"the room is open: {self.address}")

    def stop(self) -> list[str]:
        """End the room and all its seats; labs and passwords stay. Returns what was ended."""
        with self._alone():
            return self._stop_all()

    def _stop_all(self) -> list[str]:
        ended = self._end(HUB, PROXY)
        ended += self.engine.end_seats(self._everybody())
        ended += self._end(ENGINE)
        with self._changing() as state:
            state.processes = {}
        return ended

    def clean(self) -> list[str]:
        """End the room, and delete it with the labs of its seats; the directory goes, too, unless
        something else is in it. Returns what was ended."""
        with self._alone():
            ended = self._stop_all()
            engine = self.engine
            for seat in self._everybody():
                engine.remove(seat)
            for name in _NAMES:
                path = self.directory / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        if not any(self.directory.iterdir()):
            self.directory.rmdir()
        return ended

    def reset(self, name: str) -> None:
        """Give a seat a new lab and a new password, and shut out whoever had the old one; of the
        trainer, who has no lab, only the password. The card is in `cards`."""
        if name not in (TRAINER, *self.settings.people):
            raise InputError(
                f"there is no seat {name!r}",
                remedy=f"choose from: {', '.join((*self.settings.people, TRAINER))}",
            )
        with self._alone():
            self._set_passwords([name])
            if HUB in self.processes():
                self._api("DELETE", f"users/{name}/server", allowed=(404, 400))
                wait_for(
                    lambda: self._servers().get(name) is None,
                    Deadline(_START_SECONDS),
                    f"{name} has ended",
                )
                # With the user go cookies and tokens; the next login makes it again.
                self._api("DELETE", f"users/{name}", allowed=(404,))
            if name != TRAINER:
                engine = self.engine
                engine.end_seats([name])
                engine.remove(name)
                engine.make(name)
                (self.directory / "activity" / f"{name}.json").unlink(missing_ok=True)

    def _servers(self) -> dict[str, dict[str, Any]]:
        """The servers that the hub knows, by the names of their users."""
        servers = {user["name"]: user["servers"].get("") for user in self._api("GET", "users")}
        return {name: server for name, server in servers.items() if server is not None}

    def _everybody(self) -> list[str]:
        """All seats that the room has had."""
        state = self._read()
        return sorted({*state.settings.people, *state.former})

    def status(self) -> dict[str, dict[str, Any]]:
        """seat -> {"server": None, "starting" or "running", "notebook": the one worked on last,
        "at": when, in seconds since 1970, 0 for never}.

        Raises LabError if the hub does not run.
        """
        servers = self._servers()
        shown = {}
        for name in self.settings.people:
            server = servers.get(name)
            state = None if server is None else "running" if server["ready"] else "starting"
            seen = activity.read(self.directory / "activity" / f"{name}.json")
            shown[name] = {"server": state, "notebook": seen.notebook, "at": seen.at}
        return shown

    # parts ------------------------------------------------------------------------------------

    def _start(self, name: str, argv: list[Any], environment: Mapping[str, str]) -> None:
        def add(process: ProcessId) -> None:
            with self._changing() as state:
                state.processes[name] = asdict(process)

        run.start(argv, log=self.log(name), env=environment, cwd=self.directory, on_start=add)

    def _end(self, *names: str) -> list[str]:
        """End parts that run; returns which they were."""
        running = {name: process for name, process in self.processes().items() if name in names}
        for process in running.values():
            run.stop(process, grace=20)
        return [f"{name} (pid {process.pid})" for name, process in running.items()]

    def _answers(self) -> bool:
        for name in (PROXY, HUB):
            if name not in self.processes():
                tail = run.tail_of(self.log(name).read_text(errors="replace"))
                raise LabError(
                    f"the room's {name} ended:\n{tail}",
                    log=self.log(name),
                    remedy="see the last lines above",
                )
        # The hub tells the proxy its routes after it has begun to answer itself.
        url = f"http://{LOOPBACK}:{self.port('proxy-api')}/api/routes"
        header = {"Authorization": f"token {self.secrets['proxy']}"}
        try:
            routes = requests.get(url, headers=header, timeout=2).json()
            page = f"http://{LOOPBACK}:{self.port('page')}/services/room/static/room.css"
            return (
                {"/", "/services/room"} <= set(routes)
                and self._api("GET", "") is not None
                and requests.get(page, timeout=2).status_code == 200
            )
        except (requests.RequestException, LabError):
            return False

    def _api(self, method: str, path: str, allowed: tuple[int, ...] = ()) -> Any:
        """The answer of JupyterHub's API."""
        url = f"http://{LOOPBACK}:{self.port('hub')}/hub/api/{path}"
        header = {"Authorization": f"token {self.secrets['page']}"}
        try:
            answer = requests.request(method, url, headers=header, timeout=20)
        except requests.RequestException:
            raise LabError(
                "the room's hub does not answer",
                log=self.log(HUB),
                remedy="start it again with `rfe room start`; if it hangs, `rfe room stop` first",
            ) from None
        if answer.status_code >= 400 and answer.status_code not in allowed:
            raise LabError(f"the hub refused {method} {path}: {answer.text[:300]}")
        return answer.json() if answer.content and answer.status_code < 400 else None

    def _choose_ports(self) -> None:
        with self._changing() as state:
            for name in _PORTS:
                if name not in state.ports:
                    port = network.free_port([*state.ports.values(), state.settings.port])
                    if port is None:
                        raise LabError("no TCP port is free on this machine")
                    state.ports[name] = port

    def _add_passwords(self) -> list[str]:
        """Passwords and cards for the people who have none; returns their names."""
        known = self.hashes
        new = [name for name in (TRAINER, *self.settings.people) if name not in known]
        if new:
            self._set_passwords(new)
        return new

    def _set_passwords(self, names: Sequence[str]) -> None:
        """New passwords; the cards come first, as nobody could read a password later."""
        new = {name: passwords.new_password() for name in names}
        page = self.cards.read_text() if self.cards.exists() else ""
        files.write(self.cards, passwords.cards(self.address, new, page), mode=0o600)
        with self._changing() as state:
            state.hashes |= {name: passwords.hash_of(word) for name, word in new.items()}

    # room.json --------------------------------------------------------------------------------

    def _read(self) -> _State:
        path = self.directory / "room.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=_State)
        except FileNotFoundError:
            return _State()
        except (msgspec.DecodeError, RecursionError) as error:
            raise LabError(
                f"{path} is damaged: {error}",
                remedy="use another directory with --room; seats of this one are listed by "
                "`podman ps --all --filter label=rfe.room`",
            ) from None

    @contextmanager
    def _changing(self) -> Iterator[_State]:
        with files.locked(self.directory / "room.lock"):
            state = self._read()
            yield state
            files.write_json(self.directory / "room.json", msgspec.to_builtins(state), mode=0o600)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other program starts or stops parts of the room within the block."""
        with files.locked(self.directory / "parts.lock"):
            yield
