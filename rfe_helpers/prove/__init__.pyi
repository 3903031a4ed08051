from . import interruptions, powerloss
from .link import DISTANT, FAST, Link, Quality
from .proof import Proof

__all__ = [
    "DISTANT",
    "FAST",
    "Link",
    "Proof",
    "Quality",
    "interruptions",
    "powerloss",
]
