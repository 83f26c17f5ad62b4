"""Bytes in the store that no row knows: leftovers of crashes, or blobs whose rows were lost.

Where a blob's key is made of its digest (a folder), one look inside the transaction tells. Where
keys are random (an object store), a new object may be seen before its row: only what was strange at
two looks, some time apart, and is a day old, is a stray. What sessions have begun is none.
"""

import asyncio
import hashlib
from array import array
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from hashlib import blake2b
from types import MappingProxyType

from anyio import to_thread

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown, DigestMismatch
from registry.core.manifest import Descriptor
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Blob, Catalog, Reader, Transaction

NO_ALIASES: Mapping[Digest, Digest] = MappingProxyType({})
_BATCH = 256
_STRANGE = 100_000
_PAGE = 5_000
_SMALL = 64 << 10
STRAY_NS = 86_400 * 10**9
"""An object that no row knows is new for so long, where keys are random."""
_PAUSE_S = 60.0


class Strays:
    """What no row knows. `pause_s` lies between two looks at an object store."""

    def __init__(self, catalog: Catalog, store: BlobStore, pause_s: float = _PAUSE_S) -> None:
        self.catalog = self._catalog = catalog
        self._store = store
        self._pause_s = pause_s

    async def unknown(self, before_ns: int) -> AsyncGenerator[tuple[str, int], None]:
        """Key and size of every blob in the store, written before then, that is in no row.

        For stores with random keys. Takes 8 bytes of memory for each blob.
        """
        known = await self._catalog.scan(_Known)
        async for key, size in self._store.keys(before_ns):
            if key not in known:
                yield key, size

    async def sweep(self, before_ns: int, spared: frozenset[Digest]) -> int:
        """Delete what was written before then and no row knows, but for what is `spared`.

        Where keys do not tell digests nothing goes while anything is to be spared.
        """
        if self._store.reuses_keys:
            return await self._sweep_digests(before_ns, spared)
        if spared:
            return 0
        count = 0
        batch: list[str] = []
        async with aclosing(self.unknown(before_ns - STRAY_NS)) as strange:
            async for key, _ in strange:
                batch.append(key)
                if len(batch) >= _STRANGE:
                    count += await self._remove_again_unknown(batch)
                    batch = []
        return count + await self._remove_again_unknown(batch)

    async def _remove_again_unknown(self, strange: list[str]) -> int:
        """Delete those that no row knows at a second look."""
        if not strange:
            return 0
        await asyncio.sleep(self._pause_s)
        known = await self._catalog.scan(_Known)
        gone = [key for key in strange if key not in known]
        for key in gone:
            await to_thread.run_sync(self._store.remove, key)
        return len(gone)

    async def _sweep_digests(self, before_ns: int, spared: frozenset[Digest]) -> int:
        count = 0
        batch: list[Digest] = []
        async for key, _ in self._store.keys(before_ns):
            digest = Digest.parse(key)
            if digest not in spared:
                batch.append(digest)
            if len(batch) >= _BATCH:
                count += await self._remove(batch)
                batch = []
        return count + await self._remove(batch)

    async def _remove(self, batch: list[Digest]) -> int:
        """Delete those that no row mentions.

        Safe beside uploads: one that published its bytes and has no row yet puts them back when
        its transaction finds them gone (`Incoming.confirm`).
        """

        def remove(tx: Transaction) -> int:
            orphans = tx.unknown(batch)
            for digest in orphans:
                self._store.remove(digest.file_name)
            return len(orphans)

        if not batch or not await self._catalog.scan(lambda tx: tx.unknown(batch)):
            return 0
        return await self._catalog.write(remove)


