"""Generated and mutated requests to Image Builder's service, and what an answer to them may be."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st
from support.sandbox_service import Answer

from rfe_helpers.build.blueprint import CUSTOMIZATIONS
from rfe_helpers.sandbox.build.image_types import IMAGE_TYPES

# fmt: off
IDS = {
    "HTTPError", "InvalidChars", "BlueprintsError", "UnknownBlueprint", "UnknownCommit",
    "BadLimitOrOffset", "DistroError", "ProjectsError", "ModulesError", "UnknownModule",
    "UnknownProject", "UnknownSource", "SystemSource", "MissingPost", "ComposeError",
    "ManifestCreationFailed", "DepsolveError", "OSTreeOptionsError", "UploadError",
    "UnknownUUID", "BuildInWrongState",
}
# fmt: on
DOWNLOADS = ("image", "metadata", "results", "logs")


@dataclass(frozen=True)
class Request:
    line: str
    body: bytes = b""
    content_type: str = ""


# hostile values -----------------------------------------------------------------------------------

# fmt: off
HOSTILE = st.sampled_from(
    [
        "", " ", ".", "..", "../../etc/passwd", "/etc/../../root/.ssh", "/etc/shadow", "/",
        "$(reboot)", "`id`", "; rm -rf / #", "a\nb", "a\0b", "--help", "-o=Dir::Etc=/tmp",
        "%n%s", "{{7*7}}", "' OR 1=1 --", "*", "[", "[!a", "?" * 50, "a" * 5000, "ü", "\u202e",
        "Edge", "Fuzz", "tmux", "tmux-", "3.*", "0.0.1", "1.0", "debian-13", "edge-commit",
        "http://127.0.0.1:9/", "file:///etc/passwd", "http://[", "root", "kernel", "\ud800",
        "linux-image-amd64", "wheel", "$6$salt$hash", "Europe/Berlin", "ssh.service", "0755",
    ]
)
# fmt: on
TEXT = HOSTILE | st.text(max_size=30)
SCALAR = (
    TEXT
    | st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-1, 1)
    | st.sampled_from([2**63, 10**400, 1.5, float("inf"), float("nan")])
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


def shaped(expected: Any) -> st.SearchStrategy[Any]:
    """Values with the shape that a key has in a blueprint."""
    if isinstance(expected, dict):
        keys = {key: shaped(value) for key, value in expected.items()}
        return st.fixed_dictionaries({}, optional=keys)
    if isinstance(expected, list):
        return st.lists(shaped(expected[0]), max_size=3)
    if isinstance(expected, tuple):
        return st.one_of(*(shaped(kind) for kind in expected))
    kinds: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXT,
        int: st.integers(-1, 2**33),
        bool: st.booleans(),
    }
    return kinds.get(expected, VALUE)


SPECS = st.lists(st.fixed_dictionaries({"name": TEXT}, optional={"version": TEXT}), max_size=3)
BLUEPRINT = st.fixed_dictionaries(
    {"name": st.sampled_from(["Fuzz", "Edge"]) | TEXT},
    optional={
        "description": TEXT,
        "version": st.sampled_from(["0.0.1", "1.2.3-rc1", "1.0"]),
        "distro": st.sampled_from(["debian-13", "", "debian-12"]),
        "packages": SPECS,
        "modules": SPECS,
        "groups": st.lists(st.fixed_dictionaries({"name": TEXT}), max_size=2),
        "customizations": shaped(CUSTOMIZATIONS),
    },
)


@st.composite
def mutated(draw: st.DrawFn, data: st.SearchStrategy[Any]) -> bytes:
    """JSON, now and then with another value in some place, or with its bytes disturbed."""
    value = draw(data)
    if isinstance(value, dict) and value and draw(st.integers(0, 3)) == 0:
        value[draw(st.sampled_from(sorted(value)))] = draw(VALUE)
    body = json.dumps(value).encode()
    if draw(st.integers(0, 7)) == 0:
        cut = draw(st.integers(0, len(body)))
        body = body[:cut] + draw(st.binary(max_size=8)) + body[draw(st.integers(cut, len(body))) :]
    return body


# requests -----------------------------------------------------------------------------------------

VERSION = st.sampled_from(["v0", "v1"])
TYPE = st.sampled_from(["application/json"] * 8 + ["text/x-toml", "", "text/plain"])
COMPOSE = st.fixed_dictionaries(
    {"blueprint_name": st.sampled_from(["Edge", "Fuzz"]) | TEXT},
    optional={
        "compose_type": st.sampled_from(["edge-commit", "rhel-edge-container"]) | TEXT,
        "size": st.none() | st.integers(-1, 2**65),
        "ostree": st.fixed_dictionaries(
            {},
            optional={
                "ref": st.sampled_from(["a/b", "ab" * 32]) | TEXT,
                "parent": st.sampled_from(["a/b", "ab" * 32]) | TEXT,
                # Nothing listens on port 9: whatever is resolved fails at once.
                "url": st.sampled_from(["", "http://127.0.0.1:9/repo", "repo", "http://["]),
                "contenturl": TEXT,
                "rhsm": st.booleans(),
            },
        ),
        "upload": VALUE,
    },
)
SOURCE = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["debian-13", "fuzz"]) | TEXT,
        "name": TEXT,
        "type": st.sampled_from(["yum-metalink", "other"]) | TEXT,
        "url": TEXT,
        "check_gpg": st.booleans(),
        "gpgkeys": st.lists(TEXT, max_size=2),
        "distros": st.lists(TEXT, max_size=2),
    },
)
# fmt: off
TEMPLATES = (
    "/blueprints/list", "/blueprints/info/{}", "/blueprints/changes/{}",
    "/blueprints/change/{}/{}", "/blueprints/workspace/{}", "/blueprints/undo/{}/{}",
    "/blueprints/tag/{}", "/blueprints/delete/{}", "/blueprints/diff/{}/{}/{}",
    "/blueprints/depsolve/{}", "/blueprints/freeze/{}", "/projects/list", "/projects/info/{}",
    "/projects/depsolve/{}", "/modules/list/{}", "/modules/info/{}", "/projects/source/list",
    "/projects/source/info/{}", "/projects/source/delete/{}", "/compose/types",
    "/compose/queue", "/compose/finished", "/compose/failed", "/compose/status/{}",
    "/compose/info/{}", "/compose/log/{}", "/compose/image/{}", "/compose/metadata/{}",
    "/compose/results/{}", "/compose/logs/{}", "/compose/cancel/{}", "/compose/delete/{}",
    "/upload/providers", "/upload/info/{}", "/distros/list", "/{}", "/{}/{}",
)
# fmt: on


def segment() -> st.SearchStrategy[str]:
    raw = st.sampled_from(
        ["Edge", "Fuzz", "NEWEST", "WORKSPACE", "tmux", "*", "%2e%2e", "a,b", "."]
    )
    text = TEXT.map(lambda text: quote(text.encode(errors="surrogatepass"), safe=""))
    octets = st.binary(max_size=20).map(lambda octets: quote(octets, safe=""))
    uuid = st.uuids().map(str)
    return raw | text | octets | uuid


@st.composite
def path_requests(draw: st.DrawFn) -> list[Request]:
    template = draw(st.sampled_from(TEMPLATES))
    path = f"/api/{draw(VERSION)}" + template.format(*(draw(segment()) for _ in range(3)))
    names = st.sampled_from(["offset", "limit", "format", "distro", "arch", "size", "test", "type"])
    values = st.sampled_from(["0", "1", "-1", "toml", "json", "x", "9" * 30, "٣", "debian-13", ""])
    pairs = draw(st.lists(st.tuples(names, values), max_size=2))
    query = "&".join(f"{name}={quote(value)}" for name, value in pairs)
    method = draw(st.sampled_from(["GET"] * 6 + ["DELETE"] * 2 + ["POST", "PUT", "HEAD"]))
    return [Request(f"{method} {path}" + (f"?{query}" if query else ""))]


def posts(path: str, data: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Request]]:
    def request(version: str, body: bytes, content_type: str) -> list[Request]:
        return [Request(f"POST /api/{version}{path}", body, content_type)]

    return st.builds(request, VERSION, mutated(data), TYPE)


@st.composite
def pushed_and_composed(draw: st.DrawFn) -> list[Request]:
    """A blueprint with any content, then everything that reads it."""
    data = {**draw(BLUEPRINT), "name": "Fuzz"}
    if draw(st.booleans()):  # so that values are checked too, not only names
        kind = IMAGE_TYPES[0]
        data["customizations"] = draw(
            shaped({key: CUSTOMIZATIONS[key] for key in kind.customizations})
        )
        data.pop("groups", None)
    body = json.dumps(data).encode()
    compose = json.dumps({"blueprint_name": "Fuzz", "compose_type": "edge-commit"}).encode()
    return [
        Request("POST /api/v1/blueprints/new", body, "application/json"),
        Request("GET /api/v1/blueprints/info/Fuzz"),
        Request("GET /api/v1/blueprints/info/Fuzz?format=toml"),
        Request("POST /api/v1/compose?test=2", compose, "application/json"),
    ]


# requests that cost much -------------------------------------------------------------------------

NUMBERS = st.sampled_from([1, 10, 60, 70, 500, 5_000, 60_000])


@st.composite
def deep_documents(draw: st.DrawFn) -> list[Request]:
    """TOML and JSON of many parts or of great depth."""
    number = draw(NUMBERS)
    part = draw(st.sampled_from(["a", '"="', "'.'", '"\\u0061"', "-"]))
    forms = (
        (".".join([part] * number) + " = 1", "text/x-toml"),
        ("[" + ".".join([part] * number) + "]", "text/x-toml"),
        (f'x = {{y = """a"b""", {part}.' + f"{part}." * number + 'b = "1"}', "text/x-toml"),
        (f"x = {'[' * number}{']' * number}", "text/x-toml"),
        ("\n".join(f"[k{n}.{part}]" for n in range(number)), "text/x-toml"),
        ('x = """' + '\\"' * number, "text/x-toml"),
        ('{"name": "Fuzz", "customizations": {"disk": ' + '{"a":' * number, "application/json"),
        (f'{{"name": "Fuzz", "x": {"[" * number}{"]" * number}}}', "application/json"),
        (f'{{"name": "Fuzz", "x": [{",".join(["{}"] * number)}]}}', "application/json"),
    )
    text, content_type = draw(st.sampled_from(forms))
    path = draw(st.sampled_from(["blueprints/new", "blueprints/workspace", "projects/source/new"]))
    if content_type == "text/x-toml":
        text = f'name = "Fuzz"\n{text}\n'
    return [Request(f"POST /api/v1/{path}", text.encode(), content_type)]


