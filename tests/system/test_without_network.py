"""With the cache filled and the network cut, the sandbox composes and installs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
RFE = Path(sys.executable).parent / "rfe"
# A network namespace of its own, with loopback and nothing else. Root has one for the asking; the
# sandbox needs more than the one mapped user that anybody else would be in such a namespace.
ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "alone"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    assert os.getuid() == 0, "run these tests as root: they cut the network of what they start"
    directory = tmp_path_factory.mktemp("alone") / "lab"
    yield directory
    if directory.exists():
        subprocess.run([RFE, "lab", "clean", "--yes", "--lab", directory], timeout=300)


def run_alone(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ALONE, RFE, *words], capture_output=True, text=True, timeout=2400)


def test_there_is_no_network():
    command = [*ALONE, "cat", "/proc/net/dev"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [line.partition(":")[0].strip() for line in listed.splitlines()[2:]]
    assert names == ["lo"]


def test_a_compose_takes_its_packages_from_the_cache(lab):
    filled = subprocess.run(
        [RFE, "cache", "tmux", "jq"], capture_output=True, text=True, timeout=2400
    )
    assert filled.returncode == 0, filled.stderr
    assert "need no network now" in filled.stdout
    result = run_alone("run", "10", "20", "--lab", lab, "-p", "packages", "tmux jq")
    assert result.returncode == 0, result.stdout + result.stderr
    (log,) = (lab / "sandbox" / "composes").glob("*/osbuild.log")
    assert "Stage: no network: take packages from the cache" in log.read_text()


@pytest.mark.full
def test_a_machine_is_installed(lab):
    result = run_alone("run", "40", "50", "--lab", lab)
    assert result.returncode == 0, result.stdout + result.stderr
