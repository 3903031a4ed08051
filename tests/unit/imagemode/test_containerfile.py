"""A blueprint as a Containerfile: each part of it, and that no text becomes an instruction."""

import re
import shlex
import stat
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.containerfiles import (
    RHEL,
    SANDBOX,
    SYSUSERS,
    TMPFILES,
    TRANSLATED,
    instructions,
    runs,
)

from rfe_helpers.build import blueprint as blueprints
from rfe_helpers.build import templates
from rfe_helpers.build.blueprint import CUSTOMIZATIONS, Blueprint, PackageSpec
from rfe_helpers.errors import InputError, ProfileError
from rfe_helpers.fleet import description
from rfe_helpers.imagemode import ContextFile, Translation, translate, write
from rfe_helpers.lab import profile

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGwT3VrRAhjqVtpcYkPjC4i3cRdmLlvhN1vVXvMjYIKA me@home"
HASH = "$6$rounds=4096$hunter2salt$hunter2hash"


def custom(release: profile.Profile = RHEL, **customizations: Any) -> Translation:
    return translate(Blueprint("edge", customizations=customizations), release)


def content(translation: Translation, path: str) -> str:
    (text,) = [file.text for file in translation.files if file.path == path]
    return text


def keys(translation: Translation) -> set[str]:
    return {remark.key for remark in translation.remarks}


def test_the_smallest_blueprint_is_its_base_with_a_label_and_the_lint() -> None:
    translation = translate(Blueprint("edge"), RHEL)
    assert instructions(translation) == [
        ("FROM", "registry.redhat.io/rhel9/rhel-bootc:9.6"),
        ("LABEL", "containers.bootc=1"),
        ("RUN", "bootc container lint"),
    ]
    assert translation.files == translation.remarks == ()


def test_packages_have_the_versions_and_groups_of_the_packager() -> None:
    blueprint = Blueprint(
        "edge",
        packages=(PackageSpec("tmux"), PackageSpec("podman", "5.*"), PackageSpec("jq", "*")),
        modules=(PackageSpec("tmux"), PackageSpec("nginx", "1.2")),
        groups=("web",),
        enabled_modules=({"name": "nodejs", "stream": "20"},),
    )
    assert runs(translate(blueprint, RHEL))[:2] == [
        "dnf --assumeyes module enable nodejs:20",
        "dnf --assumeyes install tmux 'podman-5.*' jq nginx-1.2 @web && dnf clean all",
    ]
    translation = translate(blueprint, SANDBOX)
    assert runs(translation)[0] == (
        "apt-get update && apt-get install --yes --no-install-recommends tmux 'podman=5.*' jq "
        "nginx=1.2 task-web && rm -rf /var/lib/apt/lists/*"
    )
    assert keys(translation) == {"enabled_modules[0]"}


def test_a_pattern_of_names_is_dnfs_alone() -> None:
    blueprint = Blueprint("edge", packages=(PackageSpec("vim-*"),))
    assert "vim-*" in runs(translate(blueprint, RHEL))[0]
    assert keys(translate(blueprint, SANDBOX)) == {"packages[0]"}


@pytest.mark.parametrize("name", ["-y", "a b", "a;reboot", "a\nRUN x", "$(x)", "", "ä"])
def test_what_is_not_a_package_is_left_out(name: str) -> None:
    translation = translate(Blueprint("edge", packages=(PackageSpec(name),)), RHEL)
    assert runs(translation) == ["bootc container lint"]
    assert keys(translation) == {"packages[0]"}


def test_no_command_is_longer_than_a_shell_takes() -> None:
    specs = tuple(PackageSpec(f"package-{number:06}") for number in range(20_000))
    lines = runs(translate(Blueprint("edge", packages=specs), RHEL))
    assert len(lines) > 2
    assert max(map(len, lines)) < 128 * 1024
    assert sum(line.count("package-") for line in lines) == 20_000


def test_accounts_are_created_at_boot_and_keys_are_in_the_image() -> None:
    translation = custom(
        group=[{"name": "ops", "gid": 2000}],
        user=[
            {"name": "core", "description": "50 % of it", "groups": ["wheel"], "key": KEY},
            {"name": "app", "uid": 1001, "gid": 2000, "home": "/srv/app", "shell": "/bin/sh"},
        ],
        sshkey=[{"user": "root", "key": f"{KEY}\n{KEY}2\n"}],
    )
    assert content(translation, SYSUSERS).splitlines() == [
        "g ops 2000",
        'u core 1000 "50 %% of it" /home/core /bin/bash',
        "m core wheel",
        "u app 1001:2000 - /srv/app /bin/sh",
    ]
    assert content(translation, TMPFILES).splitlines() == [
        "d /var/home/core 0700 core core -",
        "d /var/srv/app 0700 app 2000 -",
    ]
    assert content(translation, "rootfs/usr/ssh/core.keys") == f"{KEY}\n"
    assert content(translation, "rootfs/usr/ssh/root.keys") == f"{KEY}\n{KEY}2\n"
    drop_in = content(translation, "rootfs/etc/ssh/sshd_config.d/30-blueprint.conf")
    assert "AuthorizedKeysFile /usr/ssh/%u.keys .ssh/authorized_keys" in drop_in
    (remark,) = translation.remarks
    assert "core 1000" in remark.why


