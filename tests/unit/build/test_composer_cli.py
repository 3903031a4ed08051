"""What a person types in place of a request."""

import json
import re

import pytest

from rfe_helpers.build.composer_cli import composer_cli, curl, document_name
from rfe_helpers.core.journal import ApiRequest

ID = "0f3a1b7c-1111-2222-3333-444455556666"
TOML = 'description = "x"\nname = "edge till"\n'


def request(method, path, body="", kind="application/json", **more):
    return ApiRequest(
        "/run/weldr/api.socket", method, f"/api/{path}", body, kind if body else "", **more
    )


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (request("GET", "status"), "status show"),
        (request("GET", "v1/blueprints/list?limit=0"), "blueprints list"),
        (request("GET", "v1/blueprints/info/edge,till"), "blueprints show edge till"),
        (request("GET", "v1/blueprints/info/a%20b"), "blueprints show 'a b'"),
        (request("GET", "v1/blueprints/depsolve/edge"), "blueprints depsolve edge"),
        (
            request("GET", f"v1/blueprints/change/edge/{'a' * 40}"),
            f"blueprints show --commit {'a' * 40} edge",
        ),
        (
            request("POST", "v1/blueprints/new", TOML, "text/x-toml"),
            "blueprints push edge-till.toml",
        ),
        (request("POST", "v1/blueprints/undo/edge/abc"), "blueprints undo edge abc"),
        (request("GET", "v1/projects/source/list"), "sources list"),
        (request("GET", "v1/compose/status/*"), "compose status"),
        (request("GET", f"v1/compose/image/{ID}"), f"compose image {ID}"),
        (request("DELETE", f"v1/compose/cancel/{ID}"), f"compose cancel {ID}"),
    ],
)
def test_requests_are_commands_of_composer_cli(asked, line):
    assert composer_cli(asked) == f"composer-cli {line}"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (
            {"blueprint_name": "edge", "compose_type": "edge-container"},
            "start-ostree edge edge-container",
        ),
        (
            {"blueprint_name": "edge", "compose_type": "qcow2", "size": 4 << 30},
            "start --size 4096 edge qcow2",
        ),
        (
            {
                "blueprint_name": "edge",
                "compose_type": "edge-commit",
                "ostree": {
                    "ref": "rhel/9/x86_64/edge",
                    "parent": "",
                    "url": "http://10.0.2.2:8000/repo/",
                },
            },
            "start-ostree --ref rhel/9/x86_64/edge --url http://10.0.2.2:8000/repo/ edge "
            "edge-commit",
        ),
    ],
)
def test_a_compose_is_started_by_the_command_for_its_type(body, line):
    assert (
        composer_cli(request("POST", "v1/compose", json.dumps(body)))
        == f"composer-cli compose {line}"
    )


def test_what_composer_cli_cannot_do_has_no_line():
    assert composer_cli(request("DELETE", "v1/blueprints/workspace/edge")) == ""
    assert composer_cli(request("GET", "v1/unheard/of")) == ""


def test_a_body_that_was_cut_in_the_journal_has_no_line():
    body = '{"blueprint_name": "edge", "compose_ty'
    assert composer_cli(request("POST", "v1/compose", body)) == ""


def test_curl_sends_the_document_that_the_reader_has_as_a_file():
    pushed = request("POST", "v1/blueprints/new", TOML, "text/x-toml")
    assert document_name(pushed) == "edge-till.toml"
    assert curl(pushed).endswith(
        "--header 'Content-Type: text/x-toml' --data-binary @edge-till.toml "
        "http://localhost/api/v1/blueprints/new"
    )


def test_curl_saves_the_file_under_the_name_that_the_server_gives():
    line = curl(request("GET", f"v1/compose/image/{ID}", saved_in="/my lab/composes"))
    assert line.startswith("(mkdir -p '/my lab/composes' && cd '/my lab/composes' && curl ")
    assert "--remote-name --remote-header-name" in line


def test_curl_names_the_method_only_where_it_is_needed():
    assert "--request" not in curl(request("GET", "status"))
    assert "--request DELETE" in curl(request("DELETE", f"v1/compose/cancel/{ID}"))
    assert "--request POST" in curl(request("POST", "v1/blueprints/undo/edge/abc"))


def test_a_name_cannot_leave_the_directory_or_the_line():
    for name in ("../../etc/passwd", "a; rm -rf ~", "$(reboot)", ""):
        body = json.dumps({"name": name})
        assert re.fullmatch(
            r"[A-Za-z0-9._-]+\.json", document_name(request("POST", "v1/blueprints/new", body))
        )
