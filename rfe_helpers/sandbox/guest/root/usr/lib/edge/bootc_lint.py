"""`bootc container lint`: what is wrong with the root file system of a bootable container.

The names of the checks and their words are bootc's (lib/src/lints.rs).
"""

import configparser
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

_API_DIRECTORIES = ("dev", "proc", "sys", "run", "tmp", "var")
# What podman mounts into a container while an image is built.
_MOUNTED = ("run/.containerenv", "run/secrets", "run/lock", "run/systemd")
_LONGEST_ARGUMENT = 1000
Check = Callable[[Path], Iterator[str]]


def var_run(root: Path) -> Iterator[str]:
    if (root / "var/run").is_dir() and not (root / "var/run").is_symlink():
        yield "Not a symlink: var/run"


def etc_usretc(root: Path) -> Iterator[str]:
    if (root / "usr/etc").exists() and (root / "etc").exists():
        yield (
            "Found /usr/etc - this is a bootc implementation detail and not supported to use in "
            "containers"
        )


def bootc_kargs(root: Path) -> Iterator[str]:
    for path in sorted((root / "usr/lib/bootc/kargs.d").glob("*.toml")):
        try:
            kernel_arguments(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            yield f"Parsing {path.name}: {error}"


def kernel_arguments(text: str, architecture: str = "") -> list[str]:
    """The kernel arguments of a file in kargs.d for a machine (x86_64). Raises ValueError."""
    document = tomllib.loads(text)
    if unknown := document.keys() - {"kargs", "match-architectures"}:
        raise ValueError(f"unknown field `{min(unknown)}`")
    arguments = _strings(document.get("kargs"), "kargs")
    architectures = _strings(document.get("match-architectures", []), "match-architectures")
    return arguments if not architectures or architecture in architectures else []


def _strings(value: object, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} is not a list of strings")
    for item in value:
        if not item or not item.isprintable() or len(item) > _LONGEST_ARGUMENT:
            raise ValueError(f"{item[:80]!a} is not an argument: one line of text")
    return value


def kernel(root: Path) -> Iterator[str]:
    modules = root / "usr/lib/modules"
    kernels = [path.parent.name for path in modules.glob("*/vmlinuz") if path.is_file()]
    if not kernels:
        yield "Failed to find kernel in usr/lib/modules"
    elif len(kernels) > 1:
        yield f"Found multiple kernels in usr/lib/modules: {', '.join(sorted(kernels))}"
    elif not (modules / kernels[0] / "initramfs.img").is_file():
        yield f"Missing initramfs.img beside the kernel {kernels[0]}"


def utf8(root: Path) -> Iterator[str]:
    for directory, names, files in os.walk(os.fsencode(root)):
        for name in (*names, *files):
            try:
                name.decode()
            except UnicodeDecodeError:
                place = os.path.relpath(directory, os.fsencode(root)).decode(errors="replace")
                yield f"/{place}: Found non-utf8 filename {name!r}"
        if directory == os.fsencode(root):
            names[:] = [name for name in names if name.decode() not in ("proc", "sys", "dev")]


def baseimage_root(root: Path) -> Iterator[str]:
    if not (root / "sysroot").is_dir():
        yield "Missing /sysroot"
    link = root / "ostree"
    if not link.is_symlink() or str(link.readlink()) not in ("sysroot/ostree", "/sysroot/ostree"):
        yield "Missing ostree -> sysroot/ostree link"


def api_base_directories(root: Path) -> Iterator[str]:
    for name in _API_DIRECTORIES:
        if not (root / name).is_dir():
            yield f"Missing API filesystem base directory: /{name}"


def baseimage_composefs(root: Path) -> Iterator[str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    path = root / "usr/lib/ostree/prepare-root.conf"
    try:
        parser.read_string(path.read_text())
    except FileNotFoundError:
        yield "Missing /usr/lib/ostree/prepare-root.conf"
        return
    except (OSError, ValueError, configparser.Error) as error:
        yield f"Parsing /usr/lib/ostree/prepare-root.conf: {error!r}"
        return
    if parser.get("composefs", "enabled", fallback="no") not in ("yes", "true", "signed", "verity"):
        yield "/usr/lib/ostree/prepare-root.conf does not have composefs enabled"


def buildah_injected(root: Path) -> Iterator[str]:
    for name in ("hostname", "resolv.conf"):
        path = root / "etc" / name
        if not path.is_symlink() and path.is_file() and path.stat().st_size == 0:
            yield f"/etc/{name} is an empty file; a container runtime may have left it"


def var_log(root: Path) -> Iterator[str]:
    files = (path for path in (root / "var/log").rglob("*") if path.is_file())
    logs = [path for path in files if path.stat().st_size]
    if logs:
        yield f"Found non-empty logfile: /{logs[0].relative_to(root)}" + _more(len(logs))


def var_tmpfiles(root: Path) -> Iterator[str]:
    content = [p for p in (root / "var").rglob("*") if p.is_file() and not p.is_symlink()]
    content = [path for path in content if not path.is_relative_to(root / "var/log")]
    if content:
        yield (
            f"Found content in /var missing systemd tmpfiles.d entries: "
            f"/{content[0].relative_to(root)}" + _more(len(content))
        )


def sysusers(root: Path) -> Iterator[str]:
    """Users in /etc/passwd that no line of sysusers.d describes."""
    described = {"root", "nobody"}
    for path in (root / "usr/lib/sysusers.d").glob("*.conf"):
        if not path.is_file():
            continue
        words = (line.split() for line in path.read_text(errors="replace").splitlines())
        described |= {row[1] for row in words if len(row) > 1 and row[0] in ("u", "u!")}
    passwd = root / "etc/passwd"
    lines = passwd.read_text(errors="replace").splitlines() if passwd.is_file() else []
    names = sorted({line.partition(":")[0] for line in lines} - described)
    if names:
        reason = "Found /etc/passwd entry without corresponding systemd sysusers.d"
        yield f"{reason}: {', '.join(names)}"


def nonempty_boot(root: Path) -> Iterator[str]:
    names = sorted(path.name for path in (root / "boot").glob("*"))
    if names:
        yield f"Found non-empty /boot: {names[0]}" + _more(len(names))


def nonempty_run_tmp(root: Path) -> Iterator[str]:
    ignored = {str(root / name) for name in _MOUNTED}
    for name in ("run", "tmp"):
        names = sorted(str(path) for path in (root / name).glob("*"))
        content = [path for path in names if path not in ignored]
        if content:
            place = Path(content[0]).relative_to(root)
            yield f"Found content in runtime-only directory /{name}: /{place}" + _more(len(content))


def _more(count: int) -> str:
    return f" ({count - 1} more)" if count > 1 else ""


FATAL: tuple[Check, ...] = (
    var_run, etc_usretc, bootc_kargs, kernel, utf8, baseimage_root, api_base_directories,
)  # fmt: skip
WARNINGS: tuple[Check, ...] = (
    baseimage_composefs, buildah_injected, var_log, var_tmpfiles, sysusers, nonempty_boot,
    nonempty_run_tmp,
)  # fmt: skip


def name_of(check: Check) -> str:
    return check.__name__.replace("_", "-")


def lint(root: Path, skip: set[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]], int]:
    """(check, reason) of each fatal failure and of each warning, and the number of checks that
    passed."""
    results: list[list[tuple[str, str]]] = []
    passed = 0
    for checks in (FATAL, WARNINGS):
        rows: list[tuple[str, str]] = []
        for check in checks:
            if name_of(check) in skip:
                continue
            reasons = list(check(root))
            rows += [(name_of(check), reason) for reason in reasons]
            passed += not reasons
        results.append(rows)
    return results[0], results[1], passed