def test_root_and_a_group_by_number() -> None:
    users = [{"name": "root", "shell": "/bin/zsh"}, {"name": "a", "uid": 7, "gid": 8}]
    translation = custom(user=users)
    assert content(translation, SYSUSERS) == "g a 8\nu a 7:8 - /home/a /bin/bash\n"
    assert keys(translation) == {"customizations.user[0]"}


def test_a_number_that_another_account_has_is_not_given() -> None:
    users = [{"name": "a"}, {"name": "b", "uid": 1000}, {"name": "c"}]
    lines = content(custom(user=users), SYSUSERS).splitlines()
    assert [line.split()[1:3] for line in lines] == [["a", "1001"], ["b", "1000"], ["c", "1002"]]


def test_no_secret_is_written() -> None:
    private = "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n"
    translation = custom(
        user=[
            {"name": "core", "uid": 1000, "password": HASH, "expiredate": 3},
            {"name": "root", "password": "hunter2", "key": private},
        ],
        installer={"kickstart": {"contents": "rootpw hunter2\n"}},
    )
    assert "hunter2" not in str(translation)
    assert keys(translation) == {
        "customizations.user[0].password",
        "customizations.user[0].expiredate",
        "customizations.user[1].password",
        "customizations.user[1].key",
        "customizations.installer",
    }


@pytest.mark.parametrize(
    "name", ["", "a b", "x:y", "a\nu root 0", "-x", "ü", "a" * 32, "%u", "../x"]
)
def test_what_is_not_a_name_makes_no_account(name: str) -> None:
    translation = custom(
        user=[{"name": name, "key": KEY}],
        group=[{"name": name}],
        sshkey=[{"user": name, "key": KEY}],
    )
    assert translation.files == ()
    assert {"customizations.user[0]", "customizations.group[0]"} <= keys(translation)


def test_files_are_copied_with_their_modes_and_get_their_owners_at_boot() -> None:
    translation = custom(
        files=[
            {"path": "/etc/motd", "data": "hi $USER\n"},
            {"path": '/etc/a "b"\\%*', "data": "\\\n'\"", "mode": "0600", "user": "core"},
            {"path": "/bin/hello", "data": "#!/bin/sh\n", "mode": "755"},
            {"path": "/root/.profile", "data": "x", "group": 5},
        ],
        directories=[
            {"path": "/etc/app", "mode": "0750", "group": "app"},
            {"path": "/usr/share/app"},
            {"path": "/var/lib/app"},
        ],
    )
    modes = {file.path: file.mode for file in translation.files}
    assert modes == {
        "rootfs/etc/motd": 0o644,
        'rootfs/etc/a "b"\\%*': 0o600,
        "rootfs/usr/bin/hello": 0o755,
        "rootfs/usr/share/factory/var/roothome/.profile": 0o644,
        TMPFILES: 0o644,
    }
    lines = content(translation, TMPFILES).splitlines()
    assert [shlex.split(line)[1:] for line in lines] == [
        ['/etc/a \\"b\\"\\\\%%\\*'.replace('\\"', '"'), "0600", "core", "root", "-"],
        ["/var/roothome/.profile", "0644", "root", "5", "-"],
        ["/etc/app", "0750", "root", "app", "-"],
        ["/var/lib/app", "0755", "root", "root", "-"],
    ]
    assert [line[0] for line in lines] == ["z", "C", "d", "d"]
    assert runs(translation)[0] == "install --directory --mode=0755 /usr/share/app"
    assert keys(translation) == {"customizations.files[3]"}


def test_usr_local_is_of_the_machine_in_the_sandbox_and_of_the_image_elsewhere() -> None:
    entries = [{"path": "/usr/local/bin/tool", "data": "x", "mode": "0755"}]
    assert custom(files=entries).files[0].path == "rootfs/usr/local/bin/tool"
    translation = custom(SANDBOX, files=entries)
    assert translation.files[1].path == "rootfs/usr/share/factory/var/usrlocal/bin/tool"
    assert content(translation, TMPFILES) == "C /var/usrlocal/bin/tool 0755 root root -\n"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        "/usr/etc/x",
        "/run/x",
        "/boot/x",
        "/etc",
        "/home",
        "relative",
        "/etc/../x",
        "/etc/a\nb",
        "/etc/\udc80",
        f"/etc/{'x' * 256}",
        f"/etc/{'x/' * 2000}y",
    ],
)
def test_what_an_image_cannot_bring_is_a_remark(path: str) -> None:
    translation = custom(files=[{"path": path, "data": "x"}], directories=[{"path": path}])
    assert translation.files == ()
    assert keys(translation) == {"customizations.files[0]", "customizations.directories[0]"}


