"""What Image Builder refuses at push, and what it makes of sizes."""

from typing import Any

import pytest

from rfe_helpers.build.blueprint import parse_json, parse_toml, to_json, to_toml
from rfe_helpers.errors import BlueprintError


def pushed(**customizations: Any) -> dict[str, Any]:
    blueprint = parse_json({"name": "edge", "customizations": customizations})
    return dict(blueprint.customizations)


def partition(**values: Any) -> dict[str, Any]:
    return {"disk": {"partitions": [values]}}


@pytest.mark.parametrize(
    ("customizations", "message"),
    [
        (
            {"files": [{"path": "etc/x"}]},
            "files[0].path 'etc/x' is not an absolute, canonical path",
        ),
        ({"files": [{"path": "/etc/../x"}]}, "files[0].path"),
        ({"files": [{"path": "/etc//x"}]}, "files[0].path"),
        ({"files": [{"path": "/etc/x/"}]}, "files[0].path"),
        ({"files": [{"data": "x"}]}, "files[0].path '' is not an absolute, canonical path"),
        ({"directories": [{"path": "x"}]}, "directories[0].path"),
        ({"files": [{"path": "/etc/x", "mode": "rw"}]}, "files[0].mode 'rw' is not an octal mode"),
        ({"files": [{"path": "/etc/x", "mode": "0o644"}]}, "files[0].mode"),
        ({"files": [{"path": "/etc/x", "mode": "4755"}]}, "files[0].mode"),
        ({"files": [{"path": "/etc/x", "mode": 420}]}, "files[0].mode must be a string"),
        ({"files": [{"path": "/etc/x", "user": -1}]}, "files[0].user -1 is not an id"),
        ({"files": [{"path": "/etc/x", "group": "a:b"}]}, "files[0].group 'a:b' is not a name"),
        ({"files": [{"path": "/etc/x", "data": "a", "uri": "file:///b"}]}, "exclude each other"),
        ({"filesystem": [{"mountpoint": "/var"}]}, "filesystem[0].minsize must be greater than 0"),
        ({"filesystem": [{"minsize": 5}]}, "filesystem[0].mountpoint is missing"),
        ({"filesystem": [{"mountpoint": "/", "minsize": "5 gib"}]}, "'5 gib' is not a size"),
        ({"filesystem": [{"mountpoint": "/", "minsize": "GiB"}]}, "'GiB' is not a size"),
        ({"filesystem": [{"mountpoint": "/", "minsize": -5}]}, "must be greater than 0, not -5"),
        (
            {"filesystem": [{"mountpoint": "/", "minsize": "99999999 TiB"}]},
            "must be greater than 0",
        ),
        ({"filesystem": [{"mountpoint": "/", "minsize": 5, "size": 5}]}, "minsize is set as well"),
        (partition(type="raid", minsize=5), "unknown partition type 'raid'"),
        (partition(mountpoint="/"), "disk.partitions[0].minsize is required"),
        (partition(minsize="5 XB"), "'5 XB' is not a size"),
        (partition(minsize=5, subvolumes=[]), "a partition of type plain does not have it"),
        (
            partition(type="lvm", minsize=5, logical_volumes=[{"name": "a"}]),
            "logical_volumes[0].minsize",
        ),
        ({"disk": {"minsize": "x"}}, "customizations.disk.minsize 'x' is not a size"),
        ({"disk": "large"}, "customizations.disk must be a table"),
    ],
    ids=str,
)
def test_what_image_builder_refuses_is_refused(
    customizations: dict[str, Any], message: str
) -> None:
    with pytest.raises(BlueprintError) as refusal:
        pushed(**customizations)
    assert message in refusal.value.message


def test_sizes_come_back_as_bytes_under_minsize() -> None:
    assert pushed(filesystem=[{"mountpoint": "/var", "size": "2 GiB"}]) == {
        "filesystem": [{"mountpoint": "/var", "minsize": 2 * 1024**3}]
    }
    volumes = [{"name": "v", "minsize": "1MB", "mountpoint": "/srv"}]
    assert pushed(
        disk={
            "minsize": "20 GB",
            "partitions": [
                {"mountpoint": "/", "minsize": "10 GiB"},
                {"type": "lvm", "minsize": 7, "logical_volumes": volumes},
            ],
        }
    )["disk"] == {
        "minsize": 20 * 10**9,
        "partitions": [
            {"mountpoint": "/", "minsize": 10 * 1024**3},
            {"type": "lvm", "minsize": 7, "logical_volumes": [{**volumes[0], "minsize": 10**6}]},
        ],
    }


UNKNOWN = """name = "edge"
colour = "red"
minimal = true
when = 2026-11-27

[shape]
corners = [1, 2.5, "three"]

[[packages]]
name = "tmux"
flavour = "mint"

[customizations.installer.payload]
source = "x"

[customizations.ignition.firstboot]
url = "http://example.com/x.ign"
empty = true

[[customizations.firstboot.scripts]]
type = "custom"

[customizations.weather]
wind = "north"
"""


def test_what_is_unknown_comes_back_as_it_was_pushed() -> None:
    blueprint = parse_toml(UNKNOWN)
    data = to_json(blueprint)
    assert (data["colour"], data["minimal"], data["when"]) == ("red", True, "2026-11-27")
    assert data["shape"] == {"corners": [1, 2.5, "three"]}
    assert data["packages"] == [{"name": "tmux", "flavour": "mint"}]
    assert data["customizations"] == {
        "installer": {"payload": {"source": "x"}},
        "ignition": {"firstboot": {"url": "http://example.com/x.ign", "empty": True}},
        "firstboot": {"scripts": [{"type": "custom"}]},
        "weather": {"wind": "north"},
    }
    assert parse_json(data) == blueprint
    assert parse_toml(to_toml(blueprint)) == blueprint


def test_null_and_infinity_in_what_is_unknown_do_not_stop_toml() -> None:
    blueprint = parse_json({"name": "edge", "x": {"a": None, "b": [None, 1]}, "disk": float("inf")})
    assert to_json(blueprint)["x"] == {"b": [1]}
    assert parse_toml(to_toml(blueprint)) == blueprint
