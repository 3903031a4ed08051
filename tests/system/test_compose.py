"""A real compose with every customization, read back out of the commit."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support import image_registry, sandbox_service

from rfe_helpers.build.blueprint import Blueprint
from rfe_helpers.commit import oci
from rfe_helpers.commit.commit import open_commit
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import memory, run
from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import CommandFailedError
from rfe_helpers.lab.cache import cache_directory
from rfe_helpers.sandbox.build import artifacts, base, mmdebstrap, tree
from rfe_helpers.sandbox.service.packages import Index

pytestmark = pytest.mark.slow

REF = "debian/13/x86_64/edge"
PARENT = "a" * 64
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk me@here"
CUSTOMIZATIONS = {
    "hostname": "station-7",
    "timezone": {"timezone": "US/Eastern", "ntpservers": ["ntp.example.com"]},
    "locale": {"languages": ["C.UTF-8"], "keyboard": "us"},
    "group": [{"name": "operators", "gid": 1500}],
    "user": [
        {
            "name": "admin",
            "description": "The administrator",
            "password": "$6$salt$notarealhash",
            "key": KEY,
            "uid": 1600,
            "groups": ["wheel", "operators"],
        },
        {"name": "John", "description": "Smith,\u2028a line\u0085or two", "home": "/home/js"},
        {"name": "j.doe", "description": "50 %h \\", "uid": 600},
    ],
    "sshkey": [{"user": "root", "key": KEY}],
    "directories": [{"path": "/etc/app/conf.d", "mode": "0750", "ensure_parents": True}],
    "files": [
        {"path": "/etc/app/settings", "data": "speed=9\n", "mode": "0600"},
        # what is a link in the tree
        {"path": "/etc/alternatives/awk", "data": "mine\n"},
        {"path": "/etc/systemd/system/sshd.service", "data": "[Unit]\n"},
        {"path": "/etc/os-release", "data": "NAME=mine\n"},
        # what belongs to a single machine, unless a blueprint says otherwise
        {"path": "/etc/resolv.conf", "data": "nameserver 192.0.2.1\n"},
        {"path": "/etc/ssh/ssh_host_ed25519_key.pub", "data": "key\n"},
        {"path": "/usr/local/bin/a\\b", "data": "#!/bin/sh\n", "mode": "755"},
    ],
    "firewall": {"ports": ["8080:tcp"], "services": {"enabled": ["https"]}},
    "services": {"enabled": ["systemd-timesyncd.service"], "masked": ["apt-daily.service"]},
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tree.Work:
    directory = tmp_path_factory.mktemp("compose")
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    return tree.Work(directory, cache, directory / "build.log", Deadline(1200))


def two_layers(directory: Path) -> Path:
    """An image whose second layer deletes a file of the first (OCI image specification)."""
    files = {"first": ("etc/kept", "etc/gone"), "second": ("etc/.wh.gone",)}

    def fill(names: tuple[str, ...]) -> Callable[[tarfile.TarFile], None]:
        def add(tar: tarfile.TarFile) -> None:
            oci.add_directory(tar, "etc", 0o755)
            for name in names:
                oci.add_file(tar, name, b"" if ".wh." in name else b"x\n")

        return add

    layers = [
        oci.write_layer(directory / f"{key}.tar.gz", fill(names), compression=1)
        for key, names in files.items()
    ]
    oci.write_archive(directory / "image.tar", layers, {}, created_by="test")
    return directory / "image.tar"


@pytest.fixture(scope="module")
def repository(work: tree.Work, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The repository out of the commit.tar of a compose with all customizations."""
    image = two_layers(tmp_path_factory.mktemp("image"))
    with image_registry.serving(image) as name:
        source = {"source": f"{name}:1", "name": "registry.example/app:1", "tls-verify": False}
        blueprint = Blueprint(
            name="Edge", version="0.0.1", customizations=CUSTOMIZATIONS, containers=(source,)
        )
        request = tree.Request(
            id="1",
            image_type="edge-commit",
            ref=REF,
            blueprint=blueprint,
            packages=("htop", "nano=8.*"),
            parent=PARENT,
        )
        artifact = artifacts.build(request, work)
    target = tmp_path_factory.mktemp("unpacked")
    # Not with tarfile: Debian 12's Python 3.11.2 has no filter for it yet.
    run.run(["tar", "-xf", artifact, "-C", target])
    return Repo(target / "repo")


