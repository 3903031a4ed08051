import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys

import click
import pytest
from support.command_line import RFE, commands, parse, rfe
from support.trees import make_commit_tar, make_tree

from rfe_helpers.build import blueprint
from rfe_helpers.cli import main, vm
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.install import kickstart
from rfe_helpers.lab import profile
from rfe_helpers.lab.lab import DEFAULT, default_directory
from rfe_helpers.workbook.notebooks import all_notebooks


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["lab"], ["commit", "show"], ["run", "-p", "name"], ["doctor", "extra"]],
)
def test_wrong_usage_ends_with_2(arguments):
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("line", [main.rfe, vm.vm], ids=["rfe", "vm"])
def test_every_command_has_help_in_one_style_and_an_example_of_itself(line):
    listed = dict(commands(line))
    if line is main.rfe:
        assert {("doctor",), ("lab", "clean"), ("commit",)} <= set(listed)
    for words, command in listed.items():
        assert re.fullmatch(r"[A-Z].*[.]", inspect.cleandoc(command.help), re.DOTALL), words
        for option in command.params:
            if isinstance(option, click.Option):
                assert re.fullmatch(r"[A-Za-z].*\.", option.help, re.DOTALL), (words, option.name)
        if not isinstance(command, click.Group):
            name, *example = shlex.split(command.example)
            assert (name, *example[: len(words)]) == (line.name, *words)
            parse(line, example)


