from . import profile
from .cache import cache_directory
from .lab import Lab
from .profile import Profile

__all__ = [
    "Lab",
    "Profile",
    "cache_directory",
    "profile",
]
