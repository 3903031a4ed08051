from . import (
    build,
    commit,
    core,
    errors,
    fleet,
    imagemode,
    install,
    lab,
    machine,
    prove,
    serve,
    workbook,
)
from .build import Blueprint, compose, connect
from .commit import open_commit
from .core import Deadline
from .lab import Lab
from .machine import Machine, Node, VmSpec

__version__: str

__all__ = [
    "Blueprint",
    "Deadline",
    "Lab",
    "Machine",
    "Node",
    "VmSpec",
    "build",
    "commit",
    "compose",
    "connect",
    "core",
    "errors",
    "fleet",
    "imagemode",
    "install",
    "lab",
    "machine",
    "open_commit",
    "prove",
    "serve",
    "workbook",
]
