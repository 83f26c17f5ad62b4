"""Running the server: uvicorn on uvloop with our protocol, from start to graceful stop.

Nothing is printed here. uvicorn's own loggers (`uvicorn.error`) are left to the logging set-up of
the process; it writes no access log.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.server import HANDLED_SIGNALS

from registry import __version__
from registry.core.errors import OperationFailed
from registry.server.malloc import raise_thresholds
from registry.server.protocol import LibraryProtocol
from registry.server.tls import Certificates, certificates
from registry.settings import Limits, Settings

_BACKLOG = 2048
_KEEP_ALIVE_S = 75
_CANCELLED_S = 5.0  # for cancelled requests to clean up
_CLOSING_S = 20.0
"""For the application to end. A database or a store that hangs would keep it for minutes."""
STOPPING = "registry.stopping"
"""Under this name the application's state may have a function to be called when the server stops.

Before requests are let finish: some only end when they are told to.
"""
_PARTING_S = 0.5  # for a client to answer TLS's goodbye; those that pool connections never do


def run_server(
    make_app: Callable[[], ASGIApp], settings: Settings, ready: Callable[[int], None]
) -> None:
    """Serve until SIGTERM or SIGINT; then running requests get `limits.shutdown_s`.

    Half a minute later at the latest the process ends, whatever keeps it: a killed one loses
    nothing either.

    The port is bound first, then `make_app` is called inside the loop, then `ready` with the port.

    Raises:
        OperationFailed: the address cannot be listened on, or the certificate not be used.
    """
    raise_thresholds()
    tls = certificates(settings.tls_cert, settings.tls_key)
    listener = listen(settings.host, settings.port)

    async def main() -> None:
        await Server(make_app(), settings.limits, ready, tls).serve(sockets=[listener])

    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; `::` takes IPv4 too.

    Raises:
        OperationFailed: it is taken, or not this machine's.
    """
    try:
        if ":" not in host:
            return socket.create_server((host, port), backlog=_BACKLOG)
        dual = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(
            (host, port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=dual
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise OperationFailed(f"cannot listen on {host} port {port}: {reason}") from error


class Server(uvicorn.Server):
    """uvicorn's server over given sockets; with `tls` it speaks HTTPS and nothing else."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        ready: Callable[[int], None],
        tls: Certificates | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=LibraryProtocol.with_limits(limits),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                headers=[("server", f"registry/{__version__}")],
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_S,
                ssl_context_factory=_context_of(tls) if tls else None,
            )
        )
        self._grace_s = limits.shutdown_s
        self._ready = ready
        self._tls = tls
        self._watch: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application and listen."""
        await super().startup(sockets)
        if self.started and self._tls:
            self._watch = asyncio.create_task(self._tls.watch())
        if self.started and sockets:
            self._ready(sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, let requests finish, stop the application."""
        if threading.current_thread() is threading.main_thread():
            _end_after(self._grace_s + _CANCELLED_S + _CLOSING_S)
        parting = asyncio.create_task(self._part())
        if stopping := self.lifespan.state.get(STOPPING):
            stopping()
        try:
            await super().shutdown(sockets)
        finally:
            parting.cancel()
            if self._watch is not None:
                self._watch.cancel()

    async def _part(self) -> None:
        """Give up TLS connections that are closed but for the client's goodbye."""
        before: set[object] = set()
        while self._tls:
            closed = [
                connection
                for connection in self.server_state.connections
                if connection.transport.is_closing()
                and not connection.transport.get_write_buffer_size()
            ]
            for connection in closed:
                if connection in before:
                    connection.transport.abort()
            before = set(closed)
            await asyncio.sleep(_PARTING_S)

    async def _wait_tasks_to_complete(self) -> None:
        """Let requests finish; those that take too long are cancelled, and may clean up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace_s):
                await super()._wait_tasks_to_complete()
                return
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCELLED_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on a signal, and return from `serve`: uvicorn would raise the signal again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _end_after(time_s: float) -> None:
    """End this process then, unless it has ended by itself: threads that wait would keep it too."""

    def end() -> None:
        logging.getLogger("uvicorn.error").error("Something hangs: ended without waiting for it")
        os._exit(1)

    timer = threading.Timer(time_s, end)
    timer.daemon = True
    timer.start()


def _context_of(tls: Certificates) -> Callable[..., ssl.SSLContext]:
    """As uvicorn wants it: called with its configuration and its own way to make one."""

    def context(*_: object) -> ssl.SSLContext:
        return tls.context

    return context
