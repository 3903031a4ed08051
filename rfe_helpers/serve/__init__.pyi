from . import registry
from .publication import Publication, Published
from .registry import Registry
from .site import Earlier, Site, port_of, publish, published, remember, stop
from .with_podman import remove_container

__all__ = [
    "Earlier",
    "Publication",
    "Published",
    "Registry",
    "Site",
    "port_of",
    "publish",
    "published",
    "registry",
    "remember",
    "remove_container",
    "stop",
]
