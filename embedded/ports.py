"""Loopback TCP ports: pick free ones, and say plainly when a wanted one is taken."""

import socket

from embedded.errors import PortInUse

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """That many different free ports; all are held open until the last is known, so none repeats."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def free_port() -> int:
    return free_ports(1)[0]


def is_in_use(port: int) -> bool:
    """Whether a server could not bind the port now (SO_REUSEADDR: closed connections do not count)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False


def require_free(port: int, setting: str) -> None:
    """Raises PortInUse naming the port and the variable that moves it."""
    if is_in_use(port):
        raise PortInUse(port, setting)


def accepts_connections(port: int, timeout_seconds: float = 0.2) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_seconds):
            return True
    except OSError:
        return False
