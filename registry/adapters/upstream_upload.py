"""Sending one blob to another registry: POST, one PATCH per part, PUT.

A registry may answer a PATCH with 307: the part then goes straight to its object store by PUT,
beside the next PATCH. An interrupted PATCH is repeated; a session that the registry has lost, or
that is out of step with us, is begun anew.

Source: spec registry-protocol 2.1 (requests, part sizes, the etag), 2.3 (redirects); OCI
distribution-spec 1.1, "Pushing a blob in chunks", for registries that give relative locations.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from anyio import to_thread

from registry.adapters.wire import Ask, Reply
from registry.core.errors import UpstreamBusy, UpstreamFailed, UpstreamUnreachable
from registry.core.parts import upload_parts
from registry.core.retries import pause_s
from registry.ports.upstream import Outgoing

T = TypeVar("T")
OCTETS = "application/octet-stream"
_RESTARTS = 2
_PART_S = 120.0
"""How long a registry may take to store a part it has got."""
_COMMIT_S = 600.0
"""How long it may take to hash the whole of a blob."""


class Session(Protocol):
    """What an upload needs of the repository it goes to."""

    @property
    def streams(self) -> int:
        """How many parts may be on their way at once."""

    @property
    def retries(self) -> int:
        """Tries beyond the first."""

    def exchange(self, ask: Ask) -> AbstractAsyncContextManager[Reply]:
        """Send a request with the token."""

    def bare(self, ask: Ask) -> AbstractAsyncContextManager[Reply]:
        """Send a request as it is."""

    async def renew(self, reply: Reply) -> None:
        """Get the token that a 401 asks for."""

    def follow(self, url: str, location: str) -> str:
        """Where a `Location` leads."""


class _SessionLost(Exception):
    """The registry does not know the upload any more, or is at another offset."""


class Uploader:
    """One blob's way to a registry. `url` is where uploads begin."""

    def __init__(self, session: Session, url: str, blob: Outgoing) -> None:
        self._session = session
        self._url = url
        self._blob = blob
        self._spans = upload_parts(blob.size)
        self._sums = [b""] * len(self._spans)

    async def run(self) -> None:
        """Send the blob, from the start again if the registry loses the session.

        Raises:
            UpstreamFailed: it was refused, or the tries are used up.
        """
        for _ in range(1 + _RESTARTS):
            try:
                return await self._attempt()
            except _SessionLost as error:
                lost = error
        raise UpstreamFailed(f"max retries exceeded: the upload was lost: {lost}")

    async def _attempt(self) -> None:
        location = await self._tried(self._begin)
        if not location:
            return
        slots = asyncio.Semaphore(self._session.streams)
        direct: list[asyncio.Task[None]] = []
        try:
            for index in range(len(self._spans)):
                await slots.acquire()
                location, elsewhere = await self._tried(partial(self._patch, index, location))
                if not elsewhere:
                    slots.release()
                    continue
                task = asyncio.create_task(self._put_direct(index, elsewhere))
                task.add_done_callback(lambda _: slots.release())
                direct.append(task)
            await asyncio.gather(*direct)
        finally:
            for task in direct:
                task.cancel()
            await asyncio.gather(*direct, return_exceptions=True)
        await self._tried(lambda: self._commit(location))

    async def _begin(self) -> str:
        """Open a session and return its URL, or mount the blob and return nothing."""
        query = {"from": self._blob.origin, "mount": str(self._blob.digest)}
        if self._blob.origin:
            async with self._session.exchange(
                Ask("POST", f"{self._url}?{urlencode(query)}", body=b"")
            ) as reply:
                if reply.status == 201:
                    return ""
                if reply.status < 400 or reply.status == 429 or reply.status >= 500:
                    return await self._next(reply)
        async with self._session.exchange(Ask("POST", self._url, body=b"")) as reply:
            return await self._next(reply)

    async def _patch(self, index: int, url: str) -> tuple[str, str]:
        """Send a part; return where to go on and, if it is wanted elsewhere, where."""
        start, stop = self._spans[index]
        headers = {
            "Content-Type": OCTETS,
            "Content-Length": str(stop - start),
            "Content-Range": f"{start}-{stop - 1}",
            "X-Redirect-Uploads": "1",
        }
        ask = Ask("PATCH", url, headers, self._body(index), wait_s=_PART_S)
        async with self._session.exchange(ask) as reply:
            if reply.status == 307:
                elsewhere = self._session.follow(url, reply.header("location"))
                location = reply.header("docker-upload-location")
                return (self._session.follow(url, location) if location else url), elsewhere
            if reply.status == 401:
                await self._session.renew(reply)
                raise UpstreamBusy("unauthorized: access denied")
            if reply.status in {404, 416}:
                raise _SessionLost(str(reply.status))
            return await self._next(reply, url), ""

    async def _put_direct(self, index: int, url: str) -> None:
        await self._tried(lambda: self._put_part(index, url))

    async def _put_part(self, index: int, url: str) -> None:
        start, stop = self._spans[index]
        headers = {"Content-Type": OCTETS, "Content-Length": str(stop - start)}
        ask = Ask("PUT", url, headers, self._body(index), wait_s=_PART_S)
        async with self._session.bare(ask) as reply:
            if reply.status >= 300:
                raise await reply.failure()

    async def _commit(self, url: str) -> None:
        etag = hashlib.md5(b"".join(self._sums), usedforsecurity=False).hexdigest()
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        query += [("digest", str(self._blob.digest)), ("etag", f"{etag}-{len(self._sums)}")]
        final = parts._replace(query=urlencode(sorted(query))).geturl()
        ask = Ask("PUT", final, {"Content-Type": OCTETS}, b"", wait_s=_COMMIT_S)
        async with self._session.exchange(ask) as reply:
            if reply.status == 404:
                raise _SessionLost("404")
            if reply.status >= 300:
                raise await reply.failure()

    async def _next(self, reply: Reply, current: str = "") -> str:
        """The URL for the next step, which an answer names; may be relative."""
        if reply.status >= 400:
            raise await reply.failure()
        location = reply.header("docker-upload-location") or reply.header("location")
        if not location and not current:
            raise UpstreamFailed("http: no Location header in response")
        return self._session.follow(reply.url, location) if location else current

    async def _body(self, index: int) -> AsyncIterator[bytes]:
        """The bytes of a part; its MD5 is known once they are out."""
        md5 = hashlib.md5(usedforsecurity=False)
        async for chunk in self._blob.chunks(*self._spans[index]):
            hashed = asyncio.ensure_future(to_thread.run_sync(md5.update, chunk))
            try:
                yield chunk  # MD5 takes as long as sending does: both at once
            finally:
                await hashed
        self._sums[index] = md5.digest()

    async def _tried(self, step: Callable[[], Awaitable[T]]) -> T:
        """Do a step, again and again with growing pauses while that may help."""
        failures = 0
        while True:
            try:
                return await step()
            except (UpstreamBusy, UpstreamUnreachable) as error:
                failures += 1
                if failures > self._session.retries:
                    raise UpstreamFailed(f"max retries exceeded: {error}") from error
                wished = error.retry_after_s if isinstance(error, UpstreamBusy) else 0.0
                await asyncio.sleep(pause_s(failures, wished, random.random()))  # noqa: S311
