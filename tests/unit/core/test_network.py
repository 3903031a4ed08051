import socket

from rfe_helpers.core.network import free_port, port_is_free


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()
    assert port_is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free(port)
