"""The package index on a repository of five packages, with the real apt."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from support import sandbox_service
from support.sandbox_service import web_server

from rfe_helpers.build.blueprint import PackageSpec
from rfe_helpers.core import run
from rfe_helpers.errors import BuilderError
from rfe_helpers.sandbox.service import packages, sources
from rfe_helpers.sandbox.service.packages import AptPackage, Index

NEWER_TMUX = """\
Package: tmux
Version: 3.6-1
Architecture: amd64
Description: terminal multiplexer

Package: site-tool
Version: 1.0
Architecture: all
Depends: tmux
Description: only at this site
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("repository")
    sandbox_service.debian_repository(directory / "debian")
    sandbox_service.debian_repository(directory / "site", NEWER_TMUX)
    return directory


@pytest.fixture(scope="module")
def index(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    one_line = f"deb [trusted=yes] file:{repository}/debian trixie main"
    return Index(tmp_path_factory.mktemp("cache"), one_line)


def _contents(directory: Path) -> dict[str, bytes]:
    """The files of a directory by their paths on a web server."""
    return {
        f"/{path.relative_to(directory)}": path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def words(index: Index, *specs: tuple[str, str]) -> list[str]:
    return index.resolve([PackageSpec(*spec) for spec in specs])


def test_names_are_sorted_and_match_globs(index: Index) -> None:
    assert index.names()[0] == "libevent-core-2.1-7t64"
    assert index.names(["*mu*", "vim-*", "nothing*"]) == ["tmux", "vim-tiny"]


def test_a_version_is_taken_apart() -> None:
    vim = AptPackage("vim-tiny", "2:9.1.1230-2+deb13u2", "x86_64")
    assert (vim.epoch, vim.version, vim.release) == (2, "9.1.1230", "2+deb13u2")
    assert vim.evra == "2:9.1.1230-2+deb13u2.x86_64"
    native = AptPackage("base-files", "13.8", "noarch")
    assert (native.epoch, native.version, native.release) == (0, "13.8", "")
    assert native.evra == "13.8.noarch"
    assert "release" not in native.to_dependency()


@pytest.mark.parametrize("version", ["3.*", "3.5a", "3.5a-3", "3.5a-3.x86_64", "3.[45]*", "*-3"])
def test_version_globs_become_exact_versions(index: Index, version: str) -> None:
    assert words(index, ("tmux", version)) == ["tmux=3.5a-3"]


def test_an_epoch_may_be_given_or_left_out(index: Index) -> None:
    for version in ("2:9.1.1230-2", "9.1.*", "2:9.1.1230-2.x86_64"):
        assert words(index, ("vim-tiny", version)) == ["vim-tiny=2:9.1.1230-2"]


def test_any_version_stays_open_and_name_globs_are_expanded(index: Index) -> None:
    assert words(index, ("tmux", "*"), ("tmux", "")) == ["tmux"]
    assert words(index, ("linux-image-*", "*")) == ["linux-image-amd64", "linux-image-cloud-amd64"]
    assert words(index, ("editor", "")) == ["editor"]


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("no-such-package", ""),
        ("no-such-*", ""),
        ("tmux", "4.*"),
        ("tmux-", ""),
        ("-o=Dir::Etc=/", ""),
        ("./x.deb", ""),
        ("?all", ""),
        ("tmux/trixie", ""),
        ("tmu.", ""),
        ("tmux\nvim-tiny", ""),
    ],
)
def test_unknown_names_and_what_apt_would_take_for_an_option_are_refused(
    index: Index, name: str, version: str
) -> None:
    with pytest.raises(BuilderError, match="no package "):
        words(index, (name, version))


def test_more_packages_than_fit_on_a_command_line_are_refused(tmp_path: Path) -> None:
    many = "".join(
        f"Package: {'p' * 30}{number}\nVersion: 1\nArchitecture: all\nDescription: x\n\n"
        for number in range(4000)
    )
    index = Index(tmp_path / "cache", sandbox_service.debian_repository(tmp_path / "d", many))
    with pytest.raises(BuilderError, match="4000 packages are more than can be requested"):
        words(index, ("*", ""))


def test_depsolve_uses_the_solver_of_apt(index: Index) -> None:
    packages = index.depsolve(words(index, ("tmux", "")))
    assert [package.evra for package in packages] == ["2.1.12-stable-10.x86_64", "3.5a-3.x86_64"]
    assert index.depsolve(["editor"])[0].name == "vim-tiny"


