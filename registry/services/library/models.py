"""Models by their Ollama names: list, show, copy, delete. Answers come from the catalog alone.

Source: spec ollama-api 7, 8, 13.
"""

from collections.abc import Callable, Mapping
from typing import Any

from registry.core import media
from registry.core.card import Parts
from registry.core.digest import Digest
from registry.core.errors import ModelUnknown, NameInvalid
from registry.core.facts import Facts, model_info, projector_info
from registry.core.manifest import Manifest
from registry.core.modelfile import Shown, render, render_tensor_model
from registry.core.names import ModelName
from registry.core.parameters import format_parameters
from registry.core.template import DEFAULT
from registry.ports.blobs import BlobStore
from registry.ports.catalog import Catalog, Freed, Reader, Tag, Transaction
from registry.ports.catalog import Manifest as Row
from registry.services.access.rights import FREE, TagGuard
from registry.services.library.gguf_facts import read_arrays
from registry.services.library.housekeeping import Housekeeping
from registry.services.library.kept import Kept
from registry.services.library.manifests import Manifests
from registry.services.library.preparation import Known, kept, read_manifest, take_apart

_CACHED_PARTS = 512
_SHOWN_BYTES = 64 << 20


class Models:
    """Use cases around model names."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        manifests: Manifests,
        housekeeping: Housekeeping,
        clock: Callable[[], int],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._manifests = manifests
        self._housekeeping = housekeeping
        self._clock = clock
        self._parts: dict[Digest, Parts] = {}
        self._tags: dict[ModelName, tuple[int, Tag | None]] = {}
        self._shown = Kept(_SHOWN_BYTES)

    async def find(self, name: ModelName) -> Tag | None:
        """The model's tag, whatever the case of its name; remembered until anything is written."""
        if not name.is_valid:
            return None
        version = self._catalog.version()
        known = self._tags.get(name)
        if known is not None and known[0] == version:
            return known[1]
        found = await self._catalog.read(lambda tx: tx.find_model(name))
        if len(self._tags) >= _CACHED_PARTS:
            self._tags.pop(next(iter(self._tags)))
        self._tags[name] = version, found
        return found

    async def parts(self, tag: Tag) -> Parts:
        """The model taken apart."""
        return await self.parts_of(tag.digest)

    async def parts_of(self, digest: Digest) -> Parts:
        """The model of a manifest; of the last few hundred also after they were deleted.

        Manifests never change, so they are remembered.

        Raises:
            ModelUnknown: there is none.
        """
        found = self._parts.get(digest)
        if found is None:
            found = await self._load(digest)
            if len(self._parts) >= _CACHED_PARTS:
                self._parts.pop(next(iter(self._parts)))
            self._parts[digest] = found
        return found

    async def _load(self, digest: Digest) -> Parts:
        def work(tx: Reader) -> tuple[Row, Known]:
            row = tx.manifest(digest)
            if row is None:
                raise ModelUnknown("model was deleted meanwhile")
            return row, kept(tx, [item for item in row.references if item.blob])

        row, known = await self._catalog.read(work)
        manifest = await read_manifest(row.body, row.media_type)
        if not isinstance(manifest, Manifest):
            raise NameInvalid("not a model")
        return take_apart(manifest, known)

    async def show(
        self,
        tag: Tag,
        *,
        system: str = "",
        options: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> dict[str, Any]:
        """The answer of `/api/show` but for `modified_at`, in the order of spec ollama-api 7.

        Raises:
            ModelUnknown: there are no weights, here or elsewhere, such as in a lone adapter.
        """
        parts = await self.parts(tag)
        if not (parts.config.remote_host or parts.digests(media.MODEL) or _is_tensors(parts)):
            raise ModelUnknown(f"model '{tag.model.short}' not found")
        answer = _texts(parts, tag.model, system, options or {})
        config = parts.config
        answer["details"] = parts.details()
        messages = [
            {"role": item.get("role") or "", "content": item.get("content") or ""}
            for item in parts.messages
        ]
        answer |= {"messages": messages} if messages else {}
        if config.remote_host:
            answer |= {"remote_model": config.remote_model, "remote_host": config.remote_host}
            answer["model_info"] = _stub_info(parts)
        else:
            answer |= await self._weights(parts, verbose)
        capabilities = parts.capabilities(look_into_gguf=True)
        answer |= {"capabilities": capabilities} if capabilities else {}
        answer |= {"requires": config.requires} if config.requires else {}
        return answer

    async def shown(self, tag: Tag, word: Callable[[dict[str, Any]], bytes]) -> bytes:
        """The plain answer of show as `word` puts it, kept ready.

        A tag read from the catalog names all that the answer is made of: spelling, time, manifest.

        Raises:
            ModelUnknown: see `show`.
        """
        found = self._shown.get(tag)
        if found is None:
            found = word(await self.show(tag))
            self._shown.put(tag, found)
        return found

    async def _weights(self, parts: Parts, verbose: bool) -> dict[str, Any]:
        """What the GGUF headers say: model_info, projector_info, tensors."""
        facts = parts.model
        if facts is None:
            return {"model_info": {}}
        found: dict[str, Any] = {"model_info": await self._info(parts, media.MODEL, facts, verbose)}
        projectors = parts.digests(media.PROJECTOR)
        if projectors and projectors[0] in parts.facts:
            seer = parts.facts[projectors[0]]
            found["projector_info"] = await self._info(parts, media.PROJECTOR, seer, verbose)
        if facts.tensors:
            found["tensors"] = [
                {"name": name, "type": kind, "shape": list(shape)}
                for name, kind, shape in facts.tensors
            ]
        return found

    async def _info(
        self, parts: Parts, media_type: str, facts: Facts, verbose: bool
    ) -> dict[str, Any]:
        shown = model_info if media_type == media.MODEL else projector_info
        if not verbose:
            return shown(facts)
        digest = parts.digests(media_type)[-1 if media_type == media.MODEL else 0]
        blob = await self._catalog.read(lambda tx: tx.blob(digest))
        if blob is None:
            return shown(facts)
        async with await self._store.open(blob.storage_key) as opened:
            arrays = await read_arrays(opened, facts)
        return shown(facts, arrays)

    async def copy(self, source: ModelName, destination: ModelName, guard: TagGuard = FREE) -> None:
        """Give a model a second name. What the second name meant before is left to the sweep.

        Raises:
            Denied, TagImmutable: `guard` is against the second name.
            ModelUnknown: there is no `source`.
        """

        def work(tx: Transaction) -> None:
            spelt = tx.known_spelling(destination)
            if spelt == tx.known_spelling(source):
                return
            tag = tx.find_model(source)
            manifest = tx.manifest(tag.digest) if tag else None
            if tag is None or manifest is None:
                raise ModelUnknown(f"model {source.short} not found")
            repository = tx.put_repository(spelt.repository)
            old = tx.tag(repository.id, spelt.tag)
            guard.put(spelt.tag, old.digest if old else None, manifest.digest)
            tx.put_manifest(repository.id, manifest, self._clock(), links=True)
            tx.put_tag(repository.id, spelt.tag, manifest.digest, self._clock(), guard.who)
            if old is None or old.digest == manifest.digest:
                return
            if self._housekeeping.undelete_ns:
                self._manifests.drop(tx, repository.id, old.digest)
            else:
                tx.drop_untagged(repository.id, old.digest)

        await self._catalog.write(work)
        await self._housekeeping.settle([])

    async def delete(self, name: ModelName, guard: TagGuard = FREE) -> None:
        """Delete a model; blobs that nothing else refers to go at once.

        Raises:
            Denied, TagImmutable: `guard` is against it.
            ModelUnknown: there is no such model.
        """

        def work(tx: Transaction) -> list[Freed]:
            tag = tx.find_model(name)
            if tag is None:
                raise ModelUnknown(f"model {name.short} not found")
            guard.delete(tag.name)
            tx.delete_tag(tag.repository.id, tag.name, guard.who)
            return self._manifests.drop(tx, tag.repository.id, tag.digest)

        freed = await self._catalog.write(work)
        await self._housekeeping.settle(freed)


def _texts(
    parts: Parts, name: ModelName, system: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """License, modelfile, parameters, template and system of show, in this order."""
    licenses = parts.all_texts(media.LICENSE)
    spoken = system or parts.text(media.SYSTEM) or ""
    template = parts.template if parts.template is not None else DEFAULT
    model = parts.digests(media.MODEL)
    drafts = parts.digests(media.DRAFT)
    shown = Shown(
        name=name.short,
        sources=[
            shown_path(model[-1]) if model else "",
            *map(shown_path, parts.digests(media.PROJECTOR)),
        ],
        template=template,
        adapters=[shown_path(item) for item in parts.digests(media.ADAPTER)],
        draft=shown_path(drafts[-1]) if drafts else "",
        system=spoken,
        renderer=parts.config.renderer,
        parser=parts.config.parser,
        parameters={**parts.parameters, **options},
        licenses=licenses,
        messages=[(item.get("role") or "", item.get("content") or "") for item in parts.messages],
    )
    answer: dict[str, Any] = {"license": "\n".join(licenses)} if licenses else {}
    answer["modelfile"] = render_tensor_model(shown) if _is_tensors(parts) else render(shown)
    parameters = format_parameters(parts.parameters)
    answer |= {"parameters": parameters} if parameters else {}
    by_engine = parts.uses_jinja and not parts.config.remote_host
    answer["template"] = parts.jinja if by_engine else template
    answer |= {"system": spoken} if spoken else {}
    return answer


def _is_tensors(parts: Parts) -> bool:
    """Whether the weights are safetensors layers, one per tensor."""
    return bool(parts.digests(media.TENSOR))


def shown_path(digest: Digest) -> str:
    """A blob as `show` names it. The folder's true path is none of a caller's business."""
    return f"$OLLAMA_MODELS/blobs/{digest.file_name}"


def _stub_info(parts: Parts) -> dict[str, Any]:
    config = parts.config
    if not config.model_family:
        return {}
    info: dict[str, Any] = {"general.architecture": config.model_family}
    info |= {"general.basename": config.base_name} if config.base_name else {}
    for key, value in (
        ("context_length", config.context_length),
        ("embedding_length", config.embedding_length),
    ):
        info |= {f"{config.model_family}.{key}": value} if value else {}
    return info
