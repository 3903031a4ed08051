"""Kickstarts as pykickstart reads them back."""

import json
from pathlib import Path
from typing import Any

import pytest
from pykickstart.parser import KickstartParser
from pykickstart.version import RHEL9, makeVersion

from rfe_helpers.core import journal, run
from rfe_helpers.errors import KickstartError
from rfe_helpers.install import kickstart
from rfe_helpers.lab import profile

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE somebody@somewhere"
URL = "http://10.0.2.2:8000/repo/"


def read_back(text: str) -> Any:
    handler = makeVersion(RHEL9)
    KickstartParser(handler).readKickstartFromString(text)
    return handler


def render(**changes: Any) -> str:
    values = {"url": URL, "user": "core", "ssh_key": KEY, **changes}
    return kickstart.render(profile.load("sandbox"), **values)


def test_pykickstart_reads_back_what_was_rendered() -> None:
    handler = read_back(render(password_hash="$6$salt$hash", hostname="edge-7", end="poweroff"))
    setup = handler.ostreesetup
    facts = profile.load("sandbox").ostree
    assert (setup.url, setup.ref, setup.osname) == (URL, facts.ref, facts.osname)
    assert setup.nogpg
    user = handler.user.userList[0]
    assert (user.name, user.password, user.isCrypted) == ("core", "$6$salt$hash", True)
    assert user.groups == ["wheel"]
    assert [(key.username, key.key) for key in handler.sshkey.sshUserList] == [("core", KEY)]
    assert handler.network.network[0].hostname == "edge-7"
    assert handler.rootpw.lock
    assert handler.bootloader.appendLine == kickstart.CONSOLES


def test_a_password_is_in_clear_text_only_if_that_is_asked_for() -> None:
    user = read_back(render(ssh_key=None, plain_password="two words")).user.userList[0]
    assert (user.password, user.isCrypted) == ("two words", False)
    both = read_back(render(password_hash="$6$s$h", plain_password="x")).user.userList[0]
    assert (both.password, both.isCrypted) == ("$6$s$h", True)


def test_a_signature_can_be_demanded() -> None:
    assert not read_back(render(verify=True)).ostreesetup.nogpg


def test_a_post_script_is_carried_whole_and_must_succeed() -> None:
    script = "echo '100 %' > /etc/motd\nfalse $HOME"
    post = read_back(render(post=script)).scripts[0]
    assert post.script.strip() == script
    assert post.errorOnFail
    assert read_back(render()).scripts == []


def test_values_cannot_become_other_words_or_lines() -> None:
    handler = read_back(render(hostname="edge --bootproto=static", kernel_arguments="a 'b' $c"))
    assert handler.network.network[0].hostname == "edge --bootproto=static"
    assert handler.bootloader.appendLine == "a 'b' $c"
    with pytest.raises(KickstartError, match="one line"):
        render(hostname="edge\nreboot")
    with pytest.raises(KickstartError, match="one line"):
        render(ssh_key="ssh-ed25519 AAAA\nrootpw secret")


def test_a_user_who_could_not_log_in_is_refused() -> None:
    with pytest.raises(KickstartError, match="could not log in") as caught:
        render(ssh_key=None)
    assert "password_hash" in caught.value.remedy


@pytest.mark.parametrize("change", [{"filesystem": "xfs --bogus"}, {"end": "explode"}])
def test_render_refuses_what_the_release_does_not_understand(change: dict[str, str]) -> None:
    if "end" in change:
        with pytest.raises(KickstartError, match=r"line \d+: Unknown command: explode"):
            render(**change)
    else:
        assert read_back(render(**change)).autopart.fstype == "xfs --bogus"


def test_validate_names_the_line() -> None:
    with pytest.raises(KickstartError, match=r"^line 3: Unknown command: raise"):
        kickstart.validate("text\n\nraise the roof\n", "RHEL9")
    with pytest.raises(KickstartError, match=r"line 1: .*--ref"):
        kickstart.validate("ostreesetup --osname=x\n", "RHEL9")
    with pytest.raises(KickstartError, match="quotation"):
        kickstart.validate("lang 'en\n", "RHEL9")


def test_validate_knows_the_difference_between_releases() -> None:
    container = "ostreecontainer --url=quay.io/example/edge:1\n"
    assert kickstart.validate(container, "RHEL9") == ()
    with pytest.raises(KickstartError, match="ostreecontainer"):
        kickstart.validate(container, "RHEL8")
    with pytest.raises(KickstartError, match="unknown kickstart version 'RHEL99'"):
        kickstart.validate("text\n", "RHEL99")


def test_validate_returns_warnings() -> None:
    twice = "user --name=core\nuser --name=core\n"
    assert [w for w in kickstart.validate(twice, "RHEL9") if "already been defined" in w]


