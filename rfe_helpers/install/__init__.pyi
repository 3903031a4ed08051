from . import download, kickstart, media, mkksiso

__all__ = [
    "download",
    "kickstart",
    "media",
    "mkksiso",
]
