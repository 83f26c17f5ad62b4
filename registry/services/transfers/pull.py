"""Pull: take a model from another registry.

The status stream and its texts are Ollama's. Blobs come one after another, each in parallel ranges;
what is here already is not fetched again. The model appears, or changes, in one transaction at the
end: a pull that fails or is cancelled leaves the old one, and parts for the next pull.

Source: spec ollama-api 10, 12.1; spec registry-protocol 1.3.
"""

import secrets
from contextlib import aclosing
from functools import partial
from typing import Protocol

import orjson
from anyio import CancelScope

from registry.core import gojson, media
from registry.core.digest import Digest
from registry.core.errors import ManifestInvalid, NameInvalid, UpstreamFailed
from registry.core.events import Done, Events, Status
from registry.core.events import Transfer as Progress
from registry.core.manifest import Descriptor, Manifest, is_excessive, parse
from registry.core.names import ModelName
from registry.ports.blobs import BlobStore
from registry.ports.upstream import RemoteManifest, Upstream, Upstreams
from registry.services.access.rights import ANY, FREE, Permit, TagGuard
from registry.services.library.blobs import let_go
from registry.services.library.preparation import apart
from registry.services.sharing.efforts import Asking
from registry.services.sharing.sharing import Sharing
from registry.services.transfers.download import ContentMismatch, Workshop
from registry.services.transfers.transfers import Transfers
from registry.settings import Settings

TICK_S = 0.06
"""A progress line at most so often."""


class Library(Protocol):
    """Where a pulled manifest goes: what `PUT /v2/…/manifests` and create do with theirs."""

    async def adopt(
        self, name: ModelName, body: bytes, media_type: str, holder: str, guard: TagGuard = FREE
    ) -> bool:
        """Make the manifest the model `name`, whose blobs `holder` has leases on.

        Returns whether older layers were removed.
        """


class Pull:
    """The use case. Pulls of the same blob share one transfer."""

    def __init__(
        self,
        sharing: Sharing,
        store: BlobStore,
        upstreams: Upstreams,
        library: Library,
        settings: Settings,
    ) -> None:
        self._upstreams = upstreams
        self._library = library
        self._workshop = Workshop.of(sharing.catalog, store, settings, sharing.clock)
        self._settings = settings
        self._transfers = Transfers(self._workshop, sharing)

    async def run(self, name: ModelName, *, insecure: bool = False, permit: Permit = ANY) -> Events:
        """Pull `name`; the stream ends with `Done` once it can be used.

        Raises:
            Denied, TagImmutable: the permit is against the tag.
            NameInvalid: before the first event.
            UpstreamFailed: the registry's fault, in the words that Ollama's clients know.
            QuotaExceeded: the model does not fit into its namespace.
            StorageFull: no space for a blob.
        """
        if not name.is_valid:
            raise NameInvalid("invalid model name")
        name = await self._workshop.catalog.read(lambda tx: tx.known_spelling(name))
        yield Status("pulling manifest")
        try:
            upstream = self._upstreams.open(name, insecure=insecure)
            remote = await upstream.manifest(name.tag)
            manifest = await apart(len(remote.body), partial(read_manifest, name, remote))
        except UpstreamFailed as error:
            if isinstance(error, _Unprefixed):
                raise
            raise type(error)(f"pull model manifest: {error}") from error
        asking = Asking(f"pull:{secrets.token_hex(8)}", permit.guard.who, name.short)
        leases = Leases(self._workshop, asking)
        try:
            await self._check_room(name, manifest)
            async with aclosing(self._blobs(upstream, manifest, leases, permit)) as events:
                async for event in events:
                    yield event
            yield Status("writing manifest")
            kind, guard = manifest.media_type, permit.guard
            if await self._library.adopt(name, remote.body, kind, leases.holder, guard):
                yield Status("removing unused layers")
        finally:
            with CancelScope(shield=True):
                await leases.release()
        yield Done()

    async def _blobs(
        self, upstream: Upstream, manifest: Manifest, leases: "Leases", permit: Permit
    ) -> Events:
        """Get every blob, layers first, and hold it.

        One that is here and that the caller may not use is fetched too: its registry must have it.
        """
        blobs = blobs_of(manifest)
        self._check_sizes(blobs)
        missing = set(await leases.take([blob.digest for blob in blobs]))
        strange = {b.digest for b in blobs if not await permit.allows(b.digest)} - missing
        for blob in blobs:
            while blob.digest in strange:
                proof: set[Digest] = set()
                async with aclosing(self._fetch(upstream, blob, leases, proof)) as events:
                    async for event in events:
                        yield event
                strange -= proof
            while blob.digest in missing:
                if not await self._is_here(blob.digest):  # another pull may have brought it
                    async with aclosing(self._fetch(upstream, blob, leases)) as events:
                        async for event in events:
                            yield event
                # Freed again before the lease was ours? Then it has to come once more.
                missing = set(await leases.take([blob.digest])) | (missing - {blob.digest})
            yield Progress("pulling", blob.digest, blob.size, blob.size)
        yield Status("verifying sha256 digest")

    async def _fetch(
        self,
        upstream: Upstream,
        blob: Descriptor,
        leases: "Leases",
        proof: set[Digest] | None = None,
    ) -> Events:
        """Get one blob, alone or with others who want it; `proof` notes that it came from here."""
        shown = -1
        waiting = self._transfers.join(upstream, blob.digest, blob.size, leases.asking)
        try:
            async with waiting as transfer:
                while not await transfer.wait(TICK_S):
                    await leases.renew()
                    if transfer.completed != shown:
                        shown = transfer.completed
                        yield Progress("pulling", blob.digest, blob.size, shown)
                if proof is not None and transfer.mine:
                    proof.add(blob.digest)
        except UpstreamFailed as error:
            if not transfer.mine:
                return  # another registry's fault, whose pull we joined: ask our own
            if isinstance(error, ContentMismatch):
                yield Status("verifying sha256 digest")
            raise

    async def _is_here(self, digest: Digest) -> bool:
        blob = await self._workshop.catalog.read(lambda tx: tx.blob(digest))
        return blob is not None and not blob.suspect

    async def _check_room(self, name: ModelName, manifest: Manifest) -> None:
        """Refuse before any byte comes what does not fit into the namespace's quota."""
        blobs = [(blob.digest, blob.size) for blob in blobs_of(manifest)]
        await self._workshop.catalog.scan(lambda tx: tx.check_room(name.repository, blobs))

    def _check_sizes(self, blobs: list[Descriptor]) -> None:
        limit = self._settings.limits.blob_bytes
        for blob in blobs:
            if blob.size > limit:
                raise UpstreamFailed(f"{blob.digest} is larger than {limit} bytes")