@st.composite
def large_blueprints(draw: st.DrawFn) -> list[Request]:
    """A blueprint with long lists, and what reads it, with its name once or many times."""
    number = draw(st.sampled_from([1, 30, 300, 3_000]))
    entries: list[dict[str, Any]] = [
        {"packages": [{"name": f"p{n}", "version": "*"} for n in range(number)]},
        {"packages": [{"name": f"{'*' * (n % 5)}{n}"} for n in range(number)]},
        {"description": "x" * (number * 300)},
        {"customizations": {"files": [{"path": f"/etc/{n}", "data": "."} for n in range(number)]}},
        {
            "customizations": {
                "user": [{"name": f"u{n}", "password": f"p{n}"} for n in range(number // 10)]
            }
        },
    ]
    data = {"name": "Large", **draw(st.sampled_from(entries))}
    names = ",".join(["Large"] * draw(st.sampled_from([1, 2, 3_000])))
    route = draw(st.sampled_from(["info", "changes", "depsolve", "freeze", "change", "diff"]))
    query = draw(st.sampled_from(["", "?format=toml"]))
    compose = json.dumps({"blueprint_name": "Large", "compose_type": "edge-commit"}).encode()
    return [
        Request("POST /api/v1/blueprints/new", json.dumps(data).encode(), "application/json"),
        Request(f"GET /api/v1/blueprints/{route}/{names}{query}"),
        Request("POST /api/v1/compose?test=1", compose, "application/json"),
        Request("GET /api/v1/compose/status/*"),
    ]


@st.composite
def deletable(draw: st.DrawFn) -> list[Request]:
    """A blueprint or a source of any name, then its deletion."""
    name = draw(TEXT | NUMBERS.map(lambda number: "n" * number))
    quoted = quote(name.encode(errors="surrogatepass"), safe="")
    if draw(st.booleans()):
        body = json.dumps({"name": name}).encode()
        return [
            Request("POST /api/v1/blueprints/new", body, "application/json"),
            Request(f"DELETE /api/v1/blueprints/delete/{quoted}"),
        ]
    source = {"id": name, "name": name, "type": "yum-baseurl", "url": "http://127.0.0.1:9/ s main"}
    return [
        Request(
            "POST /api/v1/projects/source/new", json.dumps(source).encode(), "application/json"
        ),
        Request(f"DELETE /api/v1/projects/source/delete/{quoted}"),
    ]


TOML_BODIES = st.builds(
    lambda body: [Request("POST /api/v1/blueprints/new", body, "text/x-toml")],
    st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode(errors="ignore"))
    | TEXT.map(lambda text: f"name = {json.dumps(text)}\nversion = 1979-05-27".encode()),
)
REQUESTS = st.one_of(
    path_requests(),
    path_requests(),
    posts("/blueprints/new", BLUEPRINT | VALUE),
    posts("/blueprints/workspace", BLUEPRINT | VALUE),
    posts("/compose", COMPOSE | VALUE),
    posts("/compose?test=1", COMPOSE),
    posts("/projects/source/new", SOURCE | VALUE),
    TOML_BODIES,
    pushed_and_composed(),
    deep_documents(),
    large_blueprints(),
    deletable(),
)


# what an answer may be ----------------------------------------------------------------------------


def check(request: Request, answer: Answer, *, crowded: bool = False) -> None:
    """Raise AssertionError for an answer that is not one of the contract. A service that is
    `crowded` may refuse what takes seconds."""
    assert answer.status in (200, 400, 404, 405, 500, 501), answer
    if request.line.startswith("HEAD ") or answer.status in (405, 501):
        assert answer.body == b""
        return
    kind = answer.headers["Content-Type"]
    if answer.status == 200 and "Content-Disposition" in answer.headers:
        assert any(f"/compose/{name}/" in request.line for name in DOWNLOADS)
        return
    assert kind == "application/json; charset=utf-8"
    text = answer.body.decode()
    if answer.status == 200 and not text.startswith("{"):
        assert "/compose/log/" in request.line or "format=toml" in request.line
        if "format=toml" in request.line:
            tomllib.loads(text)
        return
    data = json.loads(text, parse_constant=_refuse)
    assert isinstance(data, dict)
    if answer.status != 200:
        assert data["status"] is False
        assert set(data) == {"status", "errors"}
        assert data["errors"]
    for error in data.get("errors", []):
        if crowded and answer.status == 500 and "try again" in error["msg"]:
            continue
        assert error["id"] in IDS, error
        assert isinstance(error["msg"], str)
        assert ("code" in error) == (answer.status == 404 and error["id"] == "HTTPError")
        assert answer.status != 500 or error["id"] == "DepsolveError", error


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
