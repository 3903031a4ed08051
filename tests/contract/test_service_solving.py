"""What apt's solver says: the packages of an image, or which packages conflict and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import sandbox_service
from support.sandbox_service import PACKAGES, Answer, Running, web_server

from rfe_helpers.sandbox.service.packages import Index

JSON = "application/json"
MAIL = """\
Package: exim4
Version: 4.98-2
Architecture: all
Depends: exim4-config (>= 4.98), exim4-light | exim4-heavy
Description: one mail server

Package: exim4-config
Version: 4.98-2
Architecture: all
Conflicts: postfix
Description: its configuration

Package: exim4-light
Version: 4.98-2
Architecture: all
Description: its daemon

Package: postfix
Version: 3.10-1
Architecture: amd64
Description: another mail server

Package: base-files
Version: 13.8
Architecture: amd64
Essential: yes
Description: what every Debian has

Package: linux-image-rt-amd64
Version: 6.12.48-1
Architecture: amd64
Depends: initramfs-tools | dracut
Description: Linux for short latencies

Package: initramfs-tools
Version: 0.148
Architecture: all
Description: one way to an initramfs

Package: dracut
Version: 106-6
Architecture: all
Description: another

Package: wide
Version: 1-1
Architecture: all
Depends: {missing}
Description: needs much that does not exist
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    directory = tmp_path_factory.mktemp("mail")
    missing = ", ".join(f"missing-{number}" for number in range(500))
    packages = f"{PACKAGES}\n{MAIL.format(missing=missing)}"
    return Index(directory / "cache", sandbox_service.debian_repository(directory / "d", packages))


@pytest.fixture
def service(tmp_path: Path, index: Index) -> Iterator[Running]:
    with sandbox_service.running(tmp_path, index) as service:
        yield service


def depsolve(service: Running) -> str:
    """The error of an unsolvable blueprint; the blueprint stays in the answer."""
    answer = service.ask("GET /api/v1/blueprints/depsolve/Edge")
    assert (answer.status, answer.json["blueprints"][0]["dependencies"]) == (200, [])
    (error,) = answer.json["errors"]
    assert error["id"] == "BlueprintsError"
    return str(error["msg"])


def compose(service: Running) -> Answer:
    body = json.dumps({"blueprint_name": "Edge", "compose_type": "edge-commit"})
    return service.ask("POST /api/v1/compose", body, JSON)


CONFLICT = (
    "DepsolveError: There was a problem depsolving exim4, postfix"
    "{also}:\n  - exim4-config Conflicts: postfix"
)


def test_every_route_that_solves_says_which_packages_conflict(
    service: Running, index: Index
) -> None:
    service.push(packages=[{"name": "exim4"}, {"name": "postfix"}])
    also = ", linux-image-cloud-amd64"
    texts = [depsolve(service).removeprefix("Edge: ")]
    answer = service.ask("GET /api/v1/blueprints/freeze/Edge").json
    texts.append(answer["errors"][0]["msg"].removeprefix("Edge: "))
    answer = compose(service)
    assert (answer.status, answer.json["errors"][0]["id"]) == (500, "DepsolveError")
    texts.append(answer.json["errors"][0]["msg"])
    answer = service.ask("GET /api/v1/projects/depsolve/exim4,postfix")
    assert (answer.status, answer.json["errors"][0]["id"]) == (400, "ProjectsError")
    projects = answer.json["errors"][0]["msg"]
    assert projects.startswith(f"BadRequest: {CONFLICT.format(also='')}")
    for text in texts:
        assert text.startswith(CONFLICT.format(also=also)), text
    for text in (*texts, projects):
        assert str(index.directory) not in text
        assert "Traceback" not in text


def test_depsolve_and_compose_info_list_what_will_be_in_the_image(
    tmp_path: Path, index: Index
) -> None:
    """The base's packages too; and of two ways to an initramfs the base's, not the first one."""
    base = ("?essential", "dracut", "linux-image-cloud-amd64")
    with sandbox_service.running(tmp_path, index, base=base) as service:
        service.push(packages=[{"name": "tmux"}])
        names = ["base-files", "dracut", "libevent-core-2.1-7t64"]
        assert listed(service) == [*names, "linux-image-cloud-amd64", "tmux"]
        kernel = {"kernel": {"name": "linux-image-rt-amd64"}}
        service.push(packages=[{"name": "tmux"}], customizations=kernel)
        assert listed(service) == [*names, "linux-image-rt-amd64", "tmux"]


