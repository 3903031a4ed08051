"""The part of a build that runs inside the tree.

The tree's own Python runs it in the chroot (`python3 inside.py base|compose DIR`): there no path
leads out of the tree, and the mapped user that builds it needs to read no file of the host.
Standard library only. DIR holds `spec.json` and gets `report.json`:

    spec.json    {"version": s, "ref": s, "replaced_kernel": package or null, "customizations":
                 {…} as in a blueprint, already validated by the service, "move": whether to move
                 MOVED and to empty /run and /var, which overlay.py does as it packs}
    report.json  {"kernel": release, "packages": [[name, version, arch], …]}

`customize.py`, beside it in DIR, applies the customizations.
"""

import contextlib
import importlib.util
import json
import os
import py_compile
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Table = dict[str, Any]

MODULES = Path("/usr/lib/modules")
SYSIMAGE = Path("/usr/lib/sysimage")
OURS = Path("/usr/lib/edge")  # the stand-ins' own programs
LINKS = {
    "home": "var/home",
    "root": "var/roothome",
    "opt": "var/opt",
    "srv": "var/srv",
    "mnt": "var/mnt",
    "media": "run/media",
    "usr/local": "../var/usrlocal",
    "ostree": "sysroot/ostree",
}
MOVED = {"etc": "usr/etc", "var/lib/dpkg": "usr/lib/sysimage/dpkg"}
# Masked in /etc: generators for what these systems do not have (scripts of sysvinit, a TPM,
# partitions that are found by their type, hibernation, AF_VSOCK), kernel modules that are loaded
# when they are used, a return to the initramfs at shutdown, leases of a DHCP server, the linker's
# cache, which the commit brings (made on a machine, it would count as the machine's own), and
# udev's list of memory modules.
UNUSED = (
    *(
        f"systemd/system-generators/{name}-generator"
        for name in (
            "systemd-gpt-auto",
            "systemd-hibernate-resume",
            "systemd-rc-local",
            "systemd-ssh",
            "systemd-system-update",
            "systemd-sysv",
            "systemd-tpm2",
        )
    ),
    *(
        f"systemd/system/modprobe@{name}.service"
        for name in ("configfs", "dm_mod", "drm", "efi_pstore", "fuse", "loop")
    ),
    "systemd/system/dracut-shutdown.service",
    "systemd/system/ldconfig.service",
    "systemd/system/systemd-networkd-persistent-storage.service",
    "udev/rules.d/70-memory.rules",
)
# What a build leaves in /var and no system needs.
DROPPED = (
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
    "var/lib/dpkg",
    "var/lib/dbus/machine-id",
    "var/lock",
    "var/run",
    "var/tmp",
)


def run(*argv: str, data: str | None = None) -> None:
    """Run a command; its output goes to the build log; secrets (`data`) are passed on stdin."""
    subprocess.run(argv, check=True, input=data, text=True)


def stage(name: str) -> None:
    print(f"RFE-STAGE: {name}", flush=True)


# base -------------------------------------------------------------------------------------------


def base() -> None:
    """Complete the part that all composes share: groups, default units, the initramfs."""
    run("groupadd", "--force", "--system", "wheel")
    Path("/etc/sudoers.d/wheel").chmod(0o440)
    run("systemctl", "preset-all", "--preset-mode=full")
    omit_unneeded()
    stage("initramfs")
    make_initramfs(kernel_release(), beside=compile_python)


def omit_unneeded() -> None:
    """Leave out of each boot what an edge system has no use for (systemd.generator(7), udev(7))."""
    for name in UNUSED:
        path = Path("/etc", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/null")
    for path in Path("/usr/lib/binfmt.d").glob("python3*.conf"):  # running .pyc files by name
        path.unlink()


def kernel_release() -> str:
    releases = sorted(entry.name for entry in MODULES.iterdir() if (entry / "kernel").is_dir())
    if len(releases) != 1:
        raise SystemExit(f"expected one kernel in the tree, found: {', '.join(releases) or 'none'}")
    return releases[0]


def compile_python() -> None:
    """Have Python take its bytecode as it is (PEP 552). What packages bring is compared with the
    time of its source, which OSTree sets to 0: each start of a program would compile everything."""
    sources = [*OURS.glob("*.py")]
    for compiled in Path("/usr/lib").glob("python3*/**/__pycache__/*.pyc"):
        with contextlib.suppress(ValueError):  # no name that Python gives
            sources.append(Path(importlib.util.source_from_cache(compiled)))
    for source in sources:
        compiled = Path(importlib.util.cache_from_source(source))
        if not source.exists() or (compiled.exists() and is_hash_based(compiled)):
            continue
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(source), quiet=2, invalidation_mode=mode)


