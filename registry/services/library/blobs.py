"""Blobs: is it here, read it, take it in, share it with another repository, give it up.

Who may do what is not asked here: `web` asks before it calls. The bytes' way in is that of
`ports/blobs.py`: on disk and hashed first, a row last, so that nothing half-written is ever served.
Every "it is here" is also a promise that the blob stays for a while: see `stat`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from registry.core.digest import EMPTY, Digest
from registry.core.errors import (
    BlobDamaged,
    BlobInUse,
    BlobUnknown,
    DigestMismatch,
    RegistryError,
)
from registry.core.names import RepositoryName
from registry.ports.blobs import Arrived, BlobStore, Body, Opened
from registry.ports.catalog import Blob, Catalog, Reader, Transaction
from registry.services.library.held import open_blob
from registry.services.library.name_pages import Readable
from registry.services.library.signing_keys import SigningKeys

Clock = Callable[[], int]
"""Nanoseconds since the epoch."""

_LOOKED_AT = 1_000


@dataclass(frozen=True, slots=True)
class Lives:
    """How long bytes are kept that no manifest refers to, in nanoseconds."""

    grace_ns: int = 86_400 * 10**9  # after they were uploaded or mounted
    lease_ns: int = 900 * 10**9  # after a client was told that they are here


class Blobs:
    """Use cases around blobs."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        lives: Lives | None = None,
        clock: Clock = time.time_ns,
    ) -> None:
        self.catalog = catalog
        self.store = store
        self.lives = lives or Lives()
        self.clock = clock
        self.signing_keys = SigningKeys(catalog, clock)

    # reading

    async def stat(self, name: RepositoryName, digest: Digest, *, promise: bool = False) -> Blob:
        """A blob of a repository.

        With `promise` it is also kept for `lease_ns`, because a client that was told so will not
        send it again: a HEAD before a push.

        Raises:
            BlobUnknown: the repository does not have it.
            BlobDamaged: its bytes were found to be wrong; whoever sends them again repairs it.
        """
        now = self.clock()
        held = await self.catalog.read(lambda tx: _held(tx, name, digest))
        if held is None:
            raise BlobUnknown(str(digest))
        blob, until = held
        if blob.suspect:
            raise BlobDamaged(str(digest))
        if promise and until - now <= self.lives.lease_ns // 2:  # spares most HEADs a write
            await self._promise(name, digest, now)
        return blob

    async def _promise(self, name: RepositoryName, digest: Digest, now: int) -> None:
        def work(tx: Transaction) -> None:
            blob, repository = _in_repository(tx, name, digest), tx.repository(name)
            if blob is None or repository is None:  # deleted since it was read
                raise BlobUnknown(str(digest))
            tx.touch_blob(blob.digest, now)
            tx.link_blob(repository.id, digest, now + self.lives.lease_ns)

        await self.catalog.write(work)

    async def find(self, digest: Digest) -> Blob | None:
        """A blob whatever refers to it, counted as used now, so that a create finds it later."""
        blob = await self.catalog.read(lambda tx: tx.blob(digest))
        if blob is None or blob.suspect:
            return None
        now = self.clock()
        if now - blob.used_at > self.lives.grace_ns // 4:
            known = await self.catalog.write(lambda tx: tx.touch_blob(blob.digest, now))
            return blob if known else None
        return blob

    async def open(self, blob: Blob) -> Opened:
        """Open a blob for reading.

        Raises:
            BlobUnknown: its bytes are not here.
        """
        return await open_blob(self.catalog, self.store, blob)

    # taking in

    async def receive(self, digest: Digest, body: Body, size: int | None = None) -> Blob:
        """Store a body under the digest its sender says; `size` is what the sender announced.

        Raises:
            DigestMismatch: the bytes are others; nothing is kept.
            SizeInvalid: the body broke off; nothing is kept.
            StorageFull: no room; nothing is kept.
        """
        incoming = await self.store.create(size)
        try:
            await incoming.receive(body)
            return await self.commit(incoming, digest)
        finally:
            await incoming.discard()

    async def put_bytes(self, data: bytes) -> Blob:
        """Store bytes of our own making, such as a template; known ones are not written again.

        Raises:
            StorageFull: no room.
        """
        digest = Digest.of(data)
        known = await self.catalog.read(lambda tx: tx.blob(digest))
        now = self.clock()
        if (
            known is not None
            and not known.suspect
            and await self.catalog.write(lambda tx: tx.touch_blob(known.digest, now))
        ):
            return known
        incoming = await self.store.create(len(data))
        try:
            await incoming.write(data)
            return await self.commit(incoming, digest)
        finally:
            await incoming.discard()

    async def commit(
        self,
        incoming: Arrived,
        digest: Digest,
        also: Callable[[Transaction, Blob], None] | None = None,
    ) -> Blob:
        """Make received bytes the blob `digest`; `also` runs in the same transaction.

        The caller discards `incoming` afterwards, whatever came of it.

        Raises:
            DigestMismatch: the bytes are others.
            StorageFull: no room to publish them.
        """
        sealed = await incoming.seal()  # an object store can hash again what is sealed, not before
        sha256 = digest.algorithm == "sha256"
        got = sealed if sha256 else await incoming.digest(digest.algorithm)
        if got != digest:
            raise DigestMismatch(str(digest), str(got))
        key = await incoming.publish(sealed)
        return await self._record(incoming, digest, (sealed, key), also)

    async def _record(
        self,
        incoming: Arrived,
        digest: Digest,
        published: tuple[Digest, str],
        also: Callable[[Transaction, Blob], None] | None,
    ) -> Blob:
        sealed, key = published
        size = incoming.size
        now = self.clock()

        def work(tx: Transaction) -> Blob:
            incoming.confirm()
            blob = tx.put_blob(sealed, size, key, now)
            if digest != sealed:
                tx.alias_blob(digest, sealed)
            if also is not None:
                also(tx, blob)
            return blob

        return await self.catalog.write(work)

    def link(self, tx: Transaction, name: RepositoryName, digest: Digest) -> None:
        """Let a repository have a blob for `grace_ns`, until a manifest refers to it."""
        repository = tx.put_repository(name)
        tx.link_blob(repository.id, digest, self.clock() + self.lives.grace_ns)

    # sharing and giving up

    async def mount(
        self,
        name: RepositoryName,
        digest: Digest,
        source: RepositoryName | None,
        readable: Readable | None = None,
    ) -> bool:
        """Let `name` have a blob that `source` has, or any repository has if no source is named.

        Any of those that are `readable`. False if there is no such blob to share: the client then
        uploads it.
        """
        if source is None and readable is not None:
            source = await self.readable_in(digest, readable)
            if source is None:
                return False

        def work(tx: Transaction) -> bool:
            blob = tx.blob(digest) if source is None else _in_repository(tx, source, digest)
            if blob is None or blob.suspect:
                return False
            tx.touch_blob(blob.digest, self.clock())
            self.link(tx, name, digest)
            return True

        known = await self.catalog.read(lambda tx: tx.blob(digest) is not None)
        return known and await self.catalog.write(work)

    async def readable_in(self, digest: Digest, readable: Readable) -> RepositoryName | None:
        """A readable repository that has the blob.

        Of a blob that very many have, some are looked at: whoever misses it then sends it again.
        """
        found = await self.catalog.read(lambda tx: tx.blob_repositories(digest, _LOOKED_AT))
        return next((name for name in found if readable(name)), None)

    async def unlink(self, name: RepositoryName, digest: Digest) -> None:
        """Take a blob away from a repository; its bytes go later, if nothing else needs them.

        Raises:
            BlobUnknown: the repository does not have it.
            BlobInUse: one of its manifests refers to it.
        """

        def work(tx: Transaction) -> None:
            repository = tx.repository(name)
            if repository is None or not tx.has_blob(repository.id, digest):
                raise BlobUnknown(str(digest))
            if tx.blob_in_use(repository.id, digest):
                raise BlobInUse(f"blob {digest} is part of a manifest of {name}")
            tx.unlink_blob(repository.id, digest)

        await self.catalog.write(work)


def is_empty(digest: Digest) -> bool:
    """Whether it is the digest of no bytes at all."""
    return digest in {EMPTY, _EMPTY_SHA512}


_EMPTY_SHA512 = Digest(
    "sha512",
    "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
)


def _in_repository(tx: Reader, name: RepositoryName, digest: Digest) -> Blob | None:
    held = _held(tx, name, digest)
    return held[0] if held else None


def _held(tx: Reader, name: RepositoryName, digest: Digest) -> tuple[Blob, int] | None:
    """A blob of a repository, and until when that keeps it whatever becomes of its manifests."""
    repository = tx.repository(name)
    until = tx.kept_until(repository.id, digest) if repository else None
    blob = tx.blob(digest) if until is not None else None
    return (blob, until) if blob is not None and until is not None else None


async def let_go(catalog: Catalog, holder: str) -> None:
    """Let go of all that a holder keeps; what cannot be let go of now runs out by itself."""
    with suppress(RegistryError):
        await catalog.write(lambda tx: tx.release(holder))
