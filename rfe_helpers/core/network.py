"""Addresses and ports of this machine."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"
# The host's loopback as a virtual machine with QEMU's user networking sees it.
HOST_FROM_GUEST = "10.0.2.2"


def port_is_free(port: int) -> bool:
    """Whether nothing listens on a TCP port of 127.0.0.1."""
    return _bound(port) is not None


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens, chosen by the kernel."""
    port = _bound(0)
    assert port is not None
    return port


def _bound(port: int) -> int | None:
    """The port that a socket is bound to (0 asks for any); None if it is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return None
        return int(probe.getsockname()[1])
