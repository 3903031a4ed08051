"""What the index would get: source distribution and wheel are built as for a release, and the wheel
is used away from the clone, as pipx installs it: in an environment that is not on PATH, with a link
to its `rfe` in a directory that is."""

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from rfe_helpers.workbook.notebooks import all_notebooks

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
VERSION = "9.8.7"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of this clone in a repository of their own, with the tag of a release."""
    directory = tmp_path_factory.mktemp("release") / "source"
    listed = ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (ROOT / name).exists() or (ROOT / name).is_symlink():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name, follow_symlinks=False)
    author = ["-c", "user.name=Anna", "-c", "user.email=anna@example.com"]
    for words in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["commit", "--quiet", "--message=All"],
        ["tag", f"v{VERSION}"],
    ):
        subprocess.run(["git", *author, *words], cwd=directory, check=True)
    return directory


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """The wheel that was built from the source distribution."""
    subprocess.run([sys.executable, "-m", "build"], cwd=source, check=True, timeout=600)
    (path,) = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def home(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a user who has installed the wheel, in the layout of pipx."""
    home = tmp_path_factory.mktemp("home")
    environment = home / ".local/share/pipx/venvs/rfe-workbook"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [environment / "bin/python", "-m", "pip", "install", "--quiet", wheel]
    subprocess.run(pip, cwd=home, check=True, timeout=900)
    (home / ".local/bin").mkdir()
    (home / ".local/bin/rfe").symlink_to(environment / "bin/rfe")
    return home


def environment_of(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PATH": f"{home}/.local/bin:{SYSTEM_PATH}",
    }


def rfe(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["rfe", *words],
        cwd=home,
        env=environment_of(home),
        capture_output=True,
        text=True,
        timeout=600,
    )


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_both_are_complete_and_pass_the_checks_of_the_index(source: Path, wheel: Path) -> None:
    files = sorted((source / "dist").iterdir())
    check = [sys.executable, "-m", "twine", "check", "--strict", *files]
    result = subprocess.run(check, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert [path.name for path in files] == [
        f"rfe_workbook-{VERSION}-py3-none-any.whl",
        f"rfe_workbook-{VERSION}.tar.gz",
    ]
    with tarfile.open(files[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=source, capture_output=True, text=True)
    assert {*tracked.stdout.splitlines()} <= names


def test_a_wheel_of_the_tree_is_that_of_the_source_distribution(
    source: Path, wheel: Path, tmp_path: Path
) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, source]
    subprocess.run(build, check=True, timeout=600)
    (other,) = tmp_path.glob("*.whl")
    assert contents(other) == contents(wheel)


def test_a_tree_without_git_can_be_built(source: Path, wheel: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(source, tree, symlinks=True)
    for name in (".git", "build", "dist", "rfe_workbook.egg-info"):
        shutil.rmtree(tree / name, ignore_errors=True)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, tree]
    subprocess.run(build, check=True, timeout=600)
    (other,) = tmp_path.glob("*.whl")
    package = {name for name in contents(wheel) if name.startswith("rfe_helpers/")}
    assert {name for name in contents(other) if name.startswith("rfe_helpers/")} == package


def test_the_wheel_has_the_licences_of_what_is_in_it(wheel: Path) -> None:
    texts = {name.partition("/licenses/")[2] for name in contents(wheel) if "/licenses/" in name}
    vendor = "rfe_helpers/workbook/static/vendor"
    assert texts == {
        "LICENSE",
        "THIRD-PARTY.md",
        f"{vendor}/novnc/AUTHORS",
        f"{vendor}/novnc/LICENSE.MPL-2.0",
        f"{vendor}/novnc/LICENSE.txt",
        f"{vendor}/novnc/vendor/pako/LICENSE",
        f"{vendor}/xterm/LICENSE",
    }


def test_it_runs_notebooks_away_from_the_clone(home: Path) -> None:
    assert rfe(home, "--version").stdout == f"rfe {VERSION}\n"
    doctor = rfe(home, "doctor")
    assert doctor.returncode == 0, doctor.stdout
    run = rfe(home, "run", "00", "90")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1].startswith(f"passed: {home}/rfe-lab/runs/")
    assert list((home / "rfe-lab/runs/latest/").glob("00-start-here.ipynb"))


@pytest.fixture
def server(home: Path) -> Iterator[str]:
    """The address of JupyterLab, with its token, as `rfe lab open` prints it."""
    process = subprocess.Popen(
        ["rfe", "lab", "open", "--no-browser"],
        cwd=home,
        env=environment_of(home),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = next(line for line in process.stdout if "http" in line)
    yield address.strip("│ \n")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    process.stdout.close()


def test_jupyterlab_opens_with_the_notebooks_and_its_own_python(home: Path, server: str) -> None:
    with urlopen(server) as page:
        assert b"nbdime-jupyterlab" in page.read(), "disabled by our page_config.json"
    copies = {path.name for path in (home / "rfe-lab/notebooks").glob("*.ipynb")}
    assert copies == {path.name for path in all_notebooks()}
    origin, _, token = server.partition("/lab/tree/00-start-here.ipynb?token=")
    for what in ("kernels", "terminals"):
        headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
        with urlopen(Request(f"{origin}/api/{what}", b"{}", headers)) as answer:
            assert json.load(answer)
    python = home / ".local/share/pipx/venvs/rfe-workbook/bin/python"
    lab = json.loads((home / "rfe-lab/lab.json").read_text())
    children = children_of(lab["processes"]["jupyter"]["pid"])
    (kernel,) = [pid for pid, argv in children.items() if "ipykernel_launcher" in argv]
    assert children[kernel][0] == str(python)
    (shell,) = children.keys() - {kernel}
    variables = Path(f"/proc/{shell}/environ").read_text().split("\0")
    path = next(line.removeprefix("PATH=") for line in variables if line.startswith("PATH="))
    assert shutil.which("rfe", path=path) == str(python.with_name("rfe"))


def children_of(pid: int) -> dict[int, list[str]]:
    """The command lines of the processes that a process has started, by their ids."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(c): Path(f"/proc/{c}/cmdline").read_text().split("\0") for c in children}
