"""The values for Kubernetes fit the chart's schema, and start what the image has."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
VALUES = ROOT / "container/values.yaml"
SCHEMA = Path(__file__).with_name("chart.schema.json")


def check(path):
    argv = [sys.executable, "-m", "check_jsonschema", "--schemafile", SCHEMA, path]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def test_the_values_fit_the_chart():
    result = check(VALUES)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("old", "new"), [("homeMountPath", "homePath"), ("uid: 1000", "uid: rfe"), ("cmd:", "command:")]
)
def test_other_names_and_types_do_not(tmp_path, old, new):
    path = tmp_path / "values.yaml"
    path.write_text(VALUES.read_text().replace(old, new))
    assert check(path).returncode == 1


def test_a_seat_is_the_one_of_other_rooms():
    seat = yaml.safe_load(VALUES.read_text())["singleuser"]
    build = (ROOT / "container/build").read_text()
    assert seat["cmd"] == ["room", "seat"]
    assert 'ENTRYPOINT ["catatonit", "--", "rfe"]' in build
    assert f"VOLUME {seat['storage']['homeMountPath']}'" in build