class Leases:
    """One pull's or push's hold on blobs, so that nobody frees them meanwhile."""

    def __init__(self, workshop: Workshop, asking: Asking) -> None:
        self._workshop = workshop
        self.asking = asking
        self._digests: list[Digest] = []
        self._renew_at = 0
        self.holder = asking.holder

    async def take(self, digests: list[Digest]) -> list[Digest]:
        """Hold blobs; return those that are not here."""
        until = self._workshop.clock() + self._workshop.lease_ns
        write = self._workshop.catalog.write
        unknown = await write(lambda tx: tx.lease(digests, self.holder, until))
        self._digests += [digest for digest in digests if digest not in unknown]
        if not self._renew_at:
            self._renew_at = until - self._workshop.lease_ns // 2
        return unknown

    async def renew(self) -> None:
        """Hold them longer, if half of the time has passed."""
        if self._digests and self._workshop.clock() >= self._renew_at:
            self._renew_at = 0
            digests, self._digests = self._digests, []
            await self.take(list(dict.fromkeys(digests)))

    async def release(self) -> None:
        """Let go of all; what cannot be let go of now runs out."""
        await let_go(self._workshop.catalog, self.holder)


class _Unprefixed(UpstreamFailed):
    """A fault of the manifest that is told without saying that it came from there."""


def read_manifest(name: ModelName, remote: RemoteManifest) -> Manifest:
    """Read a registry's manifest, whose media type may be wrong or missing.

    Raises:
        UpstreamFailed: it is no manifest of a model; Go's words where it is not JSON.
    """
    if is_excessive(remote.body):
        raise UpstreamFailed("the manifest has too many values")
    try:
        value = orjson.loads(remote.body)
    except ValueError as error:
        raise UpstreamFailed(_json_fault(remote.body)) from error
    found = value if isinstance(value, dict) else {}
    layers = found.get("layers")
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and layer.get("digest") == "":
            raise _Unprefixed(f"{name.namespace}/{name.model}: digest is empty")
    known = remote.media_type if remote.media_type in media.MANIFESTS else media.DOCKER_MANIFEST
    try:
        manifest = parse(remote.body, None if found.get("mediaType") else known)
    except ManifestInvalid as error:
        raise UpstreamFailed(str(error)) from error
    if not isinstance(manifest, Manifest):
        raise UpstreamFailed("it is a list of manifests, not a model")
    return manifest


def _json_fault(body: bytes) -> str:
    try:
        gojson.parse(body)
    except gojson.JsonInvalid as error:
        return "unexpected end of JSON input" if str(error) == "EOF" else str(error)
    return "invalid manifest: not JSON"


def blobs_of(manifest: Manifest) -> list[Descriptor]:
    """The blobs in the order in which they are fetched: the config comes last."""
    config = [manifest.config] if manifest.config else []
    return [item for item in [*manifest.layers, *config] if item.distributable]
