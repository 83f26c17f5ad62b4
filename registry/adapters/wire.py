"""One HTTP request to another registry, with its limits: address, time, size.

Below `upstream_http.py`: it knows URLs and bytes, no registry. Redirects are not followed here, and
nothing of the environment (proxies, netrc) is used. Errors are worded as Go's HTTP client does it,
`Get "https://host/path": dial tcp …`, because tools look into these texts; queries are left out,
for they may bear signatures.
"""

import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpcore2

from registry import __version__
from registry.adapters.addresses import AddressGuard, GuardedBackend, cause_of
from registry.core.errors import (
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamUnknown,
    UpstreamUnreachable,
)

MAX_ERROR_BODY = 4096
_MAX_RETRY_AFTER_S = 300.0
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. `lax`: do not look at the certificate; `wait_s`: longest silence, if unusual."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] | None = None
    lax: bool = False
    wait_s: float | None = None

    @property
    def target(self) -> str:
        """Method and URL as error messages name them."""
        return f'{self.method.capitalize()} "{urlsplit(self.url)._replace(query="").geturl()}"'


class Reply:
    """The answer to an `Ask`, while its connection is held."""

    def __init__(self, ask: Ask, response: httpcore2.Response) -> None:
        self.url = ask.url
        self.status = response.status
        self._response = response

    def header(self, name: str) -> str:
        """The first header of that name, empty if there is none."""
        return next(iter(self.headers(name)), "")

    def headers(self, name: str) -> list[str]:
        """All headers of that name."""
        wanted = name.lower().encode()
        rows = self._response.headers
        return [value.decode("latin-1") for key, value in rows if key.lower() == wanted]

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives."""
        async for chunk in self._response.aiter_stream():
            yield chunk

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            UpstreamFailed: it is longer than `limit` bytes.
        """
        body = await self.head(limit + 1)
        if len(body) > limit:
            raise UpstreamFailed(f"the answer is larger than {limit} bytes")
        return body

    async def head(self, limit: int) -> bytes:
        """The first `limit` bytes of the body; the rest is not read."""
        body = bytearray()
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) >= limit:
                    break
        return bytes(body[:limit])

    async def failure(self) -> UpstreamFailed:
        """The error that a status of 400 or more stands for."""
        if self.status == 404:
            return UpstreamUnknown("file does not exist")
        text = (await self.head(MAX_ERROR_BODY)).decode("utf-8", "replace")
        message = f"{self.status}: {text}"
        if self.status in {401, 403}:
            return UpstreamRefused(message)
        if self.status in _BUSY:
            return UpstreamBusy(message, _retry_after(self.header("retry-after")))
        return UpstreamFailed(message)


@dataclass(frozen=True, slots=True)
class Pace:
    """Time limits of requests, in seconds: for a connection, and for one silence."""

    connect_s: float
    stall_s: float


class Wire:
    """Sends requests. Holds idle connections until `close`."""

    def __init__(self, guard: AddressGuard, pace: Pace) -> None:
        self.guard = guard
        self._pace = pace
        self._pools: dict[bool, httpcore2.AsyncConnectionPool] = {}

    @asynccontextmanager
    async def send(self, ask: Ask) -> AsyncIterator[Reply]:
        """Send a request; the reply is let go of when the block ends, read or not.

        Raises:
            UpstreamUnreachable: nobody there, no TLS, no HTTP.
            UpstreamBusy: the connection broke or fell silent, here or inside the block.
            UpstreamRefused: the address is one we do not go to.
        """
        timeout = {
            "connect": self._pace.connect_s,
            "read": ask.wait_s or self._pace.stall_s,
            "write": self._pace.stall_s,
        }
        host = urlsplit(ask.url).netloc.rpartition("@")[2]
        headers = {
            "Host": host,
            "User-Agent": f"registry/{__version__}",
            "Accept-Encoding": "identity",
            **ask.headers,
        }
        async with AsyncExitStack() as stack:
            with _worded(ask, opening=True):
                response = await stack.enter_async_context(
                    self._pool(ask.lax).stream(
                        ask.method,
                        httpcore2.URL(ask.url.encode()),
                        headers=[(key.encode(), text.encode()) for key, text in headers.items()],
                        content=ask.body,
                        extensions={"timeout": timeout},
                    )
                )
            with _worded(ask, opening=False):
                yield Reply(ask, response)

    async def close(self) -> None:
        """Drop all connections."""
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()

    def _pool(self, lax: bool) -> httpcore2.AsyncConnectionPool:
        if lax not in self._pools:
            self._pools[lax] = httpcore2.AsyncConnectionPool(
                ssl_context=_lax_context() if lax else ssl.create_default_context(),
                max_connections=None,  # whoever transfers limits its own streams
                max_keepalive_connections=32,
                keepalive_expiry=15.0,
                network_backend=GuardedBackend(self.guard),
            )
        return self._pools[lax]


@contextmanager
def _worded(ask: Ask, *, opening: bool) -> Iterator[None]:
    """Turn the HTTP library's errors, and while connecting our own, into ours with the request."""
    try:
        yield
    except UpstreamFailed as error:
        if not opening:
            raise
        raise type(error)(f"{ask.target}: {error}") from error
    except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
        raise UpstreamUnreachable(f"{ask.target}: {_tls_reason(error)}") from error
    except httpcore2.TimeoutException as error:
        raise UpstreamBusy(f"{ask.target}: no data for too long") from error
    except httpcore2.RemoteProtocolError as error:
        raise UpstreamBusy(f"{ask.target}: unexpected EOF or malformed HTTP response") from error
    except httpcore2.NetworkError as error:
        system = cause_of(error)
        text = os.strerror(system.errno).lower() if system and system.errno else "connection lost"
        raise UpstreamBusy(f"{ask.target}: {text}") from error
    except (httpcore2.ProtocolError, httpcore2.UnsupportedProtocol, ValueError) as error:
        raise UpstreamFailed(f"{ask.target}: not a valid request") from error


def _tls_reason(error: Exception) -> str:
    """What went wrong after the connection and before the first byte of HTTP."""
    if isinstance(error, httpcore2.ConnectTimeout):
        return "net/http: TLS handshake timeout"
    cause = cause_of(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        if cause.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
            return "http: server gave HTTP response to HTTPS client"
        return f"tls: {(cause.reason or 'handshake failed').replace('_', ' ').lower()}"
    return "tls: the server hung up during the handshake"


def _lax_context() -> ssl.SSLContext:
    """TLS for `insecure`: encrypted, with whoever is at the other end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _retry_after(text: str) -> float:
    """Seconds that a `Retry-After` header asks for: a number or a date; 0 if it is neither."""
    if text.isdecimal():
        return min(float(text), _MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, min((at - datetime.now(tz=UTC)).total_seconds(), _MAX_RETRY_AFTER_S))
