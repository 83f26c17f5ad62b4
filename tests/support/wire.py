"""A wire between a client and a server that gets slow, goes silent, breaks, or is not there.

It passes bytes on as they are, so it does for a database and an object store alike.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

_CHUNK = 65_536
_LOOK_S = 0.02


@dataclass
class Wire:
    """What happens to bytes that pass; to be changed at any time.

    `delay_s`: each answer comes so much later. `is_silent`: nothing passes any more, nothing is
    closed. `refuses`: nobody is let in. `cut_after`: so many bytes of answers, then all breaks.
    `cut_on`: everything breaks when these bytes are sent, `passes_cut` says whether they arrive.
    """

    target: str  # the path of a socket, or `host:port`
    delay_s: float = 0.0
    is_silent: bool = False
    refuses: bool = False
    cut_after: int | None = None
    cut_on: bytes = b""
    passes_cut: bool = True
    cuts: int = 0
    port: int = 0
    _open: list[socket.socket] = field(default_factory=list)
    _is_over: bool = False

    def cut(self) -> None:
        """Break all connections now."""
        self.cuts += 1
        while self._open:
            side = self._open.pop()
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def serve(self, listener: socket.socket) -> None:
        while not self._is_over:
            try:
                near, _ = listener.accept()
            except TimeoutError:
                continue
            if self.refuses:
                near.close()
                continue
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            far = self._connect()
            self._open += [near, far]
            for pump in (partial(self._sent, near, far), partial(self._answered, far, near)):
                threading.Thread(target=pump, daemon=True).start()

    def _connect(self) -> socket.socket:
        host, _, port = self.target.rpartition(":")
        if host:
            return socket.create_connection((host, int(port)))
        far = socket.socket(socket.AF_UNIX)
        far.connect(self.target)
        return far

    def end(self) -> None:
        self._is_over = True
        self.cut()

    def _sent(self, near: socket.socket, far: socket.socket) -> None:
        with _broken(near, far):
            while data := self._next(near):
                if self.cut_on and self.cut_on in data:
                    self.cut_on = b""
                    self.is_silent = True
                    if self.passes_cut:
                        far.sendall(data)
                        time.sleep(0.2)  # it is done by then
                    self.cut()
                    self.is_silent = False
                    return
                far.sendall(data)

    def _answered(self, far: socket.socket, near: socket.socket) -> None:
        with _broken(near, far):
            while data := self._next(far):
                time.sleep(self.delay_s)
                if self.cut_after is not None:
                    data, self.cut_after = data[: self.cut_after], self.cut_after - len(data)
                    if self.cut_after <= 0:
                        self.cut_after = None
                        near.sendall(data)
                        self.cut()
                        return
                near.sendall(data)

    def _next(self, side: socket.socket) -> bytes:
        data = side.recv(_CHUNK)
        while self.is_silent and not self._is_over:
            time.sleep(_LOOK_S)
        return data


@contextmanager
def _broken(*sides: socket.socket) -> Iterator[None]:
    """Whatever ends one direction ends both."""
    try:
        with contextlib.suppress(OSError):
            yield
    finally:
        for side in sides:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()


@contextmanager
def wire(target: str) -> Iterator[Wire]:
    """A wire to a server, on a free port of loopback."""
    made = Wire(target)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(_LOOK_S)
        made.port = listener.getsockname()[1]
        thread = threading.Thread(target=made.serve, args=(listener,))
        thread.start()
        try:
            yield made
        finally:
            made.end()
            thread.join()
