"""What `bootc container lint` of the sandbox finds in a root file system."""

import subprocess
import sys
from pathlib import Path

import pytest

import rfe_helpers

GUEST = Path(rfe_helpers.__file__).parent / "sandbox/guest/root/usr"
sys.path.append(str(GUEST / "lib"))

from edge import bootc_lint  # noqa: E402

PREPARE = "[composefs]\nenabled = true\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with which nothing is wrong."""
    for name in ("dev", "proc", "sys", "run", "tmp", "var/log", "boot", "sysroot", "etc"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ostree").symlink_to("sysroot/ostree")
    for name, text in {
        "usr/lib/modules/6.12/vmlinuz": "",
        "usr/lib/modules/6.12/initramfs.img": "",
        "usr/lib/ostree/prepare-root.conf": PREPARE,
        "usr/lib/sysusers.d/app.conf": 'u app 990:990 "App" /var/lib/app -\n',
        "etc/passwd": "root:x:0:0::/root:/bin/sh\napp:x:990:990::/:/bin/false\n",
        "usr/lib/bootc/kargs.d/10.toml": 'kargs = ["quiet"]\n',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def broken(root: Path, script: str) -> tuple[dict[str, str], dict[str, str]]:
    """The failures and the warnings after a shell script has changed the root."""
    subprocess.run(["sh", "-ec", script], cwd=root, check=True)
    failures, warnings, _ = bootc_lint.lint(root, set())
    return dict(failures), dict(warnings)


def test_a_good_image_has_no_remark(root: Path) -> None:
    assert bootc_lint.lint(root, set()) == ([], [], 14)


@pytest.mark.parametrize(
    ("script", "name", "words"),
    [
        ("mkdir var/run", "var-run", "Not a symlink"),
        ("mkdir usr/etc", "etc-usretc", "Found /usr/etc - this is a bootc implementation detail"),
        ("echo 'kargs = 1' > usr/lib/bootc/kargs.d/x.toml", "bootc-kargs", "not a list of strings"),
        ("echo '[' > usr/lib/bootc/kargs.d/x.toml", "bootc-kargs", "Parsing x.toml"),
        ("echo 'karg = []' > usr/lib/bootc/kargs.d/x.toml", "bootc-kargs", "unknown field `karg`"),
        ("rm -r usr/lib/modules/*", "kernel", "Failed to find kernel"),
        ("rm usr/lib/modules/6.12/initramfs.img", "kernel", "Missing initramfs.img"),
        ("cp -r usr/lib/modules/6.12 usr/lib/modules/6.13", "kernel", "multiple kernels"),
        ("touch usr/$(printf '\\377')", "utf8", "non-utf8 filename"),
        ("rm ostree", "baseimage-root", "Missing ostree -> sysroot/ostree link"),
        ("rm -r sysroot", "baseimage-root", "Missing /sysroot"),
        ("mkdir usr/lib/bootc/kargs.d/x.toml", "bootc-kargs", "Is a directory"),
        (
            "printf 'kargs = [\"a\\\\nb\"]' > usr/lib/bootc/kargs.d/x.toml",
            "bootc-kargs",
            "one line",
        ),
        ("rm usr/lib/modules/6.12/vmlinuz; mkdir usr/lib/modules/6.12/vmlinuz", "kernel", "Failed"),
        ("rmdir proc", "api-base-directories", "Missing API filesystem base directory: /proc"),
    ],
)
def test_what_would_not_boot_is_fatal(root: Path, script: str, name: str, words: str) -> None:
    failures, _ = broken(root, script)
    assert words in failures[name]


@pytest.mark.parametrize(
    ("script", "name", "words"),
    [
        (": > usr/lib/ostree/prepare-root.conf", "baseimage-composefs", "composefs enabled"),
        ("echo x > usr/lib/ostree/prepare-root.conf", "baseimage-composefs", "Parsing"),
        ("rm etc/passwd; : > etc/hostname", "buildah-injected", "/etc/hostname"),
        (": > etc/resolv.conf", "buildah-injected", "/etc/resolv.conf is an empty file"),
        ("echo x > var/log/dpkg.log", "var-log", "/var/log/dpkg.log"),
        ("mkdir var/lib; echo x > var/lib/x", "var-tmpfiles", "/var/lib/x"),
        ("echo new:x:991:991::/:/ >> etc/passwd", "sysusers", "new"),
        ("touch boot/a boot/b", "nonempty-boot", "a (1 more)"),
        ("touch tmp/x", "nonempty-run-tmp", "/tmp: /tmp/x"),
    ],
)
def test_what_is_unwise_is_a_warning(root: Path, script: str, name: str, words: str) -> None:
    failures, warnings = broken(root, script)
    assert failures == {}
    assert words in warnings[name]


def lint(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys; sys.path.append({str(GUEST / 'lib')!r}); from edge.bootc import main; "
    argv = [sys.executable, "-c", f"{program}sys.exit(main())", "container", "lint"]
    return subprocess.run([*argv, f"--rootfs={root}", *options], capture_output=True, text=True)


def test_the_command_counts_and_fails(root: Path) -> None:
    good = lint(root)
    assert (good.returncode, good.stdout) == (0, "Checks passed: 14\n")
    (root / "tmp/x").touch()
    assert lint(root).returncode == 0
    assert "error: Linting: Warnings found: 1" in lint(root, "--fatal-warnings").stderr
    assert lint(root, "--fatal-warnings", "--skip=nonempty-run-tmp").returncode == 0
    (root / "usr/etc").mkdir()
    bad = lint(root)
    assert bad.returncode == 1
    assert bad.stderr.splitlines()[0].startswith("Failed lint: etc-usretc: Found /usr/etc")
    assert bad.stderr.splitlines()[-1] == "error: Linting: Checks failed: 1"
    assert "no check 'nothing'" in lint(root, "--skip=nothing").stderr
    assert "kernel: fatal\n" in lint(root, "--list").stdout


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('kargs = ["a", "b=c d"]', ["a", "b=c d"]),
        ('kargs = ["a"]\nmatch-architectures = ["x86_64"]', ["a"]),
        ('kargs = ["a"]\nmatch-architectures = ["aarch64"]', []),
    ],
)
def test_kernel_arguments_are_those_of_the_machine(text: str, arguments: list[str]) -> None:
    assert bootc_lint.kernel_arguments(text, "x86_64") == arguments