class Search:
    """Looks for the bytes of digests: where they have to be, or among strays with random keys.

    Such an object is read only if its size is one that is looked for, and once.
    """

    def __init__(self, store: BlobStore, strays: Strays, now_ns: int) -> None:
        self._store = store
        self._strays = strays
        self._catalog = strays.catalog
        self._now_ns = now_ns
        self._by_size: KeysBySize | None = None
        self._by_digest = KeysByDigest()
        self._lock = asyncio.Lock()

    async def make_known(
        self, layers: Iterable[Descriptor], aliases: Mapping[Digest, Digest] = NO_ALIASES
    ) -> dict[Digest, bytes]:
        """Take blobs into the catalog whose bytes are what their names say.

        `aliases` tells the sha256 of those that are named by sha512. Returns the contents of small
        ones that were read for it.

        Raises:
            BlobUnknown, DigestMismatch: one is not in the store, or is another.
        """
        pairs = [(layer, aliases.get(layer.digest, layer.digest)) for layer in layers]
        both = {digest for layer, own in pairs for digest in (layer.digest, own)}
        known = await self._catalog.read(lambda tx: {digest: tx.blob(digest) for digest in both})
        found = []
        contents: dict[Digest, bytes] = {}
        for layer, own in pairs:
            if known[layer.digest] is None:
                key = await self._verified(layer, own, known[own], contents)
                found.append((layer, own, key))

        def put(tx: Transaction) -> None:
            for layer, own, key in found:
                tx.put_blob(own, layer.size, key, self._now_ns)
                if own != layer.digest:
                    tx.alias_blob(layer.digest, own)

        if found:
            await self._catalog.write(put)
        return contents

    async def _verified(
        self, layer: Descriptor, own: Digest, blob: Blob | None, contents: dict[Digest, bytes]
    ) -> str:
        """The storage key of a blob whose bytes are what both its names say."""
        if blob is not None:
            key: str | None = blob.storage_key
        elif self._store.reuses_keys:
            key = self._store.key_of(own)
            if key is not None and await self._store.exists(key) != layer.size:
                key = None
        else:
            key = await self.find(own, layer.size)
        if key is None:
            raise BlobUnknown(str(layer.digest))
        hashed = {own, layer.digest}
        if blob is not None or not self._store.reuses_keys:
            hashed.discard(own)  # a row, or the search, says so
        for digest in hashed:
            if layer.size <= _SMALL:
                contents[layer.digest] = content = await _content(self._store, key)
                got = Digest.of(content, digest.algorithm)
            else:
                got = await hash_blob(self._store, key, digest.algorithm)
            if got != digest:
                raise DigestMismatch(str(digest), str(got))
        return key

    async def find(self, digest: Digest, size: int) -> str | None:
        """The storage key of an object with those very bytes."""
        async with self._lock:
            if self._by_size is None:
                self._by_size = KeysBySize()
                async for key, length in self._strays.unknown(self._now_ns):
                    self._by_size.add(length, key)
            while (found := self._by_digest.get(digest)) is None:
                candidate = self._by_size.take(size)
                if candidate is None:
                    return None
                self._by_digest.add(await hash_blob(self._store, candidate), candidate)
            return found


async def _content(store: BlobStore, key: str) -> bytes:
    async with await store.open(key) as opened:
        return await opened.read(0, min(opened.size, _SMALL + 1))


async def hash_blob(store: BlobStore, key: str, algorithm: str = "sha256") -> Digest:
    """The digest of what lies under a storage key.

    Raises:
        BlobUnknown: nothing does.
    """
    hasher = hashlib.new(algorithm)
    async with await store.open(key) as opened:
        async for chunk in opened.chunks(0, opened.size):
            await to_thread.run_sync(hasher.update, chunk)
    return Digest(algorithm, hasher.hexdigest())


class _Known:
    """Every storage key that a row mentions, as 64-bit hashes: sorted, in parts."""

    def __init__(self, tx: Reader) -> None:
        self._parts = [array("Q") for _ in range(256)]
        for key in _keys(tx):
            short = _short(key)
            self._parts[short & 255].append(short)
        for number, part in enumerate(self._parts):
            self._parts[number] = array("Q", sorted(part))

    def __contains__(self, key: str) -> bool:
        short = _short(key)
        part = self._parts[short & 255]
        place = bisect_left(part, short)
        return place < len(part) and part[place] == short


class KeysBySize:
    """Storage keys by the size of what they are of, packed: a store may have millions."""

    def __init__(self) -> None:
        self._lines: dict[int, bytearray] = {}

    def add(self, size: int, key: str) -> None:
        """Keep a key."""
        self._lines.setdefault(size, bytearray()).extend(f"\n{key}".encode())

    def take(self, size: int) -> str | None:
        """One of that size, which is forgotten."""
        lines = self._lines.get(size)
        if not lines:
            return None
        start = lines.rindex(b"\n")
        key = lines[start + 1 :].decode()
        del lines[start:]
        return key


class KeysByDigest:
    """Storage keys by the digest of what they are of, packed too."""

    def __init__(self) -> None:
        self._lines: dict[str, bytearray] = {}  # by the first digits

    def add(self, digest: Digest, key: str) -> None:
        """Keep a key."""
        lines = self._lines.setdefault(digest.hex[:3], bytearray(b"\n"))
        lines.extend(f"{digest.hex} {key}\n".encode())

    def get(self, digest: Digest) -> str | None:
        """One that was kept by that digest."""
        lines = self._lines.get(digest.hex[:3], b"")
        head = f"\n{digest.hex} ".encode()
        start = lines.find(head)
        if start < 0:
            return None
        return lines[start + len(head) : lines.index(b"\n", start + len(head))].decode()


def _keys(tx: Reader) -> Iterable[str]:
    for key in tx.incoming_keys():
        yield from key.split(".")  # a session's key may hold that of the blob it is to become
    for freed in tx.freed(_PAGE):  # more of them than that are strays a little longer
        yield freed.storage_key
    after = ""
    while page := tx.blobs_after(after, _PAGE):
        for blob in page:
            yield blob.storage_key
        after = str(page[-1].digest)


def _short(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest())