def test_the_list_of_commands_is_short_and_says_how_to_switch_completion_on(capsys):
    assert main.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  doctor +Show what this machine has", out, re.MULTILINE)
    assert 'eval "$(_RFE_COMPLETE=bash_source rfe)"' in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("rfe la", {"lab"}),
        ("rfe lab ", {"list", "show", "commands", "open", "reset", "clean"}),
        ("rfe profiles rhel-9.", {n for n in profile.names() if n.startswith("rhel-9.")}),
        ("rfe run --profile sand", {"sandbox"}),
        ("rfe run ", {path.stem for path in all_notebooks()}),
        ("rfe solve 4", {"40-serve-the-commit"}),
        ("rfe blueprint template ed", {"edge"}),
        ("rfe run --al", {"--all"}),
    ],
)
def test_the_shell_completes(line, offered):
    result = subprocess.run(
        [*RFE],
        env={
            **os.environ,
            "_RFE_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert {item.partition(",")[2] for item in result.stdout.splitlines()} == offered


def test_the_lab_of_commands_is_that_of_the_package(monkeypatch):
    monkeypatch.delenv("RFE_LAB", raising=False)
    assert parse(main.rfe, ["lab", "show"]).params["directory"] == DEFAULT
    for value, directory in (("/elsewhere", "/elsewhere"), ("", DEFAULT)):
        monkeypatch.setenv("RFE_LAB", value)
        assert parse(main.rfe, ["lab", "show"]).params["directory"] == directory
        assert default_directory() == directory


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    """What the package does not raise as an error of its own."""
    result = rfe("media", "verify", str(tmp_path), str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.startswith("rfe: ")
    assert "Traceback" not in result.stderr


def test_an_error_is_printed_once_with_its_remedy_and_ends_with_1(tmp_path):
    result = rfe("commit", "show", str(tmp_path / "nothing.tar"))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("rfe: there is no ")
    assert result.stderr.count("nothing.tar") == 1
    assert "Traceback" not in result.stderr


def test_an_unknown_parameter_is_refused_before_anything_is_run(tmp_path):
    result = rfe("run", "00", "--lab", str(tmp_path / "lab"), "-p", "nmae", "x")
    assert result.returncode == 1
    assert "no notebook of this run has a parameter 'nmae'" in result.stderr
    assert not (tmp_path / "lab" / "runs").exists()


def test_all_notebooks_or_some_but_not_both(tmp_path):
    result = rfe("run", "20", "--all", "--lab", str(tmp_path / "lab"))
    assert result.returncode == 1
    assert "--all and names of notebooks" in result.stderr
    assert not (tmp_path / "lab").exists()


def test_an_unknown_notebook_leaves_no_lab(tmp_path):
    result = rfe("run", "77", "--lab", str(tmp_path / "lab"))
    assert result.returncode == 1
    assert "20-build-a-commit" in result.stderr
    assert not (tmp_path / "lab").exists()


def test_the_sandbox_is_started_found_and_stopped(lab, capsys):
    where = ["--lab", str(lab.directory)]
    assert main.main(["sandbox", "start", *where]) == 0
    assert main.main(["sandbox", "status", *where]) == 0
    assert str(lab.socket("image-builder.sock")) in capsys.readouterr().out
    lab.record("image-builder", backend="rfe-sandbox")
    assert main.main(["solve", "10", *where]) == 0
    assert "nothing to do: the lab is already" in capsys.readouterr().out
    assert main.main(["lab", "reset", "40", *where]) == 0
    assert "nothing to do: the lab has not come that far" in capsys.readouterr().out
    assert main.main(["sandbox", "stop", *where]) == 0
    assert lab.processes() == {}


def test_two_commits_are_compared(tmp_path, capsys):
    archives = []
    for name in ("one", "two"):
        repo = Repo(tmp_path / name / "repo").init()
        tree = make_tree(tmp_path / "tree.tar", {"usr/note": name, f"usr/{name}": "x"})
        repo.commit_tar(tree, "a/b", subject=name, packages=[])
        (tmp_path / name / "compose.json").write_text("{}")
        archives.append(str(make_commit_tar(tmp_path / f"{name}.tar", tmp_path / name)))
    assert main.main(["commit", "diff", *archives]) == 0
    said = capsys.readouterr().out
    for path in ("/usr/one", "/usr/two", "/usr/note"):
        assert path in said


def test_a_proof_says_what_it_needs_first(lab, capsys):
    assert main.main(["prove", "crash", "--rounds", "1", "--lab", str(lab.directory)]) == 1
    said = capsys.readouterr().err
    assert "this lab has no machine edge-1" in said
    assert f"`rfe solve 50 --lab {lab.directory}`" in said


def test_sandbox_status_of_a_lab_without_one(lab, capsys):
    assert main.main(["sandbox", "status", "--lab", str(lab.directory)]) == 0
    assert "not running" in capsys.readouterr().out


PLAN = ["fleet", "plan", "--devices", "20000", "--timer", "OnCalendar=03:00"]


def test_fleet_plan_prints_a_table_with_units(capsys):
    options = ["--splay", "6h", "--window", "Mon 06:00", "--mirror-requests", "100"]
    assert main.main([*PLAN, *options]) == 0
    out = capsys.readouterr().out
    assert out.startswith("20,000 devices, the update released Mon 2026-01-05 00:00 UTC\n")
    assert re.search(r"^ +no splay +splay 6h$", out, re.MULTILINE)
    assert re.search(r"^highest load +[\d,]+ requests/s +[\d.]+ requests/s$", out, re.MULTILINE)
    # From 3:00 to 9:00, so half of them have not staged at 6:00.
    assert re.search(r"^miss the window .* (49|50|51)\.\d%, [\d,]+ devices$", out, re.MULTILINE)
    assert re.search(r"^Smallest splay that the mirror can bear: 2h \d+min$", out, re.MULTILINE)


def test_fleet_plan_as_json_with_own_figures(capsys):
    options = ["--requests", "100", "--bytes", "1e6", "--splay", "6h", "--horizon", "2d"]
    assert main.main([*PLAN, *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["cost"]["requests"], told["cost"]["bytes"]) == (100, 1e6)
    without, splayed = told["plans"]
    assert (without["splay"], splayed["splay"]) == (0, 6 * 3600)
    assert splayed["half_staged"] == pytest.approx(6 * 3600, rel=0.02)
    assert splayed["peak_requests"] < without["peak_requests"] / 100
    assert without["missed"] == 0
    assert told["smallest_splay"] is None  # no limit was given


def test_fleet_plan_with_layers_has_their_cost_and_the_timer_of_bootc(capsys):
    layers = ["fleet", "plan", "--devices", "20000", "--pull", "layers"]
    assert main.main(layers) == 0
    out = capsys.readouterr().out
    assert re.search(r"^One device: 4 requests, .* \(as recorded for .* layer", out, re.MULTILINE)
    assert re.search(r"^ +no splay +splay 2h$", out, re.MULTILINE)
    assert main.main([*layers, "--bytes", "152e6", "--mirror-mbit", "1000", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cost"]["bytes"] == 152e6
    # 20,000 devices fetch within ten hours, unless the server is too slow: it is not.
    assert told["plans"][-1]["all_staged"] < 10.5 * 3600


def test_fleet_plan_takes_what_happens_to_devices(capsys):
    def all_staged(*options):
        assert main.main([*PLAN, "--json", "--horizon", "14d", *options]) == 0
        return json.loads(capsys.readouterr().out)["plans"][0]["all_staged"] / 86400

    assert all_staged() < 1
    assert 3 < all_staged("--rollout", "72h") < 4.5
    assert 4 < all_staged("--off", "10%", "--off-for", "5d") < 6


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--splay", "soon"], 2, "'soon' is not a time span; write it as systemd does"),
        (["--splay", "2y"], 2, "longer than a year"),
        (["--devices", "0"], 2, "'0' is not a number above zero"),
        (["--devices", "2.5"], 2, "not a whole number from 1 to 100 million"),
        (["--devices", "1e12"], 2, "not a whole number from 1 to 100 million"),
        (["--mirror-requests", "nan"], 2, "'nan' is not a number"),
        (["--off", "110%"], 2, "'110%' is not a share"),
        (["--window", "never"], 1, "'never' is not a supported calendar expression"),
        (["--window", "8d"], 1, "give a moment within 7.0 days, or a longer horizon"),
        (["--timer", "OnStartupSec=5"], 1, "the model does not support timers with OnStartupSec="),
        (["--release", "yesterday"], 1, "'yesterday' is not a date and time"),
        (["--horizon", "0s"], 1, "the horizon must be"),
    ],
)
def test_fleet_plan_says_what_is_wrong(capsys, options, status, words):
    try:
        ended = main.main([*PLAN, *options])
    except SystemExit as stop:
        ended = stop.code
    told = capsys.readouterr()
    assert (ended, told.out) == (status, "")
    assert words in told.err


KEEPS_CURRENT = ["--image", "10.0.2.2:5000/application:1", "--window", "Sun 01:30"]


def test_fleet_prints_both_twins_of_a_device(tmp_path, capsys):
    key = tmp_path / "id.pub"
    key.write_text("ssh-ed25519 AAAA somebody\n")
    where = ["--url", "http://10.0.2.2:8000/repo/", "--ssh-key", str(key)]
    assert main.main(["fleet", "kickstart", *where, *KEEPS_CURRENT]) == 0
    edge2 = capsys.readouterr().out
    assert kickstart.validate(edge2, "RHEL9") == ()
    assert main.main(["fleet", "blueprint", *KEEPS_CURRENT, "--no-quadlet"]) == 0
    twin = blueprint.parse_toml(capsys.readouterr().out)
    assert {package.name for package in twin.packages} == {"nftables", "podman"}
    assert "application.service" in twin.customizations["services"]["enabled"]
    (timer,) = (f for f in twin.customizations["files"] if f["path"].endswith("applyupdate.timer"))
    assert "OnCalendar=Sun 01:30\n" in timer["data"]
    assert timer["data"] in edge2
    assert ".container" in edge2  # that one was asked for with Quadlet


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("-----BEGIN OPENSSH PRIVATE" + " KEY-----\n", "is a private key\nto do: give the .pub"),
        ("one\ntwo\n", "must be one line of text"),
        (None, "No such file"),
    ],
)
def test_fleet_kickstart_takes_only_a_public_key(tmp_path, capsys, content, words):
    key = tmp_path / "key"
    if content is not None:
        key.write_text(content)
    options = ["--url", "http://10.0.2.2:8000/repo/", "--ssh-key", str(key)]
    assert main.main(["fleet", "kickstart", *options]) == 1
    told = capsys.readouterr()
    assert words in told.err
    assert told.out == ""


def test_fleet_blueprint_refuses_what_a_device_cannot_have(capsys):
    assert main.main(["fleet", "blueprint", "--policy", "always"]) == 1
    assert "use one of none, check, stage, apply" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_with_130_and_no_traceback(number, tmp_path):
    """While it waits for a command that does not end: a fake `ostree` that sleeps."""
    fake = tmp_path / "bin" / "ostree"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 100\n")
    fake.chmod(0o755)
    (tmp_path / "repo" / "objects").mkdir(parents=True)
    child = subprocess.Popen(
        [*RFE, "commit", "show", str(tmp_path / "repo")],
        env={**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert child.poll() is None
    child.send_signal(number)
    _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (130, "rfe: interrupted\n")
    assert run.ProcessId.of(int((tmp_path / "pid").read_text())) is None


def test_a_reader_that_goes_away_is_no_error():
    script = "import sys; from rfe_helpers.cli.main import main; sys.exit(main())"
    line = f'"{sys.executable}" -c "{script}" doctor --json | head -c 1 >/dev/null; '
    result = subprocess.run(
        ["bash", "-c", line + "echo ${PIPESTATUS[0]}"], capture_output=True, text=True, timeout=120
    )
    assert result.stdout == "0\n"
    assert result.stderr == ""


HEAVY = {"IPython", "papermill", "matplotlib", "nbformat", "requests", "uvicorn", "jupyter_core"}


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import rfe_helpers.cli.commit, rfe_helpers.commit.commit", HEAVY),
        (
            "from rfe_helpers.cli.main import main; main(['--help'])",
            HEAVY | {"numpy", "ipywidgets", "traitlets", "rfe_helpers.lab", "rfe_helpers.cli.lab"},
        ),
        (
            "from rfe_helpers.cli.main import main; main(['check', '--help']); import nbformat",
            {"lark"},
        ),
    ],
)
def test_the_command_line_starts_quickly(program, absent):
    """`rfe --help` and `rfe commit packages` must not pay for Jupyter, papermill or matplotlib,
    and what reads notebooks not for a grammar of IRIs."""
    program = f"import sys; {program}; print(*sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    loaded = set(shown.splitlines()[-1].split())
    assert "rfe_helpers.cli.shared" in loaded
    assert not absent & loaded


def test_profiles_are_listed_and_shown(capsys):
    assert main.main(["profiles"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == profile.names()
    assert any("rhel-10" in line and "no edge images" in line for line in listed)
    assert main.main(["profiles", "rhel-10"]) == 0
    assert "bootc" in capsys.readouterr().out
    assert main.main(["profiles", "rhel-8.4", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["container"] == {"port": 80, "web_root": "/var/www/html"}
    assert shown["registration"]["commands"][-1] == "subscription-manager attach"
    assert main.main(["profiles", "rhel-7"]) == 1
    assert "choose one of" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("crash", "--rounds", "0"), ("power", "--fsck-every", "-1")])
def test_a_proof_of_nothing_is_wrong_usage(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["prove", *words])
    assert ended.value.code == 2
    assert f"{words[2]} is not in the range x>=1" in capsys.readouterr().err
