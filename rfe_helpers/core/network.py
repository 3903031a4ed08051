"""Addresses and ports of this machine."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from pathlib import Path

LOOPBACK = "127.0.0.1"
# The host's loopback as a virtual machine with QEMU's user networking sees it.
HOST_FROM_GUEST = "10.0.2.2"


def free_port(taken: Iterable[int] = ()) -> int:
    """A TCP port of 127.0.0.1 on which nothing listens, chosen at random, none of `taken`.

    It lies below the ports that Linux gives to outgoing connections, so that it can be kept: a
    server that is stopped finds it free again.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    candidates = [port for port in range(10_000, max(ephemeral, 20_000)) if port not in set(taken)]
    random.shuffle(candidates)
    return next(filter(port_is_free, candidates))


def port_is_free(port: int) -> bool:
    """Whether nothing listens on a TCP port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
