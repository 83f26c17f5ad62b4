"""Manifests taken apart before their transaction: their row, the card, the facts of their blobs.

What the catalog does not know yet is read from the store: GGUF headers, texts, the config.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from anyio.to_thread import run_sync

from registry.core import media
from registry.core.card import Card, Parts
from registry.core.digest import Digest
from registry.core.errors import GgufInvalid, ManifestBlobUnknown
from registry.core.facts import Facts
from registry.core.gojson import dumps
from registry.core.image import ImageConfig
from registry.core.manifest import Descriptor, Index, Manifest, parse
from registry.ports import catalog as rows
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog, FactsKind, Reader
from registry.services.library.gguf_facts import read_facts

T = TypeVar("T")

MAX_TEXT = 16 << 20
"""A text layer above this size, in bytes, is kept but not read: its model is no model to us."""

_ON_THE_LOOP = 32 << 10
"""Bytes of a manifest up to which it is read where it is: a hostile one takes 10 ms then."""

_TEXTS = frozenset(
    {media.TEMPLATE, media.PROMPT, media.SYSTEM, media.PARAMS, media.MESSAGES, media.LICENSE}
)

Known = Mapping[Digest, bytes | Facts]
"""What is known of blobs: contents of texts and configs, facts of GGUF files."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A manifest ready to be committed: its row, and facts about its blobs that may be new."""

    row: rows.Manifest
    facts: Known = field(default_factory=dict)


async def read_manifest(body: bytes, media_type: str | None = None) -> Manifest | Index:
    """`core.manifest.parse`, away from the event loop if it may take long.

    Raises:
        ManifestInvalid: the bytes are no manifest we take.
    """
    return await apart(len(body), partial(parse, body, media_type))


async def apart(size: int, read: Callable[[], T]) -> T:
    """What `read` makes of `size` bytes of a manifest; if they are many, not on the event loop."""
    return read() if size <= _ON_THE_LOOP else await run_sync(read)


class Preparation:
    """The use case."""

    def __init__(self, catalog: Catalog, store: BlobStore) -> None:
        self._catalog = catalog
        self._store = store

    async def prepare(
        self,
        body: bytes,
        media_type: str | None,
        *,
        digest: Digest | None = None,
        known: Known | None = None,
    ) -> Prepared:
        """Read a manifest and the facts of its blobs.

        `digest` is the name it is to be kept under, if not its sha256; `known` holds contents of
        blobs that are not in the catalog yet, and facts that were read already.

        Raises:
            ManifestInvalid: the bytes are no manifest we take.
            ManifestBlobUnknown: a blob is not in the store.
        """
        document = await read_manifest(body, media_type)
        name = digest or document.digest
        facts: Known = {}
        card = None
        if isinstance(document, Manifest) and is_model(document):
            card, facts = await self._card(document, name, known or {})
        return Prepared(_row(document, name, card), facts)

    async def _card(self, manifest: Manifest, name: Digest, known: Known) -> tuple[str, Known]:
        wanted = [d for d in manifest.blobs if _is_read(d) and d.digest not in known]
        facts = dict(known)
        new = dict(known)
        if wanted:
            facts |= await self._catalog.read(lambda tx: kept(tx, wanted))
        for layer in wanted:
            if layer.digest not in facts and (found := await self._read(layer)) is not None:
                facts[layer.digest] = new[layer.digest] = found
        return Card.of(take_apart(manifest, facts), name).to_json(), new

    async def _read(self, layer: Descriptor) -> bytes | Facts | None:
        """The facts of a blob that the catalog has none of: a GGUF's header, a text's content."""
        blob = await self._catalog.read(lambda tx: tx.blob(layer.digest))
        if blob is None:
            raise ManifestBlobUnknown(str(layer.digest))
        async with await self._store.open(blob.storage_key) as opened:
            if layer.media_type not in media.GGUF_LAYERS:
                return await opened.read(0, opened.size)
            try:
                return await read_facts(opened)
            except GgufInvalid:
                return None  # a registry keeps what it cannot read; show then has no model_info


def is_model(manifest: Manifest) -> bool:
    """Whether it is an Ollama model: it has a layer of Ollama's types, or is a stub without any."""
    if manifest.layers:
        return any(layer.media_type.startswith(media.OLLAMA) for layer in manifest.layers)
    return manifest.config is not None and manifest.config.media_type == media.CONFIG


def _is_read(layer: Descriptor) -> bool:
    return layer.media_type in media.GGUF_LAYERS or is_text(layer)


def is_text(layer: Descriptor) -> bool:
    """Whether its content is kept in the catalog."""
    return layer.size <= MAX_TEXT and (
        layer.media_type in _TEXTS or layer.media_type == media.CONFIG
    )


def kept(tx: Reader, blobs: Iterable[Descriptor | rows.Reference]) -> Known:
    """What the catalog knows of blobs as those that a manifest takes them for.

    A header and a content are never taken for one another: who uploads a text that looks like the
    facts of weights gains nothing by it.
    """
    found: dict[Digest, bytes | Facts] = {}
    for blob in blobs:
        kind: FactsKind = "header" if blob.media_type in media.GGUF_LAYERS else "text"
        data = tx.facts(blob.digest, kind)
        if data is not None:
            found[blob.digest] = Facts.from_json(data) if kind == "header" else data
    return found


def take_apart(manifest: Manifest, facts: Known) -> Parts:
    """Sort the facts of a model's blobs into config, texts and GGUF facts."""
    config = ImageConfig()
    texts: dict[Digest, bytes] = {}
    ggufs: dict[Digest, Facts] = {}
    if manifest.config is not None:
        content = facts.get(manifest.config.digest)
        config = ImageConfig.parse(content) if isinstance(content, bytes) else config
    for layer in manifest.layers:
        found = facts.get(layer.digest)
        if isinstance(found, Facts):
            ggufs[layer.digest] = found
        elif found is not None:
            texts[layer.digest] = found
    return Parts(manifest, config, texts, ggufs)


def _row(document: Manifest | Index, name: Digest, card: str | None) -> rows.Manifest:
    blobs = [rows.Reference(d.digest, d.media_type, d.size) for d in document.blobs]
    children = [rows.Reference(d.digest, d.media_type, d.size, False) for d in document.children]
    config = document.config if isinstance(document, Manifest) else None
    annotations = dumps(dict(document.annotations)).decode() if document.annotations else None
    return rows.Manifest(
        digest=name,
        media_type=document.media_type,
        body=document.body,
        references=(*blobs, *children),
        config=config.digest if config else None,
        subject=document.subject.digest if document.subject else None,
        artifact_type=document.artifact_type,
        annotations=annotations,
        card=card,
    )
