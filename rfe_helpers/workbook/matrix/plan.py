"""The plan of a matrix: its axes and what its combinations have in common, checked."""

from __future__ import annotations

import hashlib
import itertools
import math
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import papermill
from msgspec import Struct

from rfe_helpers.errors import ParameterError, ToolMissingError
from rfe_helpers.lab import profile
from rfe_helpers.machine.qemu import find_program
from rfe_helpers.workbook.headless import typed

MOST_COMBINATIONS = 256
# An item of a list: the name of the axis that begins, a value, in quotes or not, and what ends it.
_ITEM = re.compile(
    r"""\s*(?:([A-Za-z_]\w*)=)?+\s*+(?:"((?:[^"]|"")*)"\s*|(?!")([^,]*))(,|\Z)""", re.DOTALL
)


class Axis(Struct, frozen=True):
    """An axis: `profile`, `architecture` or a parameter, with its values as texts."""

    name: str
    values: tuple[str, ...]


class NotebookDigest(Struct, frozen=True):
    """A notebook as it was when the plan was made: a changed one has not been run yet."""

    path: str
    sha256: str


class MatrixPlan(Struct, frozen=True):
    """What a matrix runs. `profile` is that of combinations without an axis for it; `options` are
    options of `rfe run` that all combinations have."""

    axes: tuple[Axis, ...]
    notebooks: tuple[NotebookDigest, ...]
    profile: str
    parameters: dict[str, str] = {}
    options: tuple[str, ...] = ()

    def combinations(self) -> list[dict[str, str]]:
        """The values of each combination by axis; the last axis changes fastest."""
        names = [axis.name for axis in self.axes]
        products = itertools.product(*(axis.values for axis in self.axes))
        return [dict(zip(names, values, strict=True)) for values in products]

    def profile_of(self, values: Mapping[str, str]) -> str:
        return values.get("profile", self.profile)

    def arguments(self, values: Mapping[str, str]) -> list[str]:
        """The arguments of `rfe run` for a combination, except for its directories."""
        own = {k: v for k, v in values.items() if k not in ("profile", "architecture")}
        words = [notebook.path for notebook in self.notebooks]
        words += ["--profile", self.profile_of(values), *self.options]
        for name, value in {**self.parameters, **own}.items():
            words += ["-p", name, value]
        return words


def parse_axes(texts: Sequence[str]) -> tuple[Axis, ...]:
    """Axes from texts such as "packages=tmux,tmux jq": a text may have several, and an item that
    begins with NAME= begins one. A value in double quotes may contain commas, and is a value
    whatever is in it. Raises ParameterError.

        parse_axes(["profile=rhel-9.6,rhel-10,packages=tmux,tmux jq"])
    """
    axes: dict[str, list[str]] = {}
    for text in texts:
        name = ""
        for beginning, value in _items(text):
            if beginning:
                name = beginning
                if name in axes:
                    raise ParameterError(f"the matrix has the axis {name} twice")
                axes[name] = []
            if not name:
                raise ParameterError(
                    f"{text!r} does not begin with the name of an axis",
                    remedy="write an axis as NAME=VALUE,VALUE, such as packages=tmux,jq",
                )
            _add(axes, name, value.strip())
    return tuple(Axis(name, tuple(values)) for name, values in axes.items())


def _items(text: str) -> Iterator[tuple[str, str]]:
    """The items of a list: the name of the axis that begins, or "", and the value."""
    place, more = 0, ","
    while more:
        item = _ITEM.match(text, place)
        if item is None:
            raise ParameterError(
                f"{text!r} cannot be read as a list of values",
                remedy='put a value with a comma into double quotes, as in NAME="a,b","c,d"',
            )
        name, quoted, bare, more = item.groups()
        yield name or "", bare if quoted is None else quoted.replace('""', '"')
        place = item.end()


