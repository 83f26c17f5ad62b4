"""What one process keeps of upload sessions between requests: the open bytes, and whose turn it is.

Requests for one session take turns, in this process by a lock, among replicas by the store's turn.
A request whose sender has gone silent does not hold up a newer one for long: the client has most
likely lost the connection and tries again, so the older request is ended (a proxy in between may
keep its connection open for minutes).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from registry.core.digest import Digest
from registry.core.errors import Conflict, DigestMismatch, Unavailable
from registry.core.names import RepositoryName
from registry.ports.blobs import Incoming, Turn

T = TypeVar("T")

_PATIENCE_S = 2.0


class LiveSession:
    """One session in this process. Whoever has the turn may use it."""

    def __init__(self, patience_s: float = _PATIENCE_S) -> None:
        self.incoming: Incoming | None = None
        self.commit: asyncio.Task[Digest] | None = None
        self.repository = ""  # key of the one that the commit is for
        self.lock = asyncio.Lock()
        self.waiting = 0
        self.used_s = time.monotonic()
        self._receiving: asyncio.Task[Any] | None = None
        self._progress: Callable[[], int] = int
        self._superseded = False
        self._patience_s = patience_s
        self._turn: Turn | None = None
        self._users = 0  # of the store's turn: a request, a commit that outlives it
        self._ending: asyncio.Task[None] | None = None

    @property
    def is_committing(self) -> bool:
        """Whether a commit runs, perhaps for a client that is gone."""
        return self.commit is not None and not self.commit.done()

    @property
    def is_busy(self) -> bool:
        """Whether a request has the turn or waits for it, or a commit runs."""
        return self.is_committing or self.waiting > 0 or self.lock.locked()

    async def run(self, receive: Coroutine[Any, Any, T], progress: Callable[[], int]) -> T:
        """Receive bytes, in a way that a newer request can end when `progress` stands still.

        Raises:
            Conflict: it did.
        """
        self._receiving = task = asyncio.create_task(receive)
        self._progress, self._superseded = progress, False
        turn = self._turn
        watch = asyncio.create_task(self.end_silent(turn.is_wanted)) if turn else None
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._superseded and task.cancelled():
                raise Conflict("a newer request goes on with this upload") from None
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # its own failure does not matter any more
            raise
        finally:
            self._receiving = None
            if watch is not None:
                watch.cancel()

    async def end_silent(self, is_wanted: Callable[[], bool] = lambda: True) -> None:
        """Watch the request that has the turn; end it when no byte comes and another waits."""
        seen, since = -1, time.monotonic()
        while True:
            await asyncio.sleep(self._patience_s / 8)
            size = self._progress()
            if self._receiving is None or size != seen:
                seen, since = size, time.monotonic()
            elif time.monotonic() - since >= self._patience_s and is_wanted():
                self._superseded = True
                self._receiving.cancel()
                return

    async def begin_turn(self, take: Callable[[], Awaitable[Turn | None]]) -> None:
        """Have the store's turn from now on; see `BlobStore.turn` for what it raises."""
        if self._ending is not None:
            await asyncio.wait({self._ending})
        if self._turn is None:
            self._turn = await take()
        self._users += 1

    async def end_turn(self) -> None:
        """Let go of the store's turn, when nobody here needs it, and before that of the bytes."""
        self._users -= 1
        if self._turn is None or self._users:
            return
        self._ending = asyncio.create_task(self._end_turn(self._turn))
        await asyncio.shield(self._ending)  # cancelled or not, closing may still cut the file

    async def _end_turn(self, turn: Turn) -> None:
        try:
            await self.let_go()
        finally:
            self._turn = None
            turn.end()

    def begin_commit(self, name: RepositoryName, commit: Coroutine[Any, Any, Digest]) -> None:
        """Run the commit by itself: it outlives the request that began it."""
        self.repository = name.key
        self._users += 1
        self.commit = asyncio.create_task(self._committing(commit))
        self.commit.add_done_callback(_heed)

    async def _committing(self, commit: Coroutine[Any, Any, Digest]) -> Digest:
        try:
            return await commit
        finally:
            await self.end_turn()

    async def committed(self, hold_s: float) -> Digest | None:
        """Wait for the commit's result, or its error; None if it takes longer than `hold_s`."""
        commit = self.commit
        assert commit is not None, "begin_commit comes first"
        done, _ = await asyncio.wait({commit}, timeout=hold_s)
        if not done:
            return None
        self.commit = None
        return commit.result()

    async def settled(self, digest: Digest, hold_s: float) -> Digest:
        """Wait for the running commit, which goes on when its client goes away.

        Raises:
            Unavailable: it takes longer than `hold_s`.
            DigestMismatch: the bytes have another digest; and whatever else went wrong.
        """
        done = await self.committed(hold_s)
        if done is None:
            raise Unavailable("the upload is still being verified")
        if done != digest:
            raise DigestMismatch(str(digest), str(done))
        return done

    async def let_go(self, *, intact: bool = True) -> None:
        """Close the bytes, which stay; the next request opens them again. See `Incoming.close`."""
        incoming, self.incoming = self.incoming, None
        if incoming is not None:
            await incoming.close(intact=intact)


