import pytest
from nbformat import v4

from rfe_helpers.errors import NodeError
from rfe_helpers.workbook import exercise, exercises

TEXT = """\
## Exercise

Set `number`, as in

```python
number = 0
```

<details><summary>How</summary>

Any number does.

```python
number = 4
```

</details>"""


def test_an_exercise_is_done_or_says_what_to_do():
    assert repr(exercise("a file", lambda: ["x"], "Make one.")) == "✔ a file"
    still_open = exercise("a <file>", lambda: [], "Make one.")
    assert repr(still_open) == "○ still open: a <file>. Make one."
    assert "&lt;file&gt;" in still_open.html


def test_an_exercise_on_a_machine_that_is_off_fails_nothing():
    def ask():
        raise NodeError("edge-1 does not answer")

    assert "(edge-1 does not answer)" in repr(exercise("a file", ask, "Make one."))


def test_an_answer_of_another_type_fails_nothing():
    text = repr(exercise("a number", lambda: abs("5") > 3, "Give one."))
    assert text.startswith("○ still open: a number. Give one. (TypeError: ")
    assert "(KeyError: 'name')" in repr(exercise("a name", lambda: {}["name"], "Give one."))


def test_a_solution_is_the_code_of_the_folded_part():
    assert exercises.solution(TEXT) == "number = 4"
    assert exercises.solution("```python\nnumber = 0\n```") == ""
    two = "<details>\n```python\na = 1\n```\nand\n```python\nb = 2\n```\n```python\nc = 3\n"
    assert exercises.solution(two) == "a = 1\n\nb = 2"


@pytest.mark.timeout(2)
def test_fences_that_nothing_closes_take_no_time():
    assert exercises.solution("<details>\n" + "```python\n" * 10_000) == ""


def test_solutions_stand_in_front_of_their_checks():
    sources = ["number = 0", 'exercise("a number", lambda: number, "Set it.")', "print(number)"]
    cells = [v4.new_markdown_cell(TEXT), *map(v4.new_code_cell, sources)]
    notebook = v4.new_notebook(cells=cells)
    exercises.insert_solutions(notebook)
    assert [cell.source for cell in notebook.cells[1:]] == [
        sources[0],
        "number = 4",
        *sources[1:],
    ]
    assert [exercises.is_solution(cell) for cell in notebook.cells[1:]] == [
        False,
        True,
        False,
        False,
    ]


def test_an_exercise_that_its_solution_does_not_solve_is_open():
    for text, remark in (("✔ a number", None), ("○ still open: a number. Set it.", 2)):
        data = {"text/plain": text, "text/html": text}
        notebook = v4.new_notebook(
            cells=[
                v4.new_markdown_cell(TEXT),
                v4.new_code_cell("number = 4", metadata={"tags": [exercises.TAG]}),
                v4.new_code_cell(
                    "exercise(…)", outputs=[v4.new_output("execute_result", data=data)]
                ),
            ]
        )
        assert exercises.open_exercise(notebook) == (remark and (remark, text))