def _add(axes: dict[str, list[str]], name: str, value: str) -> None:
    if not value:
        raise ParameterError(
            f"the axis {name} has an empty value",
            remedy=f"write {name}=VALUE,VALUE without a comma at the end",
        )
    if value in axes[name]:
        raise ParameterError(f"the axis {name} has the value {value!r} twice")
    axes[name].append(value)


def make_plan(
    axes: Sequence[Axis],
    notebooks: Sequence[Path],
    usual_profile: str,
    parameters: Mapping[str, str],
    options: Sequence[str] = (),
    *,
    here: bool = True,
) -> MatrixPlan:
    """The plan of a matrix, after everything in it has been checked.

    With `here`, the combinations run on this machine, which must be able to. Raises ParameterError
    for axes and values that no combination can have, ProfileError for an unknown profile or one of
    a release without edge images.
    """
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_COMBINATIONS:
        raise ParameterError(
            f"the matrix has {count} combinations, {MOST_COMBINATIONS} are allowed",
            remedy="give fewer values, or several matrices with labs of their own",
        )
    known = [papermill.inspect_notebook(path) for path in notebooks]
    for axis in axes:
        if axis.name in parameters:
            raise ParameterError(f"{axis.name} is an axis of the matrix and given with -p, too")
        if axis.name == "profile":
            for name in axis.values:
                profile.load(name).require_edge()
        elif axis.name != "architecture":
            _check_values(axis.name, axis.values, known)
    for name, value in parameters.items():
        _check_values(name, [value], known)
    plan = MatrixPlan(
        axes=tuple(axes),
        notebooks=tuple(
            NotebookDigest(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
            for path in notebooks
        ),
        profile=usual_profile,
        parameters=dict(parameters),
        options=tuple(options),
    )
    _check_architectures(plan, here=here)
    return plan


def _check_values(
    name: str, values: Sequence[str], known: Sequence[Mapping[str, Mapping[str, Any]]]
) -> None:
    """Raise ParameterError unless a notebook has the parameter, and it takes the values."""
    if name in ("lab", "profile"):
        uses = {
            "lab": "each combination has a lab of its own, below the one of --lab",
            "profile": "use the option --profile, or the axis profile",
        }
        raise ParameterError(f"{name} is not a parameter of a matrix", remedy=uses[name])
    holders = [parameters[name] for parameters in known if name in parameters]
    if not holders:
        names = {name for parameters in known for name in parameters} - {"lab", "profile"}
        raise ParameterError(
            f"no notebook of this run has a parameter {name!r}",
            remedy=f"a matrix can have: {', '.join(['profile', 'architecture', *sorted(names)])}",
        )
    for value in values:
        for holder in holders:
            typed(name, value, holder)


def _check_architectures(plan: MatrixPlan, *, here: bool) -> None:
    """Raise ParameterError with the reason for each combination that cannot have its
    architecture."""
    reasons = [
        f"  {label(values)}: {reason}"
        for values in plan.combinations()
        if (reason := _obstacle(plan.profile_of(values), values.get("architecture", ""), here))
    ]
    if reasons:
        raise ParameterError(
            "the matrix has combinations that cannot run:\n" + "\n".join(reasons),
            remedy="leave them out of the axes, or run several matrices with labs of their own",
        )


def _obstacle(release: str, architecture: str, here: bool) -> str:
    """Why a release cannot have an architecture, "" if it can."""
    facts = profile.load(release)
    if not architecture:
        return ""
    if architecture != facts.arch:
        return f"the profile {release} is for {facts.arch}"
    if not here:
        return ""
    if facts.backend == "sandbox" and platform.machine() != architecture:
        return f"the sandbox builds for the machine that it runs on, which is {platform.machine()}"
    try:
        find_program(architecture)
    except ToolMissingError as error:
        return error.message
    return ""


def label(values: Mapping[str, str]) -> str:
    """The name of a combination: packages=tmux, firmware=bios."""
    return ", ".join(f"{name}={value}" for name, value in values.items())
