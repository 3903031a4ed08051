"""Blueprints: descriptions of what Image Builder should build, from and to TOML and JSON; pure.

The shape is that of osbuild's blueprints in its API: `name` is required; `version` is full semver
("0.0.0" if not given); `packages` and `modules` are {name, version} with globs allowed in both;
`customizations` is a dictionary in the API's own shape. As in the servers, keys are matched
case-insensitively and null means "not set"; a value of the wrong type raises BlueprintError, and
so does what servers refuse when a blueprint is pushed (checks.py). Unknown keys, which servers
ignore, are kept.

Whether an image type supports a customization is not decided here: the server checks that when a
compose starts.

keys.py has the keys and their types.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rfe_helpers.build import checks
from rfe_helpers.build.checks import Problem
from rfe_helpers.build.keys import ANY, BLUEPRINT, CUSTOMIZATIONS, Passed
from rfe_helpers.core import toml
from rfe_helpers.errors import BlueprintError

NAME = re.compile(r"[a-zA-Z0-9._-]+")
DEFAULT_VERSION = "0.0.0"
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"  # of 64 bits
_DEEPEST, _LARGEST = 64, 2**63
# A blueprint of 50,000 packages has 250,000 parts.
MOST_PARTS = 300_000
_MOST_REMEDIES = 100
# The strings and comments of a TOML document; one that does not end goes to the end of its line, or
# of the document.
_STRINGS_AND_COMMENTS = re.compile(
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*(?:"{3,5}|\\?\Z)'
    r"|'''.*?(?:'{3,5}|\Z)"
    r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"?'
    r"|'[^'\n]*'?|#[^\n]*",
    re.DOTALL,
)
_SEMVER = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)


@dataclass(frozen=True)
class PackageSpec:
    """A requested package, or group of packages. Name and version may be globs; "" and "*" mean
    any version. `other` holds unknown keys.

    >>> from rfe_helpers.build import PackageSpec
    >>> PackageSpec("podman", "5.*")
    PackageSpec(name='podman', version='5.*')
    >>> PackageSpec.parse("tmux=3.4").version
    '3.4'
    """

    name: str
    version: str = ""
    other: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)

    @classmethod
    def parse(cls, word: str) -> PackageSpec:
        """The package of "name" or "name=version"."""
        name, _, version = word.partition("=")
        return cls(name, version)

    def to_json(self) -> dict[str, Any]:
        version = {"version": self.version} if self.version else {}
        return {"name": self.name, **version, **self.other}


@dataclass(frozen=True)
class Blueprint:
    """A description of what to build.

    >>> from rfe_helpers.build import Blueprint, PackageSpec
    >>> blueprint = Blueprint("edge", packages=["tmux", PackageSpec("podman", "5.*")])
    >>> [package.name for package in blueprint.packages]
    ['tmux', 'podman']

    `packages`, `modules` and `groups` take names, too, and "tmux htop" or "podman=5.*" in one
    string.
    `customizations` and `containers` have the shape of the API's JSON; `other` holds keys that no
    field has.
    """

    name: str
    description: str = ""
    version: str = DEFAULT_VERSION
    packages: tuple[PackageSpec, ...] = ()
    modules: tuple[PackageSpec, ...] = ()
    groups: tuple[PackageSpec, ...] = ()
    containers: tuple[Mapping[str, Any], ...] = ()
    enabled_modules: tuple[Mapping[str, str], ...] = ()
    distro: str = ""
    architecture: str = ""
    customizations: Mapping[str, Any] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("packages", "modules", "groups"):
            given = getattr(self, key)
            words = re.split(r"[\s,]+", given.strip()) if isinstance(given, str) else given
            specs = (
                PackageSpec.parse(word) if isinstance(word, str) else word for word in words if word
            )
            object.__setattr__(self, key, tuple(specs))

    def to_json(self) -> dict[str, Any]:
        return to_json(self)


def parse_toml(text: str | bytes) -> Blueprint:
    r"""A blueprint from TOML (bytes are UTF-8). Raises BlueprintError.

    >>> from rfe_helpers.build import parse_toml
    >>> blueprint = parse_toml('name = "edge"\npackages = [{name = "tmux"}]')
    >>> blueprint.name, blueprint.version
    ('edge', '0.0.0')
    """
    return parse_json(load_toml(text))


def parse_json(data: Any) -> Blueprint:
    """A blueprint from the decoded JSON of the API. Raises BlueprintError."""
    blueprint, problems = read(data)
    for problem in problems:
        if not problem.unknown:
            text = problem.refusal or f"{problem.where} {problem.message}"
            raise BlueprintError(text, remedy=problem.remedy)
    return blueprint


def load_toml(text: str | bytes) -> dict[str, Any]:
    """The tables of a TOML document. Raises BlueprintError with line and column."""
    try:
        document = text if isinstance(text, str) else text.decode()
        _check_keys(document)
        return tomllib.loads(document)
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise BlueprintError(f"this is not TOML: {error}") from None
    except RecursionError:
        raise BlueprintError("this is not TOML: nested too deeply") from None


def _check_keys(document: str) -> None:
    """Refuse what costs tomllib hours and gigabytes: it is quadratic in the parts of a dotted key,
    which stands on one line, and keeps a kilobyte for each part."""
    if _excess(document):
        # Not all of them: no other thread runs meanwhile.
        text = _excess(_STRINGS_AND_COMMENTS.sub("x", document, count=MOST_PARTS))
        if text:
            raise BlueprintError(text)


def _excess(document: str) -> str:
    """What a document has too much of, if any of this is outside of strings and comments."""
    if max(line.count(".") for line in document.split("\n")) > _DEEPEST:
        return "this is not TOML: nested too deeply"
    if sum(document.count(mark) for mark in "=.,[") > MOST_PARTS:
        return f"the document has more than {MOST_PARTS} parts"
    return ""


def read(data: Any) -> tuple[Blueprint, tuple[Problem, ...]]:
    """What can be read of a blueprint, and everything that is wrong with its shape.

    Raises BlueprintError only for what is not a table, or too large for other readers.
    """
    if not isinstance(data, Mapping):
        raise BlueprintError("a blueprint is a table with at least a name")
    _check_size(data)
    problems: list[Problem] = []
    values = _table(data, BLUEPRINT, "", problems)
    version = values.get("version") or DEFAULT_VERSION
    if not _SEMVER.fullmatch(version):
        text = f"Invalid 'version', must use Semantic Versioning: {version} is not X.Y.Z"
        remedy = "use three numbers, such as 0.0.1"
        problems.append(Problem("version", f"{version} is not X.Y.Z", remedy, refusal=text))
    misfits = {problem.where for problem in problems}
    for key in ("packages", "modules"):
        nameless = _nameless(values.get(key, []), key)
        problems += [each for each in nameless if f"{each.where}.name" not in misfits]
    blueprint = Blueprint(
        name=values.get("name", ""),
        description=values.get("description", ""),
        version=version,
        packages=_specs(values.get("packages", [])),
        modules=_specs(values.get("modules", [])),
        groups=_specs(values.get("groups", [])),
        containers=tuple(values.get("containers", [])),
        enabled_modules=tuple(values.get("enabled_modules", [])),
        distro=values.get("distro", ""),
        architecture=values.get("architecture", ""),
        customizations=checks.checked(values.get("customizations", {}), problems),
        other={key: value for key, value in values.items() if key not in _FIELDS},
    )
    return blueprint, tuple(problems)


def _check_size(value: Any, depth: int = 0) -> None:
    """Refuse values that other readers of TOML and JSON do not accept."""
    if depth > _DEEPEST:
        raise BlueprintError("the blueprint is nested too deeply")
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            _check_size(inner, depth + 1)
    elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise BlueprintError("the blueprint has a number of more than 64 bits")


def to_json(blueprint: Blueprint) -> dict[str, Any]:
    """The JSON of the API's answers: four lists always, everything else if it is set."""
    optional = {
        "name": blueprint.name,
        "description": blueprint.description,
        "version": blueprint.version,
        "containers": [dict(entry) for entry in blueprint.containers],
        "customizations": dict(blueprint.customizations),
        "distro": blueprint.distro,
        "architecture": blueprint.architecture,
    }
    return {
        **blueprint.other,
        **{key: value for key, value in optional.items() if value},
        "packages": [spec.to_json() for spec in blueprint.packages],
        "modules": [spec.to_json() for spec in blueprint.modules],
        "enabled_modules": [dict(entry) for entry in blueprint.enabled_modules],
        "groups": [spec.to_json() for spec in blueprint.groups],
    }


