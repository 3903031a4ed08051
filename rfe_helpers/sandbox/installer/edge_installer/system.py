"""Puts the commit on the disk: repository, deployment, boot loader, and their mounts."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import source
from .console import InstallError, run, run_with_progress, step
from .disk import Target
from .plan import Payload

# Reads the configuration that ostree writes for syslinux with each deployment, so an update never
# runs grub-mkconfig, and the same disk boots with BIOS and with UEFI.
GRUB = """serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
insmod part_gpt
insmod {module}
insmod syslinuxcfg
search --no-floppy --fs-uuid --set=root {boot_uuid}
set timeout=1
set default=0
syslinux_configfile -s ($root)/loader/syslinux.cfg
"""
GRUB_MODULES = {"xfs": "xfs", "ext4": "ext2"}
FSTAB = """UUID={root} / {filesystem} defaults 0 0
UUID={boot} /boot {filesystem} defaults 0 0
UUID={esp} /boot/efi vfat umask=0077,shortname=winnt 0 2
"""


def check_payload(payload: Payload, scratch: Path) -> None:
    """Fetch the commit object, to know before the disk is changed that the commit exists. Raises
    InstallError with the line of ostreesetup."""
    if not payload.url.startswith("file:"):
        source.wait_for_network(payload.url)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        run("ostree", "init", f"--repo={scratch}", "--mode=bare-user-only")
        _add_remote(scratch, payload)
        run("ostree", "pull", f"--repo={scratch}", "--commit-metadata-only", *_source(payload))
    except InstallError as error:
        reason = str(error).removeprefix("ostree: ")
        raise InstallError(
            f"line {payload.line}: ostreesetup: no {payload.ref} from {payload.url}: {reason}"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _add_remote(repository: Path, payload: Payload) -> None:
    options = [f"--repo={repository}", *([] if payload.verify else ["--no-gpg-verify"])]
    run("ostree", "remote", "add", *options, payload.remote, payload.url)


def _source(payload: Payload) -> tuple[str, str]:
    return payload.remote, payload.ref


def deploy(target: Target, payload: Payload, arguments: tuple[str, ...]) -> Path:
    """Pull and deploy the commit; returns the directory of the deployment."""
    root = target.root
    repository = root / "ostree/repo"
    run("ostree", "admin", "init-fs", "--modern", root)
    run("ostree", "admin", "os-init", f"--sysroot={root}", payload.osname)
    for key, value in (("bootloader", "syslinux"), ("readonly", "true")):
        run("ostree", "config", f"--repo={repository}", "set", f"sysroot.{key}", value)
    _prepare_boot(root / "boot")
    _add_remote(repository, payload)
    step(f"pulling {payload.ref}")
    # The whole installation is synced once, at its end.
    pull = ("ostree", "pull", f"--repo={repository}", "--disable-fsync", *_source(payload))
    run_with_progress(pull, "pulling")
    step("deploying")
    kernel = [f"root=UUID={target.root_uuid}", "rw", *arguments]
    run(
        "ostree",
        "admin",
        "deploy",
        f"--sysroot={root}",
        f"--os={payload.osname}",
        # Not --karg: it replaces an argument of the same name, and two console= are common.
        *(f"--karg-append={argument}" for argument in kernel),
        f"{payload.remote}:{payload.ref}",
    )
    deployments = list((root / "ostree/deploy" / payload.osname / "deploy").glob("*.0"))
    if len(deployments) != 1:
        raise InstallError(f"expected one deployment, found {len(deployments)}")
    (deployments[0] / "etc/fstab").write_text(
        FSTAB.format(
            root=target.root_uuid,
            boot=target.boot_uuid,
            esp=target.esp_uuid,
            filesystem=target.filesystem,
        )
    )
    return deployments[0]


def _prepare_boot(boot: Path) -> None:
    """Create the files by which ostree recognises a syslinux boot loader."""
    (boot / "loader.0").mkdir()
    (boot / "loader").symlink_to("loader.0")
    (boot / "loader/syslinux.cfg").write_text("TIMEOUT 10\n")
    (boot / "syslinux").mkdir()
    (boot / "syslinux/syslinux.cfg").symlink_to("../loader/syslinux.cfg")


def install_boot_loader(target: Target) -> None:
    """Install GRUB for BIOS in the disk's boot sectors and for UEFI at the removable path."""
    boot = write_grub_configuration(target)
    run("grub-install", "--target=i386-pc", f"--boot-directory={boot}", target.disk)
    run(
        "grub-install",
        "--target=x86_64-efi",
        "--removable",
        "--no-nvram",
        "--no-uefi-secure-boot",
        f"--boot-directory={boot}",
        f"--efi-directory={boot}/efi",
    )


def write_grub_configuration(target: Target) -> Path:
    """Write grub.cfg, which no update has to touch; returns the directory of /boot."""
    boot = target.root / "boot"
    (boot / "grub").mkdir(exist_ok=True)
    (boot / "grub/grub.cfg").write_text(
        GRUB.format(module=GRUB_MODULES[target.filesystem], boot_uuid=target.boot_uuid)
    )
    return boot


def enter(
    target: Target, deployment: Path, osname: str, view: Path, *, nested: bool = False
) -> None:
    """Mount the deployment at `view` as the running system will see itself, for chroot.

    `nested`: include the mounts below /dev, /proc, /sys and /run, as a user without rights outside
    a namespace must. An installer does without: these mounts are its own.
    """
    view.mkdir(parents=True, exist_ok=True)
    run("mount", "--bind", deployment, view)
    for origin, place in (
        (target.root / "ostree/deploy" / osname / "var", view / "var"),
        (target.root / "boot", view / "boot"),
        (target.root, view / "sysroot"),
    ):
        run("mount", "--bind", origin, place)
    for name in ("dev", "proc", "sys", "run"):
        run("mount", "--rbind" if nested else "--bind", Path("/", name), view / name)
    run("mount", "--bind", target.root / "boot/efi", view / "boot/efi")
    run("mount", "-t", "tmpfs", "tmpfs", view / "tmp")
    try:
        run("chroot", view, "systemd-tmpfiles", "--create", "--prefix=/var")
    except InstallError as error:
        # A bad line of a single package; at each boot it is only a warning, too.
        step(f"went on after {error}")
