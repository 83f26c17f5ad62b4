"""Other registries over HTTP: Ollama's protocol, another instance of this project, plain OCI.

`HttpUpstreams` is the factory that `app.py` builds; a `_Repository` is one pull's or push's view of
one repository. It knows tokens, redirects and `insecure`; `upstream_upload.py` knows how a blob is
sent, `wire.py` how a request is.

Redirects never carry the token, nor does a direct URL that a registry names for a blob.

Source: spec registry-protocol 1.3, 1.4, 2.1, 8.5; spec ollama-api 10.4, 12.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit

from registry.adapters.addresses import AddressGuard
from registry.adapters.upstream_auth import Challenge, Key, nonce, realm_is_ours, same_origin
from registry.adapters.upstream_upload import Uploader
from registry.adapters.wire import Ask, Pace, Reply, Wire
from registry.core.digest import Digest
from registry.core.errors import (
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from registry.core.media import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from registry.core.names import ModelName
from registry.ports.upstream import Outgoing, RemoteBlob, RemoteManifest, Stream
from registry.settings import Settings

MAX_HOPS = 5
_MAX_TOKEN_ANSWER = 64 << 10
_MAX_SMALL_ANSWER = 64 << 10
_MANIFEST_S = 120.0
"""How long a registry may take to check a manifest's blobs."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(?:\d{1,19}|\*)")
_TOKEN = re.compile(r"[!-~]{1,16384}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A small reply, read whole."""

    status: int
    url: str
    body: bytes
    location: str
    upload_location: str
    content_type: str
    length: int | None


class HttpUpstreams:
    """Every registry that can be reached over HTTP."""

    def __init__(self, settings: Settings) -> None:
        guard = AddressGuard(settings.upstream_allow, loopback=settings.is_loopback)
        self._wire = Wire(guard, Pace(settings.upstream.connect_s, settings.upstream.stall_s))
        self._key = Key(settings.data)
        self._settings = settings

    def open(self, name: ModelName, *, insecure: bool) -> "Repository":
        """The repository of a model."""
        scheme = "http" if insecure else "https"
        base = f"{scheme}://{name.host}/v2/{name.namespace}/{name.model}"
        _check_port(name, f"{base}/manifests/{name.tag}")
        return Repository(self._wire, self._key, self._settings, base)

    async def close(self) -> None:
        """Drop all connections."""
        await self._wire.close()


def _check_port(name: ModelName, url: str) -> None:
    """Refuse what a URL cannot hold, in Go's words."""
    _, colon, port = name.host.partition(":")
    if colon and not port.isdecimal():
        raise UpstreamFailed(f'parse "{url}": invalid port ":{port}" after host')
    if colon and not 0 < int(port[:6]) < 65536:
        raise UpstreamUnreachable(f'Get "{url}": dial tcp: address {port}: invalid port')


class Repository:
    """One repository, and the token for it."""

    def __init__(self, wire: Wire, key: Key, settings: Settings, base: str) -> None:
        self.settings = settings
        self._wire = wire
        self._key = key
        self._base = base
        self._token = ""
        self._plain = False  # a registry that serves blobs itself: no need to ask where they are
        self._unsettled = base.startswith("http:")  # it may yet turn out to speak TLS only
        self._lax = base.startswith("http:")
        knobs = settings.upstream
        self._patience_s = knobs.connect_s + 3 * knobs.stall_s

    @property
    def streams(self) -> int:
        """Parts of one upload that may be on their way at once."""
        return self.settings.upstream.streams

    @property
    def retries(self) -> int:
        """Tries of one request beyond the first."""
        return self.settings.upstream.retries

    async def manifest(self, tag: str) -> RemoteManifest:
        """The manifest of a tag; registries that insist are told about OCI's types too."""
        ask = Ask("GET", f"{self._base}/manifests/{tag}", {"Accept": DOCKER_MANIFEST})
        limit = self.settings.limits.manifest_bytes
        try:
            answer = await self.small(ask, limit)
        except UpstreamUnknown:
            wide = {"Accept": f"{DOCKER_MANIFEST}, {OCI_MANIFEST}, {OCI_INDEX}"}
            answer = await self.small(replace(ask, headers=wide), limit)
        return RemoteManifest(answer.body, answer.content_type)

    async def put_manifest(self, tag: str, manifest: RemoteManifest) -> None:
        """Store a manifest under a tag. Not tried again: a refusal is the registry's last word."""
        headers = {"Content-Type": manifest.media_type}
        url = f"{self._base}/manifests/{tag}"
        await self.small(Ask("PUT", url, headers, manifest.body, wait_s=_MANIFEST_S))

    async def size(self, digest: Digest) -> int | None:
        """HEAD of the blob."""
        try:
            answer = await self.small(Ask("HEAD", self._blob(digest)))
        except UpstreamUnknown:
            return None
        return -1 if answer.length is None else answer.length

    async def locate(self, digest: Digest) -> RemoteBlob:
        """GET of the blob without a range, of which only the headers are wanted."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._locate(self._blob(digest))
        except TimeoutError as error:
            raise UpstreamBusy(f"{digest}: no answer for too long") from error

    async def _locate(self, url: str) -> RemoteBlob:
        if self._plain:
            return _Located(self, url, direct=False)
        async with self.exchange(Ask("GET", url)) as reply:
            if reply.status >= 400:
                raise await reply.failure()
            location = reply.header("location")
            if reply.status in _REDIRECTS and not location:
                raise UpstreamFailed("http: no Location header in response")
            target = self.follow(reply.url, location) if location else url
        if urlsplit(target)._replace(fragment="") == urlsplit(url):
            self._plain = True
            return _Located(self, url, direct=False)
        return _Located(self, target, direct=True)

    async def upload(self, blob: Outgoing) -> None:
        """Send a blob in parts."""
        await Uploader(self, f"{self._base}/blobs/uploads/", blob).run()

    def follow(self, url: str, location: str) -> str:
        """Where a `Location` leads, relative ones too.

        Raises:
            UpstreamRefused: to another protocol, or from HTTPS back to HTTP.
        """
        target = urljoin(url, location)
        parts = urlsplit(target)
        downgrade = parts.scheme == "http" and urlsplit(url).scheme == "https" and not self._lax
        if parts.scheme not in {"http", "https"} or not parts.hostname or downgrade:
            raise UpstreamRefused(
                f"a redirect to {parts.scheme}://{parts.hostname} is not followed"
            )
        if parts.username is not None:
            raise UpstreamRefused("a redirect with a user name is not followed")
        return target

    async def small(self, ask: Ask, limit: int = _MAX_SMALL_ANSWER) -> Answer:
        """Send a request and read its answer; redirects of GET and HEAD are followed.

        Raises:
            UpstreamFailed: a status of 400 or more, as the error that fits it.
        """
        if not self._unsettled:
            return await self._small(ask, limit)
        try:
            answer = await self._small(ask, limit)
        except (UpstreamBusy, UpstreamUnreachable, UpstreamFailed) as error:
            if not _may_speak_tls(error, self._base):
                self._unsettled = isinstance(error, UpstreamUnreachable)
                raise
            return await self._small_over_tls(ask, limit, error)
        self._unsettled = False
        return answer

    async def _small_over_tls(self, ask: Ask, limit: int, first: UpstreamFailed) -> Answer:
        """The same request over TLS; if that is no better, the first error stands."""
        plain = self._base
        self._base = "https" + plain.removeprefix("http")
        try:
            answer = await self._small(replace(ask, url="https" + ask.url[4:]), limit)
        except (UpstreamBusy, UpstreamUnreachable):
            self._base = plain
            raise first from None
        self._unsettled = False
        return answer

    async def _small(self, ask: Ask, limit: int) -> Answer:
        """Once, and within a time that a registry cannot stretch by sending byte after byte."""
        try:
            async with asyncio.timeout(self._patience_s if ask.body is None else None):
                return await self._answered(ask, limit)
        except TimeoutError as error:
            raise UpstreamBusy(f"{ask.target}: no answer for too long") from error

    async def _answered(self, ask: Ask, limit: int) -> Answer:
        async with self.exchange(ask) as reply:
            hops = 0
            async with AsyncExitStack() as stack:
                while reply.status in _REDIRECTS and ask.method in {"GET", "HEAD"}:
                    hops += 1
                    if hops > MAX_HOPS:
                        raise UpstreamFailed(f"stopped after {MAX_HOPS} redirects")
                    url = self.follow(reply.url, reply.header("location"))
                    reply = await stack.enter_async_context(self.bare(replace(ask, url=url)))
                if reply.status >= 400:
                    raise await reply.failure()
                return await _answer(ask, reply, limit)

    @asynccontextmanager
    async def exchange(self, ask: Ask) -> AsyncIterator[Reply]:
        """Send a request with the token; get one and send it again if the registry asks for it."""
        async with AsyncExitStack() as stack:
            reply = await stack.enter_async_context(self.bare(self._signed(ask)))
            if reply.status == 401 and self._may_repeat(ask):
                challenges = reply.headers("www-authenticate")
                await stack.aclose()
                await self._get_token(ask.url, challenges)
                reply = await stack.enter_async_context(self.bare(self._signed(ask)))
                if reply.status == 401:
                    raise UpstreamRefused("unauthorized: access denied")
            yield reply

    def bare(self, ask: Ask) -> AbstractAsyncContextManager[Reply]:
        """Send a request as it is."""
        return self._wire.send(replace(ask, lax=self._lax))

    def _signed(self, ask: Ask) -> Ask:
        """The request with the token, unless it goes elsewhere than to the registry."""
        if not self._token or not self._is_home(ask.url):
            return ask
        return replace(ask, headers={**ask.headers, "Authorization": f"Bearer {self._token}"})

    def _is_home(self, url: str) -> bool:
        return same_origin(urlsplit(url), urlsplit(self._base))

    def _may_repeat(self, ask: Ask) -> bool:
        return self._is_home(ask.url) and (ask.body is None or isinstance(ask.body, bytes))

    async def renew(self, reply: Reply) -> None:
        """Get a token as a 401 asks: for requests whose body cannot be sent twice by itself."""
        if not self._is_home(reply.url):
            raise await reply.failure()
        await self._get_token(reply.url, reply.headers("www-authenticate"))

    async def _get_token(self, url: str, challenges: list[str]) -> None:
        challenge = Challenge.find(challenges)
        if challenge is None:
            raise UpstreamRefused("unauthorized: access denied")
        if realm_is_ours(challenge.realm, url, self._wire.guard.names):
            asked = challenge.url({"nonce": nonce(), "ts": str(int(time.time()))})
            signed = {"Authorization": await self._key.authorization(asked)}
            status, body = await self._token_answer(Ask("GET", asked, signed))
            if status in {400, 401}:  # a token server of others, which takes the header amiss
                status, body = await self._token_answer(Ask("GET", challenge.url({})))
        else:
            status, body = await self._token_answer(Ask("GET", challenge.url({})))
        if status != 200:
            raise UpstreamRefused(f"{status}: {body[:4096].decode('utf-8', 'replace')}")
        self._token = _token_of(body)

    async def _token_answer(self, ask: Ask) -> tuple[int, bytes]:
        async with self.bare(ask) as reply:
            return reply.status, await reply.read(_MAX_TOKEN_ANSWER)

    def _blob(self, digest: Digest) -> str:
        return f"{self._base}/blobs/{digest}"


class _Located:
    """A blob at a direct URL, or at the registry itself, where the token is needed."""

    def __init__(self, repository: Repository, url: str, *, direct: bool) -> None:
        self._repository = repository
        self._url = url
        self._direct = direct

    @asynccontextmanager
    async def read(self, start: int, stop: int) -> AsyncIterator[Stream]:
        """GET with a range, following redirects."""
        ask = Ask("GET", self._url, {"Range": f"bytes={start}-{stop - 1}"})
        send: Callable[[Ask], AbstractAsyncContextManager[Reply]]
        send = self._repository.bare if self._direct else self._repository.exchange
        async with AsyncExitStack() as stack:
            reply = await stack.enter_async_context(send(ask))
            for _ in range(MAX_HOPS):
                if reply.status not in _REDIRECTS:
                    break
                url = self._repository.follow(reply.url, reply.header("location"))
                again = self._repository.bare(replace(ask, url=url))
                reply = await stack.enter_async_context(again)
            yield await _stream(reply, start, stop)


class _Bytes:
    """The body of a range answer."""

    def __init__(self, reply: Reply, start: int, stop: int) -> None:
        self.start = start
        self._stop = stop
        self._reply = reply

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes up to the end asked for, whatever else the registry sends."""
        left = self._stop - self.start
        async for chunk in self._reply.chunks():
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return


async def _stream(reply: Reply, start: int, stop: int) -> Stream:
    """Judge the answer to a range request."""
    if reply.status >= 400:
        raise await reply.failure()
    if reply.header("content-encoding").lower() not in {"", "identity"}:
        raise UpstreamFailed("the registry sent a compressed blob")
    if reply.status == 200:
        return _Bytes(reply, 0, stop)
    match = _CONTENT_RANGE.fullmatch(reply.header("content-range"))
    if reply.status != 206 or match is None or int(match[1]) != start:
        raise UpstreamFailed(f"unexpected answer to a range request: {reply.status}")
    return _Bytes(reply, start, stop)


async def _answer(ask: Ask, reply: Reply, limit: int) -> Answer:
    length = reply.header("content-length")
    body = b"" if ask.method == "HEAD" else await reply.read(limit)
    return Answer(
        status=reply.status,
        url=reply.url,
        body=body,
        location=reply.header("location"),
        upload_location=reply.header("docker-upload-location"),
        content_type=reply.header("content-type").partition(";")[0].strip(),
        length=int(length) if length.isdecimal() and len(length) < 20 else None,
    )


def _may_speak_tls(error: UpstreamFailed, base: str) -> bool:
    """Whether an insecure registry's failure looks like that of one that speaks only HTTPS."""
    if isinstance(error, UpstreamBusy):  # it hung up, or sent what is no HTTP
        return not re.match(r"\d{3}: ", str(error))
    if isinstance(error, UpstreamUnreachable):  # nobody on port 80: perhaps on 443
        return urlsplit(base).port is None
    return str(error).startswith("400: ")


def _token_of(body: bytes) -> str:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UpstreamFailed("the token answer is not JSON") from error
    found = value if isinstance(value, dict) else {}
    token = found.get("token") or found.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise UpstreamFailed("the token answer holds no token")
    return token
