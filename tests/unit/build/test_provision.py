"""What is done on a machine to make it an Image Builder, release by release, with recorders for
the programs there; and what their failures mean, with the answers of the real ones."""

from pathlib import Path

import pytest
from support.rhel import ENABLED, RELEASES, Rhel, commands, digest, files_with

from rfe_helpers.build import provision, registration
from rfe_helpers.build.provision import Step, StepOutcome
from rfe_helpers.build.registration import Credentials
from rfe_helpers.core import journal, run, ssh
from rfe_helpers.errors import BuilderError, InputError, NodeError
from rfe_helpers.lab import profile

SECRET = "correct horse 'battery' $taple"
PERSON = Credentials("somebody", SECRET)
KEY = Credentials("1234567", SECRET, by_key=True)
HOST = ssh.parse("ssh://core@builder.example")
EXPECTED = {name: commands(name, "somebody", SECRET) for name in RELEASES}
PACKAGES = "osbuild-composer composer-cli cockpit-composer bash-completion"
DNF = f"dnf install -y {PACKAGES}"


@pytest.fixture
def rhel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rhel:
    machine = Rhel(tmp_path / "rhel")
    monkeypatch.setenv("PATH", f"{machine.path}:/usr/bin:/bin:/usr/sbin")
    return machine


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "install.log"


def install(
    name: str, log: Path, credentials: Credentials | None = PERSON, lines: list[str] | None = None
) -> tuple[StepOutcome, ...]:
    planned = provision.steps(profile.load(name), "core", credentials)
    on_progress = None if lines is None else lines.append
    return provision.carry_out(planned, HOST, log, on_progress, user="core")


def test_every_release_has_an_expectation() -> None:
    releases = {name for name in profile.names() if not profile.load(name).instead} - {"sandbox"}
    assert set(EXPECTED) == releases


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_shown_is_what_the_release_has(name: str) -> None:
    planned = provision.steps(profile.load(name), "core", PERSON)
    shown = [step.command.replace("'", "") for step in planned if step.title != "look for room"]
    assert shown == [command.replace(digest(SECRET), "…") for command in EXPECTED[name]]


@pytest.mark.parametrize("name", EXPECTED)
def test_every_step_says_what_it_is_for(name: str) -> None:
    planned = provision.steps(profile.load(name), "core", PERSON, console_for_root=True)
    assert [step.title for step in planned if not step.reason] == []
    (packages,) = [step for step in planned if step.title == "install Image Builder"]
    assert all(f"{each}: " in packages.reason for each in profile.load(name).install.packages)


@pytest.mark.parametrize("name", ["rhel-8.4", "rhel-8.10", "rhel-9.6", "fedora-iot"])
def test_what_is_done_is_what_is_shown(name: str, rhel: Rhel, log: Path) -> None:
    outcomes = install(name, log)
    assert rhel.done() == EXPECTED[name]
    assert [o.step.title for o in outcomes if o.was_done] == ["look for room"]


@pytest.mark.parametrize("name", ["rhel-8.4", "rhel-9.6"])
def test_a_second_run_does_nothing_twice(name: str, rhel: Rhel, log: Path) -> None:
    install(name, log)
    rhel.forget_calls()
    again = install(name, log, credentials=None)
    assert rhel.done() == []
    assert all(outcome.was_done for outcome in again)


def test_after_a_failure_only_the_rest_is_done(rhel: Rhel, log: Path) -> None:
    rhel.fail("dnf", 1, "Error: something is wrong")
    with pytest.raises(BuilderError, match="install Image Builder: ended with status 1") as caught:
        install("rhel-9.6", log)
    assert "something is wrong" in caught.value.message
    assert caught.value.log == log
    (rhel.state / "fails" / "dnf").unlink()
    rhel.forget_calls()
    install("rhel-9.6", log)
    assert rhel.done() == [DNF, *ENABLED]


