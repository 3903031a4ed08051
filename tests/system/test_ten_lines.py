"""The ten lines of README.md, run as a script by a user who has no lab yet."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfe_helpers.lab import cache_directory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
RFE = Path(sys.executable).parent / "rfe"


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A home of its own, so that ~/rfe-lab is a new lab, and the usual cache."""
    environment = {**os.environ, "HOME": str(tmp_path), "RFE_CACHE": str(cache_directory())}
    environment.pop("RFE_LAB", None)
    yield environment
    lab = tmp_path / "rfe-lab"
    if lab.exists():
        subprocess.run(
            [RFE, "lab", "clean", "--yes", "--lab", lab], env=environment, check=True, timeout=600
        )
        assert not lab.exists()


def test_the_ten_lines_of_the_readme_compose_and_list_a_commit(
    environment: dict[str, str], tmp_path: Path
) -> None:
    readme = (ROOT / "README.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    script = tmp_path / "ten_lines.py"
    script.write_text(program)
    result = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    first, *packages = result.stdout.splitlines()
    ref, commit = first.split()
    assert ref == "debian/13/x86_64/edge"
    assert re.fullmatch(r"[0-9a-f]{64}", commit)
    assert [line for line in packages if re.match(r"tmux[- ]", line)]
    (artifact,) = (tmp_path / "rfe-lab" / "composes").glob("*.tar")
    assert artifact.stat().st_size > 100e6
