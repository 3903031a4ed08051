"""./set-up and `rfe doctor --install`, with the answers of dnf and apt replayed: nothing is
installed here."""

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.missing_commands import without

ROOT = Path(__file__).parents[2]
INSTALL_PACKAGES = ROOT / "rfe_helpers/workbook/install-packages"
# What `dnf -q list NAME…` prints (dnf 4 and 5): installed ones first, a long name on its own line.
FEDORA = """\
Installed packages
gnupg2.x86_64            2.4.7-4.fc42    anaconda
Available packages
apt.x86_64               3.0.3-1.fc42    fedora
mmdebstrap.noarch        1.5.7-1.fc42    fedora
ostree.x86_64            2025.6-1.fc42   updates
docker-distribution.x86_64
                         2.8.3-9.fc42    fedora
"""
LACKING = ("apt", "mmdebstrap", "docker")
RHEL = "\n".join(line for line in FEDORA.splitlines() if not line.startswith(LACKING))


@pytest.fixture
def dnf(tmp_path: Path) -> Path:
    """A directory with a dnf that answers `list` from `listed`, and notes the rest in `called`."""
    program = tmp_path / "dnf"
    program.write_text(
        "#!/bin/sh\n"
        f'cd {tmp_path}\ncase "$*" in "-q list "*) cat listed;; *) echo "$*" >>called;; esac\n'
    )
    program.chmod(0o755)
    return tmp_path


def set_up(directory: Path, *missing: str) -> "subprocess.CompletedProcess[str]":
    """Run it where apt-get and `missing` are not installed, as root of a namespace."""
    hidden = without("apt-get", *missing)
    # With --dev, as the environment of the tests was made: it is left as it is.
    script = f'PATH={directory}:$PATH exec "$0" --dev'
    command = [*hidden, "sh", "-ec", script, str(ROOT / "set-up")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_what_fedora_ships_is_installed(dnf: Path) -> None:
    (dnf / "listed").write_text(FEDORA)
    result = set_up(dnf, "mmdebstrap", "ostree", "docker-registry", "registry")
    assert (result.returncode, result.stdout) == (0, "")
    assert (dnf / "called").read_text().split() == [
        *("install", "-y", "--setopt=install_weak_deps=False"),
        *("apt", "docker-distribution", "mmdebstrap", "ostree"),
    ]


def test_what_rhel_does_not_ship_leads_to_the_container(dnf: Path) -> None:
    (dnf / "listed").write_text(RHEL)
    result = set_up(dnf, "mmdebstrap", "ostree", "docker-registry", "registry")
    assert result.returncode == 1
    assert "no package docker-distribution here; going on without it" in result.stderr
    assert "has no package apt mmdebstrap; use the container: docs/container.md" in result.stderr
    assert not (dnf / "called").exists(), "nothing is installed by halves"


def test_a_system_with_neither_is_told_the_names_and_the_container() -> None:
    if subprocess.run(["which", "dnf"], capture_output=True).returncode == 0:
        pytest.skip("this system has dnf")
    hidden = without("apt-get", "ostree")
    result = subprocess.run([*hidden, str(ROOT / "set-up")], capture_output=True, text=True)
    assert result.returncode == 1
    assert "install apt ostree by hand, or use the container: docs/container.md" in result.stderr


DOCTOR = [sys.executable, "-m", "rfe_helpers.cli", "doctor", "--install"]


def doctor(
    directory: Path, *options: str, stdin: int = subprocess.DEVNULL
) -> "subprocess.CompletedProcess[str]":
    """Run `rfe doctor --install` where apt-get and ostree are not installed, as `set_up` does."""
    command = [
        *without("apt-get", "ostree"),
        "sh",
        "-ec",
        f'PATH={directory}:$PATH exec "$@"',
        "sh",
    ]
    return subprocess.run(
        [*command, *DOCTOR, *options], stdin=stdin, capture_output=True, text=True, timeout=300
    )


def test_doctor_installs_what_is_missing_and_examines_again(dnf: Path) -> None:
    (dnf / "listed").write_text(FEDORA)
    tool = dnf / "ostree"
    with (dnf / "dnf").open("a") as program:
        program.write(f"printf '#!/bin/sh\\necho 2025.6\\n' >{tool} && chmod 755 {tool}\n")
    result = doctor(dnf, "--yes")
    assert (dnf / "called").read_text().split()[-2:] == ["apt", "ostree"]
    assert "missing packages: " in result.stderr
    assert "dnf install apt ostree" in result.stderr
    assert "✔ ostree: 2025.6" in result.stdout
    assert "✘ apt-get: missing" in result.stdout, "what the package did not bring"
    assert result.returncode == 1


@pytest.mark.parametrize("answer", [b"n\n", b""])
def test_doctor_installs_nothing_unless_somebody_says_yes(dnf: Path, answer: bytes) -> None:
    (dnf / "listed").write_text(FEDORA)
    keyboard, screen = pty.openpty()
    os.write(keyboard, answer)
    result = doctor(dnf, "--json", stdin=screen if answer else subprocess.DEVNULL)
    os.close(keyboard)
    os.close(screen)
    assert "nothing was installed" in result.stderr
    assert not answer or json.loads(result.stdout)["ready"] is False
    assert result.returncode == 1
    assert not (dnf / "called").exists()


@pytest.mark.parametrize("end", ["exit 0", "kill -INT $PPID", "kill -KILL $PPID"])
def test_servers_do_not_start_while_apt_installs_them(tmp_path: Path, end: str) -> None:
    """In a mount namespace with a /usr/sbin of its own, where policy-rc.d would say that."""
    (tmp_path / "sbin").mkdir()
    (tmp_path / "apt-cache").write_text("#!/bin/sh\n")
    (tmp_path / "apt-get").write_text(
        "#!/bin/sh\n"
        f'case "$1" in update) exit 0;; esac\ncd {tmp_path}\necho "$*" >called\n'
        f"status=0; /usr/sbin/policy-rc.d nginx start || status=$?; echo $status >policy; {end}\n"
    )
    for name in ("apt-cache", "apt-get"):
        (tmp_path / name).chmod(0o755)
    directory = shlex.quote(str(tmp_path))
    script = f'mount --bind {directory}/sbin /usr/sbin; PATH={directory}:$PATH exec sh "$0"'
    command = [*without("ostree"), "sh", "-ec", script, INSTALL_PACKAGES]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    status = {"exit 0": (0,), "kill -INT $PPID": (130,)}.get(end, (-9, 137))
    assert result.returncode in status, result.stderr
    assert (tmp_path / "policy").read_text() == "101\n"
    assert "ostree" in (tmp_path / "called").read_text().split()
    policy = tmp_path / "sbin" / "policy-rc.d"
    assert policy.exists() == ("KILL" in end)
    if policy.exists():  # the next one takes it for its own
        program = tmp_path / "apt-get"
        program.write_text(program.read_text().replace(end, "exit 0"))
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert list((tmp_path / "sbin").iterdir()) == []

    policy.write_text("#!/bin/sh\n# the administrator's\nexit 101\n")
    subprocess.run(command, capture_output=True, timeout=60)
    assert policy.exists()
