"""Ports of the loopback address for servers that tests start."""

import socket


def free_port() -> int:
    """A port that nothing listens on; somebody else may take it before its server does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
