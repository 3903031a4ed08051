import io

import pytest
from PIL import Image

from rfe_helpers.core import masking
from rfe_helpers.core.units import elapsed, size
from rfe_helpers.errors import CheckFailedError
from rfe_helpers.workbook import progress, show
from rfe_helpers.workbook.progress import Progress
from rfe_helpers.workbook.show import Picture, Table


def test_a_check_that_holds_says_so(capsys):
    show.check(True, "the ref exists")
    assert capsys.readouterr().out == "✔ the ref exists\n"


def test_a_check_that_does_not_hold_says_what_to_do():
    with pytest.raises(CheckFailedError) as caught:
        show.check([], "the ref exists", "build it")
    assert str(caught.value) == "this does not hold: the ref exists\nto do: build it"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0:00"), (67, "1:07"), (750, "12:30"), (3723, "1:02:03")]
)
def test_time_is_shown_as_people_read_it(seconds, text):
    assert elapsed(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (158e6, "158.0 MB"), (2.5e9, "2.5 GB")],
)
def test_sizes_are_shown_as_people_read_them(number, text):
    assert size(number) == text


def test_a_table_as_text():
    table = Table(("name", "bytes"), [("curl", 12345), ("jq", None)], "Packages")
    assert repr(table).splitlines() == [
        "Packages",
        "name  bytes",
        "----  ------",
        "curl  12,345",
        "jq    –",
    ]


def test_a_table_as_html_escapes_and_aligns_numbers():
    table = Table(("<name>", "n"), [("a&b", 10000)])._repr_html_()
    assert "&lt;name&gt;" in table
    assert '<td style="text-align: right; white-space: pre-line">10,000</td>' in table
    assert '<td style="text-align: left; white-space: pre-line">a&amp;b</td>' in table


def test_an_empty_table_is_still_one():
    assert repr(Table(("a", "b"), [])).splitlines() == ["a  b", "-  -"]
    assert "<tbody></tbody>" in Table(("a",), [])._repr_html_()


def test_progress_prints_changed_lines_and_how_it_ended(capsys):
    with Progress("Building", every=0) as progress:
        progress("stage one")
        progress("stage one")
        progress("stage two")
    assert capsys.readouterr().out.splitlines() == [
        "… Building · 0:00",
        "… Building · 0:00 · stage one",
        "… Building · 0:00 · stage two",
        "✔ Building · 0:00 · done",
    ]


def test_progress_tells_where_it_stopped(capsys):
    def fail():
        with Progress("Building", every=0) as progress:
            progress("stage one")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert capsys.readouterr().out.splitlines()[-1] == "✘ Building · 0:00 · stage one"


def test_lines_that_differ_in_numbers_only_are_told_rarely(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    worth = progress.Sparing(every=2)
    told = []
    for second in range(40):
        now[0] = float(second)
        line = f"pulling {second} objects" if second != 5 else "writing"
        if worth(line):
            told.append((second, line))
    assert told == [
        (0, "pulling 0 objects"),
        (5, "writing"),
        (7, "pulling 7 objects"),
        (23, "pulling 23 objects"),
        (39, "pulling 39 objects"),
    ]


def test_progress_knows_the_seconds_until_its_end(monkeypatch):
    now = [5.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("Rebooting") as rebooting:
        now[0] = 7.0
        assert rebooting.seconds == 2
        now[0] = 46.0
    now[0] = 99.0
    assert rebooting.seconds == 41


def test_progress_does_not_flood_a_log(capsys):
    with Progress("Building", every=60) as progress:
        for number in range(1000):
            progress(f"line {number}")
    assert len(capsys.readouterr().out.splitlines()) <= 3


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "key"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA", "key"),
        ("user --iscrypted --password=$6$abcdefgh$" + "x" * 86, "hash"),
        ("$y$j9T$abcdefghijkl$" + "x" * 43, "hash"),
        ("Authorization: Bearer abcdefghijkl", "authorization"),
    ],
)
def test_secrets_are_found_and_hidden(text, kind):
    kinds = masking.secrets_in("before " + text)
    assert len(kinds) == 1
    assert kind in kinds[0]
    hidden = masking.mask("before " + text + " after")
    assert masking.secrets_in(hidden) == []
    assert "AAAA" not in hidden
    assert "xxxx" not in hidden
    assert hidden.startswith("before ")


@pytest.mark.parametrize("text", ["$6.50", "ssh-ed25519 AAAAC3Nz me", "BEGIN PUBLIC KEY", "a" * 64])
def test_what_is_not_a_secret_is_left_alone(text):
    assert masking.secrets_in(text) == []
    assert masking.mask(text) == text


def test_bars_are_drawn_and_given_as_text():
    values = {f"package-{number}": float(number) for number in range(30)}
    picture = show.bars({"by package": values}, "MB", most=5)
    image = Image.open(io.BytesIO(picture.png))
    assert image.width > 400
    darkest, lightest = image.convert("L").getextrema()
    assert darkest < 100
    assert lightest == 255
    assert repr(picture).startswith("by package: package-29 29.0 MB, package-28 28.0 MB")
    assert f'alt="{picture.text}"' in picture._repr_html_()


def test_a_picture_from_a_file(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "screen.png")
    assert Picture.open(tmp_path / "screen.png", "a screen").png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("line", "share"),
    [
        ("40 of 160 MB", 0.25),
        ("Receiving objects: 45% (123/456) 2.1MB/s", 0.45),
        ("3/12", 0.25),
        ("9 of 3", 1.0),
        ("0 of 0 MB", None),
        ("unpack the base, 2 s", None),
        ("465/(estimating)", None),
    ],
)
def test_a_status_line_says_how_much_is_done(line, share):
    assert progress.share_of(line) == share


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_in_a_terminal_one_line_is_updated_in_place(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "60")
    with Progress("Downloading", every=0) as progress:
        progress("80 of 160 MB")
        progress("a line that is much longer than the terminal is wide " * 2)
    lines = terminal.getvalue().split("\r\x1b[K")
    assert lines[2] == "… Downloading · 0:00 · 80 of 160 MB [##########          ]"
    assert len(lines[3]) == 59
    assert lines[4] == "✔ Downloading · 0:00 · done\n"