def test_the_first_of_two_files_at_one_place_wins() -> None:
    paths = ["/etc/a", "/etc/a", "/etc/a/b", "/etc/c/d", "/etc/c", "/etc/hostname"]
    translation = custom(
        files=[{"path": path, "data": str(number)} for number, path in enumerate(paths)],
        directories=[{"path": "/etc/a/x"}],
        hostname="edge",
    )
    assert [(file.path, file.text) for file in translation.files] == [
        ("rootfs/etc/a", "0"),
        ("rootfs/etc/c/d", "3"),
        ("rootfs/etc/hostname", "5"),
    ]
    assert keys(translation) == {
        *(f"customizations.files[{number}]" for number in (1, 2, 4)),
        "customizations.directories[0]",
        "customizations.hostname",
    }


def test_kernel_arguments_are_a_file_of_bootc() -> None:
    translation = custom(kernel={"append": 'console=ttyS0  a="b c"', "name": "kernel"})
    text = content(translation, "rootfs/usr/lib/bootc/kargs.d/10-blueprint.toml")
    assert tomllib.loads(text) == {"kargs": ["console=ttyS0", 'a="b c"']}
    assert translation.remarks == ()
    assert keys(custom(kernel={"append": 'a="b', "name": "kernel-rt"})) == {
        "customizations.kernel.append",
        "customizations.kernel.name",
    }


def test_services_time_locale_and_firewall() -> None:
    parts: dict[str, Any] = {
        "services": {"enabled": ["a.service", "b@x\\x2d1.timer"], "masked": ["-x", "c"]},
        "timezone": {"timezone": "Europe/Berlin", "ntpservers": ["ntp.example"]},
        "locale": {"languages": ["de_DE.UTF-8", "C.UTF-8"], "keyboard": "de-nodeadkeys"},
        "firewall": {
            "ports": ["22:tcp", "nonsense"],
            "services": {"enabled": ["http"], "disabled": ["cockpit"]},
            "zones": [{"name": "edge", "sources": ["10.0.0.0/8"]}],
        },
    }
    translation = custom(**parts)
    assert runs(translation) == [
        "dnf --assumeyes install glibc-langpack-de firewalld && dnf clean all",
        "ln --symbolic --force ../usr/share/zoneinfo/Europe/Berlin /etc/localtime",
        r"printf '%s\n' 'server ntp.example iburst' >> /etc/chrony.conf",
        r"systemctl enable a.service 'b@x\x2d1.timer'",
        "systemctl mask c",
        "firewall-offline-cmd --add-port=22/tcp --add-service=http --remove-service=cockpit",
        "firewall-offline-cmd --info-zone=edge || firewall-offline-cmd --new-zone=edge",
        "firewall-offline-cmd --zone=edge --add-source=10.0.0.0/8",
        "systemctl enable firewalld.service",
        "bootc container lint",
    ]
    assert content(translation, "rootfs/etc/locale.conf") == "LANG=de_DE.UTF-8\n"
    assert keys(translation) == {
        "customizations.services.masked",
        "customizations.firewall.ports",
    }
    files = {file.path: file.text for file in custom(SANDBOX, **parts).files}
    assert files["rootfs/etc/timezone"] == "Europe/Berlin\n"
    assert "NTP=ntp.example" in files["rootfs/etc/systemd/timesyncd.conf.d/50-blueprint.conf"]


def test_certificates_of_authorities() -> None:
    translation = custom(cacerts={"pem_certs": ["-----BEGIN CERTIFICATE-----\nx\n"]})
    (file,) = translation.files
    assert file.path == "rootfs/etc/pki/ca-trust/source/anchors/blueprint-1.pem"
    assert runs(translation)[0] == "update-ca-trust"
    assert keys(custom(SANDBOX, cacerts={"pem_certs": ["x"]})) == {"customizations.cacerts"}


@pytest.mark.parametrize("part", sorted(set(CUSTOMIZATIONS) - TRANSLATED))
def test_every_other_part_says_what_to_do_instead(part: str) -> None:
    (remark,) = custom(**{part: {"x": "y"}}).remarks
    assert remark.key == f"customizations.{part}"
    assert remark.why
    assert remark.instead


