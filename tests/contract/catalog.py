"""What every Catalog does. A backend's test class inherits it and supplies `catalog`."""

import asyncio
from collections.abc import Sequence

import pytest

from registry.core.errors import (
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    RequestInvalid,
    Unavailable,
)
from registry.core.names import ModelName, RepositoryName
from registry.ports.catalog import Catalog, Reader, Transaction
from tests.contract.catalog_accounts import AccountsContract
from tests.contract.catalog_blobs import BlobsContract
from tests.contract.catalog_fleet import FleetContract
from tests.contract.catalog_jobs import JobsContract
from tests.contract.catalog_manifests import ManifestsContract
from tests.contract.catalog_names import NamesContract
from tests.contract.catalog_storage import QuotasContract, StorageContract
from tests.contract.catalog_transfers import TransfersContract
from tests.contract.catalog_upkeep import UpkeepContract
from tests.support.catalog_rows import FAR, digest, manifest, push, put_blob, put_model


class TransactionsContract:
    async def test_what_a_function_returns_is_returned(self, catalog: Catalog) -> None:
        assert await catalog.read(lambda tx: 1) == 1
        assert await catalog.scan(lambda tx: "two") == "two"
        assert await catalog.write(lambda tx: 3) == 3

    @pytest.mark.parametrize("error", [RequestInvalid("no"), KeyError("k"), StopIteration()])
    async def test_what_a_function_raises_undoes_it_and_is_raised(
        self, catalog: Catalog, error: Exception
    ) -> None:
        def work(tx: Transaction) -> None:
            put_model(tx, "team/m", "latest")
            raise error

        with pytest.raises((type(error), RuntimeError)):
            await catalog.write(work)
        assert await catalog.read(lambda tx: tx.models()) == []

        def look(tx: Reader) -> None:
            raise error

        for run in (catalog.read, catalog.scan):
            with pytest.raises((type(error), RuntimeError)):
                await run(look)
        assert await catalog.read(lambda tx: tx.models()) == []

    async def test_one_of_many_that_fails_fails_alone(self, catalog: Catalog) -> None:
        def work(number: int, tx: Transaction) -> int:
            put_blob(tx, f"blob {number}")
            if number % 3 == 0:
                raise RequestInvalid(str(number))
            return number

        outcomes = await asyncio.gather(
            *(catalog.write(lambda tx, n=n: work(n, tx)) for n in range(200)),  # type: ignore[misc]
            return_exceptions=True,
        )
        for number, outcome in enumerate(outcomes):
            known = await catalog.read(lambda tx, n=number: tx.blob(digest(f"blob {n}")))  # type: ignore[misc]
            if number % 3:
                assert outcome == number
                assert known is not None
            else:
                assert str(outcome) == str(number)
                assert known is None

    async def test_writes_of_one_caller_happen_in_order(self, catalog: Catalog) -> None:
        seen = await asyncio.gather(
            *(catalog.write(lambda tx, n=n: put_blob(tx, "w", n).used_at) for n in range(1, 99))  # type: ignore[misc]
        )
        assert list(seen) == list(range(1, 99))

    async def test_a_finished_write_is_seen_by_the_next_read(self, catalog: Catalog) -> None:
        for number in range(20):
            word = str(number)
            await catalog.write(lambda tx, w=word: put_blob(tx, w))  # type: ignore[misc]
            for run in (catalog.read, catalog.scan):
                assert await run(lambda tx, w=word: tx.blob(digest(w))) is not None  # type: ignore[misc]

    async def test_the_version_differs_after_every_write(self, catalog: Catalog) -> None:
        seen = {catalog.version()}
        assert catalog.version() in seen
        for number in range(5):
            await catalog.write(lambda tx, n=number: put_blob(tx, str(n)))  # type: ignore[misc]
            assert catalog.version() not in seen
            seen.add(catalog.version())

    async def test_a_cancelled_write_is_done_wholly_or_not_at_all(self, catalog: Catalog) -> None:
        def work(number: int, tx: Transaction) -> None:
            put_blob(tx, f"one {number}")
            put_blob(tx, f"two {number}")

        tasks = [
            asyncio.create_task(_write(catalog, lambda tx, n=n: work(n, tx))) for n in range(100)
        ]
        await asyncio.sleep(0.002)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        def present(tx: Reader) -> list[list[bool]]:
            return [
                [tx.blob(digest(f"{part} {n}")) is not None for part in ("one", "two")]
                for n in range(100)
            ]

        found = await catalog.read(present)
        assert all(one == two for one, two in found)
        assert all(one for one, _ in found[1::2])
        await asyncio.sleep(0.02)
        assert await catalog.read(present) == found  # nothing runs after its caller has left
        await catalog.write(lambda tx: put_blob(tx, "after"))

    async def test_close_finishes_what_was_handed_over(self, catalog: Catalog) -> None:
        writes = [
            asyncio.create_task(_write(catalog, lambda tx, n=n: put_blob(tx, str(n))))
            for n in range(50)
        ]
        await asyncio.sleep(0)
        await catalog.close()
        assert len(await asyncio.gather(*writes)) == 50
        await catalog.close()
        for run in (catalog.read, catalog.scan, catalog.write):
            with pytest.raises(Unavailable):
                await run(lambda tx: None)
        with pytest.raises(Unavailable):
            await catalog.check()
        with pytest.raises(Unavailable):
            catalog.version()

    async def test_a_sound_catalog_checks(self, catalog: Catalog) -> None:
        await catalog.check()


