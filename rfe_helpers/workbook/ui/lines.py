"""The lines below a panel, which do the same as its buttons; pure.

They run as they stand, in an empty notebook and in a shell: they define their names, and give the
lab and the socket. For what composer-cli does there is a second line, after `# or: `, for machines
without composer-cli. No line holds a secret.
"""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

from rfe_helpers.lab.lab import DEFAULT, Lab
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.qemu import VmSpec

# The socket that composer-cli uses without --socket.
_USUAL_SOCKET = Path("/run/weldr/api.socket")
OR = "# or: "


def python(names: str, *lines: str) -> str:
    """Lines of Python after the import of `names` from rfe_helpers."""
    return "\n".join([f"from rfe_helpers import {names}", *lines])


def opened(lab: Lab) -> str:
    """The lab in Python."""
    return f"Lab({DEFAULT if lab.is_usual else str(lab.directory)!r})"


def spec(machine: VmSpec) -> str:
    """The description of a machine in Python, which needs `Path`: what is not as usual."""
    values = [(each, getattr(machine, each.name)) for each in fields(machine)]
    words = [
        f"{field.name}={f'Path({str(value)!r})' if isinstance(value, Path) else repr(value)}"
        for field, value in values[1:]
        if value != field.default
    ]
    return f"VmSpec({', '.join([repr(machine.name), *words])})"


def client(lab: Lab, line: str) -> str:
    """Python with a client of the lab's Image Builder."""
    return python("Lab, connect", f"client = connect({opened(lab)})", line)


def node(system: Node, line: str, names: str = "Lab, Node") -> str:
    """Python with a system of the lab."""
    host = "" if system.host == "127.0.0.1" else f", host={system.host!r}"
    where = f"{system.name!r}, port={system.port}, user={system.user!r}{host}"
    return python(names, f"edge = Node({opened(system.lab)}, {where})", line)


def commit(source: str, ref: str, line: str) -> str:
    """Python with the commit of a source; `ref` is "" where the source has only one."""
    more = f", {ref!r}" if ref else ""
    return python("open_commit", f"commit = open_commit({source!r}{more})", line)


def composer(socket: Path, *words: str) -> str:
    """A command of composer-cli."""
    start = [] if socket == _USUAL_SOCKET else ["--socket", str(socket)]
    return shlex.join(["composer-cli", *start, *words])


def curl(socket: Path, path: str, *options: str) -> str:
    """A request to Image Builder's API with curl; `path` is what follows /api/v1/, quoted."""
    address = f"http://localhost/api/v1/{path}"
    return shlex.join(["curl", "--unix-socket", str(socket), *options, address])


def either(line: str, other: str) -> str:
    """A line with another one that does the same."""
    return f"{line}\n{OR}{other}"


def file(name: str, text: str) -> str:
    """A shell line that writes a file."""
    end = "END"
    while end in text.splitlines():
        end += "_"
    return f"cat > {shlex.quote(name)} <<'{end}'\n{text.rstrip()}\n{end}"


def literal(text: str) -> str:
    """A text of several lines as Python writes it, readable if possible."""
    return repr(text) if "\\" in text or '"""' in text else f'"""\n{text.rstrip()}\n"""'
