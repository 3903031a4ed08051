from . import disks, guest
from .accelerator import find_accelerator
from .installation import install
from .node import Deployment, Node, NodeStatus
from .qemu import VmSpec
from .vm import Machine

__all__ = [
    "Deployment",
    "Machine",
    "Node",
    "NodeStatus",
    "VmSpec",
    "disks",
    "find_accelerator",
    "guest",
    "install",
]
