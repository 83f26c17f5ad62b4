"""From files to layers: what the files of a create are, and the work that makes models of them.

A GGUF becomes a layer as it is. Quantizing, converting safetensors and joining the shards of a
split GGUF are orders to `conversions`; what they make stays under a lease until the create is over.

Source: spec ollama-api 6.3 to 6.7.
"""

import secrets
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from anyio import CancelScope

from registry.core import media
from registry.core.architectures import warning
from registry.core.card import Parts
from registry.core.convert.files import (
    ADAPTER_CONFIG,
    CONFIG,
    adapter_folders,
    are_pickles,
    check_names,
    needed,
)
from registry.core.digest import Digest
from registry.core.errors import DigestInvalid, GgufInvalid, OperationFailed, RequestInvalid
from registry.core.events import Advance, Events, Status
from registry.core.facts import Facts
from registry.core.image import ImageConfig
from registry.core.layering import Layer, Recipe
from registry.core.manifest import Descriptor
from registry.core.quantize import stored_as, target
from registry.core.quantize.targets import PLAIN
from registry.core.shards import Group, Shard, group_of, in_order
from registry.ports.catalog import Blob
from registry.ports.tensors import TensorJob
from registry.services.access.rights import ANY, Permit
from registry.services.building.conversions import Conversions, Converted, Order
from registry.services.library.gguf_facts import read_facts
from registry.services.library.manifests import Manifests
from registry.services.library.models import shown_path
from registry.services.sharing.efforts import Asking, Progress

TICK_S = 0.1
_SHOWN_BYTES = 4 << 20
"""Work on less is done before a line about it could be read."""


@dataclass(slots=True)
class Work:
    """A create under way: what was found out so far."""

    recipe: Recipe
    permit: Permit = ANY
    config: ImageConfig = field(default_factory=ImageConfig)
    layers: list[Layer] = field(default_factory=list)
    below: list[Layer] = field(default_factory=list)  # what an adapter is for
    base: Parts | None = None
    remote: bool = False
    check: Callable[[], None] = lambda: None  # raises what is wrong with the rest of the request
    model: str = ""  # its name
    holder: str = field(default_factory=lambda: f"create:{secrets.token_hex(8)}")
    holds: bool = False  # leases, or will
    made: dict[Digest, bool] = field(default_factory=dict)  # by us; whether it was not here before
    committed: bool = False

    def target(self, media_type: str) -> str:
        """What the request wants layers of that type quantized to, empty if nothing.

        Raises:
            OperationFailed: a type that does not exist.
        """
        recipe = self.recipe
        wanted = {media.MODEL: recipe.quantize, media.DRAFT: recipe.draft_quantize}
        name = wanted.get(media_type, "")
        return target(name).name if name else ""


