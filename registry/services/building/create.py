"""Create a model: from another one, from GGUF files, or as a stub of a model elsewhere.

Nothing is written before everything was checked. What is converted or quantized comes first; then
the new texts go into the store and one transaction makes them, the manifest and the tag visible.
Two creates of one name leave one of the two, whole; a base that is deleted meanwhile makes the
transaction fail whole.

Source: spec ollama-api 6.
"""

import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

from registry.core import media
from registry.core.builtin_templates import detect
from registry.core.digest import Digest
from registry.core.errors import (
    NameInvalid,
    OperationFailed,
    RequestInvalid,
    TemplateInvalid,
)
from registry.core.events import Done, Events, Status
from registry.core.facts import Facts
from registry.core.image import ImageConfig
from registry.core.layering import (
    Layer,
    Plan,
    Recipe,
    licenses,
    plan,
    remote_url,
    start_config,
    text_layer,
    with_info,
)
from registry.core.manifest import encode_model
from registry.core.modelref import Source, parse_reference
from registry.core.names import ModelName
from registry.core.parameters import params_blob
from registry.core.quantize import target
from registry.core.template import check as check_template
from registry.ports.catalog import Freed, Reader, Tag, Transaction
from registry.services.access.rights import ANY, Permit, TagGuard
from registry.services.building.conversions import Conversions
from registry.services.building.weights import Weights, Work
from registry.services.library.manifests import Manifests
from registry.services.library.models import Models
from registry.services.library.staging import Staging

CLOUD_HOST = "https://ollama.com:443"


class Create:
    """The use case. `pull` is called for a base model that is not here."""

    def __init__(
        self,
        manifests: Manifests,
        models: Models,
        conversions: Conversions,
        pull: Callable[[ModelName], Events],
    ) -> None:
        self._manifests = manifests
        self._models = models
        self._pull = pull
        self._catalog = manifests.catalog
        self._store = manifests.store
        self._weights = Weights(manifests, conversions)

    async def run(self, name: ModelName, recipe: Recipe, permit: Permit = ANY) -> Events:
        """Create `name`; the caller has checked the name and called `check_files`.

        Raises:
            Denied, TagImmutable: the permit is against the tag.
            RequestInvalid: something the request says cannot be; also TemplateInvalid's text.
            OperationFailed: a file that cannot be used.
            Unsupported: work on tensors that cannot be done here.
        """
        work = Work(recipe, permit, check=lambda: _check(recipe), model=name.short)
        try:
            async with aclosing(self._run(name, work)) as events:
                async for event in events:
                    yield event
        finally:
            await self._weights.close(work)

    async def _run(self, name: ModelName, work: Work) -> Events:
        recipe = work.recipe
        async with aclosing(self._gather(work)) as events:
            async for event in events:
                yield event
        work.config = with_info(work.config, recipe.info)
        _check(recipe)
        async with aclosing(self._weights.quantize(work)) as events:
            async for event in events:
                yield event
        parameters = [work.base.parameters] if work.base and work.base.parameters else []
        made = plan(recipe, work.config, work.layers, _new_parameters(work.layers) + parameters)
        for text in await self._layer_lines(made, work):
            yield Status(text)
        yield Status("writing manifest")
        await self._commit(name, made, work.permit.guard)
        work.committed = True
        yield Done()

    async def _gather(self, work: Work) -> Events:
        """Find the layers to build on: base, draft, adapters."""
        recipe = work.recipe
        if recipe.origin:
            async with aclosing(self._from_model(work)) as events:
                async for event in events:
                    yield event
        elif recipe.files is not None:
            work.config = start_config(recipe, None)
            async with aclosing(self._weights.from_files(work, recipe.files, "")) as events:
                async for event in events:
                    yield event
            work.layers += _autodetected(work.layers)
        else:
            raise RequestInvalid("neither 'from' or 'files' was specified")
        if work.remote and recipe.draft_files:
            raise RequestInvalid("DRAFT cannot be used with remote models")
        async for event in self._extras(work):
            yield event

    async def _extras(self, work: Work) -> Events:
        """Adapters, then drafts; any error in them is the request's fault."""
        recipe = work.recipe
        if work.remote:
            return
        extra = replace(work, layers=[], below=work.layers)
        try:
            if recipe.draft_files is not None:
                events = self._weights.from_files(extra, recipe.draft_files, media.DRAFT)
                async with aclosing(events):
                    async for event in events:
                        yield event
            drafts, extra.layers = extra.layers, []
            if recipe.adapters is not None:
                events = self._weights.from_files(extra, recipe.adapters, media.ADAPTER)
                async with aclosing(events):
                    async for event in events:
                        yield event
        except OperationFailed as error:
            raise RequestInvalid(str(error)) from error
        work.layers += extra.layers + drafts

    async def _from_model(self, work: Work) -> Events:
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
            work.check()
            async with aclosing(self._pull(name)) as events:
                async for event in events:
                    if not isinstance(event, Done):  # clients stop reading at the first success
                        yield event
            tag = await self._catalog.read(lambda tx: tx.find_model(name))
        if tag is None:
            raise OperationFailed("pull model manifest: file does not exist")
        await self._inherit(work, tag)

    async def _inherit(self, work: Work, tag: Tag) -> None:
        parts = await self._models.parts(tag)
        work.base = parts
        work.config = start_config(work.recipe, parts.config)
        origin = tag.model.short
        work.layers = [
            Layer(replace(layer, origin=origin), parts.facts.get(layer.digest))
            for layer in parts.manifest.layers
        ]

    async def _layer_lines(self, made: Plan, work: Work) -> list[str]:
        """One status text per layer: there already, or new."""
        digests = {layer.descriptor.digest for layer in made.layers}

        def existing(tx: Reader) -> set[Digest]:
            return {digest for digest in digests if tx.blob(digest) is not None}

        here = await self._catalog.read(existing)
        known = {
            digest
            for digest in here
            if not work.made.get(digest) and await work.permit.allows(digest)
        }
        lines = []
        for layer in made.layers:
            digest = layer.descriptor.digest
            word = "using existing" if digest in known else "creating new"
            lines.append(layer.status or f"{word} layer {digest}")
            known.add(digest)
        return lines

    async def _commit(self, name: ModelName, made: Plan, guard: TagGuard) -> None:
        body = encode_model(made.config.descriptor, [layer.descriptor for layer in made.layers])
        known: dict[Digest, bytes | Facts] = dict(made.contents)
        known |= {layer.descriptor.digest: layer.facts for layer in made.layers if layer.facts}
        prepared = await self._manifests.prepare(body, media.DOCKER_MANIFEST, known=known)

        async with Staging(self._catalog, self._store) as staging:
            await staging.add(made.contents)

            def write(tx: Transaction) -> list[Freed]:
                staging.commit(tx, self._manifests.clock())
                spelt = tx.known_spelling(name)
                return self._manifests.replace_model(tx, spelt, prepared, guard)[1]

            freed = await self._catalog.write(write)
        await self._manifests.housekeeping.settle(freed)


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


def _check(recipe: Recipe) -> None:
    """What can be told from the request alone, asked before any long work.

    Raises:
        RequestInvalid: `info` or the template is wrong.
        OperationFailed: a license, or a type of quantization, that is none.
    """
    for name in (recipe.quantize, recipe.draft_quantize):
        if name:
            target(name)
    with_info(ImageConfig(), recipe.info)
    licenses(recipe.license)
    try:
        check_template(recipe.template)
    except TemplateInvalid as error:
        raise RequestInvalid(f"template error: {error}") from error
