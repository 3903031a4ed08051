from . import remote
from .answers import Compose
from .artifact import Artifact, compose
from .blueprint import Blueprint, PackageSpec, parse_toml, to_toml
from .client import Client
from .connect import (
    base_image,
    boot_iso,
    builder_of,
    connect,
    fill_cache,
    guest_image,
    status,
    stop,
)
from .linter import Finding, lint

__all__ = [
    "Artifact",
    "Blueprint",
    "Client",
    "Compose",
    "Finding",
    "PackageSpec",
    "base_image",
    "boot_iso",
    "builder_of",
    "compose",
    "connect",
    "fill_cache",
    "guest_image",
    "lint",
    "parse_toml",
    "remote",
    "status",
    "stop",
    "to_toml",
]
