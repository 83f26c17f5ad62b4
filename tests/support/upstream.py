"""Other registries for tests: one over real HTTP on loopback, one in memory behind the port.

`ScriptedRegistry` behaves well until told otherwise: `say(method, part of the path, Reply …)` puts
replies in a queue that come before its own. `MemoryRegistry` is the port `Upstreams` without HTTP.
"""

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from registry.core.digest import Digest
from registry.core.errors import UpstreamBusy, UpstreamFailed, UpstreamUnknown
from registry.core.media import CONFIG, DOCKER_MANIFEST, MODEL
from registry.core.names import ModelName
from registry.ports.upstream import Outgoing, RemoteBlob, RemoteManifest, Stream, Upstream


@dataclass
class Request:
    """A request as it came."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Reply:
    """A reply; `cut` bytes of the body are sent before the connection drops or, `stall`, hangs."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    stall: bool = False


def digest_of(data: bytes) -> Digest:
    return Digest.of(data)


def manifest_of(layers: list[bytes], config: bytes = b"{}") -> bytes:
    """A model's manifest over some contents."""

    def describe(media_type: str, data: bytes) -> dict[str, object]:
        return {"mediaType": media_type, "digest": str(digest_of(data)), "size": len(data)}

    value = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": describe(CONFIG, config),
        "layers": [describe(MODEL, data) for data in layers],
    }
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass
class Blob:
    """An `Outgoing` in memory."""

    data: bytes
    origin: str = ""
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def digest(self) -> Digest:
        return digest_of(self.data)

    @property
    def size(self) -> int:
        return len(self.data)

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        self.asked.append((start, stop))
        for at in range(start, stop, 1000):
            yield self.data[at : min(at + 1000, stop)]


class ScriptedRegistry:
    """A registry on 127.0.0.1, in the event loop of the test."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}  # by "repo:tag"
        self.uploads: dict[str, bytearray] = {}
        self.log: list[Request] = []
        self.token = ""  # asked for if not empty
        self.realm = ""
        self.location: Callable[[str], str] | None = lambda path: path.replace("/v2/", "/direct/")
        self.ranges = True
        self.relative_uploads = False
        self.port = 0
        self._queue: list[tuple[str, str, Reply]] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def say(self, method: str, part: str, *replies: Reply) -> None:
        """Answer the next such requests so."""
        self._queue += [(method, part, reply) for reply in replies]

    def add(self, name: str, layers: list[bytes], config: bytes = b"{}") -> bytes:
        for data in [*layers, config]:
            self.blobs[str(digest_of(data))] = data
        self.manifests[name] = manifest_of(layers, config)
        return self.manifests[name]

    def lines(self, method: str = "") -> list[str]:
        return [request.line for request in self.log if request.method.startswith(method)]

    # ---- HTTP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.readexactly(1)
        if first == b"\x16":  # a TLS handshake
            writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            return False
        rest = await reader.readuntil(b"\r\n\r\n")
        head = (first + rest).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        if headers.get("transfer-encoding") == "chunked":
            raise ValueError("nobody sends chunks to other registries")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        url = urlsplit(target)
        request = Request(method, url.path, parse_qsl(url.query), headers, body)
        self.log.append(request)
        reply = self._queued(request) or self.respond(request)
        rows = {"Content-Length": str(len(reply.body)), **reply.headers}
        text = "".join(f"{key}: {value}\r\n" for key, value in rows.items())
        writer.write(f"HTTP/1.1 {reply.status} X\r\n{text}\r\n".encode())
        if method != "HEAD":
            writer.write(reply.body[: reply.cut])
        await writer.drain()
        if reply.stall:
            await asyncio.sleep(60)
        return reply.cut is None

    def _queued(self, request: Request) -> Reply | None:
        for row in self._queue:
            if row[0] == request.method and row[1] in request.path:
                self._queue.remove(row)
                return row[2]
        return None

    # ---- the registry

    def respond(self, request: Request) -> Reply:
        if request.path == "/token":
            return Reply(200, body=json.dumps({"token": self.token}).encode())
        if request.path.startswith("/direct/"):
            return self._blob(request, None)
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            realm = self.realm or f"http://{self.host}/token"
            challenge = f'Bearer realm="{realm}",service="test",scope="repository:a/b:pull"'
            return Reply(401, {"WWW-Authenticate": challenge})
        parts = request.path.removeprefix("/v2/").split("/")
        if parts[-2] == "manifests":
            return self._manifest(request, f"{'/'.join(parts[:-2])}:{parts[-1]}")
        if "uploads" in parts:
            return self._upload(request, parts[-1])
        return self._blob(request, self.location)

    def _manifest(self, request: Request, name: str) -> Reply:
        if request.method == "PUT":
            self.manifests[name] = request.body
            return Reply(201)
        body = self.manifests.get(name)
        return Reply(200, {"Content-Type": DOCKER_MANIFEST}, body) if body else Reply(404)

    def _blob(self, request: Request, location: Callable[[str], str] | None) -> Reply:
        data = self.blobs.get(request.path.rpartition("/")[2])
        if data is None:
            return Reply(404)
        asked = request.headers.get("range", "")
        if asked and self.ranges:
            start, _, last = asked.removeprefix("bytes=").partition("-")
            span = data[int(start) : int(last) + 1]
            rows = {"Content-Range": f"bytes {start}-{int(start) + len(span) - 1}/{len(data)}"}
            return Reply(206, rows, span)
        if location is None or request.method == "HEAD":
            return Reply(200, {}, data)
        return Reply(200, {"Location": location(request.path)}, data)

    def _upload(self, request: Request, session: str) -> Reply:
        base = "" if self.relative_uploads else f"http://{self.host}"
        if request.method == "POST":
            session = str(len(self.uploads) + 1)
            self.uploads[session] = bytearray()
            return Reply(202, {"Location": f"{base}{request.path}{session}?state=s"})
        where = {"Location": f"{base}{request.path}?state=t"}
        if session not in self.uploads:
            return Reply(404)
        self.uploads[session] += request.body
        if request.method == "PATCH":
            return Reply(202, where)
        data = bytes(self.uploads.pop(session))
        digest = dict(request.query)["digest"]
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            return Reply(400, body=b"DIGEST_INVALID")
        self.blobs[digest] = data
        return Reply(201)


class MemoryRegistry:
    """Other registries as one: whatever the host, the same repositories."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.manifests: dict[str, RemoteManifest] = {}  # by "repo:tag"
        self.asked: list[str] = []
        self.served = 0  # bytes of blobs
        self.gate = asyncio.Event()  # closed: readers wait after each chunk
        self.gate.set()
        self.hold_at: int | None = None  # closes the gate once so many bytes were served
        self.chunk = 64 << 10
        self.faults: list[Exception] = []  # raised by the next reads, one each
        self.cuts: list[int] = []  # the next reads end after so many bytes
        self.ranges = True
        self.corrupt: dict[Digest, int] = {}  # the next so many reads from offset 0 are wrong
        self.origins: list[str] = []

    def add(self, name: str, layers: list[bytes], config: bytes = b"{}") -> bytes:
        for data in [*layers, config]:
            self.blobs[digest_of(data)] = data
        body = manifest_of(layers, config)
        self.manifests[name] = RemoteManifest(body, DOCKER_MANIFEST)
        return body

    def open(self, name: ModelName, *, insecure: bool) -> Upstream:
        return MemoryUpstream(self, f"{name.namespace}/{name.model}")

    async def close(self) -> None:
        """There are no connections."""