def is_hash_based(compiled: Path) -> bool:
    """Whether Python ignores the time of the source: bit 0 of the flags, bytes 4 to 7."""
    with compiled.open("rb", buffering=0) as file:
        return bool(file.read(8)[4] & 1)


def make_initramfs(release: str, beside: Callable[[], None] = lambda: None) -> None:
    """Make the initramfs, beside something else that takes a processor."""
    target = MODULES / release / "initramfs.img"
    argv = ["dracut", "--quiet", "--force", "--no-hostonly", "--kver", release, str(target)]
    with subprocess.Popen(argv) as dracut:
        beside()
    if dracut.returncode:
        raise subprocess.CalledProcessError(dracut.returncode, argv)
    target.chmod(0o644)


def remove_kernel(package: str) -> None:
    """Remove the base's kernel; `package` is its metapackage, without a version in its name."""
    flavour = package.removeprefix("linux-image-")
    listing = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\n", package, f"linux-image-*-{flavour}"],
        check=False,
        capture_output=True,
        text=True,
    ).stdout
    run("dpkg", "--purge", *sorted(set(listing.split())))
    for directory in MODULES.glob(f"*-{flavour}"):
        shutil.rmtree(directory)


# layout -------------------------------------------------------------------------------------------


def lay_out(spec: Table) -> Table:
    """Turn a Debian root file system into what OSTree deploys: all content in /usr, /etc as
    /usr/etc, and an empty /var that tmpfiles.d fills at boot."""
    release = kernel_release()
    vmlinuz = Path(f"/boot/vmlinuz-{release}")
    if vmlinuz.exists():
        move(vmlinuz, MODULES / release / "vmlinuz")
    empty(Path("/boot"))
    for name in ("initrd.img", "initrd.img.old", "vmlinuz", "vmlinuz.old"):
        Path("/", name).unlink(missing_ok=True)
    os_release = Path("/usr/lib/os-release")
    os_release.write_text(with_version(os_release.read_text(), spec["version"]))
    write_sysusers()
    remove_backups()
    packages = installed_packages()
    SYSIMAGE.mkdir(exist_ok=True)
    for leftover in ("lock", "lock-frontend", "status-old", "diversions-old", "statoverride-old"):
        Path("/var/lib/dpkg", leftover).unlink(missing_ok=True)
    for kind in ("shlibs", "symbols"):  # for those who build packages
        for file in Path("/var/lib/dpkg/info").glob(f"*.{kind}"):
            file.unlink()
    move_to_var()
    describe_var()
    for path, target in LINKS.items():
        Path("/", path).symlink_to(target)
    Path("/sysroot").mkdir(exist_ok=True)
    empty(Path("/tmp"))
    if spec["move"]:
        for old, new in MOVED.items():
            move(Path("/", old), Path("/", new))
        empty(Path("/run"))
        empty(Path("/var"))
    return {"kernel": release, "packages": packages}


def move(old: Path, new: Path) -> None:
    """Rename, or copy with owners and attributes: a directory of an overlay cannot be renamed."""
    run("mv", "--no-target-directory", str(old), str(new))


def move_to_var() -> None:
    """Make room for LINKS: what machines may change moves to /var, the rest is removed."""
    for path, target in LINKS.items():
        old = Path("/", path)
        if target.startswith(("var/", "../var/")):
            new = Path("/var", target.rpartition("/")[2])
            if new.exists():
                for child in old.iterdir():
                    move(child, new / child.name)
                old.rmdir()
            else:
                move(old, new)
        elif old.exists():
            old.rmdir()


def empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def with_version(os_release: str, version: str) -> str:
    """os-release(5) of an edge system of a version."""
    kept = [
        line
        for line in os_release.splitlines()
        if not line.startswith(("OSTREE_VERSION=", "VARIANT", "PRETTY_NAME="))
    ]
    kept += [
        f'PRETTY_NAME="Debian Edge {version}"',
        'VARIANT="Edge (sandbox)"',
        "VARIANT_ID=edge",
        f"OSTREE_VERSION='{version}'",
    ]
    return "\n".join(kept) + "\n"


