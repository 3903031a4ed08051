import socket
from pathlib import Path

from rfe_helpers.core.network import free_port, port_is_free


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()
    assert port_is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free(port)


def test_a_free_port_can_be_kept_for_a_server_that_is_stopped() -> None:
    """It is not one that Linux gives to outgoing connections, nor one that is spoken for."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = [free_port() for _ in range(50)]
    assert max(ports) < first_ephemeral
    taken = set(range(10_000, first_ephemeral)) - {ports[0]}
    assert free_port(taken) == ports[0]
