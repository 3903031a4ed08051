import inspect
from pathlib import Path

import pytest

from rfe_helpers import errors
from rfe_helpers.errors import ApiError, CommandFailedError, ComposeFailedError, RfeError


def test_str_has_message_log_and_remedy_on_lines_of_their_own():
    error = RfeError("it broke", remedy="fix it", log=Path("/tmp/x.log"))
    assert str(error).splitlines() == ["it broke", "log: /tmp/x.log", "to do: fix it"]
    assert error.message == "it broke"


def test_str_without_log_and_remedy_is_the_message():
    assert str(RfeError("it broke")) == "it broke"


@pytest.mark.parametrize(("status", "words"), [(3, "status 3"), (-9, "signal 9")])
def test_a_failed_command_tells_status_or_signal(status, words):
    error = CommandFailedError(["tar", "x"], status, "one\ntwo")
    assert words in error.message
    assert error.message.endswith("  one\n  two")
    assert error.argv == ("tar", "x")


def test_an_api_error_keeps_what_the_server_said():
    error = ApiError(400, [("UnknownBlueprint", "x"), ("Other", "y")])
    assert (error.status, error.id, error.msg) == (400, "UnknownBlueprint", "x")
    assert str(error) == "UnknownBlueprint: x; Other: y"


def test_an_api_error_without_a_body_names_the_http_status():
    assert str(ApiError(502, [])) == "HTTP 502"


def test_a_failed_compose_names_its_stage():
    assert "in stage depsolve" in str(ComposeFailedError("id", "depsolve", "no such package"))


def test_every_error_is_drawn_in_the_tree_of_the_docstring():
    drawn = errors.__doc__ or ""
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c is not RfeError]
    ours = [c for c in classes if issubclass(c, RfeError)]
    assert len(ours) > 10
    for each in ours:
        assert f"── {each.__name__} " in drawn


def test_a_notebook_shows_the_error_without_a_traceback():
    shown = "\n".join(RfeError("it broke", remedy="fix it")._render_traceback_())
    assert shown == "RfeError: it broke\nto do: fix it"