class Weights:
    """Use cases inside of create."""

    def __init__(self, manifests: Manifests, conversions: Conversions) -> None:
        self._catalog = manifests.catalog
        self._store = manifests.store
        self._conversions = conversions

    async def from_files(self, work: Work, files: Mapping[str, str], media_type: str) -> Events:
        """Add the layers that files make; `media_type` is given for drafts and adapters.

        Raises:
            RequestInvalid, OperationFailed, Unsupported: the files make no model, and why.
        """
        kind = await self._kind(files, work.permit)
        if kind == "safetensors" and media_type == media.ADAPTER:
            events = self._adapters(work, files)
        elif kind == "safetensors":
            events = self._checkpoint(work, files, media_type)
        elif kind == "gguf":
            events = self._ggufs(work, files, media_type)
        elif "config.json" in files and are_pickles(files):
            raise RequestInvalid("pickle files are not supported; convert to safetensors")
        else:
            raise RequestInvalid("unknown type")
        async with aclosing(events):
            async for event in events:
                yield event

    async def quantize(self, work: Work) -> Events:
        """Quantize those layers that are to be and are not yet.

        Raises:
            OperationFailed: a layer that is quantized already.
        """
        for position, layer in enumerate(work.layers):
            wanted = work.target(layer.media_type)
            digest, facts = layer.descriptor.digest, layer.facts
            if not wanted or facts is None or digest in work.made:
                continue
            level = _checked_level(layer.media_type, facts)
            if level == wanted:
                continue
            order = Order("gguf", ((_file_name(layer), digest),), wanted)
            made: list[Converted] = []
            async with aclosing(self._convert(work, order, made)) as events:
                async for event in events:
                    yield event
            work.layers[position] = _new_layer(layer.media_type, made[0])

    async def close(self, work: Work) -> None:
        """Let go of what was made; of a create that came to nothing, delete it."""
        if not work.holds:
            return
        new = [digest for digest, is_new in work.made.items() if is_new]
        with CancelScope(shield=True):
            await self._conversions.release(work.holder, drop=[] if work.committed else new)

    # GGUF

    async def _ggufs(self, work: Work, files: Mapping[str, str], media_type: str) -> Events:
        if media_type == media.ADAPTER and len(files) > 1:
            raise RequestInvalid("only one adapter is currently supported")
        groups: dict[Group, list[Shard]] = {}
        for name in sorted(files):
            yield Status("parsing GGUF")
            work.check()
            blob = await self.file(files[name], work.permit)
            layer, facts = await self._gguf_layer(name, blob, media_type)
            if layer.media_type == media.MODEL and (text := _remark(facts)):
                yield Status(text)
            shard = Shard(name, blob.digest, facts)
            group = group_of(shard, layer.media_type)
            if group is None:
                work.layers.append(layer)
            else:
                groups.setdefault(group, []).append(shard)
        for group, shards in groups.items():
            async with aclosing(self._joined(work, group, shards)) as events:
                async for event in events:
                    yield event

    async def _joined(self, work: Work, group: Group, shards: list[Shard]) -> Events:
        ordered = in_order(group, shards)
        wanted = work.target(group.media_type)
        if wanted:
            level = _checked_level(group.media_type, ordered[0].facts)
            wanted = "" if level == wanted else wanted
        files = tuple((shard.name, shard.digest) for shard in ordered)
        made: list[Converted] = []
        order = Order("gguf", files, wanted, canonical=True)
        async with aclosing(self._convert(work, order, made)) as events:
            async for event in events:
                yield event
        work.layers.append(_new_layer(group.media_type, made[0]))

    async def _gguf_layer(self, name: str, blob: Blob, media_type: str) -> tuple[Layer, Facts]:
        facts = await self._facts(blob)
        kind = media_type if media_type == media.DRAFT else facts.media_type
        keeps_name = kind != media.MODEL or facts.has_embedded_parts
        descriptor = Descriptor(kind, blob.digest, blob.size, name if keeps_name else "")
        return Layer(descriptor, facts), facts

    async def _facts(self, blob: Blob) -> Facts:
        known = await self._catalog.read(lambda tx: tx.facts(blob.digest, "header"))
        if known is not None:
            return Facts.from_json(known)
        async with await self._store.open(blob.storage_key) as opened:
            try:
                return await read_facts(opened)
            except GgufInvalid as error:
                if error.not_gguf:
                    raise RequestInvalid("supplied file was not in GGUF format") from error
                raise OperationFailed(str(error)) from error

    # safetensors

    async def _checkpoint(self, work: Work, files: Mapping[str, str], media_type: str) -> Events:
        yield Status("converting model")
        if CONFIG not in files:
            raise OperationFailed(f"open {CONFIG}: no such file or directory")
        work.check()
        check_names(files)
        job = TensorJob("checkpoint", (), work.target(media_type or media.MODEL))
        names = {name: name for name in needed(files)}
        async with aclosing(self._folder(work, files, names, job, media_type)) as events:
            async for event in events:
                yield event

    async def _adapters(self, work: Work, files: Mapping[str, str]) -> Events:
        """An adapter, or one in each of several folders."""
        check_names(files)
        folders = adapter_folders(files)
        for names in folders or [{}]:
            yield Status("converting adapter")
            if not names:
                raise OperationFailed(f"open {ADAPTER_CONFIG}: no such file or directory")
            work.check()
            kept = {short: names[short] for short in needed(names)}
            job = TensorJob("adapter", (), options=_base(work))
            async with aclosing(self._folder(work, files, kept, job, media.ADAPTER)) as events:
                async for event in events:
                    yield event

    async def _folder(
        self,
        work: Work,
        files: Mapping[str, str],
        names: Mapping[str, str],
        job: TensorJob,
        media_type: str,
    ) -> Events:
        """Convert the files whose names in the folder, and in the request, are `names`."""
        named = {
            short: (await self.file(files[name], work.permit)).digest
            for short, name in names.items()
        }
        made: list[Converted] = []
        async with aclosing(self._convert(work, Order.of(job, named), made)) as events:
            async for event in events:
                yield event
        work.layers.append(_new_layer(media_type or media.MODEL, made[0]))

    # all of them

    async def _convert(self, work: Work, order: Order, made: list[Converted]) -> Events:
        """Have an order carried out; what came out goes to the end of `made`."""
        shown = -1
        work.holds = True
        asking = Asking(work.holder, work.permit.guard.who, work.model)
        async with self._conversions.join(order, asking) as conversion:
            while (found := await conversion.wait(TICK_S)) is None:
                now = conversion.progress
                if now.queued and shown == -1:
                    shown = -2
                    yield Status("waiting for another conversion to finish")
                if now.total >= _SHOWN_BYTES and now.done != shown:
                    shown = now.done
                    yield _advance(order, now)
            last = conversion.progress
        if 0 <= shown < last.total:
            yield _advance(order, replace(last, done=last.total))
        work.made[found.blob.digest] = found.new
        made.append(found)
        for text in found.warnings:
            yield Status(text)
        yield Status("verifying conversion")

    # files

    async def _kind(self, files: Mapping[str, str], permit: Permit) -> str:
        """What the files are, by name or by the first bytes; see spec ollama-api 6.3."""
        for name in sorted(files):
            if name.endswith((".safetensors", ".gguf")):
                return name.rpartition(".")[2]
        for name in sorted(files):
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

    async def file(self, text: str, permit: Permit) -> Blob:
        """The blob that a digest of the request names.

        Raises:
            OperationFailed: it is not here, or not for the caller.
        """
        try:
            digest = Digest.parse(text)
        except DigestInvalid as error:
            raise OperationFailed(str(error)) from error
        blob = await self._blob(text, permit)
        if blob is None:
            raise OperationFailed(f"open {shown_path(digest)}: no such file or directory")
        return blob


