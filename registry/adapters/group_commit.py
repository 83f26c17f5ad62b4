"""The one thread that writes to a database, with group commit.

It runs as many functions as are waiting, each in a savepoint of one transaction, and commits once:
the callers share one wait for the disk, and none is told of success before it. Writers that fight
for SQLite's own lock instead have a 99th percentile of 107 ms with eight of them (spec performance
6); on Postgres it is also what makes the writes of all replicas follow one another.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from registry.core.errors import RegistryError, Unavailable
from registry.ports.catalog import Transaction

T = TypeVar("T")

CLOSED = "the catalog is closed"
_GROUP_FUNCTIONS = 64  # at most so many share a commit
_GROUP_S = 0.005  # and none joins a group that has run for so long


class Database(Protocol):
    """A connection for writing, used by one thread at a time once it is made."""

    Error: type[Exception]
    """What its driver raises."""

    @property
    def transaction(self) -> Transaction:
        """What functions are given, while one is open."""

    def begin(self) -> None:
        """Open a transaction that shuts out every other writer, waiting for its turn."""

    def commit(self) -> None:
        """Make it durable and seen by everybody."""

    def rollback(self) -> None:
        """Undo it, if one is open. Raises nothing."""

    def run(self, text: str) -> None:
        """Run a statement without values in it."""

    def translated(self, error: Exception) -> RegistryError:
        """What a caller is told of an error of the driver's."""

    def close(self) -> None:
        """Let go of it."""


class _Write:
    """A function on its way through the writer, and what became of it."""

    __slots__ = ("error", "future", "loop", "started", "value", "withdrawn", "work")

    def __init__(self, work: Callable[[Transaction], Any]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.started = False
        self.withdrawn = False
        self.value: Any = None
        self.error: BaseException | None = None

    def result(self) -> Any:
        """What the function returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        return self.value


class Writer(threading.Thread):
    """The thread, with its queue and its connection."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="catalog-writer", daemon=True)
        self._database = database
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in the thread; returns when it is committed."""
        write = _Write(work)
        with self._lock:
            if self._closed:
                raise Unavailable(CLOSED)
            self._waiting.put(write)
        try:
            await asyncio.shield(write.future)
        except asyncio.CancelledError:
            if not self._withdraw(write):
                await _settled(write.future)
            raise
        try:
            value: T = write.result()
        except self._database.Error as error:
            raise self._database.translated(error) from error
        return value

    def finish(self) -> None:
        """Run what was handed over, then end; returns when that is done."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self.join()

    def _withdraw(self, write: _Write) -> bool:
        """Take a function back, unless it has begun; whether that succeeded."""
        with self._lock:
            write.withdrawn = not write.started
            return write.withdrawn

    def _begin(self, write: _Write) -> bool:
        """Whether a function is to run: its caller still waits for it."""
        with self._lock:
            write.started = not write.withdrawn
            return write.started

    def run(self) -> None:
        """Commit one group after the other."""
        while (first := self._waiting.get()) is not None:
            _wake(self._commit(self._group(first)))
        self._database.close()

    def _group(self, first: _Write) -> Iterator[_Write]:
        """`first`, and what arrives while the group runs."""
        if self._begin(first):
            yield first
        until = time.monotonic() + _GROUP_S
        for _ in range(_GROUP_FUNCTIONS - 1):
            try:
                write = self._waiting.get_nowait()
            except queue.Empty:
                return
            if write is None:
                self._waiting.put(None)  # it is the last of the queue: end after this group
                return
            if self._begin(write):
                yield write
            if time.monotonic() > until:
                return

    def _commit(self, writes: Iterator[_Write]) -> list[_Write]:
        """Run the functions in one transaction; return them when their outcome is certain."""
        try:
            self._database.begin()
        except self._database.Error as error:
            return [_failed(write, error) for write in writes]
        group: list[_Write] = []
        failure = self._run_all(writes, group)
        if failure is not None and len(group) > 1:
            # one of them may have been too much for the disk: that is not the others' failure
            for write in group:
                self._commit(iter([write]))
        elif failure is not None:
            _failed(group[0], group[0].error or failure)
        return group

    def _run_all(self, writes: Iterable[_Write], group: list[_Write]) -> Exception | None:
        """Run and commit; on an error that concerns the whole transaction undo it and return it."""
        try:
            for write in writes:
                group.append(write)
                self._run(write)
            self._database.commit()
        except self._database.Error as error:
            self._database.rollback()
            return error
        return None

    def _run(self, write: _Write) -> None:
        """Run one function; what it raises undoes what it did, and is its caller's."""
        write.error = None
        self._database.run("SAVEPOINT one")
        try:
            write.value = write.work(self._database.transaction)
        except BaseException as error:  # the edge of the thread: every error goes to the caller
            write.error = error
            self._database.run("ROLLBACK TO one")
        self._database.run("RELEASE one")


def _failed(write: _Write, error: BaseException) -> _Write:
    write.error = error
    return write


def _wake(group: list[_Write]) -> None:
    """Wake the callers, those of one event loop with one call."""
    for loop in {write.loop for write in group}:
        futures = [write.future for write in group if write.loop is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, futures)


def _settle(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)


async def _settled(future: asyncio.Future[None]) -> None:
    """Wait out a group that is being committed, even if cancelled again: milliseconds."""
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            continue
