"""Push: send a model to another registry.

The status stream and its texts are Ollama's. Blobs go one after another, those that the registry
has are passed over; the manifest goes last, so that the registry never has one whose blobs it
lacks. It is sent without the newline that ends the manifests we write, as the real client does it,
so a pushed model's digest is that of the bytes without it.

Source: spec ollama-api 11, 12.2; spec registry-protocol 2.1.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from anyio import CancelScope

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, OperationFailed
from registry.core.events import Done, Events, Status, Transfer
from registry.core.manifest import Descriptor, Manifest
from registry.core.names import ModelName
from registry.ports.blobs import BlobStore, Opened
from registry.ports.catalog import Catalog, Reader
from registry.ports.catalog import Manifest as Row
from registry.ports.upstream import RemoteManifest, Upstream, Upstreams
from registry.services.library.held import open_blob
from registry.services.library.preparation import read_manifest
from registry.services.sharing.efforts import Asking
from registry.services.transfers.download import Workshop
from registry.services.transfers.pull import TICK_S, Leases, blobs_of
from registry.settings import Settings


class _Outgoing:
    """A blob on its way out; counts what was read of it."""

    def __init__(self, blob: Descriptor, origin: str, opened: Opened) -> None:
        self.digest: Digest = blob.digest
        self.size = opened.size
        self.origin = origin
        self._opened = opened
        self._read: dict[int, int] = {}  # by start of the part

    @property
    def completed(self) -> int:
        """How many bytes were handed over; falls back when a part is sent again."""
        return sum(self._read.values())

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes `[start, stop)`."""
        self._read[start] = 0
        async for chunk in self._opened.chunks(start, stop):
            yield chunk
            self._read[start] += len(chunk)


class Push:
    """The use case."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        upstreams: Upstreams,
        settings: Settings,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._upstreams = upstreams
        self._workshop = Workshop.of(catalog, store, settings, clock)

    async def run(self, name: ModelName, *, insecure: bool = False, hidden: bool = False) -> Events:
        """Push the model `name` to the host of its name; the stream ends with `Done`.

        One that is `hidden` from the caller is as good as absent.

        Raises:
            OperationFailed: no such model here.
            UpstreamFailed: the registry's fault, in the words that Ollama's clients know.
        """
        yield Status("retrieving manifest")
        row = await self._find(name)
        if row is None or hidden:
            yield Status("couldn't retrieve manifest")
            raise OperationFailed(_absent(name))
        manifest = await read_manifest(row.body, row.media_type)
        if not isinstance(manifest, Manifest):
            raise OperationFailed("a list of manifests cannot be pushed")
        name = await self._workshop.catalog.read(lambda tx: tx.known_spelling(name))
        upstream = self._upstreams.open(name, insecure=insecure)
        leases = Leases(self._workshop, Asking(f"push:{secrets.token_hex(8)}"))
        try:
            async with aclosing(self._blobs(upstream, manifest, leases)) as events:
                async for event in events:
                    yield event
        finally:
            with CancelScope(shield=True):
                await leases.release()
        yield Status("pushing manifest")
        sent = RemoteManifest(row.body.rstrip(b"\n"), manifest.media_type)
        await upstream.put_manifest(name.tag, sent)
        yield Done()

    async def _find(self, name: ModelName) -> Row | None:
        if not name.is_valid:
            return None

        def work(tx: Reader) -> Row | None:
            tag = tx.find_model(name)
            return tx.manifest(tag.digest) if tag else None

        return await self._workshop.catalog.read(work)

    async def _blobs(self, upstream: Upstream, manifest: Manifest, leases: Leases) -> Events:
        blobs = blobs_of(manifest)
        for digest in await leases.take([blob.digest for blob in blobs]):
            raise OperationFailed(f"blob {digest} of the model is not here")
        for blob in blobs:
            if await upstream.size(blob.digest) is None:
                async with aclosing(self._send(upstream, blob, leases)) as events:
                    async for event in events:
                        yield event
            yield Transfer("pushing", blob.digest, blob.size, blob.size)

    async def _send(self, upstream: Upstream, blob: Descriptor, leases: Leases) -> Events:
        """Upload one blob in a task of its own, and tell how far it is."""
        async with await self._open(blob.digest) as opened:
            outgoing = _Outgoing(blob, _origin(blob), opened)
            task = asyncio.create_task(upstream.upload(outgoing))
            shown = -1
            try:
                while not task.done():
                    await asyncio.wait({task}, timeout=TICK_S)
                    await leases.renew()
                    if outgoing.completed > shown and not task.done():
                        shown = outgoing.completed
                        yield Transfer("pushing", blob.digest, blob.size, shown)
                await task
            finally:
                task.cancel()
                with CancelScope(shield=True):
                    await asyncio.wait({task})

    async def _open(self, digest: Digest) -> Opened:
        blob = await self._workshop.catalog.read(lambda tx: tx.blob(digest))
        if blob is None:
            raise BlobUnknown(str(digest))
        return await open_blob(self._workshop.catalog, self._workshop.store, blob)


def _absent(name: ModelName) -> str:
    """Why there is no manifest, in the words that the real server has for it.

    It names the file where the manifest would be; ours is named from the models folder on.
    """
    if not name.is_valid:
        return f"unqualified name: {name}"
    return f"open /manifests/{name.file_path}: no such file or directory"


def _origin(blob: Descriptor) -> str:
    """The repository from which a registry may take the blob without an upload."""
    name = ModelName.parse(blob.origin)
    # Adapters and projectors have a file name there, which is no repository.
    return f"{name.namespace}/{name.model}" if blob.origin and name.is_valid else ""