class RacesContract:
    async def test_two_creates_of_one_name_leave_one_of_the_two_whole(
        self, catalog: Catalog
    ) -> None:
        name = ModelName.parse("team/m")

        def create(word: str, tx: Transaction) -> None:
            old = tx.find_model(name)
            tag = put_model(tx, "team/m", "latest", word)
            if old is not None:
                tx.drop_untagged(tag.repository.id, old.digest)
                tx.free([digest(f"{part} of {old.digest}") for part in ("config", "weights")], 1)

        words = [f"m{number}" for number in range(40)]
        await asyncio.gather(*(catalog.write(lambda tx, w=w: create(w, tx)) for w in words))  # type: ignore[misc]

        def look(tx: Reader) -> None:
            tag = tx.find_model(name)
            assert tag is not None
            row = tx.manifest(tag.digest)
            assert row is not None
            assert all(tx.blob(reference.digest) for reference in row.references)
            assert [word for word in words if tx.manifest(digest(word))] == [row.body.decode()]

        await catalog.read(look)

    async def test_a_create_during_the_delete_of_its_base_is_whole_or_fails(
        self, catalog: Catalog
    ) -> None:
        """The create has looked at its base before; its transaction must notice the delete."""
        weights = digest("weights of base")

        def create(tx: Transaction) -> None:
            id_ = push(tx, "team/child", ("config",)).id
            tx.link_blob(id_, weights, FAR)
            tx.put_manifest(id_, manifest("child", ("config", "weights of base"), card="{}"), 1)
            tx.put_tag(id_, "latest", digest("child"), 1)

        def delete(tx: Transaction) -> None:
            base = tx.find_model(ModelName.parse("team/base"))
            assert base is not None
            tx.delete_tag(base.repository.id, "latest")
            tx.drop_untagged(base.repository.id, base.digest)
            tx.free([weights, digest("config of base")], 1)

        def drop_child(tx: Transaction) -> None:
            id_ = tx.put_repository(RepositoryName("team/child")).id
            assert tx.delete_manifest(id_, digest("child"))

        for order in ((create, delete), (delete, create)):
            await catalog.write(lambda tx: put_model(tx, "team/base", "latest", "base"))
            outcome = (await _all(catalog, order))[order.index(create)]
            child = await catalog.read(lambda tx: tx.find_model(ModelName.parse("team/child")))
            kept = await catalog.read(lambda tx: tx.blob(weights))
            if order[0] is create:
                assert outcome is None
                assert child is not None
                assert kept is not None
                await catalog.write(drop_child)
            else:
                assert isinstance(outcome, BlobUnknown)
                assert child is None
                assert kept is None

    async def test_free_and_put_manifest_never_cross(self, catalog: Catalog) -> None:
        async def one(number: int) -> None:
            word = f"w{number}"

            def prepare(tx: Transaction) -> int:
                id_ = push(tx, f"team/m{number}").id
                put_blob(tx, word)
                tx.link_blob(id_, digest(word), 5)
                return id_

            id_ = await catalog.write(prepare)

            def put(tx: Transaction) -> None:
                tx.put_manifest(id_, manifest(f"m{number}", (word,)), 1)

            def free(tx: Transaction) -> None:
                tx.free([digest(word)], 5)

            order = (put, free) if number % 2 else (free, put)
            outcomes = await _all(catalog, order)
            failed = isinstance(outcomes[order.index(put)], ManifestBlobUnknown)
            known = await catalog.read(lambda tx: tx.blob(digest(word)))
            held = await catalog.read(lambda tx: tx.manifest(digest(f"m{number}")))
            assert (known is None, held is None) == (failed, failed)

        await asyncio.gather(*(one(number) for number in range(40)))

    async def test_a_tag_is_not_put_on_a_manifest_that_was_just_deleted(
        self, catalog: Catalog
    ) -> None:
        tag = await catalog.write(lambda tx: put_model(tx, "team/m", "latest"))
        id_ = tag.repository.id

        def delete(tx: Transaction) -> None:
            tx.delete_manifest(id_, tag.digest)

        def retag(tx: Transaction) -> None:
            tx.put_tag(id_, "again", tag.digest, 2)

        outcomes = await _all(catalog, (delete, retag))
        assert isinstance(outcomes[1], ManifestUnknown)
        assert await catalog.read(lambda tx: tx.tags(id_, "", 9)) == []
        assert await catalog.read(lambda tx: tx.repository(RepositoryName("team/m"))) is not None


class CatalogContract(
    TransactionsContract,
    RacesContract,
    NamesContract,
    ManifestsContract,
    BlobsContract,
    TransfersContract,
    FleetContract,
    JobsContract,
    AccountsContract,
    UpkeepContract,
    StorageContract,
    QuotasContract,
):
    """All of it."""


async def _write(catalog: Catalog, work):  # type: ignore[no-untyped-def]
    return await catalog.write(work)


async def _all(catalog: Catalog, works: Sequence) -> list:  # type: ignore[type-arg]
    return await asyncio.gather(*(catalog.write(work) for work in works), return_exceptions=True)
