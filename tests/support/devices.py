"""An installed machine that many tests use, each on a disk layer of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rfe_helpers.core.wait import Deadline
from rfe_helpers.lab.lab import Lab
from rfe_helpers.machine import disks
from rfe_helpers.machine.node import Node
from rfe_helpers.machine.qemu import VmSpec
from rfe_helpers.machine.vm import Machine

SECONDS = 1800


@contextmanager
def on_a_layer(lab: Lab, name: str, disk: Path, port: int) -> Iterator[Node]:
    """The machine of a disk, which does not change, with SSH at a port; it is ended afterwards."""
    layer = disk.with_name("layer.qcow2")
    disks.overlay(disk, layer)
    with running(lab, name, layer, port) as node:
        yield node


@contextmanager
def running(lab: Lab, name: str, disk: Path, port: int) -> Iterator[Node]:
    """A machine on a disk, once it answers; it is ended afterwards."""
    machine = Machine.start(lab, VmSpec(name, disk=disk, forwards=((port, 22),)))
    try:
        node = Node(lab, name, port=port)
        node.forget_host_key()  # a system that was never booted makes its own
        node.wait(Deadline(SECONDS))
        yield node
    finally:
        machine.kill()
