"""Addresses and ports of this machine."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from pathlib import Path

LOOPBACK = "127.0.0.1"
# The host's loopback as a virtual machine with QEMU's user networking sees it.
HOST_FROM_GUEST = "10.0.2.2"
GUEST = "10.0.2.15"  # the machine itself, there


# Linux's first port for outgoing connections, unless it is set otherwise.
_EPHEMERAL = 32_768


def free_port(taken: Iterable[int] = ()) -> int | None:
    """A TCP port of 127.0.0.1 on which nothing listens, chosen at random, none of `taken`.

    It lies below the ports that Linux gives to outgoing connections (if they leave room above
    10000), so that it can be kept: a server that is stopped finds it free again. None if every
    port is in use.

    >>> from rfe_helpers.core import network
    >>> port = network.free_port()
    >>> network.port_is_free(port)
    True
    """
    candidates = list(set(range(10_000, max(_first_ephemeral(), 20_000))) - set(taken))
    random.shuffle(candidates)
    return next(filter(port_is_free, candidates), None)


def _first_ephemeral() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:  # not Linux, or a sandbox without this file
        return _EPHEMERAL


def port_is_free(port: int) -> bool:
    """Whether nothing listens on a TCP port of 127.0.0.1.

    >>> from rfe_helpers.core import network
    >>> network.port_is_free(network.free_port(taken=[8000]))
    True
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def greeting(host: str, port: int, seconds: float) -> bytes:
    """What a TCP server says first, within `seconds` and at most 255 bytes; b"" if it says nothing.
    That of SSH begins with b"SSH-" (RFC 4253)."""
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            return connection.recv(255)
    except OSError:
        return b""
