"""What the contract's tests share, and the table at their end: each route and case, and whether
it held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import sandbox_service
from support.sandbox_service import Running

from rfe_helpers.sandbox.service.packages import Index

_held: dict[tuple[str, str, str], bool] = {}


@pytest.fixture
def service(tmp_path: Path, index: Index) -> Iterator[Running]:
    with sandbox_service.running(tmp_path, index) as service:
        yield service


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Remember the examples: tests parametrized with `example` say which side they test."""
    parameters = getattr(item, "callspec", None)
    example = parameters.params.get("example") if parameters else None
    if example is not None and (call.when == "call" or call.excinfo is not None):
        side = "client" if "client" in item.path.name else "service"
        key = (str(example.route), str(example.case), side)
        _held[key] = _held.get(key, True) and call.excinfo is None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _held:
        return
    terminalreporter.section("the contract, route by route")
    width = max(len(route) for route, _, _ in _held)
    for (route, case, side), held in sorted(_held.items()):
        mark = "holds " if held else "BROKEN"
        terminalreporter.write_line(f"{mark}  {side:7}  {route:{width}}  {case}")