def listed(service: Running) -> list[str]:
    """The names in both lists, which are the same."""
    answer = service.ask("GET /api/v1/blueprints/depsolve/Edge").json
    dependencies = answer["blueprints"][0]["dependencies"]
    identity = service.compose(query="?test=2")
    info = service.ask(f"GET /api/v1/compose/info/{identity}").json
    assert info["deps"]["packages"] == dependencies
    return [package["name"] for package in dependencies]


@pytest.mark.parametrize("kind", ["edge-installer", "edge-raw-image"])
def test_a_type_that_deploys_a_commit_has_no_packages_of_its_own(
    service: Running, kind: str
) -> None:
    service.push(packages=[{"name": "tmux"}], modules=[{"name": "vim-tiny"}])
    ostree = {"url": "http://repo.example/repo"}
    body = json.dumps({"blueprint_name": "Edge", "compose_type": kind, "ostree": ostree})
    started = service.ask("POST /api/v1/compose?test=2", body, JSON).json
    unsupported = [text for text in started["warnings"] if "not supported" in text]
    prefix = f'blueprint validation failed for image type "{kind}": '
    assert [text.removeprefix(prefix).partition(":")[0] for text in unsupported] == [
        "packages",
        "modules",
    ]
    identity = started["build_id"]
    info = service.ask(f"GET /api/v1/compose/info/{identity}").json
    assert info["deps"] == {"packages": []}


def test_packages_of_a_source_without_signatures_say_so(service: Running, tmp_path: Path) -> None:
    package = "Package: site-tool\nVersion: 1:1.0-1\nArchitecture: all\nDepends: tmux\n"
    root = tmp_path / "site"
    sandbox_service.debian_repository(root, package)
    paths = {f"/{p.relative_to(root)}": p.read_bytes() for p in root.rglob("*") if p.is_file()}
    with web_server(paths) as address:
        url = f"{address} trixie main"
        source = {"id": "site", "name": "Site", "type": "yum-baseurl", "url": url}
        service.ask("POST /api/v1/projects/source/new", json.dumps(source), JSON)
        answer = service.ask("GET /api/v1/projects/depsolve/site-tool").json
        service.ask("DELETE /api/v1/projects/source/delete/site")
    packages = {package["name"]: package for package in answer["projects"]}
    assert packages["tmux"]["check_gpg"] is True
    assert packages["site-tool"] == {
        "name": "site-tool",
        "epoch": 1,
        "version": "1.0",
        "release": "1",
        "arch": "noarch",
        "remote_location": f"{address}/pool/0.deb",
        "checksum": "sha256:" + 64 * "0",
    }


def test_everything_that_does_not_exist_is_named_at_once(service: Running) -> None:
    service.push(packages=[{"name": "tmux", "version": "9.9"}, {"name": "vim"}, {"name": "nosuch"}])
    expected = (
        "DepsolveError: There was a problem depsolving tmux, vim, nosuch:"
        "\n  - no package tmux in version 9.9\n  - no package vim\n  - no package nosuch"
    )
    assert depsolve(service) == f"Edge: {expected}"
    assert compose(service).json["errors"] == [{"id": "DepsolveError", "msg": expected}]
    answer = service.ask("GET /api/v1/projects/depsolve/nosuch,vim").json
    text = answer["errors"][0]["msg"]
    assert text.endswith(" nosuch, vim:\n  - no package nosuch\n  - no package vim")


def test_an_explanation_is_bounded(service: Running) -> None:
    service.push(packages=[{"name": "wide"}])
    text = depsolve(service)
    assert "\n  - wide Depends: missing-0 but it is not installable\n" in text
    assert text.endswith("and 480 more reasons")
    assert len(text) < 2000