def _working_directories() -> set[Path]:
    return {p for place in (memory.DISK, memory.SHARED) for p in place.glob("rfe-tree-*")}


def lines(repository: Repo, path: str) -> list[str]:
    return repository.read(REF, path).splitlines()


def test_the_commit_names_its_parent_version_and_packages(repository: Repo) -> None:
    info = repository.show(REF)
    assert info.parent == PARENT
    assert info.refs == (REF,)
    assert info.version.startswith("13.")
    names = {package.name for package in info.packages}
    assert {"htop", "nano", "ostree", "systemd"} <= names
    repository.fsck()


def test_depsolve_lists_the_packages_of_the_commit(repository: Repo, tmp_path: Path) -> None:
    specs = [{"name": "htop"}, {"name": "nano", "version": "8.*"}]
    index = Index(cache_directory())
    with sandbox_service.running(tmp_path, index, base=base.WORDS) as service:
        service.push(packages=specs, customizations=CUSTOMIZATIONS)
        answer = service.ask("GET /api/v1/blueprints/depsolve/Edge").json
    dependencies = answer["blueprints"][0]["dependencies"]
    packages = repository.show(REF).packages
    assert {each["name"] for each in dependencies} == {package.name for package in packages}
    # Those of the base may be a few days older than the index.
    versions = {each["name"]: each["version"] for each in dependencies}
    for package in packages:
        if package.name in ("htop", "nano"):
            assert versions[package.name] == package.version


def test_users_groups_and_keys(repository: Repo) -> None:
    passwd = {line.split(":")[0]: line for line in lines(repository, "/usr/etc/passwd")}
    assert passwd["admin"].startswith("admin:x:1600:")
    assert "The administrator" in passwd["admin"]
    groups = {line.split(":")[0]: line for line in lines(repository, "/usr/etc/group")}
    assert groups["operators"] == "operators:x:1500:admin"
    assert "admin" in groups["wheel"]
    shadow = {line.split(":")[0]: line for line in lines(repository, "/usr/etc/shadow")}
    assert shadow["admin"].split(":")[1] == "$6$salt$notarealhash"
    for home in ("home/admin", "roothome"):
        path = f"/usr/share/factory/var/{home}/.ssh/authorized_keys"
        assert lines(repository, path) == [KEY]
    created = lines(repository, "/usr/lib/tmpfiles.d/zz-edge-var.conf")
    assert 'C "/var/home/admin/.ssh/authorized_keys" 0600 1600 1600 - -' in created
    assert 'd "/var/home/admin/.ssh" 0700 1600 1600 - -' in created


def test_the_rest_of_the_customizations(repository: Repo) -> None:
    assert lines(repository, "/usr/etc/hostname") == ["station-7"]
    assert lines(repository, "/usr/etc/locale.conf") == ["LANG=C.UTF-8"]
    assert lines(repository, "/usr/etc/vconsole.conf") == ["KEYMAP=us"]
    entries = {entry.path: entry for entry in repository.ls(REF, "/usr/etc")}
    assert entries["/usr/etc/localtime"].target.endswith("zoneinfo/US/Eastern")
    zones = repository.ls(REF, "/usr/share/zoneinfo/US", recursive=False)
    assert "/usr/share/zoneinfo/US/Eastern" in {entry.path for entry in zones}
    assert entries["/usr/etc/app/conf.d"].mode & 0o7777 == 0o750
    assert entries["/usr/etc/app/settings"].mode & 0o7777 == 0o600
    assert lines(repository, "/usr/etc/app/settings") == ["speed=9"]
    assert entries["/usr/etc/systemd/system/apt-daily.service"].target == "/dev/null"
    wanted = "/usr/etc/systemd/system/sysinit.target.wants/systemd-timesyncd.service"
    assert wanted in entries


