"""Export: models as files that other programs read, an OCI image layout or an Ollama models folder.

Every byte is hashed on its way out. The same models make the same files, and the same archive.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from anyio import CancelScope, to_thread

from registry.core import oci_layout
from registry.core.digest import Digest
from registry.core.errors import DigestMismatch, ManifestUnknown, ModelUnknown
from registry.core.events import Done, Events, Status, Transfer
from registry.core.names import ModelName
from registry.core.oci_layout import Entry
from registry.ports.carriage import Target
from registry.ports.catalog import Blob, Manifest, Reader, Tag, Transaction
from registry.services.library.blobs import Blobs, let_go

Format = Literal["oci", "ollama"]
_HOLD_NS = 6 * 3_600 * 10**9
_TOLD = 16 << 20  # smaller blobs are not told one by one


@dataclass(frozen=True, slots=True)
class _Cargo:
    """What goes out: tags, all manifests below them, the blobs of those."""

    tags: tuple[tuple[Tag, Manifest], ...]
    manifests: Mapping[Digest, Manifest]
    blobs: Mapping[Digest, Blob]


class Export:
    """One export to a target."""

    def __init__(self, blobs: Blobs, target: Target) -> None:
        self._blobs = blobs
        self._catalog = blobs.catalog
        self._target = target
        self._holder = f"export:{secrets.token_hex(8)}"

    async def run(self, names: Sequence[ModelName], form: Format) -> Events:
        """Write models out; none at all stands for every one.

        Raises:
            ModelUnknown: there is none of a name; nothing is written.
            DigestMismatch: a blob is not what it was; the target is not finished.
            StorageFull: no room.
        """
        finished = False
        try:
            cargo = await self._catalog.write(lambda tx: self._load(tx, names))
            yield Status(f"exporting {len(cargo.tags)} models")
            for path, body in self._papers(cargo, form):
                await self._target.put(path, len(body), _once(body))
            for digest in sorted(cargo.blobs):
                async for event in self._send(_path(digest, form), digest, cargo.blobs[digest]):
                    yield event
            if form == "ollama":  # tags last: what they name is there by then
                for tag, manifest in cargo.tags:
                    body, path = manifest.body, f"manifests/{tag.model.file_path}"
                    await self._target.put(path, len(body), _once(body))
            await self._target.finish()
            finished = True
        finally:
            with CancelScope(shield=True):
                await let_go(self._catalog, self._holder)
                if not finished:
                    await self._target.discard()
        yield Done()

    def _load(self, tx: Transaction, names: Sequence[ModelName]) -> _Cargo:
        """Look everything up and hold the blobs."""
        tags = [_tag(tx, name) for name in names] or [model.tag for model in tx.models()]
        tags.sort(key=lambda tag: tag.model.short)
        manifests: dict[Digest, Manifest] = {}
        for tag in tags:
            _collect(tx, tag.digest, manifests)
        references = [
            reference.digest
            for manifest in manifests.values()
            for reference in manifest.references
            if reference.blob
        ]
        blobs = {digest: blob for digest in references if (blob := tx.blob(digest)) is not None}
        tx.lease(list(blobs), self._holder, self._blobs.clock() + _HOLD_NS)
        return _Cargo(tuple((tag, manifests[tag.digest]) for tag in tags), manifests, blobs)

    def _papers(self, cargo: _Cargo, form: Format) -> list[tuple[str, bytes]]:
        """The files that are not blobs, for an OCI layout."""
        if form == "ollama":
            return []
        entries = [
            Entry(tag.digest, len(manifest.body), manifest.media_type, tag.model.short)
            for tag, manifest in cargo.tags
        ]
        bodies = [
            (oci_layout.blob_path(digest), cargo.manifests[digest].body)
            for digest in sorted(cargo.manifests)
        ]
        return [
            (oci_layout.MARKER, oci_layout.MARKER_TEXT),
            (oci_layout.INDEX, oci_layout.encode_index(entries)),
            *bodies,
        ]

    async def _send(self, path: str, digest: Digest, blob: Blob) -> Events:
        if self._target.has(path, blob.size):
            return
        if blob.size >= _TOLD:
            yield Transfer("exporting", digest, blob.size, 0)
        await self._target.put(path, blob.size, self._read(blob, digest))
        if blob.size >= _TOLD:
            yield Transfer("exporting", digest, blob.size, blob.size)

    async def _read(self, blob: Blob, digest: Digest) -> AsyncIterator[bytes]:
        hasher = hashlib.new(digest.algorithm)
        async with await self._blobs.open(blob) as opened:
            async for chunk in opened.chunks(0, opened.size):
                await to_thread.run_sync(hasher.update, chunk)
                yield chunk
        if hasher.hexdigest() != digest.hex:
            raise DigestMismatch(str(digest), f"{digest.algorithm}:{hasher.hexdigest()}")


def _tag(tx: Reader, name: ModelName) -> Tag:
    repository = tx.repository(name.repository) if name.is_valid else None
    tag = tx.tag(repository.id, name.tag) if repository else None
    if tag is None:
        raise ModelUnknown(f"model {name.short!r} not found")
    return tag


def _collect(tx: Reader, digest: Digest, found: dict[Digest, Manifest]) -> None:
    """A manifest and all below it."""
    waiting = [digest]
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        manifest = tx.manifest(digest)
        if manifest is None:
            raise ManifestUnknown(f"manifest unknown: {digest}")
        found[digest] = manifest
        waiting += [item.digest for item in manifest.references if not item.blob]


def _path(digest: Digest, form: Format) -> str:
    return oci_layout.blob_path(digest) if form == "oci" else f"blobs/{digest.file_name}"


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
