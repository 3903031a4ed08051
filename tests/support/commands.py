"""Which commands the package can start, read from its source.

A command is the first word of an argv that is given to `run.run`, `run.start` or `run.become`, or
a name given to `run.require` or `run.which`. A name is followed to what is assigned to it, a
parameter to the arguments of every caller, a call to what the function returns.
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PYTHON = "sys.executable"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Scope:
    """Where an expression stands."""

    path: Path
    module: ast.Module
    function: Function | None

    def place(self, node: ast.AST) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 0)}"


@dataclass
class Source:
    """The modules to read, with where each function is defined and called."""

    modules: dict[Path, ast.Module]
    functions: dict[str, list[tuple[Function, Scope]]] = field(init=False)
    calls: dict[str, list[tuple[ast.Call, Scope]]] = field(init=False)

    def __post_init__(self) -> None:
        self.functions, self.calls = defaultdict(list), defaultdict(list)
        for path, module in self.modules.items():
            self._index(module, Scope(path, module, None))

    def _index(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, Function):
                inner = Scope(scope.path, scope.module, child)
                self.functions[child.name].append((child, inner))
            elif isinstance(child, ast.Call):
                self.calls[_called(child)].append((child, scope))
            self._index(child, inner)


def started(modules: dict[Path, ast.Module]) -> tuple[dict[str, set[str]], set[str]]:
    """The commands, each with the places (file:line) that start it, and the places of which this
    cannot tell what they start. `sys.executable` stands for itself; "qemu-system-*" is a name of
    which only the beginning is known."""
    source = Source(modules)
    commands: dict[str, set[str]] = defaultdict(set)
    unknown: set[str] = set()
    for door, follow, several in (
        ("run", _first, False),
        ("start", _first, False),
        ("become", _first, False),
        ("require", _word, True),
        ("which", _word, True),
    ):
        for call, scope in source.calls[door]:
            if not _is_door(call, door):
                continue
            for argument in call.args if several else call.args[:1]:
                try:
                    words = follow(source, argument, scope, ())
                except LookupError:
                    words = set()
                if not words:
                    unknown.add(scope.place(call))
                for word in words:
                    commands[word].add(scope.place(call))
    return commands, unknown


def _is_door(call: ast.Call, door: str) -> bool:
    return (
        isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and (call.func.value.id, call.func.attr) == ("run", door)
    )


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


Seen = tuple[ast.AST, ...]
Follow = Callable[[Source, ast.expr, Scope, Seen], set[str]]


def _first(source: Source, node: ast.expr, scope: Scope, seen: Seen) -> set[str]:
    """What the first word of a list can be; nothing for an empty one. Raises LookupError."""
    if node in seen:
        return set()
    seen = (*seen, node)
    match node:
        case ast.List(elts=[]) | ast.Tuple(elts=[]):
            return set()
        case ast.List(elts=[ast.Starred(value=value), *_]):
            return _first(source, value, scope, seen)
        case ast.List(elts=[head, *_]) | ast.Tuple(elts=[head, *_]):
            return _word(source, head, scope, seen)
        case ast.BinOp(op=ast.Add(), left=left):
            return _first(source, left, scope, seen)
        case ast.Call(func=ast.Name(id="list" | "tuple"), args=[inner]):
            return _first(source, inner, scope, seen)
        case ast.ListComp(generators=[ast.comprehension(iter=inner)]):
            return _first(source, inner, scope, seen)
    return _elsewhere(source, node, scope, seen, _first)


def _word(source: Source, node: ast.expr, scope: Scope, seen: Seen) -> set[str]:
    """What one word can be. Raises LookupError."""
    if node in seen:
        return set()
    seen = (*seen, node)
    match node:
        case ast.Constant(value=str(word)):
            return {word}
        case ast.Constant(value=None):
            return set()
        case ast.Attribute(value=ast.Name(id="sys"), attr="executable"):
            return {PYTHON}
        case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]):
            return {f"{start}*"}
        case ast.Call(func=ast.Name(id="next"), args=[options, *_]):
            return _options(source, options, scope, seen)
    return _elsewhere(source, node, scope, seen, _word)


def _options(source: Source, node: ast.expr, scope: Scope, seen: Seen) -> set[str]:
    """All that a sequence holds."""
    match node:
        case ast.GeneratorExp(generators=[ast.comprehension(iter=inner)]):
            return _options(source, inner, scope, seen)
        case ast.Call(func=ast.Name(id="filter"), args=[_, inner]):
            return _options(source, inner, scope, seen)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            words = [_options_or_word(source, element, scope, seen) for element in elements]
            return set().union(*words)
        case ast.IfExp(body=body, orelse=other):
            return _options(source, body, scope, seen) | _options(source, other, scope, seen)
        case ast.Subscript(value=inner):
            return _options(source, inner, scope, seen)
    return _elsewhere(source, node, scope, seen, _options)


def _options_or_word(source: Source, node: ast.expr, scope: Scope, seen: Seen) -> set[str]:
    if isinstance(node, ast.Starred):
        return _options(source, node.value, scope, seen)
    return _word(source, node, scope, seen)


def _elsewhere(
    source: Source, node: ast.expr, scope: Scope, seen: Seen, follow: Follow
) -> set[str]:
    """Follow an expression that says nothing itself."""
    match node:
        case ast.IfExp(body=body, orelse=other):
            return follow(source, body, scope, seen) | follow(source, other, scope, seen)
        case ast.BoolOp(values=values):
            return set().union(*(follow(source, value, scope, seen) for value in values))
        case ast.Call():
            return _returned(source, node, scope, seen, follow)
        case ast.Name(id=name):
            return _named(source, name, scope, seen, follow)
    raise LookupError(scope.place(node))


def _returned(source: Source, call: ast.Call, scope: Scope, seen: Seen, follow: Follow) -> set[str]:
    functions = source.functions[_called(call)]
    here = [entry for entry in functions if entry[1].path == scope.path]
    if not functions:
        raise LookupError(scope.place(call))
    words: set[str] = set()
    for function, inside in here or functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Return) and node.value is not None:
                words |= follow(source, node.value, inside, seen)
    return words


def _named(source: Source, name: str, scope: Scope, seen: Seen, follow: Follow) -> set[str]:
    for body in filter(None, (scope.function, scope.module)):
        values = list(_assigned(body, name))
        if values:
            inner = scope if body is scope.function else Scope(scope.path, scope.module, None)
            return set().union(*(follow(source, value, inner, seen) for value in values))
        if isinstance(body, Function) and (arguments := _arguments(source, scope.path, body, name)):
            words: set[str] = set()
            for value, outside in arguments:
                words |= follow(source, value, outside, seen)
            return words
        if isinstance(body, Function) and (iterables := list(_iterated(body, name))):
            return set().union(*(_options(source, each, scope, seen) for each in iterables))
    raise LookupError(name)


def _assigned(body: ast.AST, name: str) -> Iterator[ast.expr]:
    nodes: Sequence[ast.AST] = list(ast.walk(body)) if isinstance(body, Function) else []
    if isinstance(body, ast.Module):
        nodes = body.body
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                yield value
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if (
                target == name
            ):
                yield value


def _iterated(function: Function, name: str) -> Iterator[ast.expr]:
    """What a loop or a comprehension takes a variable from."""
    for node in ast.walk(function):
        match node:
            case ast.For(target=ast.Name(id=target), iter=values) if target == name:
                yield values
            case ast.comprehension(target=ast.Name(id=target), iter=values) if target == name:
                yield values


def _arguments(
    source: Source, path: Path, function: Function, name: str
) -> list[tuple[ast.expr, Scope]]:
    """What callers give for a parameter."""
    positional = [argument.arg for argument in function.args.args]
    if positional[:1] in (["self"], ["cls"]):
        positional.pop(0)
    keyword_only = [argument.arg for argument in function.args.kwonlyargs]
    if name not in positional + keyword_only:
        return []
    values = []
    for call, scope in source.calls[function.name]:
        if function.name.startswith("_") and scope.path != path:
            continue
        for keyword in call.keywords:
            if keyword.arg == name:
                values.append((keyword.value, scope))
        if name in positional and positional.index(name) < len(call.args):
            values.append((call.args[positional.index(name)], scope))
    return values
