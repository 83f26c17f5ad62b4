"""A balancer in front of replicas: each connection goes to the next one, as nginx would do it.

One that does not answer is passed over.
"""

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_CHUNK = 1 << 16


@contextmanager
def balanced(ports: Sequence[int]) -> Iterator[int]:
    """The port of a balancer over servers of the loopback address."""
    turns = itertools.cycle(range(len(ports)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, ports, turns), daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)  # ends the accept


def _accept(listener: socket.socket, ports: Sequence[int], turns: Iterator[int]) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            turn = next(turns)
            order = [*ports[turn:], *ports[:turn]]
            threading.Thread(target=_serve, args=(client, order), daemon=True).start()


def _serve(client: socket.socket, order: Sequence[int]) -> None:
    with contextlib.suppress(OSError), client, _connected(order) as away:
        back = threading.Thread(target=_pass, args=(away, client), daemon=True)
        back.start()
        _pass(client, away)
        back.join()


def _connected(order: Sequence[int]) -> socket.socket:
    for port in order[:-1]:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port))
    return socket.create_connection(("127.0.0.1", order[-1]))


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
