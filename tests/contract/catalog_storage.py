"""Sums of bytes, quotas: that part of the contract."""

import asyncio
from dataclasses import replace

import pytest

from registry.core.errors import QuotaExceeded
from registry.core.names import RepositoryName
from registry.ports.catalog import Catalog, Reader, Transaction
from registry.ports.transfers import Fetch, Part, Upload
from registry.ports.upkeep import Quota, Shares, Tally
from tests.support.catalog_rows import FAR, digest, manifest, push, put_blob


def put(tx: Transaction, path: str, word: str, *blobs: str) -> int:
    """A repository with one manifest of these blobs, under a tag of the manifest's name."""
    repository = push(tx, path, blobs).id
    tx.put_manifest(repository, manifest(word, blobs), 1)
    tx.put_tag(repository, word, digest(word), 1)
    return repository


class StorageContract:
    async def test_unique_bytes_are_told_from_shared_ones(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            first = put(tx, "a/one", "m1", "shared", "alone")
            put(tx, "a/one", "m2", "shared", "alone")
            put(tx, "a/Two", "m3", "shared")
            put(tx, "b/three", "m4", "own")
            push(tx, "b/three", ("loose",))
            assert tx.tag_shares(first, "M1") == Shares(2, 11, 0)
            assert tx.repository_shares(first) == Shares(2, 11, 5)
            assert tx.namespace_shares("A") == Shares(2, 11, 11)
            assert tx.namespace_shares("b") == Shares(1, 3, 3)
            assert tx.namespace_shares("c") == Shares()
            assert tx.tag_shares(first, "none") == Shares()

        await catalog.write(work)

    async def test_what_another_name_keeps_is_not_unique(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            first = put(tx, "a/one", "m1", "alone")
            assert tx.tag_shares(first, "m1").unique == 5
            tx.put_tag(first, "also", digest("m1"), 1)
            assert tx.tag_shares(first, "m1").unique == 0
            assert tx.repository_shares(first).unique == 5
            put(tx, "b/copy", "m1", "alone")
            assert tx.repository_shares(first).unique == 0
            assert tx.namespace_shares("a").unique == 0

        await catalog.write(work)

    async def test_an_index_takes_what_its_manifests_take(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            repository = push(tx, "a/one", ("amd", "arm64")).id
            tx.put_manifest(repository, manifest("m1", ("amd",)), 1)
            tx.put_manifest(repository, manifest("m2", ("arm64",)), 1)
            tx.put_manifest(repository, manifest("both", children=("m1", "m2")), 1)
            tx.put_tag(repository, "x", digest("both"), 1)
            assert tx.tag_shares(repository, "x") == Shares(2, 8, 8)

        await catalog.write(work)

    async def test_namespaces_and_their_repositories_come_in_pages(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            for path in ("b/one", "A/two", "a/one", "a-b/x", "hf.co/x/y", "empty/x"):
                if path == "empty/x":
                    push(tx, path)
                else:
                    put(tx, path, "m", "w")
            assert tx.namespaces("", 10) == ["a-b", "a", "b", "hf.co/x"]
            assert tx.namespaces("", 2) == ["a-b", "a"]
            assert tx.namespaces("A", 2) == ["b", "hf.co/x"]
            assert [name.path for _, name in tx.repositories_in("a", "", 9)] == ["a/one", "A/two"]
            assert [name.path for _, name in tx.repositories_in("A", "a/ONE", 9)] == ["A/two"]

        await catalog.write(work)

    async def test_what_can_go_is_counted(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            put(tx, "a/one", "m1", "used")
            repository = push(tx, "a/one", ("linked",)).id
            put_blob(tx, "new", now=9)
            put_blob(tx, "old", now=2)
            assert tx.blob_tally() == Tally(4, 16, 1)
            assert tx.unused_tally() == Tally(3, 12, 1)
            assert tx.unreferenced_tally(5, 5) == Tally(1, 3, 2)
            assert tx.unreferenced_tally(1, 5) == Tally()
            for id_, expires_at, state in (("u", 5, "open"), ("v", 7, "open"), ("w", 1, "done")):
                tx.put_upload(Upload(id_, repository, id_, 3, expires_at, 10, state=state))
            assert tx.upload_tally() == Tally(2, 20, 3)
            assert tx.upload_tally(5) == Tally(1, 10, 3)
            tx.put_fetch(Fetch(digest("f"), 100, "key", 4, (Part(0, 50, 20), Part(50, 100, 1))))
            assert tx.fetch_tally() == tx.fetch_tally(5) == Tally(1, 21, 4)
            assert tx.fetch_tally(4) == Tally()
            tx.condemn(repository, digest("m1"), 3)
            assert tx.condemned_tally() == tx.condemned_tally(4) == Tally(1, 0, 3)
            assert tx.condemned_tally(3) == Tally()
            tx.free([digest("old")], 5)
            assert tx.freed_tally().count == 1

        await catalog.write(work)


class QuotasContract:
    async def test_a_quota_counts_each_blob_once(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            put(tx, "Team/m", "m1", "weights")
            assert tx.put_quota("team", 10) == Quota("team", 10, 7)
            put(tx, "team/n", "m2", "weights")  # the namespace has it
            put(tx, "other/n", "m3", "1234567890")
            put(tx, "team/n", "m4", "123")
            assert tx.quotas() == [Quota("team", 10, 10)]

        await catalog.write(work)

    async def test_what_does_not_fit_is_refused_whole(self, catalog: Catalog) -> None:
        def full(tx: Transaction) -> None:
            tx.put_quota("team", 10)
            put(tx, "team/m", "m1", "1234567890")

        await catalog.write(full)
        for work in (
            lambda tx: put(tx, "TEAM/n", "m2", "x"),
            lambda tx: tx.check_room(RepositoryName("team/n"), [(digest("x"), 1)]),
        ):
            with pytest.raises(QuotaExceeded, match="quota of team is 10 bytes: 10 are used"):
                await catalog.write(work)
        await catalog.read(
            lambda tx: tx.check_room(RepositoryName("team/n"), [(digest("1234567890"), 10)])
        )
        assert await catalog.read(lambda tx: tx.blob(digest("x"))) is None

    async def test_room_that_became_free_is_found(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            tx.put_quota("team", 10)
            repository = put(tx, "team/m", "m1", "1234567890")
            tx.delete_manifest(repository, digest("m1"))
            put(tx, "team/n", "m2", "123")
            assert tx.quotas() == [Quota("team", 10, 3)]

        await catalog.write(work)

    async def test_a_namespace_below_a_host_is_in_both_quotas(self, catalog: Catalog) -> None:
        def quotas(tx: Transaction) -> None:
            tx.put_quota("hf.co", 5)
            tx.put_quota("hf.co/ns", 100)

        await catalog.write(quotas)
        with pytest.raises(QuotaExceeded, match=r"of hf\.co is"):
            await catalog.write(lambda tx: put(tx, "hf.co/ns/m", "m1", "123456"))
        await catalog.write(lambda tx: put(tx, "hf.co/ns/m", "m1", "12345"))

    async def test_bytes_of_sessions_are_set_aside(self, catalog: Catalog) -> None:
        upload = Upload("u", 0, "", 1, FAR)

        def begin(tx: Transaction, id_: str) -> Upload:
            made = replace(upload, id=id_, repository_id=push(tx, "team/m").id)
            tx.put_upload(made)
            return made

        first = await catalog.write(lambda tx: begin(tx, "u"))
        assert (await catalog.write(lambda tx: tx.reserve(first, 7))).reserved == 0  # no quota
        second = await catalog.write(lambda tx: begin(tx, "v"))
        await catalog.write(lambda tx: tx.put_quota("team", 10))
        first = await catalog.write(lambda tx: tx.reserve(first, 7))
        assert first.reserved == 7
        assert await catalog.read(lambda tx: tx.upload("u")) == first
        for work in (
            lambda tx: tx.reserve(second, 4),
            lambda tx: put(tx, "team/n", "m1", "1234"),
        ):
            with pytest.raises(QuotaExceeded, match="7 are used"):
                await catalog.write(work)
        await catalog.write(lambda tx: tx.reserve(first, 10))  # its own part counts once
        await catalog.write(lambda tx: tx.delete_upload("u"))
        await catalog.write(lambda tx: tx.reserve(second, 10))

    async def test_of_many_at_once_only_those_that_fit_get_through(self, catalog: Catalog) -> None:
        await catalog.write(lambda tx: tx.put_quota("team", 30))

        async def one(number: int) -> bool:
            try:
                await catalog.write(
                    lambda tx: put(tx, f"team/m{number}", f"m{number}", f"{number:010}")
                )
            except QuotaExceeded:
                return False
            return True

        assert sum(await asyncio.gather(*(one(number) for number in range(12)))) == 3

    async def test_a_quota_can_go(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[bool]:
            tx.put_quota("Team", 1)
            return [tx.delete_quota("team"), tx.delete_quota("team")]

        assert await catalog.write(work) == [True, False]

        def quotas(tx: Reader) -> list[Quota]:
            return tx.quotas()

        assert await catalog.read(quotas) == []