def write_sysusers() -> None:
    """Describe all system users for systemd-sysusers: a machine on which /etc/passwd was changed
    keeps its own copy across updates, which lacks the users of newly added packages."""
    lines = []
    groups_by_id = {}
    # Not splitlines: a comment may hold other characters that it takes for ends of lines.
    for line in Path("/etc/group").read_text().rstrip("\n").split("\n"):
        name, _, gid, _ = line.split(":")
        groups_by_id[gid] = name
        if int(gid) < 1000:
            lines.append(f"g {name} {gid}")
    for line in Path("/etc/passwd").read_text().rstrip("\n").split("\n"):
        name, _, uid, gid, gecos, home, shell = line.split(":")
        if 0 < int(uid) < 1000 and gid in groups_by_id:
            comment = escaped(gecos.rstrip(",") or name)
            lines.append(f'u {name} {uid}:{gid} "{comment}" {home} {shell}')
    Path("/usr/lib/sysusers.d/zz-edge.conf").write_text("\n".join(lines) + "\n")
    for name in ("passwd", "group"):
        shutil.copyfile(f"/etc/{name}", f"/usr/lib/{name}")


def escaped(text: str) -> str:
    """A text between double quotes in sysusers.d and tmpfiles.d: without specifiers, escapes."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def reset_etc() -> None:
    """Clear what belongs to a single machine; what a blueprint puts there comes later."""
    for name in ("machine-id", "fstab"):
        Path("/etc", name).write_text("")
    for key in Path("/etc/ssh").glob("ssh_host_*"):
        key.unlink()
    resolv = Path("/etc/resolv.conf")
    resolv.unlink(missing_ok=True)
    resolv.symlink_to("../run/systemd/resolve/resolv.conf")


def remove_backups() -> None:
    """Remove what the tools that add users and groups leave."""
    for name in ("passwd-", "shadow-", "group-", "gshadow-", "subuid-", "subgid-", ".pwd.lock"):
        Path("/etc", name).unlink(missing_ok=True)


def installed_packages() -> list[list[str]]:
    listing = subprocess.run(
        [
            "dpkg-query",
            "-W",
            "-f",
            "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\n",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = (line.split("\t") for line in listing.splitlines())
    return sorted(row[1:] for row in rows if row[0] == "installed")


def describe_var() -> None:
    """Describe /var in tmpfiles.d, and copy its files to /usr/share/factory."""
    lines = []
    for directory, names, filenames in os.walk("/var"):
        names.sort()
        for name in sorted(names + filenames):
            path = Path(directory, name)
            relative = str(path.relative_to("/"))
            if any(relative == drop or relative.startswith(drop + "/") for drop in DROPPED):
                continue
            lines += describe(path, relative)
    Path("/usr/lib/tmpfiles.d/zz-edge-var.conf").write_text("\n".join(lines) + "\n")


def describe(path: Path, relative: str) -> list[str]:
    status = path.lstat()
    quoted = f'"/{escaped(relative)}"'
    owner = f"{stat.S_IMODE(status.st_mode):04o} {status.st_uid} {status.st_gid}"
    if path.is_symlink():
        return [f"L {quoted} - - - - {escaped(str(path.readlink()))}"]
    if path.is_dir():
        return [f"d {quoted} {owner} - -"]
    if path.is_file() and not relative.startswith("var/log/"):
        target = Path("/usr/share/factory", relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        os.chown(target, status.st_uid, status.st_gid)
        return [f"C {quoted} {owner} - -"]
    return []


def compose(directory: Path) -> None:
    """Make the tree of one compose: the requested kernel, customizations, OSTree's layout."""
    spec = json.loads((directory / "spec.json").read_text())
    if spec["replaced_kernel"]:
        remove_kernel(spec["replaced_kernel"])
    release = kernel_release()
    if not (MODULES / release / "initramfs.img").exists():
        stage("initramfs")
        make_initramfs(release)
    reset_etc()
    customizations = json.dumps(spec["customizations"])
    run(sys.executable, str(directory / "customize.py"), data=customizations)
    stage("layout")
    compile_python()
    report = lay_out(spec)
    (directory / "report.json").write_text(json.dumps(report))


def main() -> None:
    command, directory = sys.argv[1:]
    try:
        if command == "base":
            base()
        else:
            compose(Path(directory))
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error.cmd[0]} ended with status {error.returncode}") from None


if __name__ == "__main__":
    main()
