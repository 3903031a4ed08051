"""What a pushed blueprint comes back as, and what a push or a compose refuses or warns of."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from support.sandbox_service import Running

UNKNOWN = """name = "Kept"
version = "1.0.0"
colour = "red"

[[packages]]
name = "tmux"
flavour = "mint"

[[groups]]
name = "web-server"
flavour = "light"

[customizations.installer.payload]
source = "x"

[customizations.ignition.firstboot]
url = "http://example.com/x.ign"
empty = true

[customizations.firstboot]
scripts = [{ type = "custom" }]

[customizations.weather]
wind = "north"

[[customizations.filesystem]]
mountpoint = "/var"
size = "2 GiB"
"""


def refusal(service: Running, blueprint: dict[str, Any]) -> str:
    body = json.dumps({"name": "Refused", **blueprint})
    answer = service.ask("POST /api/v1/blueprints/new", body, "application/json")
    return "" if answer.status == 200 else str(answer.json["errors"][0]["msg"])


def test_everything_that_was_pushed_comes_back(service: Running) -> None:
    answer = service.ask("POST /api/v1/blueprints/new", UNKNOWN, "text/x-toml")
    assert answer.status == 200
    sent = tomllib.loads(UNKNOWN)
    sent["customizations"]["filesystem"] = [{"mountpoint": "/var", "minsize": 2 * 1024**3}]
    history = service.ask("GET /api/v1/blueprints/changes/Kept").json["blueprints"][0]
    commit = history["changes"][0]["commit"]
    as_json = service.ask("GET /api/v1/blueprints/info/Kept").json["blueprints"][0]
    as_toml = service.ask("GET /api/v1/blueprints/info/Kept?format=toml")
    changed = service.ask(f"GET /api/v1/blueprints/change/Kept/{commit}").json
    for back in (as_json, tomllib.loads(as_toml.body.decode()), changed):
        assert {key: back[key] for key in sent} == sent


@pytest.mark.parametrize(
    ("customizations", "message"),
    [
        ({"files": [{"path": "etc/x"}]}, "is not an absolute, canonical path"),
        ({"files": [{"path": "/etc/x", "mode": "4755"}]}, "is not an octal mode"),
        ({"files": [{"path": "/etc/x", "data": "a", "uri": "http://b/c"}]}, "exclude each other"),
        ({"filesystem": [{"mountpoint": "/var"}]}, "must be greater than 0"),
        ({"filesystem": [{"mountpoint": "/var", "minsize": "5 gib"}]}, "is not a size"),
        ({"disk": {"partitions": [{"type": "raid", "minsize": 5}]}}, "unknown partition type"),
    ],
    ids=str,
)
def test_what_image_builder_refuses_at_push_is_refused(
    service: Running, customizations: dict[str, Any], message: str
) -> None:
    assert message in refusal(service, {"customizations": customizations})


def test_an_architecture_alone_is_not_looked_at_before_a_compose(service: Running) -> None:
    assert refusal(service, {"architecture": "aarch64"}) == ""
    distro = {"architecture": "aarch64", "distro": "debian-13"}
    assert "'debian-13' is not a valid distribution" in refusal(service, distro)


def test_a_compose_warns_of_what_it_ignores_and_takes_the_consoles_size(service: Running) -> None:
    service.push("Ignored", customizations={"weather": {"wind": "north"}})

    def compose(**values: Any) -> dict[str, Any]:
        body = json.dumps({"blueprint_name": "Ignored", **values})
        answer = service.ask("POST /api/v1/compose?test=2", body, "application/json")
        assert answer.status == 200
        return answer.json

    warning = "customizations.weather: unknown key, ignored"
    assert compose(compose_type="edge-commit")["warnings"] == [warning]
    ostree = {"url": "http://127.0.0.1:9/repo"}
    image = {"compose_type": "edge-raw-image", "size": 2 * 1024**3, "ostree": ostree}
    assert compose(**image)["warnings"] == [warning]
    asked, mkksiso = compose(compose_type="edge-installer", ostree=ostree)["warnings"]
    assert asked == warning
    assert "mkksiso" in mkksiso


def test_a_simplified_installer_is_refused_without_a_disk_and_without_a_url(
    service: Running,
) -> None:
    def refused(ostree: dict[str, str], **customizations: Any) -> str:
        service.push("Simplified", customizations=customizations)
        values = {"blueprint_name": "Simplified", "compose_type": "edge-simplified-installer"}
        body = json.dumps({**values, "ostree": ostree})
        answer = service.ask("POST /api/v1/compose?test=2", body, "application/json")
        return "" if answer.status == 200 else str(answer.json["errors"][0]["msg"])

    url = {"url": "http://127.0.0.1:9/repo"}
    assert refused(url).endswith("requires specifying an installation device to install to")
    assert "ostree.url: required" in refused({}, installation_device="/dev/vda")
    fdo = {"manufacturing_server_url": "http://m.example"}
    assert "FIDO Device Onboard" in refused(url, installation_device="/dev/vda", fdo=fdo)
    assert refused(url, installation_device="/dev/vda") == ""
