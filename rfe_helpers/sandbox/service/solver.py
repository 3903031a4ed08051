"""apt's solver: what it would install and from where, or which packages conflict and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from rfe_helpers.build.blueprint import PackageSpec
from rfe_helpers.core import run
from rfe_helpers.errors import BuilderError

_SOLVE_SECONDS = 120
# How much an explanation names: requested packages, reasons, and characters of a reason.
_MOST_NAMES, _MOST_REASONS, _LONGEST_REASON = 10, 20, 300
# 'http://mirror.example/debian/pool/main/t/tmux/tmux_3.5a-3_amd64.deb' tmux_3.5a-3_amd64.deb 1
# SHA256:…, on one line; the colon of an epoch is %3a.
_FETCHED = re.compile(r"'(\S+)' ([^\s_]+)_([^\s_]+)_(\w+)\.deb \d+ (?:SHA256:([0-9a-f]{64}))?")
_UNMET = "The following packages have unmet dependencies:\n"
# " exim4-config : Conflicts: postfix but 3.10 is to be installed"; the package stands on the first
# of its lines, and alternatives of a dependency ("or") on lines of their own.
_REASON = re.compile(r" (?:(\S+) :|\s) +([A-Z]\w+: .*)")
_CAUSES = ("Conflicts:", "Breaks:")


class Solved(NamedTuple):
    """A package that apt would install, under Debian's name of its architecture. `sha256` is "" if
    the repository does not say."""

    name: str
    version: str
    arch: str
    url: str
    sha256: str


def install(
    words: Sequence[str], environment: Mapping[str, str], base: Sequence[str] = ()
) -> list[Solved]:
    """All packages that apt would install for these words and for those of `base`, sorted. Raises
    BuilderError with apt's reasons."""
    options = ["--print-uris", "-q", "-o", "Acquire::ForceHash=SHA256"]
    argv = ["apt-get", "install", *options, "--", *words, *base]
    result = run.run(argv, env=environment, seconds=_SOLVE_SECONDS, check=False)
    if result.status != 0:
        # What conflicts comes first: the other reasons often follow from it.
        reasons = sorted(_reasons(result.stdout), key=lambda reason: not _is_cause(reason))
        lines = [line for line in result.stderr.splitlines() if line.startswith("E: ")]
        raise BuilderError(
            _explanation(words, reasons or [line.removeprefix("E: ") for line in lines])
        )
    matches = filter(None, map(_FETCHED.match, result.stdout.splitlines()))
    return sorted(Solved(m[2], unquote(m[3]), m[4], m[1], m[5] or "") for m in matches)


def absence(missing: Sequence[PackageSpec]) -> str:
    """The explanation for requested packages that do not exist."""

    def shown(text: str) -> str:
        return ascii(text)[1:-1][:80]

    reasons = []
    for spec in missing:
        version = "" if spec.version in ("", "*") else f" in version {shown(spec.version)}"
        reasons.append(f"no package {shown(spec.name)}{version}")
    return _explanation([shown(spec.name) for spec in missing], reasons)


def _explanation(words: Sequence[str], reasons: Sequence[str]) -> str:
    """Why packages cannot be installed, bounded, in the shape of osbuild-composer's "DepsolveError:
    There was a problem depsolving …"."""
    named = ", ".join(words[:_MOST_NAMES])
    more = f" and {len(words) - _MOST_NAMES} more" if len(words) > _MOST_NAMES else ""
    left = len(reasons) - _MOST_REASONS
    shown = [f"\n  - {reason[:_LONGEST_REASON]}" for reason in reasons[:_MOST_REASONS]]
    rest = f"\n  - and {left} more reasons" if left > 0 else ""
    return f"DepsolveError: There was a problem depsolving {named}{more}:{''.join(shown)}{rest}"


def _reasons(output: str) -> Iterator[str]:
    """apt's unmet dependencies, "exim4-config conflicts …", each on one line."""
    package, reason = "", ""
    for line in output.partition(_UNMET)[2].splitlines():
        if match := _REASON.fullmatch(line):
            if reason:
                yield f"{package} {reason}"
            package, reason = match[1] or package, match[2]
        elif reason:
            reason += f" {line.strip()}"
    if reason:
        yield f"{package} {reason}"


def _is_cause(reason: str) -> bool:
    return reason.partition(" ")[2].startswith(_CAUSES)
