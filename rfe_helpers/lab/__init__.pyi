from . import profile
from .lab import Lab, cache_directory
from .profile import Profile

__all__ = [
    "Lab",
    "Profile",
    "cache_directory",
    "profile",
]
