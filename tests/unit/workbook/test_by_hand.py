"""The page of commands is what the profile and the package's own functions make, and it works as
far as that can be told without RHEL."""

import re
import subprocess
from pathlib import Path

import pytest

from rfe_helpers.build.blueprint import parse_toml
from rfe_helpers.build.linter import lint
from rfe_helpers.install import kickstart
from rfe_helpers.lab import profile
from rfe_helpers.workbook import by_hand

PAGE = Path(__file__).parents[3] / "docs/by-hand.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FILES = {
    name: text
    for block in BLOCKS
    for name, text in re.findall(r"^cat >>? (\S+) <<'?EOF'?\n(.*?)^EOF$", block, re.M | re.S)
}
# The commands of the demo that the workbook grew from, as RHEL 9.6 has them: yum has become dnf,
# `role` and so on `syspurpose role`; `podman generate systemd` has become a Quadlet.
DEMO = """\
subscription-manager register --username
subscription-manager syspurpose role --set='Red Hat Enterprise Linux Server'
subscription-manager syspurpose service-level --set=Self-Support
subscription-manager syspurpose usage --set=Development/Test
subscription-manager attach
dnf install -y osbuild-composer composer-cli cockpit-composer
systemctl enable --now osbuild-composer.socket
systemctl enable --now cockpit.socket
https://localhost:9091
composer-cli blueprints push edge.toml
composer-cli compose start-ostree edge edge-container
composer-cli compose status
composer-cli compose image
tar xvf "$COMMIT"-commit.tar
rpm-ostree db list rhel/9/x86_64/edge --repo=repo
skopeo copy oci-archive:"$ID"-container.tar containers-storage:localhost/rfe-mirror:latest
podman run --rm
8000:8080
-v ./edge.ks:/usr/share/nginx/html/edge.ks:z
qemu-img create -f qcow2 disk.qcow2
qemu-system-x86_64
inst.ks=http://10.0.2.2:8000/edge.ks
mkksiso --ks edge.ks rhel-9.6-x86_64-boot.iso
composer-cli blueprints push installer.toml
--url http://10.0.2.2:8000/repo/ installer edge-installer
--url http://10.0.2.2:8000/repo/ edge edge-container
rpm-ostree status
rpm-ostree update
systemctl reboot
rpm-ostree rollback
edge2.ks
AutomaticUpdatePolicy=stage
rpm-ostreed-automatic.timer
AutoUpdate=registry
Restart=on-failure
RandomizedDelaySec=
OnCalendar=*-*-* 01:30:00
systemctl list-timers
"""


def test_the_page_is_written_from_the_profile() -> None:
    assert by_hand.document() == TEXT, (
        "run: python -m rfe_helpers.workbook.by_hand > docs/by-hand.md"
    )


@pytest.mark.parametrize("command", DEMO.splitlines())
def test_every_command_of_the_demo_is_on_it(command: str) -> None:
    assert command in TEXT


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.partition("\n")[0])
def test_its_blocks_are_shell(block: str) -> None:
    result = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_files_that_its_commands_read_are_written_on_it() -> None:
    pushed = set(re.findall(r"^composer-cli blueprints push (\S+)$", TEXT, re.MULTILINE))
    checked = set(re.findall(r"^ksvalidator .* (\S+)$", TEXT, re.MULTILINE))
    assert pushed == {"edge.toml", "update.toml", "installer.toml"}
    assert pushed | checked | {"seed/user-data", "seed/meta-data"} == set(FILES)


@pytest.mark.parametrize("name", ["edge.toml", "update.toml", "installer.toml"])
def test_its_blueprints_have_no_known_mistake(name: str) -> None:
    release = profile.load(by_hand.RELEASE)
    kind = release.types.installer if name == "installer.toml" else release.types.served
    blueprint = parse_toml(FILES[name])
    assert blueprint == by_hand.blueprints(release)[name]
    assert lint(blueprint, release, kind) == ()


@pytest.mark.parametrize("names", [("edge.ks",), ("edge.ks", "edge2.ks")])
def test_its_kickstarts_are_those_of_the_release(names: tuple[str, ...]) -> None:
    text = "".join(FILES[name] for name in names)
    assert "ostreesetup" in text
    assert kickstart.validate(text, "RHEL9") == ()


def test_the_shell_fills_in_the_password_and_the_key(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519.pub").write_text("ssh-ed25519 AAAA me@home\n")
    (block,) = [block for block in BLOCKS if "cat > edge.ks" in block]
    script = (
        "cat > edge.ks" + block.partition("cat > edge.ks")[2].partition("\nEOF\n")[0] + "\nEOF\n"
    )
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, check=True)
    text = (tmp_path / "edge.ks").read_text()
    assert re.search(r"--password='\$6\$[^']+'$", text, re.MULTILINE)
    assert "sshkey --username=core 'ssh-ed25519 AAAA me@home'" in text
    assert kickstart.validate(text, "RHEL9") == ()
