"""What every catalog does with blobs: links, leases, facts, and what may be freed when."""

import hashlib
from dataclasses import replace

import pytest

from registry.core.digest import Digest
from registry.core.errors import BlobUnknown
from registry.ports.catalog import Blob, Catalog, Freed, Transaction
from tests.support.catalog_rows import FAR, digest, manifest, push, put_blob, put_model


def freed(*words: str) -> list[Freed]:
    return [Freed(digest(word), f"key of {word}") for word in words]


class BlobsContract:
    async def test_a_blob_is_known_once_and_used_last(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            first = put_blob(tx, "w", now=5)
            assert first == Blob(digest("w"), 1, "key of w", 5, 5)
            again = tx.put_blob(digest("w"), 1, "another key", 9)
            assert again == replace(first, used_at=9)
            assert put_blob(tx, "w", now=7) == again
            assert tx.blob(digest("w")) == again
            assert tx.blob(digest("x")) is None

        await catalog.write(work)

    async def test_sizes_beyond_32_bits_and_times_fit(self, catalog: Catalog) -> None:
        size, now = 1 << 40, (1 << 63) - 1
        await catalog.write(lambda tx: tx.put_blob(digest("big"), size, "k", now))
        blob = await catalog.read(lambda tx: tx.blob(digest("big")))
        assert blob is not None
        assert (blob.size, blob.used_at) == (size, now)

    async def test_a_touch_renews_and_never_shortens(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[bool]:
            put_blob(tx, "w", now=5)
            answers = [tx.touch_blob(digest("w"), 8), tx.touch_blob(digest("w"), 6)]
            blob = tx.blob(digest("w"))
            assert blob is not None
            assert blob.used_at == 8
            return [*answers, tx.touch_blob(digest("x"), 1)]

        assert await catalog.write(work) == [True, True, False]

    async def test_a_second_name_needs_a_blob(self, catalog: Catalog) -> None:
        alias = Digest("sha512", hashlib.sha512(b"w").hexdigest())
        for work in (
            lambda tx: tx.alias_blob(alias, digest("w")),
            lambda tx: tx.link_blob(push(tx, "team/m").id, digest("w"), 1),
            lambda tx: tx.put_facts(digest("w"), "text", b""),
        ):
            with pytest.raises(BlobUnknown):
                await catalog.write(work)

    async def test_a_link_lets_one_repository_have_the_blob(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            id_, other = push(tx, "team/m", ("w",)).id, push(tx, "team/o").id
            assert tx.has_blob(id_, digest("w"))
            assert not tx.has_blob(other, digest("w"))
            assert not tx.blob_in_use(id_, digest("w"))
            tx.link_blob(id_, digest("w"), FAR + 1)
            assert tx.kept_until(id_, digest("w")) == FAR + 1
            assert tx.kept_until(other, digest("w")) is None
            assert tx.unlink_blob(id_, digest("w"))
            assert not tx.unlink_blob(id_, digest("w"))
            assert not tx.has_blob(id_, digest("w"))

        await catalog.write(work)

    async def test_a_blob_in_use_stays_the_repositorys_when_unlinked(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            id_ = put_model(tx, "team/m", "latest").repository.id
            weights = digest("weights of m")
            assert tx.unlink_blob(id_, weights)
            assert tx.has_blob(id_, weights)
            assert tx.kept_until(id_, weights) == 0
            assert tx.blob_in_use(id_, weights)

        await catalog.write(work)

    async def test_facts_live_with_their_blob(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            put_blob(tx, "w")
            assert tx.facts(digest("w"), "text") is None
            assert not tx.has_facts(digest("w"), "text")
            tx.put_facts(digest("w"), "text", b"one")
            assert tx.has_facts(digest("w"), "text")
            tx.put_facts(digest("w"), "text", b"\0two")
            assert tx.facts(digest("w"), "text") == b"\0two"
            assert tx.facts(digest("w"), "header") is None
            assert not tx.has_facts(digest("w"), "header")
            tx.put_facts(digest("w"), "header", b"three")
            assert tx.facts(digest("w"), "text") == b"\0two"
            assert tx.facts(digest("w"), "header") == b"three"
            tx.free([digest("w")], 1)
            put_blob(tx, "w")
            assert tx.facts(digest("w"), "text") is None
            assert tx.facts(digest("w"), "header") is None

        await catalog.write(work)

    @pytest.mark.parametrize("holder", ["manifest", "link", "lease"])
    async def test_what_is_held_is_not_freed(self, catalog: Catalog, holder: str) -> None:
        def hold(tx: Transaction) -> None:
            id_ = tx.put_repository(push(tx, "team/m").name).id
            put_blob(tx, "w")
            tx.link_blob(id_, digest("w"), 20 if holder == "link" else 0)
            if holder == "manifest":
                tx.put_manifest(id_, manifest("m", ("w",)), 1)
            if holder == "lease":
                assert tx.lease([digest("w")], "somebody", 20) == []

        await catalog.write(hold)
        assert await catalog.write(lambda tx: tx.free([digest("w")], 19)) == []
        assert await catalog.scan(lambda tx: tx.unreferenced(2, 19, 9)) == []
        later = await catalog.scan(lambda tx: tx.unreferenced(2, 20, 9))
        gone = await catalog.write(lambda tx: tx.free([digest("w")], 20))
        expected = freed() if holder == "manifest" else freed("w")
        assert gone == expected
        assert [blob.digest for blob in later] == [item.digest for item in expected]

    async def test_a_manifest_spends_the_links_it_was_made_of(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[Freed]:
            tag = put_model(tx, "team/m", "latest")  # linked until FAR
            tx.delete_manifest(tag.repository.id, tag.digest)
            return tx.free([digest("config of m"), digest("weights of m")], 1)

        assert await catalog.write(work) == freed("config of m", "weights of m")

    async def test_a_link_is_prolonged_and_never_shortened(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[list[Freed]]:
            id_ = push(tx, "team/m").id
            put_blob(tx, "w")
            for until in (10, 30, 0):
                tx.link_blob(id_, digest("w"), until)
            return [tx.free([digest("w")], now) for now in (29, 30)]

        assert await catalog.write(work) == [[], freed("w")]

    async def test_leases_are_the_holders_own(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            put_blob(tx, "w")
            put_blob(tx, "v")
            asked = [digest("w"), digest("x"), digest("v")]
            assert tx.lease(asked, "one", FAR) == [digest("x")]
            assert tx.lease([digest("w")], "two", FAR) == []
            tx.release("one")
            assert tx.free([digest("w"), digest("v")], 1) == freed("v")
            tx.release("nobody")
            tx.release("two")
            assert tx.free([digest("w")], 1) == freed("w")

        await catalog.write(work)

    async def test_freed_bytes_are_remembered_until_they_are_deleted(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            for word in ("a", "b", "c"):
                put_blob(tx, word)
            tx.free([digest(word) for word in ("a", "b", "unknown")], 1)

        await catalog.write(work)
        waiting = await catalog.read(lambda tx: tx.freed(9))
        assert sorted(waiting, key=lambda item: item.storage_key) == freed("a", "b")
        assert await catalog.read(lambda tx: tx.freed(1)) == waiting[:1]
        assert await catalog.read(lambda tx: tx.blob(digest("a"))) is None
        await catalog.write(lambda tx: tx.forget_freed(freed("a")))
        assert await catalog.read(lambda tx: tx.freed(9)) == freed("b")

    async def test_a_freed_digest_that_comes_back_is_not_deleted(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[Freed]:
            put_blob(tx, "same key")
            tx.put_blob(digest("new key"), 1, "old", 1)
            tx.free([digest("same key"), digest("new key")], 1)
            put_blob(tx, "same key")
            tx.put_blob(digest("new key"), 1, "new", 1)
            return tx.freed(9)

        assert await catalog.write(work) == [Freed(digest("new key"), "old")]

    async def test_bytes_that_are_here_under_another_key_are_freed(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[Freed]:
            first = tx.put_blob(digest("twice"), 1, "first", 1)
            assert tx.put_blob(digest("twice"), 1, "second", 2).storage_key == first.storage_key
            return tx.freed(9)

        assert await catalog.write(work) == [Freed(digest("twice"), "second")]

    async def test_unreferenced_blobs_come_oldest_use_first(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            for word, now in (("new", 9), ("b", 3), ("a", 2), ("c", 4)):
                put_blob(tx, word, now)
            put_model(tx, "team/m", "latest", "m", now=1)

        await catalog.write(work)
        found = await catalog.scan(lambda tx: tx.unreferenced(9, 1, 9))
        assert [blob.storage_key for blob in found] == ["key of a", "key of b", "key of c"]
        assert await catalog.scan(lambda tx: tx.unreferenced(9, 1, 2)) == found[:2]

    async def test_what_ran_out_expires(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            id_ = put_model(tx, "team/m", "latest").repository.id
            other = push(tx, "team/o").id
            for word, until in (("x", 5), ("y", 6), ("z", 7)):
                put_blob(tx, word)
                tx.link_blob(other, digest(word), until)
            tx.lease([digest("x"), digest("y")], "short", 6)
            tx.lease([digest("x")], "long", 7)
            assert tx.expire(4, 9) == 0
            assert tx.expire(6, 1) == 2
            assert tx.expire(6, 9) == 2
            assert [tx.has_blob(other, digest(word)) for word in "xyz"] == [False, False, True]
            assert tx.has_blob(id_, digest("weights of m"))
            assert tx.free([digest("x"), digest("y")], 6) == freed("y")

        await catalog.write(work)

    async def test_blobs_are_paged_by_digest(self, catalog: Catalog) -> None:
        words = ("a", "b", "c")
        await catalog.write(lambda tx: [put_blob(tx, word) for word in words])
        expected = sorted(digest(word) for word in words)
        found = await catalog.scan(lambda tx: tx.blobs_after("", 2))
        assert [blob.digest for blob in found] == expected[:2]
        rest = await catalog.scan(lambda tx: tx.blobs_after(str(expected[1]), 2))
        assert [blob.digest for blob in rest] == expected[2:]

    async def test_contents_are_kept_in_order_until_the_store_has_them(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            for word in ("a", "b", "c"):
                tx.put_content(put_blob(tx, word), word.encode())

        await catalog.write(work)
        rows = await catalog.read(lambda tx: tx.unwritten(10))
        assert [(row.storage_key, row.content) for row in rows] == [
            ("key of a", b"a"),
            ("key of b", b"b"),
            ("key of c", b"c"),
        ]
        assert await catalog.read(lambda tx: tx.unwritten(1, rows[0].id)) == rows[1:2]
        assert await catalog.read(lambda tx: tx.content(digest("b"))) == b"b"
        await catalog.write(lambda tx: tx.forget_contents(rows[1].id))
        assert await catalog.read(lambda tx: tx.unwritten(10)) == rows[2:]
        assert await catalog.read(lambda tx: tx.content(digest("b"))) is None

    async def test_a_content_that_comes_again_is_not_forgotten_with_the_first(
        self, catalog: Catalog
    ) -> None:
        def come(tx: Transaction) -> None:
            tx.put_content(put_blob(tx, "a"), b"a")

        await catalog.write(come)
        (seen,) = await catalog.read(lambda tx: tx.unwritten(10))
        await catalog.write(lambda tx: tx.free([digest("a")], FAR))
        assert await catalog.read(lambda tx: tx.unwritten(10)) == []
        await catalog.write(come)
        await catalog.write(lambda tx: tx.forget_contents(seen.id))
        (left,) = await catalog.read(lambda tx: tx.unwritten(10))
        assert left.id > seen.id