def test_the_tree_is_laid_out_for_ostree(repository: Repo) -> None:
    top = {entry.path: entry for entry in repository.ls(REF, "/", recursive=False)}
    assert top["/home"].target == "var/home"
    assert top["/ostree"].target == "sysroot/ostree"
    assert "/etc" not in top
    assert repository.ls(REF, "/var") == [top["/var"]]
    assert repository.ls(REF, "/boot") == [top["/boot"]]
    (modules,) = repository.ls(REF, "/usr/lib/modules", recursive=False)[1:]
    kernel = {entry.path for entry in repository.ls(REF, modules.path, recursive=False)}
    assert {f"{modules.path}/vmlinuz", f"{modules.path}/initramfs.img"} <= kernel
    assert lines(repository, "/usr/etc/machine-id") == []
    sysusers = lines(repository, "/usr/lib/sysusers.d/zz-edge.conf")
    assert any(line.startswith("u systemd-network ") for line in sysusers)


def test_documentation_is_left_out_of_packages_but_their_licences(repository: Repo) -> None:
    paths = {entry.path for entry in repository.ls(REF, "/usr/share/doc")}
    # One of the packages that mmdebstrap itself unpacks, one that dpkg does, and one that is added.
    for package in ("bash", "ostree", "htop"):
        assert f"/usr/share/doc/{package}/copyright" in paths
        others = [path for path in paths if path.startswith(f"/usr/share/doc/{package}/")]
        assert others == [f"/usr/share/doc/{package}/copyright"]
    assert not [entry for entry in repository.ls(REF, "/usr/share/man") if entry.kind == "file"]


def test_a_container_is_embedded_where_podman_looks_for_it(repository: Repo) -> None:
    store = "/usr/share/containers/storage"
    (image,) = json.loads(repository.read(REF, f"{store}/overlay-images/images.json"))
    assert image["names"] == ["registry.example/app:1"]
    paths = [entry.path for entry in repository.ls(REF, f"{store}/overlay")]
    assert [path for path in paths if path.endswith("/diff/etc/kept")]
    # a whiteout, which ostree makes again when it deploys
    assert [path for path in paths if path.endswith("/diff/etc/.ostree-wh.gone")]
    assert store in repository.read(REF, "/usr/etc/containers/storage.conf")


def test_the_firewall_is_set_up_and_enabled(repository: Repo) -> None:
    zone = repository.read(REF, "/usr/etc/firewalld/zones/public.xml")
    assert '<port port="8080" protocol="tcp"/>' in zone
    assert '<service name="https"/>' in zone
    enabled = repository.ls(REF, "/usr/etc/systemd/system/multi-user.target.wants")
    assert "firewalld.service" in {Path(entry.path).name for entry in enabled}


def test_files_replace_links_and_leave_what_these_point_at(repository: Repo) -> None:
    entries = {entry.path: entry for entry in repository.ls(REF, "/usr")}
    for path in ("alternatives/awk", "systemd/system/sshd.service", "os-release"):
        assert entries[f"/usr/etc/{path}"].target == ""
    assert lines(repository, "/usr/etc/alternatives/awk") == ["mine"]
    assert entries["/usr/bin/mawk"].size > 100_000
    assert "ExecStart=/usr/sbin/sshd -D $SSHD_OPTS" in lines(
        repository, "/usr/lib/systemd/system/ssh.service"
    )
    assert "VARIANT_ID=edge" in lines(repository, "/usr/lib/os-release")