def test_additional_sources_take_part(index: Index, repository: Path) -> None:
    with web_server(_contents(repository / "site")) as address:
        source = {"type": "yum-baseurl", "url": f"{address} trixie main", "check_gpg": False}
        extra = [sources.deb822(source)]
        assert "site-tool" in index.names((), extra)
        assert "site-tool" not in index.names()
        both = index.versions(["tmux"], extra)[0]
        assert {package.version for package in both} == {"3.5a", "3.6"}
        assert index.resolve([PackageSpec("tmux", "3.*")], extra) == ["tmux=3.6-1"]
        solved = index.depsolve(["site-tool"], extra)
    assert [package.evra for package in solved] == ["1.0.noarch", "3.6-1.x86_64"]


def test_without_any_index_the_error_names_the_remedy(tmp_path: Path) -> None:
    index = Index(tmp_path, f"deb [trusted=yes] file:{tmp_path}/nothing trixie main")
    with pytest.raises(BuilderError, match="the package index cannot be fetched") as failure:
        index.names()
    assert "RFE_DEBIAN_MIRROR" in failure.value.remedy


def test_an_old_index_serves_when_there_is_no_network(tmp_path: Path) -> None:
    sandbox_service.debian_repository(tmp_path / "debian")
    with web_server(_contents(tmp_path / "debian")) as address:
        one_line = f"deb [trusted=yes] {address} trixie main"
        names = Index(tmp_path / "cache", one_line).names()
    for path in (tmp_path / "cache" / "apt").glob("*/index.sqlite"):
        os.utime(path, (time.time() - 90_000,) * 2)
    later = Index(tmp_path / "cache", one_line)
    assert later.names() == names
    assert later.depsolve(["tmux"])


def test_an_old_index_is_fetched_again(tmp_path: Path) -> None:
    one_line = sandbox_service.debian_repository(tmp_path / "debian")
    index = Index(tmp_path / "cache", one_line)
    assert "site-tool" not in index.names()
    shutil.rmtree(tmp_path / "debian")
    sandbox_service.debian_repository(tmp_path / "debian", NEWER_TMUX)
    for path in (tmp_path / "cache" / "apt").glob("*/index.sqlite"):
        os.utime(path, (time.time() - 90_000,) * 2)
    assert index.names() == ["site-tool", "tmux"]


def test_signatures_of_additional_sources_are_checked(
    index: Index,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> None:
    sandbox_service.debian_repository(tmp_path / "site", NEWER_TMUX)
    key, other = (_SigningKey(tmp_path_factory.mktemp("gpg")) for _ in range(2))
    request.addfinalizer(key.close)
    request.addfinalizer(other.close)
    release = tmp_path / "site" / "dists" / "trixie" / "Release"
    with web_server(contents := _contents(tmp_path / "site")) as address:

        def names(*keys: str) -> list[str]:
            source = {"type": "yum-baseurl", "url": f"{address} trixie main", "check_gpg": True}
            return index.names((), [sources.deb822({**source, "gpgkeys": list(keys)})])

        with pytest.raises(BuilderError, match="not signed"):
            names(key.public)
        contents["/dists/trixie/InRelease"] = key.sign(release)
        assert "site-tool" in names(key.public, other.public)
        with pytest.raises(BuilderError, match=r"(?i)signatures|not signed"):
            names(other.public)
        with pytest.raises(BuilderError, match=f"the key at {address}/key.asc cannot be used: 404"):
            names(f"{address}/key.asc")
        contents["/other.asc"] = key.public.encode()
        assert "site-tool" in names(f"{address}/other.asc")


class _SigningKey:
    def __init__(self, home: Path) -> None:
        self.gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
        self.home = home
        home.chmod(0o700)
        run.run([*self.gpg, "--quick-generate-key", "site@h.example", "ed25519", "sign"])
        self.public = run.run([*self.gpg, "--armor", "--export"]).stdout

    def close(self) -> None:
        run.run(["gpgconf", "--homedir", self.home, "--kill", "all"])

    def sign(self, path: Path) -> bytes:
        signed = path.with_name("InRelease")
        run.run([*self.gpg, "--output", signed, "--clearsign", path])
        return signed.read_bytes()


def test_incomplete_paragraphs_are_skipped(tmp_path: Path) -> None:
    source = tmp_path / "Packages"
    whole = "Package: a\nVersion: 1\nArchitecture: amd64\n"
    source.write_text(f"\n\n{whole}\n\nPackage: half\n\n{whole}")
    assert [fields["Package"] for fields in packages._paragraphs(source)] == ["a", "a"]
