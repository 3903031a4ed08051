"""What a matrix may have, and what is refused before anything runs."""

import subprocess
import sys

import pytest
from support.command_line import RFE
from support.missing_commands import without

from rfe_helpers.cli.main import main
from rfe_helpers.errors import ParameterError, ProfileError
from rfe_helpers.workbook.headless import find_notebooks
from rfe_helpers.workbook.matrix.plan import Axis, MatrixPlan, label, make_plan, parse_axes


def plan(*texts: str, notebooks: tuple[str, ...] = ("20",), **parameters: str) -> MatrixPlan:
    return make_plan(parse_axes(texts), find_notebooks(notebooks), "sandbox", parameters)


@pytest.mark.parametrize(
    "texts",
    [
        ["profile=sandbox,rhel-9.6", "packages=tmux,tmux jq"],
        ["profile=sandbox,rhel-9.6,packages=tmux,tmux jq"],
        ["profile=sandbox, rhel-9.6, packages = tmux,tmux jq".replace(" =", "=")],
        ['profile="sandbox",rhel-9.6 , packages= "tmux" ,"tmux jq"'],
    ],
)
def test_axes_are_read_from_one_text_or_from_several(texts):
    assert parse_axes(texts) == (
        Axis("profile", ("sandbox", "rhel-9.6")),
        Axis("packages", ("tmux", "tmux jq")),
    )


def test_a_value_in_quotes_may_have_commas_and_any_may_have_an_equals_sign():
    axes = parse_axes(['on_calendar="*-*-* 03:00,04:00",*-*-* 05:00', "command=a b=c"])
    assert axes[0].values == ("*-*-* 03:00,04:00", "*-*-* 05:00")
    assert axes[1].values == ("a b=c",)


def test_what_is_in_quotes_begins_no_axis():
    texts = ['packages=tmux,"a=b"," c=""d"" , e",say "x"']
    assert parse_axes(texts) == (Axis("packages", ("tmux", "a=b", 'c="d" , e', 'say "x"')),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tmux,jq", "'tmux,jq' does not begin with the name of an axis"),
        ("", "does not begin with the name of an axis"),
        ("packages=", "the axis packages has an empty value"),
        ("packages=tmux,", "the axis packages has an empty value"),
        ("packages=tmux,,jq", "the axis packages has an empty value"),
        ("packages=tmux,jq,tmux", "the axis packages has the value 'tmux' twice"),
        ("packages=tmux,packages=jq", "the matrix has the axis packages twice"),
        ('"packages=tmux', "cannot be read as a list of values"),
        ('packages="tmux', "cannot be read as a list of values"),
        ('packages="tmux"jq', "cannot be read as a list of values"),
        ('"packages=tmux"', "does not begin with the name of an axis"),
    ],
)
def test_texts_that_are_not_axes_are_refused(text, words):
    with pytest.raises(ParameterError) as caught:
        parse_axes([text])
    assert words in str(caught.value)


def test_the_last_axis_changes_fastest_and_each_combination_has_its_arguments():
    matrix = plan("packages=tmux,jq", "image_type=edge-commit,edge-container", minutes="20")
    assert [label(values) for values in matrix.combinations()] == [
        "packages=tmux, image_type=edge-commit",
        "packages=tmux, image_type=edge-container",
        "packages=jq, image_type=edge-commit",
        "packages=jq, image_type=edge-container",
    ]
    words = matrix.arguments(matrix.combinations()[2])
    assert words[0].endswith("20-build-a-commit.ipynb")
    assert words[1:3] == ["--profile", "sandbox"]
    assert words[3:] == [
        *("-p", "minutes", "20"),
        *("-p", "packages", "jq"),
        *("-p", "image_type", "edge-commit"),
    ]


def test_profile_and_architecture_are_no_parameters_of_the_runs():
    matrix = plan("profile=rhel-9.6,rhel-9.4", "architecture=x86_64")
    first, second = matrix.combinations()
    assert matrix.arguments(first)[1:] == ["--profile", "rhel-9.6"]
    assert matrix.arguments(second)[1:] == ["--profile", "rhel-9.4"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour=tmux", "no notebook of this run has a parameter 'colour'"),
        ("colour=tmux", "a matrix can have: profile, architecture, blueprint_name"),
        ("minutes=1,soon", "parameter minutes must be float, not 'soon'"),
        ("lab=a,b", "each combination has a lab of its own"),
        ("blueprint_version=" + ",".join(map(str, range(300))), "300 combinations, 256 are allow"),
        ("architecture=x86_64,aarch64", "architecture=aarch64: the profile sandbox is for x86_64"),
    ],
)
def test_values_that_no_run_can_have_are_refused(text, words):
    with pytest.raises(ParameterError) as caught:
        plan(text)
    assert words in str(caught.value)


def test_a_parameter_is_given_once():
    with pytest.raises(ParameterError, match="packages is an axis of the matrix and given with -p"):
        plan("packages=tmux,jq", packages="nano")


def test_profiles_are_known_and_have_edge_images():
    with pytest.raises(ProfileError, match="unknown profile 'rhel-7'"):
        plan("profile=sandbox,rhel-7")
    with pytest.raises(ProfileError, match="has no edge images"):
        plan("profile=sandbox,centos-stream-10")


def test_an_architecture_needs_a_program_on_this_machine(tmp_path):
    words = ["run", "20", "--lab", str(tmp_path / "lab"), "--matrix", "architecture=x86_64"]
    missing = without("qemu-system-x86_64", "qemu-kvm", "/usr/libexec/qemu-kvm")
    result = subprocess.run([*missing, *RFE, *words], capture_output=True, text=True)
    assert result.returncode == 1
    assert "architecture=x86_64: not installed: qemu-system-x86_64" in result.stderr
    assert not (tmp_path / "lab").exists()


def test_a_changed_notebook_makes_another_plan(tmp_path):
    own = tmp_path / "20-own.ipynb"
    own.write_bytes(find_notebooks(["20"])[0].read_bytes())
    before = plan("packages=tmux,jq", notebooks=(str(own),))
    assert plan("packages=tmux,jq", notebooks=(str(own),)) == before
    own.write_text(own.read_text().replace("# Build", "# Now build", 1))
    assert plan("packages=tmux,jq", notebooks=(str(own),)) != before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--matrix", "packages=tmux,tmux"], "twice"),
        (["--matrix", "profile=sandbox", "--profile", "sandbox"], "given with --profile, too"),
        (["--workers", "2"], "--scheduler and --workers need --matrix"),
        (["--matrix", "packages=tmux", "--scheduler", "here"], "no scheduler of Dask answers"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_message(words, message, tmp_path, capsys):
    lab = tmp_path / "lab"
    assert main(["run", "20", "--lab", str(lab), *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("rfe: ")
    assert "Traceback" not in error
    assert not (lab / "matrix/latest").exists()


def test_dask_is_imported_for_a_matrix_only():
    program = (
        "import sys; from rfe_helpers.cli.main import main; main(['run', '--help'])\n"
        "print('distributed' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "--matrix" in result.stdout
    assert result.stdout.splitlines()[-1] == "False"
