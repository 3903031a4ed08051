"""Disks whose boot sector is a program of a few bytes: a machine that starts at once."""

from pathlib import Path

from rfe_helpers.core import run


def boot_sector(directory: Path, message: str) -> Path:
    """A disk whose boot sector writes a message to the serial port and halts: 16-bit code,
    `mov si, message; next: lodsb; test al, al; jz end; out dx, al; jmp next; end: hlt; jmp end`."""
    code = bytes.fromhex("31c0 8ed8 be157c baf803 ac 84c0 7403 ee ebf8 f4 ebfd")
    sector = (code + message.encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa"
    raw, disk = directory / "disk.raw", directory / "disk.qcow2"
    raw.write_bytes(sector + bytes(1024 * 1024 - 512))
    run.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk])
    return disk
