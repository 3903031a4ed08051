import socket
import threading

import pytest

from rfe_helpers import ports, run
from rfe_helpers.lab import Lab

FIRST = 18300


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setattr(ports, "DIRECTORY", tmp_path / "ports")
    yield tmp_path / "ports"
    run.set_journal(None)


def test_two_labs_never_choose_the_same_port_though_nobody_listens(tmp_path, directory):
    one, two = Lab(tmp_path / "one"), Lab(tmp_path / "two")
    assert one.port("web", FIRST) != two.port("web", FIRST)
    assert one.port("web", FIRST) == one.port("web", FIRST)
    assert directory.stat().st_mode & 0o7777 == 0o1777
    assert {path.read_text() for path in directory.iterdir()} == {
        str(tmp_path / "one"),
        str(tmp_path / "two"),
    }


def test_many_labs_at_the_same_moment_get_a_port_each(tmp_path):
    labs = [Lab(tmp_path / f"lab-{number}") for number in range(12)]
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda lab=lab: found.append(lab.port("ssh", FIRST)))
        for lab in labs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(labs)


def test_a_port_that_is_given_back_or_whose_lab_is_gone_can_be_had(tmp_path):
    one, two = Lab(tmp_path / "one"), Lab(tmp_path / "two")
    port = one.port("web", FIRST)
    one.release_port("web")
    assert two.port("web", FIRST) == port
    two.clean()
    assert one.port("web", FIRST) == port
    (tmp_path / "one" / "lab.json").unlink()
    assert Lab(tmp_path / "three").port("web", FIRST) == port


def test_a_port_on_which_somebody_listens_is_not_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()[1]
        assert Lab(tmp_path / "one").port("web", busy) > busy


def test_a_lab_gives_back_only_its_own(tmp_path, directory):
    assert ports.reserve(FIRST, Lab(tmp_path / "one").directory)
    ports.release(FIRST, tmp_path / "two")
    assert (directory / str(FIRST)).exists()
    assert not ports.reserve(FIRST, tmp_path / "two")


def test_where_no_directory_can_be_had_ports_are_still_given(tmp_path, directory):
    directory.write_text("in the way")
    assert Lab(tmp_path / "one").port("web", FIRST) >= FIRST


def test_a_link_in_place_of_the_directory_is_not_followed(tmp_path, directory):
    directory.symlink_to(tmp_path)
    assert ports.reserve(FIRST, tmp_path / "one")
    assert not (tmp_path / str(FIRST)).exists()
