"""Postgres tells of changed jobs: a connection that listens, in a thread of its own.

It is opened when somebody first waits. While it is lost, those who wait are woken by their own time
limit only.

Source: PostgreSQL 15 documentation, LISTEN and NOTIFY; psycopg 3, "Asynchronous notifications".
"""

import asyncio
import contextlib
import threading
import time

import psycopg
from sqlalchemy.engine import URL

from registry.adapters.catalog_jobs import JOB_CHANNEL
from registry.adapters.postgres import connect

_PAUSE_S = 1.0
_ANSWER_S = 10.0
_LOOK_S = 0.5
"""So often the thread looks whether it is to end."""


class Bell:
    """Rings whenever a job changed, for everybody who waits just then."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def wait(self, timeout_s: float) -> None:
        """Wait until it rings, or for so long."""
        rung = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._closed:
                return
            self._waiting.add(rung)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="job-bell", daemon=True)
                self._thread.start()
        try:
            await asyncio.wait({rung}, timeout=timeout_s)
        finally:
            with self._lock:
                self._waiting.discard(rung)

    def close(self) -> None:
        """Stop listening; who waits goes on."""
        with self._lock:
            self._closed = True
        if self._thread is not None:
            self._thread.join()
        self._ring()

    def _run(self) -> None:
        while not self._closed:
            try:
                self._listen()
            except psycopg.Error:
                time.sleep(_PAUSE_S)

    def _listen(self) -> None:
        with contextlib.closing(connect(self._url, _PAUSE_S, _ANSWER_S)) as connection:
            connection.execute(f"LISTEN {JOB_CHANNEL}".encode())
            self._ring()  # what was told while nobody listened is lost
            while not self._closed:
                for _ in connection.notifies(timeout=_LOOK_S, stop_after=1):
                    self._ring()

    def _ring(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for rung in waiting:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                rung.get_loop().call_soon_threadsafe(_settle, rung)


def _settle(rung: asyncio.Future[None]) -> None:
    if not rung.done():
        rung.set_result(None)
