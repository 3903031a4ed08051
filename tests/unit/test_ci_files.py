"""The files for CI servers fit their formats, agree with each other, and run commands that there
are."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.command_line import parse

from rfe_helpers.cli import main

ROOT = Path(__file__).parents[2]
GITHUB, GITLAB = ROOT / "docs/ci/github.yml", ROOT / "docs/ci/gitlab.yml"
TEKTON = [ROOT / "docs/ci/tekton.yaml", ROOT / "docs/ci/tekton-run.yaml"]
OWN = ROOT / ".github/workflows/workbook.yml"
OUTPUTS = {"junit.xml", "summary.md", "run"}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("github-workflows", GITHUB),
        *(("github-workflows", path) for path in sorted(OWN.parent.glob("*.yml"))),
        ("gitlab-ci", GITLAB),
    ],
)
def test_they_fit_their_schemas(schema, path):
    command = [sys.executable, "-m", "check_jsonschema", f"--builtin-schema=vendor.{schema}", path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


def test_the_projects_own_workflow_is_the_one_to_copy_with_the_workbook_of_the_clone():
    assert OWN.read_text() == GITHUB.read_text().replace("WORKBOOK: rfe-workbook", "WORKBOOK: .")
    own = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
    assert own["include"] == [{"local": "docs/ci/gitlab.yml"}]
    assert own["variables"] == {"WORKBOOK": "."}


def scripts():
    """The shell code of each file."""
    github = yaml.safe_load(GITHUB.read_text())["jobs"]["short-path"]["steps"]
    yield "github", "\n".join(step["run"] for step in github if "run" in step)
    gitlab = yaml.safe_load(GITLAB.read_text())["short-path"]
    parts = (gitlab["before_script"], gitlab["script"], gitlab["after_script"])
    yield "gitlab", "\n".join(line for part in parts for line in part)
    task, _ = yaml.safe_load_all(TEKTON[0].read_text())
    yield "tekton", task["spec"]["steps"][0]["script"]


@pytest.mark.parametrize(("name", "script"), list(scripts()), ids=lambda value: value[:6])
def test_scripts_are_shell_and_run_the_short_path_with_its_results(name, script):
    checked = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    lines = [re.split(r" \|\| |\"\$@\"", line)[0] for line in script.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("rfe ")]
    contexts = {
        context.info_name: context for context in (parse(main.rfe, c[1:]) for c in commands)
    }
    installs = [] if name == "tekton" else ["doctor"]  # there an image has it all
    assert list(contexts) == [*installs, "run", "clean"]
    options = contexts["run"].params
    assert options["notebooks"] == ()
    files = (options["junit"], options["markdown"], options["out"])
    assert {path.name for path in files} == OUTPUTS


def test_results_are_kept_where_the_run_leaves_them():
    steps = yaml.safe_load(GITHUB.read_text())["jobs"]["short-path"]["steps"]
    (upload,) = [step for step in steps if "upload-artifact" in step.get("uses", "")]
    (run,) = [step["run"] for step in steps if step.get("run", "").startswith("rfe run")]
    assert run.count(f" {upload['with']['path']}/") == len(OUTPUTS)
    artifacts = yaml.safe_load(GITLAB.read_text())["short-path"]["artifacts"]
    assert artifacts["reports"]["junit"] == f"{artifacts['paths'][0]}/junit.xml"


def test_the_parts_of_tekton_name_each_other():
    (task, pipeline), (run,) = (list(yaml.safe_load_all(path.read_text())) for path in TEKTON)
    assert {each["apiVersion"] for each in (task, pipeline, run)} == {"tekton.dev/v1"}
    assert [each["kind"] for each in (task, pipeline, run)] == ["Task", "Pipeline", "PipelineRun"]
    (step,) = pipeline["spec"]["tasks"]
    assert step["taskRef"]["name"] == task["metadata"]["name"]
    assert run["spec"]["pipelineRef"]["name"] == pipeline["metadata"]["name"]
    names = [
        {each["name"] for each in part["workspaces"]}
        for part in (task["spec"], pipeline["spec"], step, run["spec"])
    ]
    assert names == [{"results"}] * 4
    assert {each["name"] for each in step["params"]} <= {p["name"] for p in task["spec"]["params"]}
    container = (ROOT / "container/finish").read_text()
    user = task["spec"]["steps"][0]["securityContext"]["runAsUser"]
    assert f"--uid {user} rfe" in container
    assert "--home-dir /lab" in container
