"""The kickstart of an edge-installer ISO, and the repository that goes into it."""

from pathlib import Path
from typing import Any

import pytest
from pykickstart import constants
from pykickstart.errors import KickstartParseWarning
from support.trees import make_tree

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import BuilderError, CommitError, KickstartError
from rfe_helpers.sandbox.build import offline, tree
from rfe_helpers.sandbox.installer.edge_installer import plan

REF = "debian/13/x86_64/edge"
URL = "http://10.0.2.2:8000/repo/"
KEY = "ssh-ed25519 AAAA core@here"


def request(url: str = URL, **customizations: Any) -> tree.Request:
    blueprint = Blueprint(name="Installer", version="0.0.1", customizations=customizations)
    return tree.Request("1", "edge-installer", REF, blueprint, url=url)


def test_the_installer_can_carry_out_an_unattended_kickstart() -> None:
    install_plan = plan.parse(
        offline.osbuild_kickstart(
            request(
                installer={"unattended": True, "sudo-nopasswd": ["core", "%ops"]},
                group=[{"name": "ops", "gid": 4000}],
                user=[
                    {"name": "core", "password": "$6$h", "groups": ["wheel", "ops"], "key": KEY},
                    {"name": "plain", "description": "No Password"},
                ],
                sshkey=[{"user": "plain", "key": KEY}],
                timezone={"timezone": "Europe/Prague"},
                locale={"languages": ["cs_CZ.UTF-8"], "keyboard": "cz"},
            )
        )
    )
    assert install_plan.payload.url == "file:///run/install/repo/ostree/repo"
    assert install_plan.payload.ref == REF
    assert install_plan.disks.clear
    assert install_plan.end == "reboot"
    assert install_plan.groups == (("ops", "4000"),)
    core, plain = install_plan.users
    assert (core.password, core.hashed, core.groups) == ("$6$h", True, ("wheel", "ops"))
    assert (plain.password, plain.gecos) == (None, "No Password")
    assert install_plan.ssh_keys == (("core", KEY), ("plain", KEY))
    assert (install_plan.timezone, install_plan.language, install_plan.keyboard) == (
        "Europe/Prague",
        "cs_CZ.UTF-8",
        "cz",
    )
    posts = [script.script for script in install_plan.scripts_of(constants.KS_SCRIPT_POST)]
    assert "echo '%ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/50-blueprint-1" in posts[1]
    assert posts[-1].splitlines()[-1].endswith(f"edge {URL}")
    assert all(script.errorOnFail for script in install_plan.scripts)


def test_root_and_keys_of_several_lines() -> None:
    other = "ssh-ed25519 BBBB second@here"
    installer_request = request(
        installer={"unattended": True},
        user=[
            {"name": "root", "password": "$6$h", "key": f"{KEY}\n"},
            {"name": "core", "key": f"{KEY}\n{other}\n"},
        ],
    )
    with pytest.warns(KickstartParseWarning, match="already been defined"):
        install_plan = plan.parse(offline.osbuild_kickstart(installer_request))
    assert [user.name for user in install_plan.users] == ["core"], "root is there already"
    assert (install_plan.root.password, install_plan.root.hashed) == ("$6$h", True)
    assert install_plan.ssh_keys == (("root", KEY), ("core", KEY), ("core", other))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"user": [{"name": "root", "shell": "/bin/sh"}]}, "user.root: shell"),
        ({"user": [{"name": "core", "description": "a\u2028b"}]}, "several lines"),
    ],
)
def test_what_a_kickstart_cannot_express_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(BuilderError, match=words):
        offline.check({"installer": {"unattended": True}, **values})


def test_what_directives_cannot_express_is_done_by_a_script() -> None:
    install_plan = plan.parse(
        offline.osbuild_kickstart(
            request(
                installer={"unattended": True, "modules": {"enable": ["org.x"]}},
                user=[
                    {"name": "John", "expiredate": 20000, "home": "/home/john/"},
                    {"name": "j.doe", "force_password_reset": True},
                ],
                timezone={"timezone": "US/Eastern", "ntpservers": ["a.example", "10.0.0.1"]},
            )
        )
    )
    assert [user.name for user in install_plan.users] == ["John", "j.doe"]
    assert install_plan.users[0].home == "/home/john"
    script = install_plan.scripts_of(constants.KS_SCRIPT_POST)[0].script
    assert script.split("\n") == [
        "chage --expiredate 20000 John",
        "chage --lastday 0 j.doe",
        "mkdir -p /etc/systemd/timesyncd.conf.d",
        "printf '[Time]\\nNTP=a.example 10.0.0.1\\n' "
        "> /etc/systemd/timesyncd.conf.d/50-blueprint.conf",
        "",
    ]


def test_without_customizations_the_iso_waits_for_a_kickstart() -> None:
    text = offline.osbuild_kickstart(request())
    directives = [line.split()[0] for line in text.splitlines()]
    assert directives == ["ostreesetup", "%post", "ostree", "ostree", "%end"]
    (warning,) = offline.warnings({})
    assert "mkksiso" in warning
    assert offline.warnings({"installer": {"unattended": True}}) == []


@pytest.mark.parametrize(
    "accounts",
    [
        {"user": [{"name": "core"}]},
        {"group": [{"name": "ops"}]},
        {"sshkey": [{"user": "root", "key": KEY}]},
    ],
    ids=str,
)
def test_kickstart_contents_exclude_accounts_as_on_rhel(accounts: dict[str, Any]) -> None:
    with pytest.raises(BuilderError, match="in combination with users or groups"):
        offline.check({"installer": {"kickstart": {"contents": "text\n"}}, **accounts})


def test_kickstart_contents_in_the_blueprint_are_kept() -> None:
    contents = "autopart --type=plain\nzerombr\nclearpart --all\npoweroff\n"
    install_plan = plan.parse(
        offline.osbuild_kickstart(request(installer={"kickstart": {"contents": contents}}))
    )
    assert install_plan.end == "poweroff"
    assert install_plan.language is None
    assert len(install_plan.scripts) == 1


@pytest.mark.parametrize(
    ("installer", "error", "message"),
    [
        (
            {"unattended": True, "kickstart": {"contents": "text"}},
            BuilderError,
            "not supported in combination",
        ),
        ({"kickstart": {"contents": "explode\n"}}, KickstartError, "line 2: Unknown command"),
    ],
)
def test_what_cannot_become_a_kickstart_is_refused(
    installer: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        offline.osbuild_kickstart(request(installer=installer))


def test_the_payload_is_one_commit_of_one_ref(tmp_path: Path) -> None:
    origin = Repo(tmp_path / "origin").init()
    commits = [
        origin.commit_tar(
            make_tree(tmp_path / f"{text}.tar", {"usr/share/note": text}),
            REF,
            subject=text,
            version=text,
            packages=[],
        )
        for text in ("one", "two")
    ]
    work = tree.Work(tmp_path, tmp_path, tmp_path / "log", Deadline(60))
    commit = offline.fetch(request(f"file://{origin.path}"), tmp_path / "payload", work)
    assert commit == commits[-1]
    assert Repo(tmp_path / "payload").resolve(REF) == commit
    assert Repo(tmp_path / "payload").read(REF, "/usr/share/note") == "two"
    # A kernel, an initramfs and a note, a block each.
    assert offline.unpacked_bytes(Repo(tmp_path / "payload")) == 3 * 4096
    with pytest.raises(CommitError):
        offline.fetch(request(f"file://{tmp_path}/nowhere"), tmp_path / "other", work)
