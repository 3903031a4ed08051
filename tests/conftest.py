"""What several suites share: its being here puts tests/ on the path of imports (support/), and the
lab of a headless run of the short path, which is made when a test asks for it.

A run without the long tests says at its end which ones it has left out. In a run with two workers
(pytest-xdist), one has system/ and browser/, where trees are built and machines booted, in their
order, and the other works through the rest, file by file. OWN_LABS belong to the rest, which would
end long before.
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from support import browser
from support.sandbox_service import debian_repository

from rfe_helpers.lab import cache_directory
from rfe_helpers.sandbox.service.packages import Index

# How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("rfe", deadline=None)
hypothesis.settings.load_profile("rfe")
RFE = Path(sys.executable).parent / "rfe"
ROOT = Path(__file__).parents[1]
# Suites of machines that share no lab and no image with others.
OWN_LABS = ("tests/browser/test_by_keyboard.py", "tests/system/test_install.py")

# The labs of tests are not those of who runs them.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="rfe-test-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

_left_out: Counter[str] = Counter()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    _left_out.update(
        item.location[0] for item in items if item.get_closest_marker("full") is not None
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            machines = path.startswith(("tests/system/", "tests/browser/"))
            return "machines" if machines and path not in OWN_LABS else path

    return ByFile(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left out"] = dict(_left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker collects, and leaves out, the same tests."""
    global _left_out
    _left_out |= Counter(getattr(node, "workeroutput", {}).get("left out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # `-m "not full"`, as `make test` has it; a choice by name needs no comment.
    if _left_out and "not full" in terminalreporter.config.option.markexpr:
        terminalreporter.section(f"left for make test-full: {sum(_left_out.values())} long tests")
        for path, count in sorted(_left_out.items()):
            terminalreporter.line(f"{path}: {count}")


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """The package index of the fake Debian repository."""
    directory = tmp_path_factory.mktemp("debian")
    return Index(directory / "cache", debian_repository(directory / "repository"))


@pytest.fixture(scope="module")
def chromium():
    """For a module, not for the session: its event loop disturbs other tests while it runs."""
    with browser.chromium() as program:
        yield program


@pytest.fixture(scope="session")
def workbook_lab(tmp_path_factory):
    directory = tmp_path_factory.mktemp("workbook") / "lab"
    yield directory
    if directory.exists():
        subprocess.run([RFE, "lab", "clean", "--yes", "--lab", directory], timeout=600)


@pytest.fixture(scope="session")
def workbook_summary(workbook_lab):
    """The summary of a run of the short path, with its exercises, in a new lab; its machine keeps
    running."""
    command = [RFE, "run", "--exercises", "--json", "--lab", workbook_lab]
    result = subprocess.run(command, capture_output=True, text=True, timeout=2400)
    print(result.stderr)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout)


@pytest.fixture(scope="session")
def image():
    """The name of the workbook's container image in podman's storage, with the cache in it."""
    name = "localhost/rfe-workbook-test"
    subprocess.run([RFE, "cache"], check=True, timeout=1200)
    build = [ROOT / "container/build", name, cache_directory()]
    subprocess.run(build, check=True, timeout=1200)
    yield name
    subprocess.run(["podman", "rmi", "--force", name], timeout=300)
