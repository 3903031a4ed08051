"""The workbook on a machine that has nothing but what `make set-up` installs: a Debian made by
mmdebstrap, with mounts, processes and a network of its own."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfe_helpers.core import run

SECONDS = 7200  # without KVM, for all notebooks
pytestmark = [pytest.mark.full, pytest.mark.timeout(SECONDS + 1800)]
ROOT = Path(__file__).parents[2]
ARTEFACTS = ROOT / "artefacts" / "bare"
# How this host reaches the network, which a machine of its own would be told as well: files of
# /etc, and the certificates, which a package of the machine may replace where they are usually.
NETWORK = ("resolv.conf", "hosts", "pip.conf")
CERTIFICATES = "ssl/certs/ca-certificates.crt"
MOUNTS = """\
mount --bind {0} {0}
mount --bind /dev {0}/dev
mount -t devpts -o newinstance,ptmxmode=0666 devpts {0}/dev/pts
mount -t tmpfs tmpfs {0}/dev/shm
mount -t sysfs sysfs {0}/sys
mount --rbind /sys/fs/cgroup {0}/sys/fs/cgroup
mount -t proc proc {0}/proc
mount -t tmpfs tmpfs {0}/run
cd {0}
pivot_root . .
umount -l .
exec chroot . sh -ec {1}
"""
WORK = """\
cd /root/workbook
export HOME=/root CI=true DEBIAN_FRONTEND=noninteractive
for name in PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE; do
    [ ! -e /root/certificates ] || export $name=/root/certificates
done
apt-get update -q
apt-get install -y --no-install-recommends make
make set-up
exec .venv/bin/rfe run {0} --lab /root/lab
"""


@pytest.fixture
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The root directory of a Debian with a copy of this clone."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for mounts")
    root = Path("/var/tmp") / f"rfe-bare-{request.param}-{os.getpid()}"
    mirror = filter(None, [os.environ.get("RFE_DEBIAN_MIRROR")])
    run.run(["mmdebstrap", "--variant=minbase", request.param, root, *mirror], seconds=900)
    try:
        targets = {name: root / "etc" / name for name in NETWORK}
        for name, target in {**targets, CERTIFICATES: root / "root/certificates"}.items():
            source = Path("/etc") / name
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        tracked = run.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"]).stdout
        for name in tracked.splitlines():
            target = root / "root" / "workbook" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).exists() or (ROOT / name).is_symlink():
                shutil.copy2(ROOT / name, target, follow_symlinks=False)
        yield root
    finally:
        shutil.rmtree(root)


@pytest.fixture
def network() -> Iterator[Path]:
    """A network namespace that reaches what this host does: its containers have addresses and
    ports of their own."""
    path = Path("/run/netns") / f"rfe-bare-{os.getpid()}"
    run.run(["ip", "netns", "add", path.name])
    try:
        argv = ["slirp4netns", "--configure", "--mtu=65520", "--netns-type=path", path, "tap0"]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as slirp:
            yield path
            slirp.terminate()
    finally:
        run.run(["ip", "netns", "delete", path.name])


@pytest.mark.parametrize(
    ("machine", "notebooks"),
    [("bookworm", "--all"), ("trixie", "00 10 20 40 50 60 100")],
    indirect=["machine"],
)
def test_all_notebooks_run_with_what_set_up_installs(
    machine: Path, notebooks: str, network: Path
) -> None:
    script = MOUNTS.format(shlex.quote(str(machine)), shlex.quote(WORK.format(notebooks)))
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    argv = ["nsenter", f"--net={network}", *unshare, "sh", "-ec", script]
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    log = ARTEFACTS / f"{machine.name.split('-')[2]}.log"
    with log.open("wb") as file:
        result = subprocess.run(argv, stdout=file, stderr=subprocess.STDOUT, timeout=SECONDS)
    latest = machine / "root" / "lab" / "runs" / "latest"
    if (latest / "report.html").exists():
        shutil.copyfile(latest / "report.html", log.with_suffix(".html"))
    assert result.returncode == 0, run.tail_of(log.read_text(errors="replace"))
    assert json.loads((latest / "summary.json").read_text())["status"] == "passed"