class LiveSessions:
    """The sessions that this process has open, bounded in number and idle time."""

    def __init__(
        self,
        take: Callable[[str], Awaitable[Turn | None]],
        limit: int = 256,
        idle_s: float = 60.0,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._take = take  # the store's `turn`
        self._limit = limit
        self._idle_s = idle_s
        self._patience_s = patience_s
        self._sessions: OrderedDict[str, LiveSession] = OrderedDict()

    def is_busy(self, session: str) -> bool:
        """Whether something goes on with the session just now."""
        live = self._sessions.get(session)
        return live is not None and live.is_busy

    @asynccontextmanager
    async def turn(self, session: str) -> AsyncIterator[LiveSession]:
        """Wait for the turn and have the session to oneself.

        Raises:
            Unavailable: another replica has it.
        """
        live = self._sessions.setdefault(session, LiveSession(self._patience_s))
        self._sessions.move_to_end(session)
        await self._acquire(live)
        try:
            await live.begin_turn(lambda: self._take(session))
            try:
                yield live
            finally:
                await live.end_turn()
        finally:
            live.used_s = time.monotonic()
            live.lock.release()
            if live.incoming is None and not live.is_busy:
                self._sessions.pop(session, None)
            await self._trim(self._limit)

    async def _acquire(self, live: LiveSession) -> None:
        live.waiting += 1
        try:
            if not live.lock.locked():
                await live.lock.acquire()
                return
            watch = asyncio.create_task(live.end_silent())
            try:
                await live.lock.acquire()
            finally:
                watch.cancel()
        finally:
            live.waiting -= 1

    async def close_idle(self) -> None:
        """Close what nobody has used for a while."""
        limit = time.monotonic() - self._idle_s
        for session, live in list(self._sessions.items()):
            if live.used_s < limit and not live.is_busy:
                await self._close(session, live)

    async def close(self) -> None:
        """Close everything; commits that run are waited for."""
        commits = [live.commit for live in self._sessions.values() if live.commit is not None]
        if commits:
            await asyncio.wait(commits)
        for session, live in list(self._sessions.items()):
            await self._close(session, live)

    async def _trim(self, limit: int) -> None:
        excess = len(self._sessions) - limit
        if excess <= 0:
            return
        idle = [item for item in self._sessions.items() if not item[1].is_busy]
        for session, live in idle[:excess]:
            await self._close(session, live)

    async def _close(self, session: str, live: LiveSession) -> None:
        self._sessions.pop(session, None)
        await live.let_go()


def _heed(commit: asyncio.Task[Digest]) -> None:
    """Nobody may come back to ask how the commit ended: its error is no surprise then."""
    if not commit.cancelled():
        commit.exception()