def test_commands_are_shown_before_they_are_run_and_output_is_kept(rhel: Rhel, log: Path) -> None:
    lines: list[str] = []
    install("rhel-9.6", log, lines=lines)
    assert lines[0] == (
        "1/9 register with Red Hat: subscription-manager register --username=somebody --password=…"
    )
    assert "register with Red Hat: The system has been registered with ID: 00000000" in lines
    text = log.read_text()
    assert "# install Image Builder on core@builder.example\n$ dnf install -y osbuild" in text
    assert text.index("$ subscription-manager register") < text.index("has been registered")
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("credentials", [PERSON, KEY])
def test_the_secret_arrives_and_is_nowhere_else(
    credentials: Credentials, rhel: Rhel, log: Path, tmp_path: Path
) -> None:
    journal.open_journal(tmp_path / "journal.jsonl")
    try:
        install("rhel-9.6", log, credentials)
    finally:
        journal.open_journal(None)
    (call,) = [call for call in rhel.calls() if call["argv"][1] == "register"]  # type: ignore[index]
    option = credentials.options[1]
    assert call["argv"][-1] == option + digest(SECRET)  # type: ignore[index]
    # In the list of processes the option has no value.
    assert call["kernel"] == ["register", credentials.options[0], option]
    assert files_with(SECRET, tmp_path) == []
    assert SECRET not in repr(credentials)
    assert SECRET not in repr(
        provision.steps(profile.load("rhel-9.6"), "root", credentials)[0].command
    )


def test_a_program_that_prints_the_secret_does_not_spread_it(rhel: Rhel, log: Path) -> None:
    rhel.fail("register", 70, f"odd: {SECRET} is odd")
    with pytest.raises(BuilderError) as caught:
        install("rhel-9.6", log)
    assert "odd: (hidden) is odd" in str(caught.value)
    assert SECRET not in log.read_text()


def test_nobody_to_register_is_an_error_only_if_it_is_needed(rhel: Rhel, log: Path) -> None:
    with pytest.raises(InputError, match="there are no credentials") as caught:
        install("rhel-9.6", log, None)
    assert "RHSM_ACTIVATION_KEY" in caught.value.remedy
    assert rhel.done() == []
    install("centos-stream-9", log, None)


def test_root_needs_neither_sudo_nor_the_group_but_the_web_console(tmp_path: Path) -> None:
    planned = provision.steps(profile.load("rhel-9.6"), "root", PERSON, console_for_root=True)
    assert planned[-1].title == "let root into the web console"
    assert not [step for step in planned if "usermod" in step.command]
    assert provision.as_user("true; false", "root") == "sh -c 'true; false'"
    assert provision.as_user("true", "core") == "sudo -n sh -c true"


def test_the_web_console_lets_root_in_once_it_is_not_listed(tmp_path: Path) -> None:
    """The step's own words, on a list of ours."""
    listed = tmp_path / "disallowed-users"
    step = provision.steps(profile.load("rhel-9.6"), "root", PERSON, console_for_root=True)[-1]
    done, command = (
        text.replace("/etc/cockpit/disallowed-users", str(listed))
        for text in (step.done, step.command)
    )
    assert run.run(["sh", "-c", done], check=False).status == 0  # there is no such list
    listed.write_text("# a comment\nroot\nrooted\n")
    assert run.run(["sh", "-c", done], check=False).status != 0
    run.run(["sh", "-c", command])
    assert listed.read_text() == "# a comment\nrooted\n"
    assert run.run(["sh", "-c", done], check=False).status == 0


# failures -----------------------------------------------------------------------------------------

