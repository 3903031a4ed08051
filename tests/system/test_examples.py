"""The examples that need a lab, in the one that the short path of the notebooks has left behind.

They read it, and the machine in it, or publish what it has: afterwards it serves what it served
before. Labs that an example makes for itself are in its own directory.
"""

from collections.abc import Iterator

import pytest
from support import examples
from support.examples import Parts

from rfe_helpers import serve
from rfe_helpers.core import journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
TESTS = {test.name: test for test in examples.tests() if examples.parts_of(test)}


@pytest.fixture(scope="module")
def parts(workbook_summary, workbook_lab) -> Iterator[Parts]:
    assert workbook_summary["status"] == "passed"
    parts = Parts(workbook_lab)
    journaled = parts.lab.path("logs", "commands.jsonl")
    content = journaled.read_bytes()
    earlier, images = serve.remember(parts.lab), serve.registry.find(parts.lab)
    composes = {compose.id for compose in parts.client.composes()}
    downloads = set(parts.lab.path("composes").iterdir())
    blueprint = parts.client.blueprint("edge")
    yield parts
    assert earlier is not None
    earlier.publish(parts.lab)
    if images is None:
        serve.registry.stop(parts.lab)
    new = {compose.id for compose in parts.client.composes()} - composes
    parts.client.delete_compose(*new)
    parts.client.push(blueprint)
    for path in set(parts.lab.path("composes").iterdir()) - downloads:
        path.unlink()
    # An example begins a notebook, whose last run it is not: other tests ask what that has run.
    journal.set_place(None)
    journaled.write_bytes(content)


@pytest.mark.parametrize("name", TESTS)
def test_the_output_is_what_the_docstring_says(name, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {each: getattr(parts, each) for each in examples.parts_of(TESTS[name])}
    report = examples.failures(TESTS[name], names)
    assert not report, report
