"""What every catalog does with manifests."""

import hashlib
from dataclasses import replace

import pytest

from registry.core.digest import Digest
from registry.core.errors import ManifestBlobUnknown
from registry.core.names import ModelName
from registry.ports.catalog import Catalog, Manifest, Reference, Transaction
from tests.support.catalog_rows import digest, manifest, push, put_blob, put_model


class ManifestsContract:
    async def test_a_manifest_comes_back_as_it_was_put(self, catalog: Catalog) -> None:
        whole = manifest("whole", ("c", "w", "w"), ("child",), subject="absent", card="{}")

        def work(tx: Transaction) -> None:
            id_ = push(tx, "team/m", ("c", "w")).id
            tx.put_manifest(id_, manifest("child"), 1)
            tx.put_manifest(id_, whole, 1)
            assert tx.has_manifest(id_, whole.digest)
            assert not tx.has_manifest(id_ + 1, whole.digest)

        await catalog.write(work)
        assert await catalog.read(lambda tx: tx.manifest(whole.digest)) == whole
        assert await catalog.read(lambda tx: tx.manifest(digest("none"))) is None

    async def test_a_manifest_may_hold_any_bytes(self, catalog: Catalog) -> None:
        body = bytes(range(256)) * 4000
        big = Manifest(Digest.of(body), "x", body)
        await catalog.write(lambda tx: tx.put_manifest(push(tx, "team/m").id, big, 1))
        assert await catalog.read(lambda tx: tx.manifest(big.digest)) == big

    @pytest.mark.parametrize("missing", ["blob", "child", "elsewhere", "unlinked"])
    async def test_all_that_it_refers_to_must_be_in_the_repository(
        self, catalog: Catalog, missing: str
    ) -> None:
        def prepare(tx: Transaction) -> int:
            push(tx, "team/other", ("elsewhere",))
            put_blob(tx, "unlinked")
            tx.put_manifest(push(tx, "team/another").id, manifest("child"), 1)
            return push(tx, "team/m", ("here",)).id

        id_ = await catalog.write(prepare)
        children = ("child",) if missing == "child" else ()
        blobs = ("here",) if children else ("here", missing)
        with pytest.raises(ManifestBlobUnknown) as caught:
            await catalog.write(lambda tx: tx.put_manifest(id_, manifest("m", blobs, children), 1))
        assert caught.value.digest == str(digest(missing))
        assert await catalog.read(lambda tx: tx.manifest(digest("m"))) is None
        assert not await catalog.read(lambda tx: tx.blob_in_use(id_, digest("here")))

    async def test_with_links_it_takes_the_blobs_of_others_and_none_that_is_nowhere(
        self, catalog: Catalog
    ) -> None:
        def prepare(tx: Transaction) -> int:
            push(tx, "team/other", ("elsewhere",))
            put_blob(tx, "unlinked")
            return push(tx, "team/m", ("here",)).id

        id_ = await catalog.write(prepare)
        words = ("here", "elsewhere", "unlinked")
        with pytest.raises(ManifestBlobUnknown) as caught:
            row = manifest("m", (*words, "nowhere"))
            await catalog.write(lambda tx: tx.put_manifest(id_, row, 1, links=True))
        assert caught.value.digest == str(digest("nowhere"))

        def work(tx: Transaction) -> None:
            for name in ("one", "two", "two"):
                tx.put_manifest(id_, manifest(name, words), 1, links=True)
            assert all(tx.blob_in_use(id_, digest(word)) for word in words)
            tx.delete_manifest(id_, digest("one"))
            assert tx.free([digest(word) for word in words], 1 << 62) == []
            tx.delete_manifest(id_, digest("two"))
            assert not any(tx.blob_in_use(id_, digest(word)) for word in words)
            assert len(tx.free([digest(word) for word in words], 1 << 62)) == 3

        await catalog.write(work)

    async def test_a_blob_of_another_manifest_of_the_repository_will_do(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            tag = put_model(tx, "team/m", "latest", "one")
            tx.put_manifest(tag.repository.id, manifest("two", ("weights of one",)), 2)
            assert tx.blob_in_use(tag.repository.id, digest("weights of one"))
            tx.delete_manifest(tag.repository.id, digest("one"))
            assert tx.blob_in_use(tag.repository.id, digest("weights of one"))
            assert not tx.blob_in_use(tag.repository.id, digest("config of one"))

        await catalog.write(work)

    async def test_putting_a_manifest_again_changes_nothing(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            tag = put_model(tx, "team/m", "latest")
            again = put_model(tx, "team/m", "latest")
            assert again == tag
            assert tx.delete_manifest(tag.repository.id, tag.digest)
            assert not tx.blob_in_use(tag.repository.id, digest("weights of m"))

        await catalog.write(work)

    async def test_a_card_read_anew_replaces_the_old_one_wherever_it_is_tagged(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            plain = manifest("m", ("c",))
            for path in ("team/a", "team/b"):
                id_ = push(tx, path, ("c",)).id
                tx.put_manifest(id_, plain, 1)
                tx.put_tag(id_, "latest", plain.digest, 1)
            assert tx.models() == []
            tx.put_manifest(id_, replace(plain, card="{}"), 2)
            assert tx.find_model(ModelName.parse("team/a")) is not None
            assert [model.card for model in tx.models()] == ["{}", "{}"]

        await catalog.write(work)

    async def test_a_deleted_manifest_takes_its_tags_along(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            tag = put_model(tx, "team/m", "one")
            put_model(tx, "team/m", "two")
            other = put_model(tx, "team/m", "three", "other")
            assert tx.delete_manifest(tag.repository.id, tag.digest)
            assert not tx.delete_manifest(tag.repository.id, tag.digest)
            assert tx.tags(tag.repository.id, "", 9) == ["three"]
            assert tx.manifest_tags(tag.digest) == []
            assert tx.manifest_tags(other.digest) == [other]

        await catalog.write(work)

    async def test_a_manifest_stays_while_one_repository_has_it(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            one, two = (put_model(tx, path, "latest") for path in ("team/a", "team/b"))
            assert tx.manifest_tags(one.digest) == [one, two]
            tx.delete_manifest(one.repository.id, one.digest)
            assert tx.manifest(one.digest) is not None
            assert tx.has_manifest(two.repository.id, one.digest)
            assert tx.free([digest("weights of m")], 1) == []
            tx.delete_manifest(two.repository.id, one.digest)
            assert tx.manifest(one.digest) is None

        await catalog.write(work)

    async def test_referrers_are_the_repositorys_own_and_oldest_first(
        self, catalog: Catalog
    ) -> None:
        late, early = (manifest(word, subject="s") for word in ("late", "early"))

        def work(tx: Transaction) -> None:
            id_ = push(tx, "team/m").id
            tx.put_manifest(id_, late, 9)
            tx.put_manifest(id_, early, 3)
            tx.put_manifest(push(tx, "team/o").id, manifest("foreign", subject="s"), 1)
            assert tx.referrers(id_, digest("s")) == [early, late]
            assert tx.referrers(id_, digest("t")) == []

        await catalog.write(work)

    async def test_untagged_goes_only_what_nothing_needs(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[bool]:
            id_ = push(tx, "team/m").id
            for one in (
                manifest("tagged"),
                manifest("child"),
                manifest("index", children=("child",)),
                manifest("subject"),
                manifest("signature", subject="subject"),
                manifest("lone"),
            ):
                tx.put_manifest(id_, one, 1)
            tx.put_tag(id_, "a", digest("tagged"), 1)
            words = ("tagged", "child", "signature", "lone")
            for word in words:
                tx.drop_untagged(id_, digest(word))
            tx.drop_untagged(id_, digest("unknown"))
            return [tx.has_manifest(id_, digest(word)) for word in words]

        assert await catalog.write(work) == [True, True, True, False]

    async def test_with_what_is_dropped_goes_what_only_it_held(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[bool]:
            id_ = push(tx, "team/m").id
            for one in (
                manifest("shared"),
                manifest("own"),
                manifest("index", children=("shared", "own")),
                manifest("kept", children=("shared",)),
                manifest("signature", subject="index"),
            ):
                tx.put_manifest(id_, one, 1)
            tx.put_tag(id_, "a", digest("kept"), 1)
            tx.drop_untagged(id_, digest("index"))
            words = ("index", "own", "signature", "shared", "kept")
            return [tx.has_manifest(id_, digest(word)) for word in words]

        assert await catalog.write(work) == [False, False, False, True, True]

    async def test_a_blob_may_be_referred_to_by_its_other_name(self, catalog: Catalog) -> None:
        alias = Digest("sha512", hashlib.sha512(b"w").hexdigest())
        row = replace(manifest("m"), references=(Reference(alias, "x", 1),))

        def work(tx: Transaction) -> None:
            id_ = push(tx, "team/m", ("w",)).id
            tx.alias_blob(alias, digest("w"))
            tx.put_manifest(id_, row, 1)
            assert tx.manifest(row.digest) == row
            assert tx.has_blob(id_, alias)
            assert tx.blob_in_use(id_, alias)
            assert tx.blob_in_use(id_, digest("w"))
            assert tx.blob(alias) == tx.blob(digest("w"))
            assert tx.free([alias, digest("w")], 1 << 62) == []
            tx.delete_manifest(id_, row.digest)
            assert [item.digest for item in tx.free([alias], 1 << 62)] == [digest("w")]
            assert tx.blob(alias) is None

        await catalog.write(work)
