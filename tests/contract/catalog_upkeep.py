"""History, what waits to go, soundness, retention rules: that part of the contract."""

from registry.core.names import RepositoryName
from registry.core.retention import RetentionRule
from registry.ports.catalog import Catalog, Freed, Transaction
from registry.ports.upkeep import Tally
from tests.support.catalog_rows import FAR, digest, manifest, push, put_blob, put_model


class UpkeepContract:
    async def test_history_tells_who_moved_a_tag_from_where_to_where(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            first = put_model(tx, "team/m", "Latest", "one", now=1)
            repository = first.repository.id
            put_model(tx, "team/m", "latest", "two", now=2)
            tx.put_tag(repository, "latest", digest("one"), 3, "ann")
            tx.put_tag(repository, "latest", digest("one"), 4, "nothing changed")
            tx.delete_tag(repository, "latest", "bob")
            put_model(tx, "team/m", "other", "two", now=5)
            tx.delete_manifest(repository, digest("two"))
            found = tx.history(repository, "LATEST", FAR, 10)
            assert [(e.who, e.old, e.new, e.kept) for e in found] == [
                ("bob", digest("one"), None, True),
                ("ann", digest("two"), digest("one"), True),
                ("", digest("one"), digest("two"), False),
                ("", None, digest("one"), True),
            ]
            assert [e.id for e in tx.history(repository, "latest", found[0].id, 2)] == [
                e.id for e in found[1:3]
            ]
            assert len(tx.history(repository, "", FAR, 10)) == 6

        await catalog.write(work)

    async def test_a_condemned_manifest_waits_until_it_is_spared_or_deleted(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            repository = put_model(tx, "team/m", "latest", "one").repository.id
            put_model(tx, "team/m", "latest", "two")
            put_model(tx, "team/m", "latest", "three")
            for at, word in enumerate(("one", "two", "three")):
                tx.condemn(repository, digest(word), at)
            tx.condemn(repository, digest("one"), 5)
            assert [(c.digest, c.at) for c in tx.condemned(FAR, 10)] == [
                (digest("two"), 1),
                (digest("three"), 2),
                (digest("one"), 5),
            ]
            assert [c.digest for c in tx.condemned(2, 10)] == [digest("two")]
            tx.spare(repository, digest("one"))
            tx.delete_manifest(repository, digest("two"))
            assert [c.digest for c in tx.condemned(FAR, 10)] == [digest("three")]

        await catalog.write(work)

    async def test_a_manifest_that_is_put_again_is_condemned_no_longer(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            repository = put_model(tx, "team/m", "latest", "one").repository.id
            tx.condemn(repository, digest("one"), 1)
            put_model(tx, "team/m", "latest", "one")
            assert tx.condemned(FAR, 10) == []

        await catalog.write(work)

    async def test_manifests_without_a_tag_are_found(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            repository = put_model(tx, "team/m", "latest", "one", now=1).repository.id
            put_model(tx, "team/m", "latest", "two", now=2)
            push(tx, "team/m", ("w",))
            for made in (
                manifest("child", ("w",)),
                manifest("index", children=("child",)),
                manifest("signature", ("w",), subject="two"),
                manifest("lost", ("w",), subject="nowhere"),
            ):
                tx.put_manifest(repository, made, 3)
            put_model(tx, "team/other", "latest", "one", now=4)
            tx.put_tag(repository, "both", digest("index"), 3)
            found = {one for _, one in tx.untagged(FAR, 10)}
            assert found == {digest("one"), digest("lost")}
            assert tx.untagged(3, 10) == [(repository, digest("one"))]
            assert tx.untagged(2, 10) == []  # it had its tag until then
            assert tx.untagged_tally(FAR) == Tally(2, 0, 0)  # their blobs are others' too

        await catalog.write(work)

    async def test_a_suspect_blob_counts_as_absent_until_it_is_put_again(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            put_model(tx, "team/m", "latest", "one")
            word = "weights of one"
            assert not tx.suspect(digest(word), "another key", 7)
            assert tx.suspect(digest(word), f"key of {word}", 7)
            (found,) = tx.suspects("", 10)
            assert (found.digest, found.suspect_at) == (digest(word), 7)
            assert found.repositories == (RepositoryName("team/m"),)
            assert tx.suspects(str(digest(word)), 10) == []
            blob = tx.blob(digest(word))
            assert blob is not None
            assert blob.suspect
            assert tx.lease([digest(word)], "me", FAR) == [digest(word)]
            put_blob(tx, word)
            assert tx.suspects("", 10) == []
            assert tx.lease([digest(word)], "me", FAR) == []
            assert tx.freed(10) == []

        await catalog.write(work)

    async def test_sound_bytes_under_another_key_free_the_wrong_ones(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            put_model(tx, "team/m", "latest", "one")
            word = "weights of one"
            tx.suspect(digest(word), f"key of {word}", 7)
            blob = tx.put_blob(digest(word), len(word), "new key", 8)
            assert (blob.storage_key, blob.suspect) == ("new key", False)
            assert tx.blob(digest(word)) == blob
            assert tx.freed(10) == [Freed(digest(word), f"key of {word}")]

        await catalog.write(work)

    async def test_a_suspect_that_is_found_sound_is_so_again(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            put_blob(tx, "w")
            tx.suspect(digest("w"), "key of w", 7)
            assert tx.verified(digest("w"), "key of w", 8)
            assert not tx.verified(digest("w"), "another key", 8)
            assert tx.suspects("", 10) == []

        await catalog.write(work)

    async def test_retention_rules_are_kept_by_pattern(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            rules = [RetentionRule("a/*", 3, 5, ("v*", "latest")), RetentionRule("b/*", 1)]
            for rule in reversed(rules):
                tx.put_retention_rule(rule)
            assert tx.retention_rules() == rules
            tx.put_retention_rule(RetentionRule("b/*", keep_s=1))
            assert tx.retention_rules()[1] == RetentionRule("b/*", keep_s=1)
            assert tx.delete_retention_rule("b/*")
            assert not tx.delete_retention_rule("b/*")

        await catalog.write(work)

    async def test_tags_are_told_with_what_holds_them(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            repository = put_model(tx, "team/m", "a", "one", now=1).repository.id
            put_model(tx, "team/m", "b", "two", now=2)
            tx.lease([digest("weights of two")], "me", 10)
            found = {tag.name: (tag.updated_at, tag.held) for tag in tx.kept_tags(repository, 9)}
            assert found == {"a": (1, False), "b": (2, True)}
            assert not any(tag.held for tag in tx.kept_tags(repository, 10))

        await catalog.write(work)
