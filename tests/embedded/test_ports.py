"""Ports: free ones are different ones, a taken one is named together with the way out."""

import socket

import pytest

from embedded.errors import PortInUse
from embedded.ports import accepts_connections, free_ports, is_in_use, require_free


@pytest.fixture
def taken() -> int:
    return free_ports(1)[0]


def test_free_ports_are_free_and_all_different() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert not any(is_in_use(port) for port in ports)


def test_a_listening_socket_takes_the_port_until_it_closes(taken: int) -> None:
    with socket.create_server(("127.0.0.1", taken)):
        assert is_in_use(taken)
        assert accepts_connections(taken)
        with pytest.raises(PortInUse, match=f"port {taken} .* PRICING_PORT"):
            require_free(taken, "PRICING_PORT")
    assert not is_in_use(taken)
    assert not accepts_connections(taken)
    require_free(taken, "PRICING_PORT")


def test_a_port_on_every_interface_is_in_use_on_loopback_too(taken: int) -> None:
    with socket.create_server(("0.0.0.0", taken)):
        assert is_in_use(taken)
