"""The reference: the directive `face`, and docstrings as this project writes them.

    .. face:: rfe_helpers.build

documents what a face has: its docstring, its names in the order of the alphabet, and the names of
the modules among them.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from sphinx.util.parsing import nested_parse_to_nodes

INDENT = "    "


class Face(SphinxDirective):
    """The directive `face`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        face = importlib.import_module(name)
        lines = [f".. automodule:: {name}", "   :no-members:", ""]
        modules = []
        for public in sorted(face.__all__):
            thing = getattr(face, public)
            if inspect.ismodule(thing):
                modules.append(thing)
            elif inspect.isclass(thing):
                lines += [f".. autoclass:: {name}.{public}", "   :members:", ""]
            elif callable(thing):
                lines += [f".. autofunction:: {name}.{public}", ""]
            else:
                lines += [f".. py:data:: {public}", f"   :value: {thing!r}", ""]
        for module in modules:
            if not hasattr(module, "__all__"):
                title = module.__name__.removeprefix(f"{name}.").removeprefix("rfe_helpers.")
                lines += [f".. rubric:: {title}", "", f".. automodule:: {module.__name__}"]
                twice = [each for each in face.__all__ if _home(face, each) == module.__name__]
                lines += ["   :members:", f"   :exclude-members: {', '.join(twice)}"]
                lines += ["   :member-order: bysource", ""]
        return nested_parse_to_nodes(self.state, StringList(lines, source=name))


def _home(face: Any, name: str) -> str:
    """The module in which a face's name is defined."""
    return str(getattr(getattr(face, name), "__module__", ""))


def signature(
    _app: Any, _what: str, _name: str, _thing: Any, _options: Any, arguments: Any, returns: Any
) -> tuple[Any, Any] | None:
    """Types and defaults as one reads them: `PackageSpec`, and … for a default that is made."""
    if arguments is None:
        return None
    short = re.sub(r"~[\w.]+\.", "", arguments).replace("<factory>", "…")
    return short, re.sub(r"~[\w.]+\.", "", returns) if returns else returns


def docstring(
    _app: Any, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]
) -> None:
    """Examples are indented, without a mark before them: they become blocks of Python."""
    text: list[str] = []
    inside = False
    for line in lines:
        indented = line.startswith(INDENT)
        if indented and not inside and not (text and text[-1].strip()):
            text += [".. code-block:: pycon" if ">>>" in line else ".. code-block:: text", ""]
            inside = True
        elif inside and line.strip() and not indented:
            text.append("")
            inside = False
        text.append(line)
    lines[:] = text


def example(_app: Any, context: Any, lines: list[str]) -> None:
    """The example of a command, which stands at the end of its help."""
    if text := getattr(context.command, "example", ""):
        lines += [".. code-block:: console", "", f"{INDENT}$ {text}", ""]


def command_titles(app: Any, document: nodes.document) -> None:
    """Headings of commands are the whole command, `rfe commit packages`, not its last word."""
    if app.env.docname == "docs/reference/rfe":
        page = document.next_node(nodes.section)
        for command in page.findall(nodes.section):
            if command is not page and command.parent is not page:
                above, title = (part.next_node(nodes.title) for part in (command.parent, command))
                title[:] = [nodes.Text(f"{above.astext()} {title.astext()}")]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("face", Face)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-process-signature", signature)
    app.connect("sphinx-click-process-epilog", example)
    app.connect("doctree-read", command_titles, priority=100)  # before the contents are collected
    return {"parallel_read_safe": True, "parallel_write_safe": True}
