"""What every catalog does with upload sessions, fetches and secrets."""

from dataclasses import replace

from registry.ports.catalog import Catalog, Transaction
from registry.ports.transfers import Fetch, Part, Upload
from tests.support.catalog_rows import digest, push


def session(tx: Transaction, name: str, expires_at: int = 9) -> Upload:
    repository = push(tx, "team/m")
    upload = Upload(name, repository.id, "", created_at=1, expires_at=expires_at)
    tx.put_upload(upload)
    return upload


class TransfersContract:
    async def test_an_upload_session_comes_back_as_it_was_put(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> Upload:
            full = Upload(
                id="u",
                repository_id=push(tx, "team/m").id,
                storage_key="k",
                created_at=1,
                expires_at=2,
                offset=1 << 40,
                last_first=4,
                last_length=5,
                last_sha256="ab",
                declared_digest="sha256:cd",
                state="done",
                result="sha256:ef",
                subject="ann",
                part_size=100_000_000,
                verifier="me",
                verifier_beats=6,
                reserved=7,
            )
            tx.put_upload(replace(full, offset=0, state="open"))
            tx.put_upload(full)
            return full

        full = await catalog.write(work)
        assert await catalog.read(lambda tx: tx.upload("u")) == full
        await catalog.write(lambda tx: tx.delete_upload("u"))
        assert await catalog.read(lambda tx: tx.upload("u")) is None

    async def test_only_the_first_of_two_equal_chunks_advances_a_session(
        self, catalog: Catalog
    ) -> None:
        first = await catalog.write(lambda tx: session(tx, "u"))
        after = replace(first, offset=7, storage_key="k", last_length=7)
        rival = replace(first, offset=7, storage_key="other", last_length=7)
        assert await catalog.write(lambda tx: tx.advance_upload(after, 0))
        assert not await catalog.write(lambda tx: tx.advance_upload(rival, 0))
        assert await catalog.read(lambda tx: tx.upload("u")) == after

    async def test_a_finished_or_unknown_session_does_not_advance(self, catalog: Catalog) -> None:
        first = await catalog.write(lambda tx: session(tx, "u"))
        done = replace(first, state="done", result="sha256:x")
        assert await catalog.write(lambda tx: tx.advance_upload(done, 0))
        assert not await catalog.write(lambda tx: tx.advance_upload(done, 0))
        assert not await catalog.write(lambda tx: tx.advance_upload(replace(first, id="v"), 0))

    async def test_expired_sessions_come_oldest_first(self, catalog: Catalog) -> None:
        def work(tx: Transaction) -> list[list[str]]:
            for name, expires_at in (("late", 9), ("b", 3), ("a", 2)):
                session(tx, name, expires_at)
            ids = [[found.id for found in tx.expired_uploads(now, 9)] for now in (1, 3, 9)]
            return [*ids, [found.id for found in tx.expired_uploads(9, 1)]]

        assert await catalog.write(work) == [[], ["a", "b"], ["a", "b", "late"], ["a"]]

    async def test_open_sessions_and_fetches_name_the_bytes_they_need(
        self, catalog: Catalog
    ) -> None:
        def work(tx: Transaction) -> frozenset[str]:
            opened = session(tx, "open")
            for state in ("done", "failed", "redirect", "direct"):
                tx.put_upload(replace(opened, id=state, storage_key=state, state=state))
            tx.put_fetch(Fetch(digest("w"), 25, "fetch", 1))
            return tx.incoming_keys() - {opened.storage_key}

        assert await catalog.write(work) == {"fetch", "redirect", "direct"}

    async def test_a_fetch_comes_back_with_its_parts_as_last_put(self, catalog: Catalog) -> None:
        parts = (Part(0, 10, 10, "ab"), Part(10, 20, 3), Part(20, 25, 0))
        fetch = Fetch(digest("w"), 25, "k", 1, parts)
        await catalog.write(lambda tx: tx.put_fetch(fetch))
        assert await catalog.read(lambda tx: tx.fetch(digest("w"))) == fetch
        changed = Fetch(digest("w"), 25, "k2", 2, (Part(0, 10, 10, "ab"), Part(10, 25, 4)))
        await catalog.write(lambda tx: tx.put_fetch(changed))
        assert await catalog.read(lambda tx: tx.fetch(digest("w"))) == changed
        await catalog.write(lambda tx: tx.delete_fetch(digest("w")))
        assert await catalog.read(lambda tx: tx.fetch(digest("w"))) is None
        await catalog.write(lambda tx: tx.put_fetch(replace(fetch, parts=())))
        again = await catalog.read(lambda tx: tx.fetch(digest("w")))
        assert again == replace(fetch, parts=())

    async def test_stale_fetches_come_oldest_first(self, catalog: Catalog) -> None:
        fetches = [Fetch(digest(str(at)), 1, "k", at, (Part(0, 1, 0),)) for at in (3, 1, 2)]

        def work(tx: Transaction) -> None:
            for fetch in fetches:
                tx.put_fetch(fetch)

        await catalog.write(work)
        stale = await catalog.read(lambda tx: tx.stale_fetches(3, 9))
        assert stale == [fetches[1], fetches[2]]
        assert await catalog.read(lambda tx: tx.stale_fetches(3, 1)) == stale[:1]

    async def test_the_first_secret_holds(self, catalog: Catalog) -> None:
        assert await catalog.read(lambda tx: tx.secret("s")) is None
        assert await catalog.write(lambda tx: tx.put_secret("s", b"\0one")) == b"\0one"
        assert await catalog.write(lambda tx: tx.put_secret("s", b"two")) == b"\0one"
        assert await catalog.read(lambda tx: tx.secret("s")) == b"\0one"