class MemoryUpstream:
    """One repository of it."""

    def __init__(self, registry: MemoryRegistry, repository: str) -> None:
        self._registry = registry
        self._repository = repository

    async def manifest(self, tag: str) -> RemoteManifest:
        found = self._registry.manifests.get(f"{self._repository}:{tag}")
        if found is None:
            raise UpstreamUnknown("file does not exist")
        return found

    async def put_manifest(self, tag: str, manifest: RemoteManifest) -> None:
        self._registry.manifests[f"{self._repository}:{tag}"] = manifest

    async def size(self, digest: Digest) -> int | None:
        self._registry.asked.append(f"size {digest.short}")
        data = self._registry.blobs.get(digest)
        return None if data is None else len(data)

    async def locate(self, digest: Digest) -> RemoteBlob:
        self._registry.asked.append(f"locate {digest.short}")
        return _MemoryBlob(self._registry, digest)

    async def upload(self, blob: Outgoing) -> None:
        if self._registry.faults:
            raise self._registry.faults.pop(0)
        data = b""
        async for chunk in blob.chunks(0, blob.size):
            data += chunk
            await self._registry.gate.wait()
        if digest_of(data) != blob.digest:
            raise UpstreamFailed("400: DIGEST_INVALID")
        self._registry.origins.append(blob.origin)
        self._registry.blobs[blob.digest] = data


class _MemoryBlob:
    def __init__(self, registry: MemoryRegistry, digest: Digest) -> None:
        self._registry = registry
        self._digest = digest

    @asynccontextmanager
    async def read(self, start: int, stop: int) -> AsyncIterator[Stream]:
        registry = self._registry
        registry.asked.append(f"read {self._digest.short} {start}-{stop}")
        if registry.faults:
            raise registry.faults.pop(0)
        data = registry.blobs[self._digest]
        if start == 0 and registry.corrupt.get(self._digest, 0) > 0:
            registry.corrupt[self._digest] -= 1
            data = bytes([data[0] ^ 1]) + data[1:]
        yield _MemoryStream(registry, data, start if registry.ranges else 0, stop)


class _MemoryStream:
    def __init__(self, registry: MemoryRegistry, data: bytes, start: int, stop: int) -> None:
        self.start = start
        self._registry = registry
        self._data = data[start:stop]

    async def chunks(self) -> AsyncIterator[bytes]:
        registry = self._registry
        cut = registry.cuts.pop(0) if registry.cuts else None
        for at in range(0, len(self._data), registry.chunk):
            if cut is not None and at >= cut:
                raise UpstreamBusy("connection reset by peer")
            chunk = self._data[at : at + registry.chunk]
            registry.served += len(chunk)
            if registry.hold_at is not None and registry.served >= registry.hold_at:
                registry.hold_at = None
                registry.gate.clear()
            yield chunk
            await asyncio.sleep(0)
            await registry.gate.wait()
