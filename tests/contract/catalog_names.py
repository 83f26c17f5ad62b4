"""What every catalog does with names: repositories, tags, models, spellings, the models folder."""

import pytest

from registry.adapters import catalog_models
from registry.core.digest import Digest
from registry.core.errors import ManifestUnknown, RepositoryUnknown
from registry.core.names import ModelName, RepositoryName, short_name
from registry.core.records import RecordName
from registry.ports.catalog import Catalog, Model, ModelChange, Reader, Transaction
from tests.support.catalog_rows import digest, manifest, push, put_model


def named(*models: str) -> list[ModelName]:
    return [ModelName.parse(model) for model in models]


class NamesContract:
    async def test_a_repository_is_found_in_any_case_and_keeps_its_first_spelling(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            first = put_model(tx, "team/Llama", "latest").repository
            assert tx.put_repository(RepositoryName("Team/llama")) == first
            assert tx.repository(RepositoryName("TEAM/LLAMA")) == first
            assert tx.repository(RepositoryName("team/other")) is None

        await catalog.write(work)

    async def test_an_emptied_repository_takes_the_next_spelling_and_keeps_its_id(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            tag = put_model(tx, "team/Llama", "latest")
            tx.delete_manifest(tag.repository.id, tag.digest)
            again = tx.put_repository(RepositoryName("team/llama"))
            assert again.id == tag.repository.id
            assert again.name.path == "team/llama"
            assert tx.repository(RepositoryName("team/LLAMA")) == again

        await catalog.write(work)

    async def test_repositories_are_paged_by_key_and_empty_ones_left_out(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            for path in ("b/x", "B/a", "a/z", "c/1"):
                put_model(tx, path, "latest")
            push(tx, "b/empty")

        await catalog.write(work)

        def pages(tx: Reader) -> list[list[str]]:
            first = tx.repositories("", 2)
            rest = tx.repositories(first[-1].key, 5)
            return [[name.path for name in first], [name.path for name in rest]]

        assert await catalog.read(pages) == [["a/z", "B/a"], ["b/x", "c/1"]]

    async def test_a_tag_moves_and_keeps_its_first_spelling(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            put_model(tx, "team/m", "Latest", "one", now=1)
            moved = put_model(tx, "team/m", "latest", "two", now=2)
            assert (moved.name, moved.digest, moved.updated_at) == ("Latest", digest("two"), 2)
            assert tx.tag(moved.repository.id, "LATEST") == moved
            assert tx.tags(moved.repository.id, "", 10) == ["Latest"]

        await catalog.write(work)

    async def test_tags_are_paged_in_byte_order_of_their_spelling(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            for tag in ("b", "B1", "a", "_c", "A"):
                put_model(tx, "team/m", tag)
            id_ = put_model(tx, "team/m", "Z").repository.id
            assert tx.tags(id_, "", 10) == ["B1", "Z", "_c", "a", "b"]
            assert tx.tags(id_, "B1", 2) == ["Z", "_c"]
            assert tx.tags(id_ + 1, "", 10) == []

        await catalog.write(work)

    async def test_a_tag_needs_a_manifest_of_its_repository(self, catalog: Catalog) -> None:
        id_ = (await catalog.write(lambda tx: push(tx, "team/m"))).id
        await catalog.write(lambda tx: put_model(tx, "team/other", "latest", "elsewhere"))
        with pytest.raises(ManifestUnknown):
            await catalog.write(lambda tx: tx.put_tag(id_, "latest", digest("elsewhere"), 1))
        with pytest.raises(RepositoryUnknown):
            await catalog.write(lambda tx: tx.put_tag(999, "latest", digest("elsewhere"), 1))

    async def test_a_deleted_tag_says_where_it_pointed(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            tag = put_model(tx, "team/m", "Latest")
            assert tx.delete_tag(tag.repository.id, "LATEST") == tag.digest
            assert tx.delete_tag(tag.repository.id, "latest") is None
            assert tx.tag(tag.repository.id, "latest") is None
            assert tx.has_manifest(tag.repository.id, tag.digest)

        await catalog.write(work)

    async def test_a_model_is_found_by_any_spelling_of_its_name(self, catalog: Catalog) -> None:
        tag = await catalog.write(lambda tx: put_model(tx, "hf.co/Team/M", "Q4"))
        assert tag.model == ModelName("hf.co", "Team", "M", "Q4")
        for text in ("hf.co/Team/M:Q4", "HF.CO/team/m:q4"):
            assert await catalog.read(lambda tx, n=text: tx.find_model(ModelName.parse(n))) == tag  # type: ignore[misc]
        for text in ("Team/M:Q4", "hf.co/Team/M", "nope", "a/b/c/d/e", ""):
            assert not await catalog.read(lambda tx, n=text: tx.find_model(ModelName.parse(n)))  # type: ignore[misc]

    async def test_what_is_no_model_is_a_tag_only(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            id_ = push(tx, "team/artifact").id
            tx.put_manifest(id_, manifest("plain"), 1)
            tx.put_tag(id_, "latest", digest("plain"), 1)
            put_model(tx, "team/dotted.ns/m", "latest")  # a namespace that Ollama cannot say
            put_model(tx, "team/m", "x" * 81)  # a tag too long for it
            assert tx.tag(id_, "latest") is not None
            assert tx.find_model(ModelName.parse("team/artifact")) is None
            assert tx.models() == []
            files = [item for item in tx.folder_changes(20) if isinstance(item.name, ModelName)]
            assert files
            assert all(change.body is None for change in files)

        await catalog.write(work)

    async def test_models_come_newest_first_and_then_by_name(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            put_model(tx, "team/old", "latest", "m1", now=1)
            put_model(tx, "team/b", "latest", "m2", now=5)
            put_model(tx, "team/A", "v2", "m3", now=5)
            put_model(tx, "team/a", "V1", "m3", now=5)

        await catalog.write(work)
        models = await catalog.scan(lambda tx: tx.models())
        names = [model.tag.model.short for model in models]
        assert names == ["team/A:V1", "team/A:v2", "team/b:latest", "team/old:latest"]
        assert [model.card for model in models][-1] == '{"of":"m1"}'

    async def test_each_model_is_handed_over_with_what_a_list_needs(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            put_model(tx, "team/old", "latest", "m1", now=1)
            put_model(tx, "team/A", "V2", "m3", now=5)
            put_model(tx, "team/dotted.ns/m", "latest")  # no model

        await catalog.write(work)
        rows = await catalog.scan(lambda tx: tx.each_model(lambda *row: row))
        assert sorted(rows) == [
            ("team/A", "V2", 5, '{"of":"m3"}'),
            ("team/old", "latest", 1, '{"of":"m1"}'),
        ]

    @pytest.mark.parametrize("page", [1, 2, 3, 4_000])
    async def test_models_are_handed_over_by_second_and_name_in_pages(
        self, catalog: Catalog, page: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        second = 10**9
        made = [("library/b", "1", 7 * second + 5), ("team/b", "1", 7 * second)]
        made += [("library/B", tag, 7 * second + 9) for tag in ("x", "y", "Z")]
        made += [(f"hf.co/library/m{n}", "q", n % 3 * second + n) for n in range(8)]
        made += [("a-b/c", "1", 0), ("a/c", "1", 2), ("library/a", "1", 1), ("c", "1", 3)]
        made += [("library/later", "1", 9 * second), ("libraryx/m", "1", 7 * second)]

        def put(tx: Transaction) -> None:
            for path, tag, now in made:
                put_model(tx, RepositoryName.parse(path).path, tag, "m1", now=now)
            put_model(tx, "team/dotted.ns/m", "latest")  # no model

        await catalog.write(put)
        handed: list[tuple[str, str, int, str]] = []
        monkeypatch.setattr(catalog_models, "_PAGE_ROWS", page)
        await catalog.scan(lambda tx: tx.hand_models(lambda *row: handed.append(row)))
        each = await catalog.scan(lambda tx: tx.each_model(lambda *row: row))
        assert handed == sorted(each, key=lambda row: (-(row[2] // second), short_name(*row[:2])))
        assert len(handed) == len(made)
        counts = [await catalog.read(lambda tx, n=most: tx.count_models(n)) for most in (3, 99)]  # type: ignore[misc]
        assert counts == [3, len(made)]

    async def test_a_list_that_fails_halfway_leaves_no_snapshot_open(
        self, catalog: Catalog
    ) -> None:
        def fail(*_: object) -> None:
            raise KeyError("halfway")

        def put(tx: Transaction) -> None:
            put_model(tx, "team/one", "latest", "m1")
            put_model(tx, "team/two", "latest", "m2")

        await catalog.write(put)
        with pytest.raises(KeyError):
            await catalog.read(lambda tx: tx.each_model(fail))
        await catalog.write(lambda tx: put_model(tx, "team/three", "latest", "m3"))
        assert len(await catalog.read(lambda tx: tx.each_model(lambda *row: row))) == 3

    async def test_changes_of_models_are_told_once_each_as_they_are_now(
        self, catalog: Catalog
    ) -> None:
        assert await catalog.read(lambda tx: tx.last_change()) == 0

        def work(tx: Transaction) -> tuple[int, Model]:
            put_model(tx, "team/stays", "latest", "m0")
            before = tx.last_change()
            gone = put_model(tx, "team/gone", "latest", "m1")
            put_model(tx, "team/moved", "latest", "m1")
            put_model(tx, "team/moved", "latest", "m2", now=2)
            tx.delete_tag(gone.repository.id, "latest")
            moved = next(model for model in tx.models() if "moved" in model.tag.model.short)
            return before, moved

        before, moved = await catalog.write(work)
        gone_name, moved_name = named("team/gone", "team/moved")
        changes = await catalog.read(lambda tx: tx.model_changes(before))
        assert changes == [ModelChange(moved_name, moved), ModelChange(gone_name, None)]
        last = await catalog.read(lambda tx: tx.last_change())
        assert last > before
        assert await catalog.read(lambda tx: tx.model_changes(last)) == []

    async def test_a_model_spelt_anew_is_told_as_gone_and_come(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[ModelChange]:
            old = put_model(tx, "team/M", "latest")
            tx.delete_manifest(old.repository.id, old.digest)
            put_model(tx, "team/m", "latest")
            return tx.model_changes(0)

        gone, come = await catalog.write(work)
        assert (gone.name.short, gone.model) == ("team/M:latest", None)
        assert come.model is not None
        assert come.name == come.model.tag.model == ModelName.parse("team/m")

    async def test_each_part_of_a_name_takes_its_first_living_spelling(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> list[str]:
            def spelt(text: str) -> str:
                return str(tx.known_spelling(ModelName.parse(text)))

            first = put_model(tx, "Team/Foo", "Q4", "m1", now=1)
            put_model(tx, "other/FOO", "q4", "m2", now=2)
            answers = [spelt("x/foo:Q4"), spelt("TEAM/new"), spelt("foo")]
            tx.delete_tag(first.repository.id, "q4")
            return [*answers, spelt("x/foo:Q4"), spelt("team/foo")]

        host = "registry.ollama.ai"
        assert await catalog.write(work) == [
            f"{host}/x/Foo:Q4",
            f"{host}/Team/new:latest",
            f"{host}/library/Foo:latest",
            f"{host}/x/FOO:q4",
            f"{host}/team/FOO:latest",
        ]

    async def test_a_spelling_lives_as_long_as_one_tag_bears_it(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[str]:
            name = ModelName.parse("TEAM/foo")
            first = put_model(tx, "Team/a", "latest")
            put_model(tx, "Team/b", "latest")
            put_model(tx, "Team/b", "latest", "moved")  # not one more use
            answers = [tx.known_spelling(name).namespace]
            tx.delete_tag(first.repository.id, "latest")
            answers.append(tx.known_spelling(name).namespace)
            tx.delete_manifest(tx.put_repository(RepositoryName("team/b")).id, digest("moved"))
            return [*answers, tx.known_spelling(name).namespace]

        assert await catalog.write(work) == ["Team", "Team", "TEAM"]

    async def test_the_models_folder_is_told_the_last_change_of_each_name(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            put_model(tx, "team/a", "latest", "one")
            put_model(tx, "team/b", "latest", "one")
            put_model(tx, "team/a", "latest", "two")
            gone = put_model(tx, "team/c", "latest", "three")
            tx.delete_manifest(gone.repository.id, gone.digest)

        await catalog.write(work)
        changes = await catalog.read(lambda tx: tx.folder_changes(10))
        files = [item for item in changes if isinstance(item.name, ModelName)]
        assert [(change.name.short, change.body) for change in files] == [
            ("team/b:latest", b"one"),
            ("team/a:latest", b"two"),
            ("team/c:latest", None),
        ]
        assert await catalog.read(lambda tx: tx.folder_changes(1)) == changes[:1]
        assert await catalog.read(lambda tx: tx.folder_changes(1, changes[0].id)) == changes[1:2]
        await catalog.write(lambda tx: tx.forget_folder_changes(changes[1].id))
        assert await catalog.read(lambda tx: tx.folder_changes(10)) == changes[2:]

    async def test_a_change_made_while_the_folder_is_written_is_not_forgotten(
        self, catalog: Catalog
    ) -> None:
        await catalog.write(lambda tx: put_model(tx, "team/a", "latest", "one"))
        (seen,) = await catalog.read(lambda tx: tx.folder_changes(10))
        await catalog.write(lambda tx: put_model(tx, "team/a", "latest", "two"))
        await catalog.write(lambda tx: tx.forget_folder_changes(seen.id))
        left, _ = await catalog.read(lambda tx: tx.folder_changes(10))
        assert left.body == b"two"

    async def test_a_model_replaced_by_something_else_leaves_the_folder(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            tag = put_model(tx, "team/a", "latest")
            tx.put_manifest(tag.repository.id, manifest("plain"), 2)
            tx.put_tag(tag.repository.id, "latest", digest("plain"), 2)
            assert tx.find_model(tag.model) is None
            (change,) = [x for x in tx.folder_changes(10) if isinstance(x.name, ModelName)]
            assert change.body is None

        await catalog.write(work)

    async def test_records_are_of_what_the_models_folder_has_no_file_for(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> None:
            put_model(tx, "team/a", "latest", "model")
            id_ = push(tx, "Team/X").id
            tx.put_manifest(id_, manifest("plain"), 1)
            tx.put_tag(id_, "V1", digest("plain"), 1)
            tx.put_manifest(id_, manifest("untagged"), 1)
            tx.record(id_, str(digest("untagged")))
            tx.record(id_ + 1, "nothing")

        await catalog.write(work)
        seen = await catalog.read(_records)
        assert seen == {
            "Team/X:V1": digest("plain"),
            f"Team/X@{digest('plain')}": digest("plain"),
            f"Team/X@{digest('untagged')}": digest("untagged"),
        }
        changes = await catalog.read(lambda tx: tx.folder_changes(20))
        await catalog.write(lambda tx: tx.forget_folder_changes(changes[-1].id))
        assert await catalog.read(_records) == {}
        await catalog.write(lambda tx: tx.record_all())
        again = await catalog.read(_records)
        assert again.items() >= seen.items()
        assert f"team/a@{digest('model')}" not in again

    async def test_a_record_goes_with_its_tag_and_its_manifest(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> None:
            id_ = push(tx, "team/x").id
            tx.put_manifest(id_, manifest("plain"), 1)
            tx.put_tag(id_, "v1", digest("plain"), 1)
            tx.forget_folder_changes(tx.folder_changes(20)[-1].id)
            tx.delete_manifest(id_, digest("plain"))
            names = {str(x.name): x.body for x in tx.folder_changes(20)}
            assert names == {
                "registry.ollama.ai/team/x:v1": None,
                "team/x:v1": None,
                f"team/x@{digest('plain')}": None,
            }
            name = RecordName(RepositoryName("TEAM/x"), "V1")
            assert tx.is_folder_change_due(name)
            assert not tx.is_folder_change_due(RecordName(RepositoryName("team/y"), "v1"))

        await catalog.write(work)


def _records(tx: Reader) -> dict[str, Digest]:
    """The records that are to be written: their names, and the manifests that they are about."""
    names = [item.name for item in tx.folder_changes(20) if isinstance(item.name, RecordName)]
    records = [tx.recorded(name) for name in names]
    return {record.name.short: record.manifest for record in records if record is not None}
