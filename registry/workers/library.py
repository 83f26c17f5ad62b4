"""The library as its workers see it: enrolment, the line, reports, answers. HTTP, outgoing only."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import orjson

from registry.adapters.addresses import AddressGuard
from registry.adapters.wire import Ask, Pace, Wire
from registry.adapters.worker_codec import read_object
from registry.core.errors import OperationFailed, RequestInvalid, UpstreamBusy, UpstreamFailed

_EVERYWHERE = ("0.0.0.0/0", "::/0")
_CONNECT_S = 15.0
_STALL_S = 30.0
"""The line brings a sign of life every few seconds."""
_LINE_BYTES = 256 << 20
_SMALL = 64 << 10


class LinkRefused(UpstreamFailed):
    """The library does not take this worker (any more), or has forgotten its line."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Library:
    """Requests of one worker. `session` is this run of its process.

    `replica` is the process they are for; empty for whichever gets them.
    """

    def __init__(self, url: str, session: str, replica: str = "") -> None:
        self.url = check_url(url)
        self._replica = replica
        self._session = session
        self._credential = ""
        guard = AddressGuard(_EVERYWHERE, loopback=True)  # an administrator chose the address
        self._wire = Wire(guard, Pace(_CONNECT_S, _STALL_S))

    def sign(self, credential: str) -> None:
        """Prove with it who asks, from now on."""
        self._credential = credential

    def headers(self) -> dict[str, str]:
        """What proves who asks."""
        proof = {"Authorization": f"Bearer {self._credential}"} if self._credential else {}
        wanted = {"X-Replica": self._replica} if self._replica else {}
        return {**proof, **wanted, "X-Worker-Session": self._session}

    def at(self, replica: str) -> "Library":
        """The same for one of its processes, with connections of its own."""
        found = Library(self.url, self._session, replica)
        found.sign(self._credential)
        return found

    async def replicas(self) -> list[str]:
        """Which processes serve it.

        Raises:
            LinkRefused: it does not take us.
            UpstreamFailed: there is no library.
        """
        ask = Ask("GET", f"{self.url}/api/v1/link/replicas", self.headers())
        async with self._wire.send(ask) as reply:
            text = await reply.head(_SMALL)
            if reply.status != 200:
                raise _refused(reply.status, text)
        found = read_object(text).get("replicas")
        return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []

    async def enrol(self, token: str, name: str) -> str:
        """A credential for a token.

        Raises:
            LinkRefused: the token is not good, or the name is taken.
            UpstreamFailed: there is no library.
        """
        told = {"token": token, "name": name}
        found = await self._post("/enrolment", orjson.dumps(told))
        credential = found.get("credential")
        if not isinstance(credential, str):
            raise OperationFailed("the library's answer holds no credential")
        return credential

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """What we are told; empty lines are signs of life.

        Raises:
            LinkRefused: it does not take us.
            UpstreamFailed: the connection broke, or fell silent.
        """
        ask = Ask("GET", f"{self.url}/api/v1/link", self.headers())
        async with self._wire.send(ask) as reply:
            if reply.status != 200:
                raise _refused(reply.status, await reply.head(_SMALL))
            rest = bytearray()
            async with aclosing(reply.chunks()) as chunks:
                async for chunk in chunks:
                    rest += chunk
                    if b"\n" in chunk:  # most of a long line comes without
                        *found, last = bytes(rest).split(b"\n")
                        rest = bytearray(last)
                        for line in found:
                            yield line
                    if len(rest) > _LINE_BYTES:
                        raise UpstreamBusy("a line without end")

    async def report(self, told: dict[str, Any]) -> None:
        """A sign of life, with what we say of ourselves."""
        await self._post("/report", orjson.dumps(told))

    async def answer(self, call: str, body: AsyncIterator[bytes]) -> None:
        """Answer a call, as the body is made.

        Raises:
            LinkRefused: nobody waits for it.
            UpstreamFailed: it could not be sent.
        """
        await self._post(f"/calls/{call}", body)

    async def close(self) -> None:
        """Drop all connections."""
        await self._wire.close()

    async def _post(self, path: str, body: bytes | AsyncIterator[bytes]) -> dict[str, Any]:
        headers = {**self.headers(), "Content-Type": "application/octet-stream"}
        if isinstance(body, bytes):
            headers["Content-Length"] = str(len(body))
        else:
            headers["Transfer-Encoding"] = "chunked"
        async with self._wire.send(
            Ask("POST", f"{self.url}/api/v1/link{path}", headers, body)
        ) as reply:
            text = await reply.head(_SMALL)
            if reply.status >= 300:
                raise _refused(reply.status, text)
        return dict(read_object(text)) if text else {}


def check_url(url: str) -> str:
    """The library's URL, without a slash at its end.

    Raises:
        RequestInvalid: it is none.
    """
    text = url.strip()
    text = (text if "://" in text else f"http://{text}").rstrip("/")
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise RequestInvalid(f"not the URL of a library: {url[:200]!r}")
    return text


def _refused(status: int, text: bytes) -> LinkRefused:
    try:
        told = read_object(text).get("error")
    except RequestInvalid:
        told = None
    message = told if isinstance(told, str) else f"the library answered {status}"
    return LinkRefused(message, status)