def to_toml(blueprint: Blueprint) -> str:
    """The blueprint as TOML; `parse_toml` makes the same blueprint of it.

    Raises BlueprintError for a value that TOML cannot hold.

    >>> from rfe_helpers.build import Blueprint, to_toml
    >>> print(to_toml(Blueprint("edge", description="A shop", version="0.0.1")))
    name = "edge"
    description = "A shop"
    version = "0.0.1"
    ...
    """
    try:
        return toml.dumps(to_json(blueprint))
    except ValueError as error:
        raise BlueprintError(f"this blueprint cannot be written as TOML: {error}") from None


def bumped(version: str) -> str:
    """The version with its patch number raised by one: "1.2.3" gives "1.2.4"."""
    match = _SEMVER.fullmatch(version)
    if match is None:
        raise BlueprintError(f"{version!r} is not a version of the form X.Y.Z")
    major, minor, patch = (int(number) for number in match.groups())
    return f"{major}.{minor}.{patch + 1}"


_FIELDS = frozenset(field.name for field in fields(Blueprint)) - {"other"}


def _specs(entries: list[dict[str, Any]]) -> tuple[PackageSpec, ...]:
    known = ("name", "version")
    return tuple(
        PackageSpec(
            entry.get("name", ""),
            entry.get("version", ""),
            {key: value for key, value in entry.items() if key not in known},
        )
        for entry in entries
    )