def test_parts_at_the_top_and_unknown_keys() -> None:
    blueprint = Blueprint(
        "edge",
        distro="rhel-9.6",
        architecture="aarch64",
        containers=({"source": "registry.example/app"},),
        other={"minimal": True, "hostname": "misplaced"},
        customizations={"unheard": 1, "fips": False},
    )
    assert keys(translate(blueprint, RHEL)) == {
        "distro",
        "architecture",
        "containers",
        "minimal",
        "hostname",
        "customizations.unheard",
    }


@pytest.mark.parametrize("release", ["sandbox", "rhel-9.4", "rhel-10.1", "centos-stream-9"])
def test_the_blueprints_of_the_workbook_lose_little(release: str) -> None:
    facts = profile.load(release)
    for blueprint in (blueprints.parse_toml(templates.text("edge")), description.demo(facts)):
        translation = translate(blueprint, facts)
        assert translation.remarks == ()
        assert instructions(translation)[0] == ("FROM", facts.image_mode.base)


def test_a_large_blueprint_takes_a_moment() -> None:
    """It is quick as long as nothing in it is quadratic."""
    number = 20_000
    customizations = {
        "files": [{"path": f"/etc/a/{n}", "data": "x"} for n in range(number)],
        "user": [{"name": f"u{n}", "gid": 5000 + n} for n in range(number)],
    }
    began = time.monotonic()
    translation = translate(Blueprint("large", customizations=customizations), RHEL)
    assert len(translation.files) == number + 2
    assert time.monotonic() - began < 20


def test_a_base_of_ones_own() -> None:
    for base in ("localhost/x", "127.0.0.1:5000/a/b:1", f"quay.io/a@sha256:{'0' * 64}"):
        assert instructions(translate(Blueprint("x"), RHEL, base=base))[0] == ("FROM", base)
    for base in ("a b", "x\nRUN y", "UPPER/Case", "-x", "a:b:c", "${X}", "x" * 600):
        with pytest.raises(InputError, match="is not the name of an image"):
            translate(Blueprint("x"), RHEL, base=base)


def test_a_release_without_image_mode_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"8\.10 has no image mode") as caught:
        translate(Blueprint("x"), profile.load("rhel-8.10"))
    assert "rfe imagemode plan" in caught.value.remedy


# the directory ------------------------------------------------------------------------------------


def translation_with_files() -> Translation:
    return custom(files=[{"path": "/etc/a b", "data": "é\n", "mode": "0600"}], hostname="edge")


def test_a_context_is_written_whole_whatever_the_umask_is(tmp_path: Path) -> None:
    translation, target = translation_with_files(), tmp_path / "new" / "image"
    write(translation, target)
    assert (target / "Containerfile").read_text() == translation.containerfile
    for file in translation.files:
        path = target / file.path
        assert path.read_text(encoding="utf-8") == file.text
        assert stat.S_IMODE(path.stat().st_mode) == file.mode
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert [path.name for path in target.parent.iterdir()] == ["image"]
    write(translation, target)


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    write(translation_with_files(), tmp_path)
    assert (tmp_path / "Containerfile").is_file()


@pytest.mark.parametrize("change", ["more", "less", "other", "link"])
def test_a_directory_with_other_files_stays_as_it_is(tmp_path: Path, change: str) -> None:
    translation = translation_with_files()
    write(translation, tmp_path)
    hostname = tmp_path / "rootfs/etc/hostname"
    if change == "more":
        (tmp_path / "mine").write_text("x")
    else:
        hostname.unlink()
    if change == "other":
        hostname.write_text("EDGE\n")
    if change == "link":
        hostname.symlink_to("/etc/hostname")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="not empty, and nothing in it was changed"):
        write(translation, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_earlier_context_is_replaced_if_that_is_said(tmp_path: Path) -> None:
    target = tmp_path / "context"
    translation = translation_with_files()
    write(translation, target)
    (target / "rootfs/etc/hostname").unlink()
    (target / "rootfs/etc/old").write_text("x")
    write(translation, target, replace=True)
    assert (target / "rootfs/etc/hostname").is_file()
    assert not (target / "rootfs/etc/old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["context"]
    (target / "Containerfile").rename(target / "mine")
    with pytest.raises(InputError, match="nothing in it was changed"):
        write(translation, target, replace=True)


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is not a directory"):
        write(translation_with_files(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_context_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    broken = replace(translation_with_files(), files=(ContextFile(f"rootfs/{'x' * 300}", "text"),))
    with pytest.raises(OSError, match="too long"):
        write(broken, tmp_path / "image")
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_the_guide_is_what_comes_of_it() -> None:
    text = (Path(__file__).parents[3] / "docs/image-mode.md").read_text()
    (blueprint,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (containerfile,) = re.findall(r"^```dockerfile\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    parsed = blueprints.parse_toml(blueprint)
    assert translate(parsed, profile.load("rhel-9.8")).containerfile == containerfile