# What the programs of RHEL 8 and 9 have been seen to say (their sources, and reports of others).
FAILURES = {
    "wrong password": (
        "register",
        "Registering to: subscription.rhsm.redhat.com:443/subscription\nInvalid username or "
        "password. To create a login, please visit https://www.redhat.com/wapps/ugc/register.html",
        "does not accept this user and password",
    ),
    "wrong password, newer": (
        "register",
        "HTTP error (401 - Unauthorized): Invalid Credentials",
        "does not accept this user and password",
    ),
    "wrong key": (
        "register",
        "None of the activation keys specified exist for this org.",
        "this organisation or activation key does not exist",
    ),
    "no network": (
        "register",
        "Network error, unable to connect to server. Please see /var/log/rhsm/rhsm.log for more "
        "information.",
        "no Internet connection",
    ),
    "nothing to attach": (
        "attach",
        "Installed Product Current Status:\nProduct Name: Red Hat Enterprise Linux for x86_64\n"
        "Status:       Not Subscribed\n\nUnable to find available subscriptions for all your "
        "installed products.",
        "no valid subscription",
    ),
    "expired": (
        "yum",
        "Errors during downloading metadata for repository 'rhel-8-for-x86_64-baseos-rpms':\n"
        "  - Status code: 403 for https://cdn.redhat.com/content/dist/rhel8/8/x86_64/baseos/os/"
        "repodata/repomd.xml (IP: 104.68.188.83)\nError: Failed to download metadata for repo",
        "no valid subscription",
    ),
    "no repository": (
        "yum",
        'Error: There are no enabled repositories in "/etc/yum.repos.d", "/etc/yum/repos.d", '
        '"/etc/distro.repos.d".',
        "no repository with Image Builder",
    ),
    "no network for packages": (
        "yum",
        "Curl error (6): Couldn't resolve host name for https://cdn.redhat.com/x [Could not "
        "resolve host: cdn.redhat.com]",
        "no Internet connection",
    ),
    "full disk": (
        "yum",
        "Error: Transaction test error:\n  installing package osbuild-118-1.el8.noarch needs 5MB "
        "on the / filesystem\n\nError Summary\n-------------\nDisk Requirements:\n   At least 5MB "
        "more space needed on the / filesystem.",
        "its disk is full",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_says_what_it_means_and_what_to_do(case: str, rhel: Rhel, log: Path) -> None:
    program, output, message = FAILURES[case]
    rhel.fail(program, 1, output)
    with pytest.raises(BuilderError) as caught:
        install("rhel-8.4", log)
    assert message in caught.value.message
    assert output.splitlines()[-1].strip() in caught.value.message
    assert len(caught.value.remedy) > 20
    assert caught.value.log == log
    assert output in log.read_text()


def test_too_little_room_is_reported_before_anything_is_installed(rhel: Rhel, log: Path) -> None:
    (rhel.state / "room").write_text("9000000")
    with pytest.raises(BuilderError, match="look for room: its disk is full") as caught:
        install("rhel-9.6", log)
    assert "9000000 KiB free" in caught.value.message
    assert "larger disk" in caught.value.remedy
    assert DNF not in rhel.done()


def test_a_machine_that_does_not_answer_is_named(rhel: Rhel, log: Path) -> None:
    (rhel.state / "unreachable").touch()
    with pytest.raises(NodeError, match=r"core@builder\.example does not answer"):
        install("rhel-9.6", log)


def test_what_nobody_knows_is_shown_as_it_is() -> None:
    assert registration.meaning("a strange thing happened") is None


# credentials --------------------------------------------------------------------------------------


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in registration.NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_credentials_come_from_the_environment(empty: pytest.MonkeyPatch) -> None:
    assert registration.read() is None
    empty.setenv("RHSM_USERNAME", "somebody")
    with pytest.raises(InputError, match="RHSM_USERNAME but no RHSM_PASSWORD"):
        registration.read()
    empty.setenv("RHSM_PASSWORD", SECRET)
    assert registration.read() == PERSON
    empty.setenv("RHSM_ORG", "1234567")
    empty.setenv("RHSM_ACTIVATION_KEY", SECRET)
    assert registration.read() == KEY


def test_credentials_come_from_a_file_that_only_its_owner_reads(
    empty: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "rhsm"
    path.write_text(f"# mine\n\nRHSM_ORG=1234567\nRHSM_ACTIVATION_KEY={SECRET}\n")
    path.chmod(0o640)
    with pytest.raises(InputError, match="others can read") as caught:
        registration.read(path)
    assert caught.value.remedy == f"chmod 600 {path}"
    path.chmod(0o600)
    assert registration.read(path) == KEY
    path.write_text("RHSM_PASSWORD=x\n")
    with pytest.raises(InputError, match="RHSM_PASSWORD but no RHSM_USERNAME"):
        registration.read(path)
    path.write_text("")
    with pytest.raises(InputError, match="none of RHSM_USERNAME"):
        registration.read(path)
    with pytest.raises(InputError, match="No such file"):
        registration.read(tmp_path / "gone")


def test_a_step_hides_what_is_not_for_showing() -> None:
    assert "hunter2" not in repr(Step("t", "c", stdin="hunter2", script="s"))
