"""What became of a tag, and bringing it back.

Every move of a tag is a row. What it pointed at before can be pointed at again as long as that
manifest is here: while another tag has it, while a deletion can be undone (`undelete_s`), or, where
tags are moved by the registry protocol, until somebody deletes the manifest.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from registry.core.digest import Digest
from registry.core.errors import ManifestUnknown, ModelUnknown
from registry.core.names import ModelName
from registry.ports.catalog import Catalog, Freed, Reader, Tag, Transaction
from registry.ports.upkeep import TagEvent
from registry.services.access.rights import FREE, TagGuard
from registry.services.library.housekeeping import Swept
from registry.services.library.manifests import Manifests

_BATCH = 64
_NEWEST = 1 << 62


class History:
    """Use cases around what tags were."""

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests
        self._catalog: Catalog = manifests.catalog
        self._housekeeping = manifests.housekeeping
        self._clock: Callable[[], int] = manifests.clock

    async def of(self, name: ModelName, before: int = 0, limit: int = 100) -> list[TagEvent]:
        """What became of a tag, newest first; entries with an id below `before` (0: the newest).

        Raises:
            ModelUnknown: there never was such a tag.
        """

        def work(tx: Reader) -> list[TagEvent]:
            repository = tx.repository(name.repository)
            if repository is None:
                return []
            return tx.history(repository.id, name.tag, before or _NEWEST, limit)

        found = await self._catalog.scan(work)
        if not found and not before:
            raise ModelUnknown(f"model '{name.short}' not found")
        return found

    async def restore(self, name: ModelName, to: int = 0, guard: TagGuard = FREE) -> Tag:
        """Point a tag at what it was after the change `to`; 0: at what it was before its last one.

        Raises:
            ModelUnknown: there never was such a tag, or no such change of it.
            ManifestUnknown: what it was is gone for good.
            Denied, TagImmutable: `guard` is against it.
        """

        def work(tx: Transaction) -> Tag:
            repository = tx.repository(name.repository)
            event = _event(tx, repository.id, name, to) if repository else None
            if repository is None or event is None:
                raise ModelUnknown(f"model '{name.short}' has no such entry in its history")
            digest = event.new if to and event.new else event.old
            if digest is None or not tx.has_manifest(repository.id, digest):
                raise ManifestUnknown(f"what '{name.short}' was then is gone for good")
            old = tx.tag(repository.id, name.tag)
            if old is not None and old.digest == digest:
                return old
            guard.put(event.name, old.digest if old else None, digest)
            tag = tx.put_tag(repository.id, event.name, digest, self._clock(), guard.who)
            tx.spare(repository.id, digest)
            tx.record(repository.id, str(digest))
            if old is not None:
                self._manifests.drop(tx, repository.id, old.digest)
            return tag

        tag = await self._catalog.write(work)
        await self._housekeeping.settle([])
        return tag

    async def sweep(self) -> None:
        """Drop what can be brought back no longer."""
        async with aclosing(self.sweeping()) as steps:
            async for _ in steps:
                pass

    async def sweeping(self) -> AsyncGenerator[Swept, None]:
        """`sweep` step by step."""
        before = self._clock() - self._housekeeping.undelete_ns

        def some(tx: Transaction) -> list[tuple[int, Digest]]:
            found = [(item.repository_id, item.digest) for item in tx.condemned(before, _BATCH)]
            for pair in found:
                tx.spare(*pair)
            return found

        async with aclosing(self._dropped("deleted", some)) as steps:
            async for step in steps:
                yield step

    async def dropping(self, before: int) -> AsyncGenerator[Swept, None]:
        """Drop manifests that came before then and have had no tag since, step by step."""
        async with aclosing(
            self._dropped("untagged", lambda tx: tx.untagged(before, _BATCH))
        ) as steps:
            async for step in steps:
                yield step

    async def _dropped(
        self, reason: str, some: Callable[[Transaction], list[tuple[int, Digest]]]
    ) -> AsyncGenerator[Swept, None]:
        """Drop what `some` finds, until it finds nothing."""
        while True:
            found, step, freed = await self._catalog.write(lambda tx: self._drop(tx, reason, some))
            if step.count:
                await self._housekeeping.settle(freed)
                yield step
            if not (found and step.count):  # what is found and needed all the same is found again
                return

    def _drop(
        self, tx: Transaction, reason: str, some: Callable[[Transaction], list[tuple[int, Digest]]]
    ) -> tuple[bool, Swept, list[Freed]]:
        count = size = 0
        gone: list[Freed] = []
        found = some(tx)
        for repository_id, digest in found:
            manifest = tx.manifest(digest)
            sizes = {ref.digest: ref.size for ref in manifest.references} if manifest else {}
            freed = self._manifests.forget(tx, repository_id, digest)
            gone += freed
            count += not tx.has_manifest(repository_id, digest)
            size += sum(sizes.get(one.digest, 0) for one in freed)
        return bool(found), Swept(reason, count, size), gone


def _event(tx: Reader, repository_id: int, name: ModelName, to: int) -> TagEvent | None:
    """The change of that number, or the last one if it is 0."""
    found = tx.history(repository_id, name.tag, to + 1 if to else _NEWEST, 1)
    return found[0] if found and to in {0, found[0].id} else None
