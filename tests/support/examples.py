"""The examples in the docstrings of the faces, and what runs them.

Each docstring with an example is one test of doctest, which runs in an empty namespace, with the
names of `Parts` that it uses. Those that use none need no lab.
"""

import builtins
import doctest
import importlib
import inspect
import io
import symtable
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from rfe_helpers import Machine, Node, build, imagemode, serve
from rfe_helpers.build import Artifact, Client
from rfe_helpers.commit import Commit, open_commit
from rfe_helpers.imagemode import PushedImage
from rfe_helpers.lab import Lab
from rfe_helpers.serve import Registry, Site

ROOT = Path(__file__).parents[2]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Parts:
    """The names that examples use without defining them, as the docstring of rfe_helpers has them:
    parts of a lab in which the notebooks from 10 to 60 have run."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def lab(self) -> Lab:
        return Lab(self._directory)

    @cached_property
    def client(self) -> Client:
        return build.connect(self.lab)

    @cached_property
    def artifact(self) -> Artifact:
        built = self.lab.step("commit")
        return Artifact(Path(built["artifact"]), self.client.compose(built["compose"]))

    @cached_property
    def commit(self) -> Commit:
        return open_commit(self.lab.step("commit")["artifact"])

    @cached_property
    def update(self) -> Commit:
        return open_commit(self.lab.step("update")["artifact"])

    @cached_property
    def site(self) -> Site:
        return serve.published(self.lab)

    @cached_property
    def iso(self) -> Path:
        return build.boot_iso(self.lab)

    @cached_property
    def machine(self) -> Machine:
        machine = Machine.find(self.lab, "edge-1")
        assert machine is not None
        return machine

    @cached_property
    def node(self) -> Node:
        installed = self.lab.step("install")
        return Node(self.lab, "edge-1", port=installed["ssh_port"], user=installed["user"])

    @cached_property
    def registry(self) -> Registry:
        return serve.registry.start(self.lab)

    @cached_property
    def image(self) -> PushedImage:
        return imagemode.push_base(self.lab)


PARTS = {name for name, value in vars(Parts).items() if isinstance(value, cached_property)}


def faces() -> list[str]:
    """The modules whose names people import: those with a stub."""
    stubs = sorted(ROOT.glob("rfe_helpers/**/__init__.pyi"))
    return [".".join(path.parent.relative_to(ROOT).parts) for path in stubs]


def is_documented(thing: object) -> bool:
    """Whether it is a function or a class, which has a docstring of its own."""
    return inspect.isclass(thing) or inspect.isfunction(inspect.unwrap(thing))  # type: ignore[arg-type]


def members(module: Any) -> Iterator[tuple[str, Any]]:
    """The functions and classes that a module has itself."""
    for name, thing in vars(module).items():
        own = getattr(thing, "__module__", "") == module.__name__
        if own and not name.startswith("_") and is_documented(thing):
            yield name, thing


@cache
def tests() -> tuple[doctest.DocTest, ...]:
    """The docstrings that have examples: those of the faces, of their functions and classes, and of
    the functions and classes in the modules that they name, each once."""
    finder, alone = doctest.DocTestFinder(), doctest.DocTestFinder(recurse=False)
    collected: dict[int, list[doctest.DocTest]] = {}
    for name in faces():
        face = importlib.import_module(name)
        collected[id(face)] = alone.find(face, name, globs={})
        for public in face.__all__:
            thing = getattr(face, public)
            inside = members(thing) if inspect.ismodule(thing) else [("", thing)]
            for inner, each in inside:
                if is_documented(each) and id(each) not in collected:
                    path = f"{name}.{public}.{inner}".rstrip(".")
                    module = inspect.getmodule(each)
                    collected[id(each)] = finder.find(each, path, module, globs={})
    return tuple(test for each in collected.values() for test in each if test.examples)


def is_skipped(example: doctest.Example) -> bool:
    return bool(example.options.get(doctest.SKIP))


def source(examples: Iterable[doctest.Example]) -> str:
    return "".join(example.source for example in examples)


def names_used(program: str) -> set[str]:
    """The names that a program uses and does not define."""
    top = symtable.symtable(program, "example", "exec")
    defined = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    return {name for name in _global_names(top) if name not in defined | set(dir(builtins))}


def _global_names(table: symtable.SymbolTable) -> Iterator[str]:
    outermost = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (outermost or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _global_names(child)


def parts_of(test: doctest.DocTest) -> set[str]:
    """The names that a docstring needs from somewhere else."""
    return names_used(source(each for each in test.examples if not is_skipped(each)))


def failures(test: doctest.DocTest, names: Mapping[str, Any]) -> str:
    """What doctest says when it has run the examples of a docstring, "" if all are right."""
    report = io.StringIO()
    test.globs = dict(names)
    runner = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS)
    runner.run(test, out=report.write)
    return report.getvalue()


def program(test: doctest.DocTest) -> str:
    """All lines of a docstring, skipped ones too, as a module that mypy can check."""
    lines = source(test.examples)
    parts = sorted(names_used(lines))
    heads = ["from support.examples import Parts", "parts: Parts"] if parts else []
    return "\n".join([*heads, *(f"{name} = parts.{name}" for name in parts), lines])