def test_files_that_usually_belong_to_a_single_machine_are_kept(repository: Repo) -> None:
    assert lines(repository, "/usr/etc/resolv.conf") == ["nameserver 192.0.2.1"]
    assert lines(repository, "/usr/etc/ssh/ssh_host_ed25519_key.pub") == ["key"]
    keys = {entry.path for entry in repository.ls(REF, "/usr/etc/ssh")}
    assert "/usr/etc/ssh/ssh_host_ed25519_key" not in keys


def test_odd_names_and_comments_are_taken_literally(repository: Repo) -> None:
    passwd = repository.read(REF, "/usr/etc/passwd").split("\n")
    assert any(":Smith,\u2028a line\u0085or two:/home/js:" in line for line in passwd)
    sysusers = repository.read(REF, "/usr/lib/sysusers.d/zz-edge.conf").split("\n")
    (described,) = [line for line in sysusers if line.startswith("u j.doe ")]
    assert '"50 %%h \\\\"' in described
    created = lines(repository, "/usr/lib/tmpfiles.d/zz-edge-var.conf")
    assert 'C "/var/usrlocal/bin/a\\\\b" 0755 0 0 - -' in created


def test_nothing_secret_stays_in_the_work_directory(work: tree.Work, repository: Repo) -> None:
    left = [path for path in work.directory.rglob("*") if path.is_file()]
    assert not [path for path in left if path.suffix != ".tar" and b"$6$salt" in path.read_bytes()]


def test_a_package_that_is_not_there_ends_in_apts_words(work: tree.Work) -> None:
    wanted = Blueprint(name="Edge", version="0.0.1")
    request = tree.Request(
        id="2", image_type="edge-commit", ref=REF, blueprint=wanted, packages=("no-such-thing",)
    )
    before = _working_directories()
    with pytest.raises(CommandFailedError, match="Unable to locate package no-such-thing"):
        artifacts.build(request, work)
    left = _working_directories() - before
    assert not left, "the temporary tree is left"


def test_a_container_without_a_parent_has_a_delta_for_installations(work: tree.Work) -> None:
    blueprint = Blueprint(name="Edge", version="0.0.1")
    # Refs of which one is the beginning of the other, as those of two labs may be.
    for ref, parent in ((REF, None), (f"{REF}/stable", PARENT)):
        request = tree.Request("4", "edge-container", ref, blueprint, parent=parent)
        commit = open_commit(artifacts.build(request, work), ref)
        delta = commit.repository.delta_directory(None, commit.id)
        assert delta.exists() == (parent is None)
        assert commit.info.refs == (ref,)
        assert not commit.repository.refs().keys() - {ref}


def test_the_commit_of_the_base_is_made_again_where_only_its_tree_is_left(work: tree.Work) -> None:
    shared = base.in_cache(work.cache)
    for _ in range(2):
        (shared.directory / "trees.json").unlink(missing_ok=True)
        assert tree.lacks_base_commit(shared), "no overlay can be mounted here"
        tree.commit_base(work, shared)
        assert not tree.lacks_base_commit(shared)


def test_a_tree_laid_over_the_base_is_what_is_built_without_an_overlay(
    work: tree.Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blueprint = Blueprint(name="Edge", version="0.0.1", customizations=CUSTOMIZATIONS)
    request = tree.Request(
        "3", "edge-commit", REF, blueprint, packages=("iputils-ping", "cron"), version="13.1"
    )
    kept = base.in_cache(work.cache).directory / "recent"

    def content() -> set[str]:
        for recent in kept.glob("*.json"):
            recent.unlink()
        repository = Repo(tmp_path / "repo").init("archive")
        commit = tree.commit(request, work, repository)
        listing = run.run(["ostree", f"--repo={repository.path}", "ls", "-R", "-C", "-X", commit])
        return set(listing.stdout.splitlines())

    laid_over = content()
    assert "pack what is new" in work.log.read_text(), "no overlay can be mounted here"
    monkeypatch.setattr(mmdebstrap, "can_lay_over", lambda base: False)
    assert content() == laid_over
