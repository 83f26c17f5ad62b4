"""Zero copy: the bytes of a file into a socket without passing through this process.

One `sendfile` of 256 KiB per turn of the loop, so that a fast reader does not hold up the others.
No thread and no buffer belongs to a download. Blobs not in the page cache are read by a thread: a
loop that waits for a disk serves nobody.
"""

import asyncio
import contextlib
import os
import socket

_STEP = 256 << 10


class FileSender:
    """Sends `[offset, offset + count)` of a file over the socket of a transport."""

    def __init__(self, sock: socket.socket, file: int, offset: int, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock.dup()  # a loop does not let a transport's own be watched
        self._file = file
        self._offset = offset
        self._left = count
        self._waiting: asyncio.Future[None] | None = None
        self._watched = False
        self._moved = False
        self._probe = bytearray(1)
        self._can_probe = hasattr(os, "RWF_NOWAIT")

    async def run(self, idle_s: float) -> None:
        """Send it all.

        Raises:
            OSError: the client went away or took nothing for `idle_s`, or the file cannot be read.
            EOFError: the file is shorter.
        """
        self._idle = self._loop.call_later(idle_s, self._tick, idle_s)
        try:
            while self._left:
                if self._is_at_hand():
                    await self._send_warm()
                else:
                    await self._send_cold()
        finally:
            self._idle.cancel()
            self._unwatch()
            self._sock.close()

    def abort(self) -> None:
        """The connection is lost."""
        self._fail(ConnectionResetError("the client went away"))

    async def _send_warm(self) -> None:
        """Send until the end, or until bytes are not in memory."""
        self._waiting = self._loop.create_future()
        if not self._watched:
            self._watched = True
            self._loop.add_writer(self._sock, self._step)
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _step(self) -> None:
        if self._waiting is None or self._waiting.done():
            self._unwatch()
            return
        try:
            self._sent(os.sendfile(self._sock.fileno(), self._file, self._offset, self._count()))
        except BlockingIOError:
            return
        except (OSError, EOFError) as error:
            self._fail(error)
            return
        if not self._left or not self._is_at_hand():
            self._waiting.set_result(None)

    async def _send_cold(self) -> None:
        self._unwatch()
        job = self._loop.run_in_executor(
            None, os.sendfile, self._sock.fileno(), self._file, self._offset, self._count()
        )
        try:
            with contextlib.suppress(BlockingIOError):
                self._sent(await asyncio.shield(job))
                return
        except asyncio.CancelledError:
            await job  # the descriptor must stay open until the thread is done with it
            raise
        await self._send_warm()  # the client's turn to read; meanwhile the bytes have come

    def _count(self) -> int:
        return min(_STEP, self._left)

    def _sent(self, count: int) -> None:
        if not count:
            raise EOFError("the file is shorter than announced")
        self._moved = True
        self._offset += count
        self._left -= count

    def _is_at_hand(self) -> bool:
        """Whether the next step's last byte is in the page cache, if that can be asked."""
        if not self._can_probe:
            return True
        try:
            os.preadv(self._file, [self._probe], self._offset + self._count() - 1, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            self._can_probe = False
        return True

    def _tick(self, idle_s: float) -> None:
        if not self._moved:
            self._fail(TimeoutError("the client takes nothing"))
            return
        self._moved = False
        self._idle = self._loop.call_later(idle_s, self._tick, idle_s)

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_writer(self._sock)
