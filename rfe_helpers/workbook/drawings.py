"""Drawings of the state of a run: deployments, connections, and trees with their sizes.

They are made of HTML and SVG in the page's own colours, so that they can be read in a light and a
dark theme, and each has a text for terminals and screen readers.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rfe_helpers.core.network import GUEST, HOST_FROM_GUEST
from rfe_helpers.core.units import size
from rfe_helpers.workbook.show import Markup

if TYPE_CHECKING:
    from rfe_helpers.commit.commit import Commit
    from rfe_helpers.machine.node import Deployment
    from rfe_helpers.serve.site import Site

_STYLE = (
    "font: 13px system-ui, sans-serif; max-width: 100%; height: auto; color: inherit; "
    "display: block; margin: .5em 0; background: none"
)
_ACCENT = "var(--jp-brand-color1, #3a6ea5)"
_ROW, _WIDTH = 92, 780  # of the drawing of deployments


class _Svg:
    """An SVG that is put together from boxes, lines of text and arrows."""

    def __init__(self, width: int, height: int, text: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" role="img" aria-label="{html.escape(text)}" style="{_STYLE}">'
            '<defs><marker id="rfe-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse">'
            f'<path d="M0 0 8 4 0 8z" fill="{_ACCENT}"/></marker></defs>'
        )
        self._parts: list[str] = []

    def box(
        self, x: int, y: int, width: int, height: int, lines: Iterable[str], kind: str = ""
    ) -> None:
        """A box with its lines, the first in bold; `kind` is "", "strong" or "dashed"."""
        plain = 'stroke="currentColor"'
        edges = {
            "strong": f'stroke="{_ACCENT}" stroke-width="3"',
            "dashed": f'{plain} stroke-dasharray="5 4"',
        }
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="none" '
            f"{edges.get(kind, plain)}/>"
        )
        for number, line in enumerate(lines):
            self.text(x + 12, y + 22 + 18 * number, line, bold=number == 0)

    def text(self, x: int, y: int, line: str, *, bold: bool = False) -> None:
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x}" y="{y}" fill="currentColor"{weight}>{html.escape(line)}</text>'
        )

    def arrow(self, path: str) -> None:
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{_ACCENT}" stroke-width="2" '
            'marker-end="url(#rfe-arrow)"/>'
        )

    def __str__(self) -> str:
        return f"{self._head}{''.join(self._parts)}</svg>"


def deployments(entries: Iterable[Deployment]) -> Markup:
    """The deployments of a system in the order of its boot menu, the /etc of each, and /var, which
    they share.

    >>> from rfe_helpers.workbook import deployments
    >>> deployments(node.status().deployments)
    13.2...
    ... ● booted; boot menu: ...
    /var is one for all of them
    """
    listed = list(entries)
    lines = [
        f"{each.version}  {each.checksum[:12]}  {' · '.join(_roles(i, each))}; "
        f"boot menu: {_menu(i, each)}; /etc: {_etc(each)}"
        for i, each in enumerate(listed)
    ]
    text = "\n".join([*lines, "/var is one for all of them"])
    height = _ROW * len(listed) + 66
    svg = _Svg(_WIDTH, height, text)
    for index, each in enumerate(listed):
        y = 8 + _ROW * index
        edge = "strong" if each.booted else "dashed" if each.staged else ""
        svg.box(8, y, 180, 76, ["boot menu", _menu(index, each)], "dashed" if each.staged else "")
        svg.arrow(f"M190 {y + 38}h26")
        title = each.version or "no version"
        svg.box(220, y, 320, 76, [title, each.checksum[:12], " · ".join(_roles(index, each))], edge)
        svg.box(556, y, 216, 76, ["/etc of its own", _etc(each)], edge)
    svg.box(220, height - 56, 552, 48, ["/var: one for all of them, never replaced"])
    return Markup(str(svg), text)


def _roles(index: int, deployment: Deployment) -> list[str]:
    roles = {
        "● booted": deployment.booted,
        "staged: boots next": deployment.staged,
        "boots next": index == 0 and not deployment.booted and not deployment.staged,
        "kept for rollback": index > 0 and not deployment.booted,
    }
    return [role for role, holds in roles.items() if holds]


def _menu(index: int, deployment: Deployment) -> str:
    """Its entry of the boot loader; that of a staged one is written when the system goes down."""
    if deployment.staged:
        return "written at shutdown"
    return "first entry, the default" if index == 0 else f"entry {index + 1}"


def _etc(deployment: Deployment) -> str:
    if deployment.staged:
        return "merged at shutdown"
    return "in use" if deployment.booted else "as it was left"


def connections(site: Site, *, inside: int, machine: str = "the machine") -> Markup:
    """Who asks whom while a machine is installed and updated, with addresses and ports.

    `inside` is the port of the web server in its container.

    >>> from rfe_helpers.workbook import connections
    >>> connections(site, inside=lab.profile.container.port, machine="edge-1")
    edge-1 (10.0.2.15) asks http://10.0.2.2:... for /repo/...; 10.0.2.2 is this machine, ...
    """
    paths = ["/repo/", *(f"/{name}" for name in site.kickstarts)]
    server = f"{site.engine}, port {site.port}" if site.engine == "nginx" else site.container
    lines = [server] + ([f"port {inside} in the container"] if site.engine == "podman" else [])
    host, outside = site.url.rstrip("/"), site.guest_url.rstrip("/")
    text = (
        f"{machine} ({GUEST}) asks {outside} for {' and '.join(paths)}; {HOST_FROM_GUEST} is this "
        f"machine, on which {' with '.join(lines)} answers at {host}, on loopback only; your "
        f"terminal asks {host}"
    )
    svg = _Svg(_WIDTH, 232, text)
    svg.box(8, 8, 466, 214, ["this machine"], "dashed")
    svg.box(22, 44, 206, 76, ["your terminal", f"curl {host}/"])
    svg.box(266, 44, 196, 94, ["web server", *lines, f"listens on {host.partition('//')[2]}"])
    svg.box(22, 152, 206, 58, ["the archive", "that you composed"])
    svg.box(566, 44, 208, 94, [machine, GUEST, f"this machine is {HOST_FROM_GUEST}"])
    svg.arrow("M230 82h32")
    svg.arrow("M230 182h134v-40")
    svg.arrow("M564 118h-98")
    for number, path in enumerate(paths[:3]):
        svg.text(482, 60 + 18 * number, path)
    svg.text(482, 162, f"asks {outside}")
    return Markup(str(svg), text)


@dataclass
class _Directory:
    """A directory with everything below it: bytes, and those of them that the parent has, too."""

    size: int = 0
    shared: int = 0
    children: dict[str, _Directory] = field(default_factory=dict)


def tree(commit: Commit, parent: Commit | None = None, *, most: int = 8) -> Markup:
    """The tree of a commit as directories that can be opened, the largest first, and its packages,
    if it knows their files; with a `parent`, also what an update shares with that.

    >>> from rfe_helpers.workbook import tree
    >>> tree(update, commit)
    3... MB in files: /usr ... MB; ... MB are shared with the parent, ... are new

    `most` is how many entries of a directory are listed. Raises CommitError.
    """
    known = {file.checksum for file in parent.files()} if parent else set()
    root = _Directory()
    for file in commit.files():
        if file.kind == "file":
            _add(root, file.path, file.size, file.size if file.checksum in known else 0)
    shown = [_folder("by directory", root, root.size, parent is not None, most, depth=4)]
    if commit.knows_owners:
        packages = _Directory()
        for name, number in commit.size_by_package().items():
            _add(packages, f"/{name}", number, 0)
        shown.append(_folder("by package", packages, packages.size, False, most * 2, depth=1))
    largest = sorted(root.children.items(), key=lambda item: -item[1].size)[:most]
    text = f"{size(root.size)} in files: "
    text += ", ".join(f"/{name} {size(each.size)}" for name, each in largest)
    if parent:
        new = size(root.size - root.shared)
        text += f"; {size(root.shared)} are shared with the parent, {new} are new"
    return Markup(f'<div class="rfe-tree">{"".join(shown)}</div>', text)


def _add(root: _Directory, path: str, number: int, shared: int) -> None:
    place = root
    for name in ("", *path.strip("/").split("/")):
        place = place.children.setdefault(name, _Directory()) if name else root
        place.size += number
        place.shared += shared


def _folder(
    name: str, directory: _Directory, whole: int, compared: bool, most: int, depth: int
) -> str:
    """A directory as a line with a bar, with its largest entries below it."""
    label = f"{html.escape(name)} <b>{size(directory.size)}</b>"
    if compared:
        label += f", {size(directory.size - directory.shared)} new"
    line = f"{_bar(directory, whole, compared)} {label}"
    ordered = sorted(directory.children.items(), key=lambda item: -item[1].size)
    if not ordered or depth == 0:
        return f'<div style="padding-left: 1.1em">{line}</div>'
    entries = [_folder(n, d, whole, compared, most, depth - 1) for n, d in ordered[:most]]
    if rest := ordered[most:]:
        others = _Directory(sum(d.size for _, d in rest), sum(d.shared for _, d in rest))
        entries.append(_folder(f"{len(rest)} others", others, whole, compared, most, 0))
    opened = ' open=""' if name in ("by directory", "usr") else ""
    inner = "".join(entries)
    return (
        f"<details{opened}><summary>{line}</summary>"
        f'<div style="padding-left: 1.4em">{inner}</div></details>'
    )


def _bar(directory: _Directory, whole: int, compared: bool) -> str:
    """A bar of the directory's share of the whole: full for what is new, hollow for the rest."""
    width = 160 * directory.size / max(whole, 1)
    new = (directory.size - directory.shared) / max(directory.size, 1) if compared else 1
    return (
        f'<span aria-hidden="true" style="display: inline-block; box-sizing: border-box; '
        f"height: .8em; width: {max(width, 2):.0f}px; border: 1px solid {_ACCENT}; background: "
        f'linear-gradient(to right, {_ACCENT} {new:.1%}, transparent {new:.1%})"></span>'
    )