def _checked_level(media_type: str, facts: Facts) -> str:
    """What the weights are stored as, if they can be quantized.

    Raises:
        OperationFailed: they were quantized before.
    """
    level = stored_as(facts.file_type, facts.tensors)
    if level in PLAIN:
        return level
    if media_type == media.DRAFT:
        raise OperationFailed(
            f"draft quantization requires an unquantized draft model, got {level}"
        )
    raise OperationFailed("quantization is only supported for F16, BF16 and F32 models")


def _advance(order: Order, now: Progress) -> Advance:
    """The progress line: named by the first file, which is the largest or as good as any."""
    if order.target:
        text = f"quantizing {now.note} model to {order.target}"
    else:
        texts = {"gguf": "validating GGUF model", "adapter": "converting adapter"}
        text = texts.get(order.kind, "converting model")
    digest = max(order.files, key=lambda file: file[0].endswith((".safetensors", ".gguf")))[1]
    return Advance(text, digest, now.total, now.done)


def _remark(facts: Facts) -> str:
    """What to say about a model's architecture, if anything; later shards of a model have none."""
    return warning(facts.architecture) if "general.architecture" in facts.values else ""


def _new_layer(media_type: str, made: Converted) -> Layer:
    return Layer(Descriptor(media_type, made.blob.digest, made.blob.size), made.facts)


def _file_name(layer: Layer) -> str:
    return layer.descriptor.origin or "model"


def _base(work: Work) -> dict[str, object]:
    """The metadata of the model that an adapter is for, as far as it is short, and its tensors.

    Raises:
        RequestInvalid: there is none.
    """
    for layer in work.below:
        if layer.media_type == media.MODEL and layer.facts is not None:
            values = layer.facts.values.items()
            told = {
                key: value
                for key, value in values
                if isinstance(value, int | float | str | tuple) and not key.startswith("tokenizer.")
            }
            return {"values": told, "tensors": [tensor.name for tensor in layer.facts.tensors]}
    raise RequestInvalid("no base model was found")
