import socket
from pathlib import Path

import pytest

from rfe_helpers.core import network
from rfe_helpers.core.network import free_port, port_is_free


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()
    assert port is not None
    assert port_is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free(port)


def test_a_free_port_can_be_kept_for_a_server_that_is_stopped() -> None:
    """It is not one that Linux gives to outgoing connections, nor one that is spoken for."""
    end = max(20_000, network._first_ephemeral())
    ports = [free_port() for _ in range(50)]
    assert all(port is not None and 10_000 <= port < end for port in ports)
    assert free_port(set(range(10_000, end)) - {ports[0]}) == ports[0]
    assert free_port(range(10_000, end)) is None
    assert free_port(iter(range(10_000, end))) is None


def test_a_machine_that_does_not_tell_its_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Path("/nonexistent/ip_local_port_range")
    monkeypatch.setattr(network, "Path", lambda _: missing)
    port = free_port()
    assert port is not None
    assert 10_000 <= port < 32_768
