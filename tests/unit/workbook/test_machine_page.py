"""The pages of machines in a real Jupyter server, with websockets of its clients on one side and
sockets like QEMU's on the other."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib import resources
from pathlib import Path

import pytest
import requests
from support.jupyter_server import TOKEN, serving
from support.qemu_sockets import GREETING, FakeMachine
from websocket import ABNF, WebSocket, WebSocketBadStatusException

from rfe_helpers.core import journal
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook import jupyter, machine_page
from rfe_helpers.workbook import server as extension

STATIC = Path(str(resources.files("rfe_helpers.workbook") / "static"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    yield Lab(tmp_path_factory.mktemp("pages") / "lab")
    journal.open_journal(None)


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[str]:
    with serving(lab.directory, lab.directory.parent / "home") as address:
        yield address


Start = Callable[..., FakeMachine]


@pytest.fixture
def start(lab: Lab) -> Iterator[Start]:
    machines: list[FakeMachine] = []

    def start(name: str = "m", **settings: int) -> FakeMachine:
        machines.append(FakeMachine(lab, name, **settings))
        return machines[-1]

    yield start
    for machine in machines:
        machine.end()
        machine.log.unlink(missing_ok=True)


@contextmanager
def viewer(
    server: str, path: str, *, token: str = TOKEN, **settings: object
) -> Iterator[WebSocket]:
    query = f"?token={token}" if token else ""
    socket = WebSocket()
    socket.settimeout(20)
    socket.connect(f"ws://{server}/rfe/machines/{path}{query}", **settings)
    try:
        yield socket
    finally:
        socket.close()
        socket.shutdown()  # also after the server has closed it


def received(socket: WebSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += socket.recv()
    return data


def begin(socket: WebSocket) -> None:
    """A console says that its log starts."""
    assert socket.recv() == "begin"


# the page -----------------------------------------------------------------------------------------


def test_the_page_shows_the_commands_that_do_the_same(server: str, lab: Lab) -> None:
    page = requests.get(f"http://{server}/rfe/machines/edge-1", params={"token": TOKEN})
    assert page.status_code == 200
    assert f"vncviewer {lab.directory}/sockets/edge-1.vnc" in page.text
    assert f"UNIX-CONNECT:{lab.directory}/sockets/edge-1.tty" in page.text
    files = re.findall(r'(?:src|href)="\.\./static/([^"]+)"', page.text)
    assert len(files) == 3
    for name in files:
        response = requests.get(f"http://{server}/rfe/static/{name}", params={"token": TOKEN})
        assert response.content == (STATIC / name).read_bytes()


def test_nobody_else_can_frame_it_and_it_loads_nothing_from_elsewhere(server: str) -> None:
    page = requests.get(f"http://{server}/rfe/machines/edge-1", params={"token": TOKEN})
    policy = page.headers["Content-Security-Policy"]
    for rule in ("frame-ancestors 'self'", "default-src 'none'", "connect-src 'self'"):
        assert rule in policy
    assert "://" not in re.sub(r"data:,|vnc\+unix://", "", page.text)


def test_every_module_that_the_page_imports_is_there() -> None:
    modules = sorted(STATIC.rglob("*.js"))
    imported = {
        (module.parent / name).resolve()
        for module in modules
        for name in re.findall(r"""\bfrom *['"](\.[^'"]+)['"];""", module.read_text())
    }
    assert len(imported) > 40
    assert [path for path in imported if not path.is_file()] == []


def test_what_others_wrote_is_pinned_and_has_its_licence() -> None:
    lock = json.loads((STATIC / "vendor" / "package-lock.json").read_text())["packages"]
    wanted = json.loads((STATIC / "vendor" / "package.json").read_text())["dependencies"]
    for name, version in wanted.items():
        package = lock[f"node_modules/{name}"]
        assert package["version"] == version
        assert package["integrity"].startswith("sha512-")
    assert "Mozilla Public License" in (STATIC / "vendor/novnc/LICENSE.MPL-2.0").read_text()
    assert "Permission is hereby granted" in (STATIC / "vendor/xterm/LICENSE").read_text()


def test_jupyterlab_of_a_lab_loads_it() -> None:
    settings = STATIC.parent / "jupyter_settings" / "jupyter_server_config.d" / "rfe.json"
    extensions = json.loads(settings.read_text())["ServerApp"]["jpserver_extensions"]
    assert extensions == {extension.__name__: True, "nbdime": False}


def test_a_kernel_knows_the_page_of_a_machine_of_its_servers_lab(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RFE_MACHINES", raising=False)
    monkeypatch.setenv("RFE_LAB", str(lab.directory))
    assert jupyter.machine_page(lab, "m") == ""
    monkeypatch.setenv("RFE_MACHINES", "/user/anna/rfe/machines")
    assert jupyter.machine_page(lab, "m") == "/user/anna/rfe/machines/m"
    assert jupyter.machine_page(Lab(tmp_path / "other"), "m") == ""


# who may ------------------------------------------------------------------------------------------


def test_without_a_login_there_is_nothing(server: str, start: Start) -> None:
    machine = start()
    page = requests.get(f"http://{server}/rfe/machines/m", allow_redirects=False)
    assert page.status_code == 302
    assert page.headers["Location"].startswith("/login")
    for path in ("m/screen", "m/console"):
        for token in ("", "guessed"):
            refused = pytest.raises(WebSocketBadStatusException, match="403")
            with refused, viewer(server, path, token=token):
                pass
    assert machine.connections == 0


def test_a_page_of_another_origin_cannot_use_the_readers_login(server: str, start: Start) -> None:
    start()
    with requests.Session() as session:
        session.get(f"http://{server}/rfe/machines/m", params={"token": TOKEN})
        cookie = "; ".join(f"{each.name}={each.value}" for each in session.cookies)
    login = {"token": "", "cookie": cookie}
    for path in ("m/screen", "m/console"):
        refused = pytest.raises(WebSocketBadStatusException, match="403")
        with refused, viewer(server, path, origin="http://elsewhere.example", **login):
            pass
        with viewer(server, path, origin=f"http://{server}", **login) as own:
            assert own.connected


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2fx", "a%2fb", "a%00", ".hidden", "x" * 64])
def test_a_name_cannot_lead_out_of_the_machines(server: str, lab: Lab, name: str) -> None:
    """As it stands: no client of ours tidies the path."""
    for path in (name, f"{name}/screen", f"{name}/console"):
        with closing(http.client.HTTPConnection(server)) as connection:
            connection.request("GET", f"/rfe/machines/{path}?token={TOKEN}")
            assert connection.getresponse().status == 404


@pytest.mark.parametrize("path", ["../machine_page.py", "..%2fmachine_page.py", "%2fetc/passwd"])
def test_static_files_are_those_of_the_page(server: str, path: str) -> None:
    with closing(http.client.HTTPConnection(server)) as connection:
        connection.request("GET", f"/rfe/static/{path}?token={TOKEN}")
        assert connection.getresponse().status in (403, 404)


def test_a_machine_that_is_not_there_leaves_no_trace(server: str, lab: Lab) -> None:
    with viewer(server, "nothing/console") as console:
        console.send("x")
    with viewer(server, "nothing/screen") as screen:
        opcode, data = screen.recv_data()
        assert (opcode, data) == (ABNF.OPCODE_CLOSE, b"\x0f\xa0nothing is off")
    assert not (lab.directory / "machines" / "nothing").exists()


# the screen ---------------------------------------------------------------------------------------


def test_viewers_each_have_the_screen(server: str, start: Start) -> None:
    start()
    with viewer(server, "m/screen") as one, viewer(server, "m/screen") as two:
        for socket, data in ((one, b"\0one"), (two, b"\xfftwo")):
            assert received(socket, len(GREETING)) == GREETING
            socket.send_binary(data)
            assert received(socket, 4) == data


def test_a_screen_closes_with_its_machine_and_is_back_with_it(server: str, start: Start) -> None:
    with viewer(server, "m/screen") as screen:
        assert screen.recv_data()[1][2:] == b"m is off"
    machine = start()
    with viewer(server, "m/screen") as screen:
        assert received(screen, len(GREETING)) == GREETING
        machine.end()
        assert screen.recv_data()[1] == b"\x0f\xa0m is off"
    start()
    with viewer(server, "m/screen") as screen:
        assert received(screen, len(GREETING)) == GREETING


def test_a_machine_without_a_socket_says_what_to_do(server: str, lab: Lab, start: Start) -> None:
    start()
    lab.socket("m.vnc").unlink()
    with viewer(server, "m/screen") as screen:
        assert screen.recv_data()[1][2:] == b"m has no live screen yet; stop and start it"


def test_a_huge_message_ends_the_connection_of_who_sent_it(server: str, start: Start) -> None:
    start()
    with viewer(server, "m/screen") as good, viewer(server, "m/screen") as bad:
        assert received(good, len(GREETING)) == GREETING
        assert received(bad, len(GREETING)) == GREETING
        bad.send_binary(bytes(machine_page.LARGEST_MESSAGE + 1))
        with suppress(ConnectionError):  # the server may not wait until it has gone
            assert bad.recv_data()[0] == ABNF.OPCODE_CLOSE
        good.send_binary(b"still")
        assert received(good, 5) == b"still"


def test_a_viewer_that_does_not_read_fills_no_memory(server: str, start: Start) -> None:
    machine = start(flood=100_000_000)
    with viewer(server, "m/screen") as stalled:
        wait_for(lambda: machine.flooded > 100_000, Deadline(10), "the first bytes have gone")
        before = -1
        while machine.flooded > before:
            before = machine.flooded
            threading.Event().wait(0.3)
        assert before < 20_000_000, "what sockets of the system hold"
        with viewer(server, "m/screen") as other:
            assert received(other, len(GREETING))[:12] == GREETING
        assert stalled.connected


# the console --------------------------------------------------------------------------------------


def test_viewers_see_the_same_console_from_before_and_live(server: str, start: Start) -> None:
    machine = start()
    machine.write("x" * machine_page.HISTORY + "booted\r\n")
    with viewer(server, "m/console") as one, viewer(server, "m/console") as two:
        for console in (one, two):
            begin(console)
            history = received(console, machine_page.HISTORY)
            assert len(history) == machine_page.HISTORY
            assert history.endswith(b"xbooted\r\n")
        machine.write("m login: ")
        for console in (one, two):
            assert received(console, 9) == b"m login: "
    assert machine.connections == 0, "another program can have it while nobody types"


def test_viewers_type_into_one_connection_which_ends_with_the_last(
    server: str, start: Start
) -> None:
    machine = start()
    with viewer(server, "m/console") as one:
        with viewer(server, "m/console") as two:
            one.send("root\r")
            wait_for(lambda: machine.typed == b"root\r", Deadline(10), "the first has typed")
            two.send_binary(b"\x03")
            wait_for(lambda: machine.typed == b"root\r\x03", Deadline(10), "the second has typed")
        assert machine.connections == 1
        assert machine.connected
    wait_for(lambda: not machine.connected, Deadline(10), "the connection is closed")


def test_a_console_is_shown_after_its_end_and_starts_again(server: str, start: Start) -> None:
    machine = start()
    machine.write("first\n")
    with viewer(server, "m/console") as console:
        begin(console)
        assert received(console, 6) == b"first\n"
        console.send("1")
        wait_for(lambda: machine.typed == b"1", Deadline(10), "it has typed")
        machine.end()
        console.send("lost")
        # The server answers in order: it has dealt with these keys before the next machine starts.
        console.ping()
        assert console.recv_data_frame(control_frame=True)[0] == ABNF.OPCODE_PONG
        machine.log.unlink()
        begin(console)
        again = start()
        again.write("second\n")
        begin(console)
        assert received(console, 7) == b"second\n"
        console.send("2")
        wait_for(lambda: again.typed == b"2", Deadline(10), "it has typed")
