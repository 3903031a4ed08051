import pytest

from rfe_helpers.core import journal
from rfe_helpers.lab.lab import Lab
from rfe_helpers.workbook.headless import find_notebooks
from rfe_helpers.workbook.matrix.plan import make_plan, parse_axes


@pytest.fixture
def lab(tmp_path):
    yield Lab(tmp_path / "lab")
    journal.open_journal(None)


@pytest.fixture
def plan_of():
    """Makes the plan of a matrix of notebook 20 with these axes."""

    def plan_of(*axes, **parameters):
        return make_plan(parse_axes(axes), find_notebooks(["20"]), "sandbox", parameters)

    return plan_of
