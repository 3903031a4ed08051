"""Puts the commit on the disk: repository, deployment, boot loader, and their mounts."""

from __future__ import annotations

from pathlib import Path

from .console import InstallError, run, step
from .disk import Target
from .payload import ImagePayload, Payload

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
# The EFI system partition is checked and mounted when somebody looks into it: no boot needs it.
FSTAB = """UUID={root} / {filesystem} defaults 0 0
UUID={boot} /boot {filesystem} defaults 0 0
UUID={esp} /boot/efi vfat umask=0077,shortname=winnt,noauto,x-systemd.automount 0 2
"""


def deploy(target: Target, payload: Payload | ImagePayload, arguments: tuple[str, ...]) -> Path:
    """Bring the payload onto the disk and deploy it; returns the directory of the deployment."""
    root = target.root
    repository = root / "ostree/repo"
    run("ostree", "admin", "init-fs", "--modern", root)
    run("ostree", "admin", "os-init", f"--sysroot={root}", payload.osname)
    for key, value in (("bootloader", "syslinux"), ("readonly", "true")):
        run("ostree", "config", f"--repo={repository}", "set", f"sysroot.{key}", value)
    _prepare_boot(root / "boot")
    payload.deploy(root, [f"root=UUID={target.root_uuid}", "rw", *arguments])
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
