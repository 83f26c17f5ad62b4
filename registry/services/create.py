"""Create a model: from another one, from GGUF files, or as a stub of a model elsewhere.

Nothing is written before everything was checked; then the new texts go into the store and one
transaction makes them, the manifest and the tag visible. Two creates of one name leave one of the
two, whole; a base that is deleted meanwhile makes the transaction fail whole.

Source: spec ollama-api 6.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TypeVar

from registry.core import media
from registry.core.builtin_templates import detect
from registry.core.card import Parts
from registry.core.digest import Digest
from registry.core.errors import (
    DigestInvalid,
    GgufInvalid,
    ManifestBlobUnknown,
    NameInvalid,
    OperationFailed,
    RequestInvalid,
    TemplateInvalid,
    Unsupported,
)
from registry.core.events import Done, Events, Status
from registry.core.facts import Facts
from registry.core.image import ImageConfig
from registry.core.layering import (
    Layer,
    Plan,
    Recipe,
    plan,
    remote_url,
    start_config,
    text_layer,
    with_info,
)
from registry.core.manifest import Descriptor, encode_model
from registry.core.modelref import Source, parse_reference
from registry.core.names import ModelName
from registry.core.parameters import params_blob
from registry.core.template import check as check_template
from registry.ports.catalog import Blob, Freed, Reader, Tag, Transaction
from registry.services.gguf_facts import read_facts
from registry.services.manifests import Manifests
from registry.services.models import Models, shown_path
from registry.services.rights import ANY, Permit, TagGuard
from registry.services.staging import Staging

T = TypeVar("T")

CLOUD_HOST = "https://ollama.com:443"

_KNOWN_TYPES = re.compile("F32|F16|BF16|Q[45]_[01]|Q8_0|Q[26]_K|Q3_K_[SML]|Q4_K|Q[45]_K_[SM]")
_LATER = "is not supported by this server yet"


@dataclass(slots=True)
class _Work:
    """A create under way: what was found out so far."""

    recipe: Recipe
    permit: Permit = ANY
    config: ImageConfig = field(default_factory=ImageConfig)
    layers: list[Layer] = field(default_factory=list)
    base: Parts | None = None
    remote: bool = False


class Create:
    """The use case. `pull` is called for a base model that is not here."""

    def __init__(
        self, manifests: Manifests, models: Models, pull: Callable[[ModelName], Events]
    ) -> None:
        self._manifests = manifests
        self._models = models
        self._pull = pull
        self._catalog = manifests.catalog
        self._store = manifests.store

    async def run(self, name: ModelName, recipe: Recipe, permit: Permit = ANY) -> Events:
        """Create `name`; the caller has checked the name and called `check_files`.

        Raises:
            Denied, TagImmutable: the permit is against the tag.
            RequestInvalid: something the request says cannot be; also TemplateInvalid's text.
            OperationFailed: a file that cannot be used.
            Unsupported: quantization, safetensors, split files.
        """
        work = _Work(recipe, permit)
        async with aclosing(self._gather(work)) as events:
            async for event in events:
                yield event
        work.config = with_info(work.config, recipe.info)
        _check_quantize(work)
        _check_template(recipe.template)
        parameters = [work.base.parameters] if work.base and work.base.parameters else []
        made = plan(recipe, work.config, work.layers, _new_parameters(work.layers) + parameters)
        for text in await self._layer_lines(made, work.permit):
            yield Status(text)
        yield Status("writing manifest")
        await self._commit(name, made, work.permit.guard)
        yield Done()

    async def _gather(self, work: _Work) -> Events:
        """Find the layers to build on: base, draft, adapters."""
        recipe = work.recipe
        if recipe.origin:
            async with aclosing(self._from_model(work)) as events:
                async for event in events:
                    yield event
        elif recipe.files is not None:
            work.config = start_config(recipe, None)
            async with aclosing(self._from_files(work, recipe.files, "")) as events:
                async for event in events:
                    yield event
            work.layers += _autodetected(work.layers)
        else:
            raise RequestInvalid("neither 'from' or 'files' was specified")
        if work.remote and recipe.draft_files:
            raise RequestInvalid("DRAFT cannot be used with remote models")
        async for event in self._extras(work):
            yield event

    async def _extras(self, work: _Work) -> Events:
        """Adapters, then drafts; any error in them is the request's fault."""
        recipe = work.recipe
        if work.remote:
            return
        extra = _Work(recipe, work.permit)
        try:
            if recipe.draft_files is not None:
                async for event in self._from_files(extra, recipe.draft_files, media.DRAFT):
                    yield event
            drafts, extra.layers = extra.layers, []
            if recipe.adapters is not None:
                async for event in self._from_files(extra, recipe.adapters, media.ADAPTER):
                    yield event
        except OperationFailed as error:
            raise RequestInvalid(str(error)) from error
        work.layers += extra.layers + drafts

    async def _from_model(self, work: _Work) -> Events:
        recipe = work.recipe
        try:
            reference = parse_reference(recipe.origin)
        except NameInvalid as error:
            raise RequestInvalid("invalid model name") from error
        name = ModelName.checked(reference.base)
        host = recipe.remote_host
        if reference.source is Source.CLOUD and not host:
            host = CLOUD_HOST
        if host:
            work.remote = True
            work.config = replace(
                start_config(recipe, None),
                remote_host=remote_url(host),
                remote_model=reference.base,
            )
            return
        tag = await self._catalog.read(lambda tx: tx.find_model(name))
        if tag is None:
            async with aclosing(self._pull(name)) as events:
                async for event in events:
                    if not isinstance(event, Done):  # clients stop reading at the first success
                        yield event
            tag = await self._catalog.read(lambda tx: tx.find_model(name))
        if tag is None:
            raise OperationFailed("pull model manifest: file does not exist")
        await self._inherit(work, tag)

    async def _inherit(self, work: _Work, tag: Tag) -> None:
        parts = await self._models.parts(tag)
        work.base = parts
        work.config = start_config(work.recipe, parts.config)
        origin = tag.model.short
        work.layers = [
            Layer(replace(layer, origin=origin), parts.facts.get(layer.digest))
            for layer in parts.manifest.layers
        ]

    async def _from_files(self, work: _Work, files: Mapping[str, str], media_type: str) -> Events:
        """GGUF files by name; `media_type` is given for drafts and adapters."""
        kind = await self._kind(files, work.permit)
        if kind == "safetensors":
            yield Status("converting model")
            if "config.json" not in files:
                raise OperationFailed("open config.json: no such file or directory")
            raise Unsupported(f"converting safetensors {_LATER}")
        if kind != "gguf":
            raise RequestInvalid("unknown type")
        if media_type == media.ADAPTER and len(files) > 1:
            raise RequestInvalid("only one adapter is currently supported")
        for name in sorted(files):
            yield Status("parsing GGUF")
            blob = await self._file(files[name], work.permit)
            work.layers.append(await self._gguf_layer(name, blob, media_type))

    async def _kind(self, files: Mapping[str, str], permit: Permit) -> str:
        """What the files are, by name or by the first bytes; see spec ollama-api 6.3."""
        for name in sorted(files):
            if name.endswith(".safetensors"):
                return "safetensors"
            if name.endswith(".gguf"):
                return "gguf"
            blob = await self._blob(files[name], permit)
            if blob is None or not blob.size:
                return ""
            async with await self._store.open(blob.storage_key) as opened:
                if await opened.read(0, min(4, blob.size)) == b"GGUF":
                    return "gguf"
        return ""

    async def _blob(self, text: str, permit: Permit) -> Blob | None:
        try:
            digest = Digest.parse(text)
        except DigestInvalid:
            return None
        blob = await self._catalog.read(lambda tx: tx.blob(digest))
        return blob if await permit.allows(digest) else None

    async def _file(self, text: str, permit: Permit) -> Blob:
        try:
            digest = Digest.parse(text)
        except DigestInvalid as error:
            raise OperationFailed(str(error)) from error
        blob = await self._blob(text, permit)
        if blob is None:
            raise OperationFailed(f"open {shown_path(digest)}: no such file or directory")
        return blob

    async def _gguf_layer(self, name: str, blob: Blob, media_type: str) -> Layer:
        facts = await self._facts(blob)
        if facts.split is not None:
            raise Unsupported(f"joining split GGUF files {_LATER}")
        kind = media_type if media_type == media.DRAFT else facts.media_type
        keeps_name = kind != media.MODEL or facts.has_embedded_parts
        return Layer(Descriptor(kind, blob.digest, blob.size, name if keeps_name else ""), facts)

    async def _facts(self, blob: Blob) -> Facts:
        known = await self._catalog.read(lambda tx: tx.facts(blob.digest))
        if known is not None:
            return Facts.from_json(known)
        async with await self._store.open(blob.storage_key) as opened:
            try:
                return await read_facts(opened)
            except GgufInvalid as error:
                if error.not_gguf:
                    raise RequestInvalid("supplied file was not in GGUF format") from error
                raise OperationFailed(str(error)) from error

    async def _layer_lines(self, made: Plan, permit: Permit) -> list[str]:
        """One status text per layer: there already, or new."""
        digests = {layer.descriptor.digest for layer in made.layers}

        def existing(tx: Reader) -> set[Digest]:
            return {digest for digest in digests if tx.blob(digest) is not None}

        here = await self._catalog.read(existing)
        known = {digest for digest in here if await permit.allows(digest)}
        lines = []
        for layer in made.layers:
            digest = layer.descriptor.digest
            word = "using existing" if digest in known else "creating new"
            lines.append(layer.status or f"{word} layer {digest}")
            known.add(digest)
        return lines

    async def _commit(self, name: ModelName, made: Plan, guard: TagGuard) -> None:
        body = encode_model(made.config.descriptor, [layer.descriptor for layer in made.layers])
        known = dict(made.contents)
        known |= {
            layer.descriptor.digest: layer.facts.to_json() for layer in made.layers if layer.facts
        }
        prepared = await self._manifests.prepare(body, media.DOCKER_MANIFEST, known=known)

        def write(tx: Transaction, staging: Staging) -> list[Freed]:
            staging.commit(tx, self._manifests.clock())
            spelt = tx.known_spelling(name)
            return self._manifests.replace_model(tx, spelt, prepared, guard)[1]

        try:
            freed = await self._store_and_write(made, write, everything=False)
        except ManifestBlobUnknown as error:
            if Digest.parse(error.digest) not in made.contents:
                raise
            # A text that was here went with another model before our transaction: bring them all.
            freed = await self._store_and_write(made, write, everything=True)
        await self._manifests.housekeeping.settle(freed)

    async def _store_and_write(
        self, made: Plan, write: Callable[[Transaction, Staging], T], *, everything: bool
    ) -> T:
        async with Staging(self._catalog, self._store, everything=everything) as staging:
            await staging.add(made.contents)
            return await self._catalog.write(lambda tx: write(tx, staging))


