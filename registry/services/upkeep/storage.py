"""Storage truth: how many bytes there are, whose they are, and what only looks like use."""

from dataclasses import dataclass

from registry.core.errors import ModelUnknown, NameInvalid
from registry.core.names import ModelName, RepositoryName
from registry.ports.catalog import Catalog, Reader
from registry.ports.upkeep import Quota, Shares, Suspect, Tally

_SUSPECTS = 1_000


@dataclass(frozen=True, slots=True)
class Totals:
    """The store as a whole. `partial`: bytes of uploads and fetches that are not blobs yet."""

    blobs: Tally
    unused: Tally
    uploads: Tally
    fetches: Tally
    suspects: list[Suspect]
    quotas: list[Quota]


@dataclass(frozen=True, slots=True)
class Taken:
    """What something that has a name takes."""

    name: str
    shares: Shares


class Storage:
    """The use case: sums are made by the database, a page of names at a time."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def totals(self) -> Totals:
        """Sums over everything."""

        def work(tx: Reader) -> Totals:
            return Totals(
                tx.blob_tally(),
                tx.unused_tally(),
                tx.upload_tally(),
                tx.fetch_tally(),
                tx.suspects("", _SUSPECTS),
                tx.quotas(),
            )

        return await self._catalog.scan(work)

    async def namespaces(self, after: str = "", limit: int = 100) -> list[Taken]:
        """Namespaces above `after` and what each takes, by name."""

        def work(tx: Reader) -> list[Taken]:
            return [Taken(name, tx.namespace_shares(name)) for name in tx.namespaces(after, limit)]

        return await self._catalog.scan(work)

    async def within(self, name: str, after: str = "", limit: int = 100) -> list[Taken]:
        """What is below a name: of a namespace its models, of a model its tags; above `after`.

        A name that is both is taken for the model. `team/` is always a namespace.

        Raises:
            ModelUnknown: nothing is called so.
        """

        def work(tx: Reader) -> list[Taken]:
            found = self._tags(tx, name, after, limit) if not name.endswith("/") else None
            return self._models(tx, name.rstrip("/"), after, limit) if found is None else found

        found = await self._catalog.scan(work)
        if not found and not after:
            raise ModelUnknown(f"there is no model and no namespace {name[:100]!r}")
        return found

    def cursor(self, name: str) -> str:
        """Where the page behind a name begins: `after`."""
        head, colon, tag = name.rpartition(":")
        return tag if colon and head and "/" not in tag else name

    def _tags(self, tx: Reader, text: str, after: str, limit: int) -> list[Taken] | None:
        """The tags of a model, or the one that is named; None if there is no such model."""
        name = ModelName.parse(text)
        if not name.is_valid:
            return None
        repository = tx.repository(name.repository)
        if repository is None:
            return None
        one = ":" in text.rpartition("/")[2]
        tags = tx.tags(repository.id, after, limit)
        if one:
            found = None if after else tx.tag(repository.id, name.tag)
            tags = [found.name] if found else []
        return [
            Taken(repository.name.model_name(tag).short, tx.tag_shares(repository.id, tag))
            for tag in tags
        ]

    def _models(self, tx: Reader, namespace: str, after: str, limit: int) -> list[Taken]:
        try:
            RepositoryName.parse(f"{namespace}/x")
        except NameInvalid:
            return []
        return [
            Taken(name.path, tx.repository_shares(id_))
            for id_, name in tx.repositories_in(namespace, after, limit)
        ]
