"""What a room.toml may say."""

import pytest

from rfe_helpers.errors import InputError
from rfe_helpers.room import read_settings


def test_without_a_file_there_are_three_seats_on_loopback():
    settings = read_settings(None)
    assert settings.people == ("seat-01", "seat-02", "seat-03")
    assert (settings.address, settings.memory_bytes) == ("127.0.0.1", 4 << 30)


def test_a_file_names_people_and_an_option_wins(tmp_path):
    file = tmp_path / "room.toml"
    file.write_text('names = ["anna", "ben"]\nmemory = "1.5 GiB"\ndisk = "8G"\nprocessors = 1\n')
    settings = read_settings(file)
    assert settings.people == ("anna", "ben")
    assert (settings.memory_bytes, settings.disk_bytes) == (3 << 29, 8 << 30)
    assert read_settings(file, seats=1).people == ("seat-01",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seats = 0", "seats"),
        ("seats = 100000", "seats"),
        ('seats = "many"', "seats"),
        ("chairs = 3", "chairs"),
        ('names = ["Anna"]', "'Anna' is not a name"),
        ('names = ["../root"]', "is not a name"),
        ('names = ["trainer"]', "is not a name"),
        ('names = ["anna", "anna"]', "two seats"),
        ('memory = "lots"', "'lots' is not a size"),
        ('memory = "100 MiB"', "1 GiB of memory"),
        ('disk = "1 GiB"', "4 GiB of disk"),
        ('certificate = "room.pem"', "go together"),
        ('certificate = "a.pem"\nkey = "a.key"', "no file .*/a.pem"),
        ('engine = "cloud"', "cloud"),
        ("port = 70000", "port"),
        ("seats = [", "room.toml"),
        ("processors = nan", "processors"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, text, reason):
    file = tmp_path / "room.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=reason):
        read_settings(file)


def test_a_file_that_is_not_there_or_too_large_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_settings(tmp_path / "room.toml")
    (tmp_path / "large.toml").write_text("#" * 200_000)
    with pytest.raises(InputError, match="larger than"):
        read_settings(tmp_path / "large.toml")


def test_paths_are_those_beside_the_file(tmp_path):
    for name in ("a.pem", "a.key"):
        (tmp_path / name).touch()
    (tmp_path / "room.toml").write_text('certificate = "a.pem"\nkey = "a.key"')
    settings = read_settings(tmp_path / "room.toml")
    assert settings.certificate == str(tmp_path / "a.pem")


def test_without_a_file_the_rest_stays_as_it_was(tmp_path):
    (tmp_path / "room.toml").write_text('names = ["anna"]\nengine = "accounts"\nmemory = "2 GiB"')
    earlier = read_settings(tmp_path / "room.toml")
    settings = read_settings(None, earlier=earlier, port=9443)
    assert (settings.people, settings.engine, settings.port) == (("anna",), "accounts", 9443)
    assert read_settings(None, earlier=earlier, seats=2).people == ("seat-01", "seat-02")
