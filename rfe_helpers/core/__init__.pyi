from . import files, network, run, ssh
from .progress import OnProgress
from .units import elapsed, size
from .wait import Deadline, wait_for

__all__ = [
    "Deadline",
    "OnProgress",
    "elapsed",
    "files",
    "network",
    "run",
    "size",
    "ssh",
    "wait_for",
]