def test_hash_password_is_salted_and_checks_out(tmp_path: Path) -> None:
    lines = tmp_path / "commands.jsonl"
    journal.open_journal(lines)
    try:
        one, two = (kickstart.hash_password("pass word") for _ in range(2))
    finally:
        journal.open_journal(None)
    assert one != two
    _, method, salt, _ = one.split("$")
    again = run.run(["openssl", "passwd", "-6", "-salt", salt, "-stdin"], input="pass word\n")
    assert (method, again.stdout.strip()) == ("6", one)
    commands = [json.loads(line)["argv"] for line in lines.read_text().splitlines()]
    assert len(commands) == 2
    assert not [argv for argv in commands if "pass word" in " ".join(argv)]


@pytest.mark.parametrize("password", ["", "two\nlines"])
def test_hash_password_refuses_what_is_not_one_line(password: str) -> None:
    with pytest.raises(KickstartError, match="one line"):
        kickstart.hash_password(password)


def test_a_device_that_trusts_one_key_and_one_authority() -> None:
    kind = "PGP PUBLIC KEY BLOCK"
    key = f"-----BEGIN {kind}-----\n\nmQGN\nBGs=\n=YoGM\n-----END {kind}-----\n"
    text = kickstart.render(
        profile.load("sandbox"),
        url="https://10.0.2.2:8000/repo/",
        user="core",
        ssh_key="ssh-ed25519 AAAA me",
        signing_key=key,
        ca="-----BEGIN CERTIFICATE-----\nAAAA\n",
        post="echo last",
    )
    assert "--nogpg" not in text
    before, after = text.partition("%pre")[2].split("%post")
    assert "/usr/share/ostree/trusted.gpg.d/edge.gpg <<'KEY'\nmQGN\nBGs=\nKEY\n" in before
    assert "cat >> \"$bundle\" <<'CA'; fi\n-----BEGIN CERTIFICATE-----\nAAAA\nCA\n" in before
    added = "--set=gpg-verify=true --gpg-import=/etc/ostree/edge.asc"
    added += " --set=tls-ca-path=/etc/ostree/edge-ca.pem"
    assert f"ostree remote add {added} edge https://10.0.2.2:8000/repo/\necho last\n" in after
    assert key in after


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(KickstartError, match="not an armoured public key"):
        kickstart.render(
            profile.load("sandbox"),
            url="http://x/",
            user="core",
            ssh_key="ssh-ed25519 AAAA me",
            signing_key="/keys/edge.asc",
        )


def test_the_file_system_is_the_releases_unless_another_is_asked_for() -> None:
    assert read_back(render()).autopart.fstype == "ext4"
    assert read_back(render(filesystem="xfs")).autopart.fstype == "xfs"
    rhel = kickstart.render(profile.load("rhel-9.4"), url=URL, user="core", ssh_key=KEY)
    assert read_back(rhel).autopart.fstype == "xfs"


def test_an_image_and_a_registry_without_tls() -> None:
    text = kickstart.render(
        profile.load("sandbox"),
        image="10.0.2.2:5000/edge/os:1",
        insecure_registry=True,
        user="core",
        ssh_key=KEY,
    )
    assert "ostreecontainer --stateroot=debian-edge --url=10.0.2.2:5000/edge/os:1" in text
    assert "--no-signature-verification" in text
    assert "ostreesetup" not in text
    assert "ostree remote" not in text
    # The installer needs it, and so does the installed system.
    assert text.count('location = "10.0.2.2:5000"\ninsecure = true') == 2
    signed = kickstart.render(
        profile.load("sandbox"), image="a/b", verify=True, user="core", ssh_key=KEY
    )
    assert "--no-signature-verification" not in signed
    assert "registries.conf.d" not in signed


@pytest.mark.parametrize("payload", [{}, {"url": URL, "image": "a/b"}])
def test_a_kickstart_installs_one_thing(payload: dict[str, str]) -> None:
    with pytest.raises(KickstartError, match="either a commit or an image"):
        kickstart.render(profile.load("sandbox"), user="core", ssh_key=KEY, **payload)


@pytest.mark.parametrize(
    "options",
    [
        {"image": "a/b", "ref": "a/b"},
        {"image": "a/b", "signing_key": "x"},
        {"image": "a/b", "ca": "x"},
        {"url": URL, "insecure_registry": True},
    ],
)
def test_what_belongs_to_the_other_payload_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(KickstartError, match=r"belongs? to an? (repository|image), not"):
        kickstart.render(profile.load("sandbox"), user="core", ssh_key=KEY, **options)


@pytest.mark.parametrize("registry", ["a b", 'x"\n[[registry]]', "END x", "", "-x", "$(id)"])
def test_a_registry_is_a_host_and_a_port(registry: str) -> None:
    with pytest.raises(KickstartError, match="is not the address of a registry"):
        kickstart.registry_script(registry)