def _autodetected(layers: list[Layer]) -> list[Layer]:
    """Template and stop parameters of the first known chat template among the files."""
    for layer in layers:
        found = detect(layer.facts.chat_template) if layer.facts else None
        if found is not None:
            status = f"using autodetected template {found.name}"
            template = text_layer(media.TEMPLATE, found.template.encode(), status)
            stop = text_layer(media.PARAMS, params_blob({"stop": list(found.stop)}))
            return [template, stop] if found.stop else [template]
    return []


def _new_parameters(layers: list[Layer]) -> list[dict[str, object]]:
    """The objects of the params layers that were made here, not inherited."""
    texts = [layer.content for layer in layers if layer.media_type == media.PARAMS]
    return [json.loads(text) for text in texts if text is not None]


def _check_template(text: str) -> None:
    try:
        check_template(text)
    except TemplateInvalid as error:
        raise RequestInvalid(f"template error: {error}") from error


def _check_quantize(work: _Work) -> None:
    """Refuse what this server cannot do before any work is done.

    Raises:
        OperationFailed: a type that does not exist, in the recorded words.
        Unsupported: any other, until quantization is here.
    """
    kinds = {layer.media_type for layer in work.layers if layer.facts}
    wanted = work.recipe.quantize if media.MODEL in kinds else ""
    wanted = wanted or (work.recipe.draft_quantize if media.DRAFT in kinds else "")
    if not wanted:
        return
    if not _KNOWN_TYPES.fullmatch(wanted.upper()):
        raise OperationFailed(
            f"unsupported quantization type {wanted.upper()} - "
            "supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"
        )
    raise Unsupported(f"quantization {_LATER}")