def _nameless(entries: list[dict[str, str]], key: str) -> Iterator[Problem]:
    for number, entry in enumerate(entries):
        if not entry.get("name"):
            version = entry.get("version")
            text = f"has version '{version}' but no name" if version else "has no name"
            yield Problem(
                f"{key}[{number}]",
                text,
                'give it one: name = "tmux"',
                refusal="All package entries need to contain the name of the package. "
                f"Entry #{number + 1} {text}.",
            )


def _table(
    data: Mapping[str, Any], keys: Mapping[str, Any], where: str, problems: list[Problem]
) -> dict[str, Any]:
    """The known keys of a table as the API spells them, where their values fit, and unknown ones
    as they are; null is left out."""
    spelling = {key.lower(): key for key in keys}
    table: dict[str, Any] = {}
    for name, value in data.items():
        key = spelling.get(name.lower())
        here = f"{where}.{key or name}" if where else key or name
        if key is None:
            # To find what was meant takes longer than to read the key.
            remedy = _likely(name, keys, where) if len(problems) < _MOST_REMEDIES else ""
            problems.append(Problem(here, "unknown key", remedy, unknown=True))
            if (kept := _without_null(value)) is not None:
                table[name] = kept
        elif value is not None:
            checked = _value(value, keys[key], here, problems)
            if checked is not None:
                table[key] = checked
    return table


def _without_null(value: Any) -> Any:
    """An unknown value in what JSON and TOML both hold: without null, dates as text."""
    if isinstance(value, Mapping):
        entries = {str(key): _without_null(inner) for key, inner in value.items()}
        return {key: inner for key, inner in entries.items() if inner is not None}
    if isinstance(value, list):
        return [kept for inner in value if (kept := _without_null(inner)) is not None]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)


def _likely(name: str, keys: Mapping[str, Any], where: str) -> str:
    """What was probably meant by an unknown key: the same one elsewhere, or the nearest one."""
    plain = name.lower()
    if where and plain in BLUEPRINT:
        return f"move `{name}` to the top, above the first line in [brackets]"
    moved = not where and plain in CUSTOMIZATIONS
    near = difflib.get_close_matches(plain, keys, 1, 0.8 if moved else 0.6)
    likely = [f"`{key}`" for key in near] + [f"`customizations.{plain}`"] * moved
    if likely:
        return f"did you mean {' or '.join(likely)}?"
    return f"remove it; known here are {', '.join(sorted(keys))}"


def _value(value: Any, expected: Any, where: str, problems: list[Problem]) -> Any:
    """The value as far as it fits; None if nothing of it does."""
    if expected is ANY:
        return _plain(value, where, problems)
    if isinstance(expected, Passed):
        inside: list[Problem] = []
        _value(value, expected.shape, where, inside)
        problems += [problem for problem in inside if problem.unknown]
        return _plain(value, where, problems)
    if isinstance(expected, dict) and isinstance(value, Mapping):
        return _table(value, expected, where, problems)
    if isinstance(expected, list) and isinstance(value, list):
        entries = [
            _value(entry, expected[0], f"{where}[{number}]", problems)
            for number, entry in enumerate(value)
            if entry is not None
        ]
        return [entry for entry in entries if entry is not None]
    kinds = expected if isinstance(expected, tuple) else (expected,)
    # A bool is an int in Python, but not in the API.
    if type(value) in kinds:
        return value
    problems.append(Problem(where, *_misfit(value, expected, where)))
    return None


def _misfit(value: Any, expected: Any, where: str) -> tuple[str, str]:
    """What a value must be, and how that is written."""
    if isinstance(expected, dict):
        table, _, index = where.partition("[")
        if index:
            name = value if isinstance(value, str) else "…"
            return "must be a table", f'write [[{table}]], and below it name = "{name}"'
        return "must be a table", f"write [{where}], in one pair of brackets"
    if isinstance(expected, list):
        if isinstance(expected[0], dict):
            return "must be a list", f"write [[{where}]], in two pairs of brackets"
        return "must be a list", 'write ["…", "…"]'
    kinds = expected if isinstance(expected, tuple) else (expected,)
    names = " or ".join(_KINDS[kind][0] for kind in kinds)
    return f"must be {names}, not {type(value).__name__}", f"write it as {_KINDS[kinds[0]][1]}"


_KINDS = {
    str: ("a string", 'text in quotes: "…"'),
    int: ("an integer", "a number without quotes"),
    bool: ("true or false", "true or false, without quotes"),
}


def _plain(value: Any, where: str, problems: list[Problem]) -> Any:
    """A value that is passed on must at least be JSON, which a TOML date or an infinity is not."""
    try:
        return _without_null(json.loads(json.dumps(value, allow_nan=False)))
    except (TypeError, ValueError):
        remedy = 'write dates as text in quotes: "…"'
        problems.append(Problem(where, "has a value that JSON cannot hold", remedy))
        return None
