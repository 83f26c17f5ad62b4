"""HTTP to a server that somebody else runs and an administrator has named as a worker.

The address was configured, so it may be anywhere, also in a private network. Redirects are not
followed: the key goes to that one server. Whatever breaks is `WorkerLost`.
"""

import ssl
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpcore2
import orjson

from registry import __version__
from registry.adapters.llama_frames import refusal
from registry.adapters.replies import beginning
from registry.core.errors import OperationFailed, WorkerLost
from registry.core.fleet import check_server_url

_CONNECT_S = 10.0
_STALL_S = 600.0
"""No byte for so long: a slow machine may be silent for minutes at a prompt."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a server is. `key` goes as a bearer token; `repr` leaves it out."""

    url: str
    key: str = ""

    def __repr__(self) -> str:
        return f"Site({self.url})"

    @classmethod
    def parse(cls, url: str, key: str = "") -> "Site":
        """Read a URL that an administrator has typed.

        Raises:
            RequestInvalid: see `check_server_url`.
        """
        return cls(check_server_url(url), key)


class SiteWire:
    """Requests to one server. `lost` is called whenever one could not be answered."""

    def __init__(
        self, site: Site, lost: Callable[[], None] = lambda: None, stall_s: float = _STALL_S
    ) -> None:
        self._site = site
        self._lost = lost
        self._timeout = {"connect": _CONNECT_S, "read": stall_s, "write": _STALL_S, "pool": None}
        is_tls = site.url.startswith("https:")
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context() if is_tls else None,
            max_connections=None,
            # kept ones cost some servers a thread each; only a TLS handshake costs more
            max_keepalive_connections=16 if is_tls else 0,
            keepalive_expiry=5.0,
        )
        self._headers = [
            ("Host", urlsplit(site.url).netloc),
            ("User-Agent", f"registry/{__version__}"),
            ("Accept-Encoding", "identity"),
            ("Content-Type", "application/json"),
        ]
        if site.key:
            self._headers.append(("Authorization", f"Bearer {site.key}"))

    async def send(self, method: str, path: str, body: bytes = b"") -> "SiteReply":
        """Send a request; the reply is there when its status is.

        Raises:
            WorkerLost: no connection, or it broke before the status came.
        """
        request = httpcore2.Request(
            method,
            f"{self._site.url}{path}",
            headers=[*self._headers, ("Content-Length", str(len(body)))],
            content=body,
            extensions={"timeout": self._timeout},
        )
        try:
            response = await self._pool.handle_async_request(request)
        except (httpcore2.NetworkError, httpcore2.TimeoutException) as error:
            raise self._broken(error) from error
        except httpcore2.ProtocolError as error:
            raise self._broken(error) from error
        return SiteReply(response, self._broken)

    async def ask(
        self, method: str, path: str, body: object = None, limit: int = 16 << 20
    ) -> object:
        """Send JSON, get JSON.

        Raises:
            WorkerLost: no answer.
            RegistryError: the refusal that an answer of status 400 or more stands for.
            OperationFailed: the answer is not JSON, or longer than `limit` bytes.
        """
        reply = await self.send(method, path, b"" if body is None else orjson.dumps(body))
        try:
            text = await reply.read(limit)
        finally:
            await reply.close()
        if reply.status >= 300:
            raise refusal(reply.status, text[:65_536])
        try:
            return orjson.loads(text)
        except ValueError as error:
            raise OperationFailed("the worker's answer is not JSON") from error

    async def close(self) -> None:
        """Drop all connections."""
        await self._pool.aclose()

    def _broken(self, error: Exception) -> WorkerLost:
        self._lost()
        slow = isinstance(error, httpcore2.TimeoutException)
        return WorkerLost(
            "the worker did not answer in time" if slow else "the connection to the worker broke"
        )


class SiteReply:
    """An answer while it arrives."""

    def __init__(
        self, response: httpcore2.Response, broken: Callable[[Exception], WorkerLost]
    ) -> None:
        self.status = response.status
        self._response = response
        self._broken = broken

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives.

        Raises:
            WorkerLost: it broke off.
        """
        try:
            async for chunk in self._response.aiter_stream():
                yield chunk
        except (
            httpcore2.NetworkError,
            httpcore2.TimeoutException,
            httpcore2.ProtocolError,
        ) as error:
            raise self._broken(error) from error

    async def read(self, limit: int) -> bytes:
        """The whole body, of which no more than `limit` bytes are looked at."""
        return await beginning(self.chunks(), limit)

    async def close(self) -> None:
        """Let go; what is still being made is stopped."""
        await self._response.aclose()
