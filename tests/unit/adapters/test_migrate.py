"""Migrations and tables agree; up, down, several processes at once, newer schemas."""

import contextlib
import sqlite3
import stat
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import URL, create_engine, text

from registry.adapters import migrate
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.adapters.tables import metadata
from registry.core import media
from registry.core.errors import OperationFailed, Unavailable
from registry.ports.catalog import Reader, Transaction
from registry.ports.jobs import Asker, Job
from tests.support.catalog_rows import digest, manifest, push, put_model
from tests.support.postgres import PostgresServer


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "registry.db"


def schema(file: Path) -> dict[str, list[str]]:
    """The clauses of every table and index; their order in the text means nothing."""
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {
            name: sorted(" ".join(clause.split()) for clause in sql.replace(")", ",").split(","))
            for name, sql in rows
            if not name.startswith(("alembic", "sqlite"))
        }


def test_the_migrations_make_the_tables_of_the_code(file: Path) -> None:
    migrate.upgrade(resolve("", file))
    engine = create_engine(resolve("", file))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_they_make_the_very_indexes_and_constraints(file: Path, tmp_path: Path) -> None:
    """The comparison above sees no partial index, no cascade and no `WITHOUT ROWID`."""
    migrate.upgrade(resolve("", file))
    direct = tmp_path / "direct.db"
    engine = create_engine(resolve("", direct))
    metadata.create_all(engine)
    engine.dispose()
    assert schema(file) == schema(direct)


def test_an_upgrade_is_repeatable_and_keeps_to_itself(file: Path) -> None:
    migrate.upgrade(resolve("", file))
    migrate.upgrade(str(resolve("", file)))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.anyio
async def test_down_and_up_again_with_data(file: Path) -> None:
    url = resolve("", file)
    for _ in range(2):
        migrate.upgrade(url)
        catalog = open_catalog("", file)
        await catalog.write(lambda tx: put_model(tx, "team/m", "latest"))
        assert len(await catalog.scan(lambda tx: tx.models())) == 1
        await catalog.close()
        migrate.upgrade(url, "base")
        assert schema(file) == {}


@pytest.mark.anyio
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_each_step_goes_down_and_up_and_tags_stay(
    file: Path, database: str, request: pytest.FixtureRequest
) -> None:
    with ExitStack() as stack:
        server = request.getfixturevalue("postgres") if database == "postgres" else None
        given = stack.enter_context(server.database()) if server else ""
        url = resolve(given, file)
        migrate.upgrade(url)
        catalog = open_catalog(given, file)
        await catalog.write(lambda tx: put_model(tx, "team/m", "latest"))
        await catalog.write(lambda tx: tx.lease([digest("w")], "holder", 1 << 60))
        await catalog.write(lambda tx: tx.put_job(Job("j", "pull", "k", "t", "m", "ann", 1)))
        await catalog.write(lambda tx: tx.put_asker(Asker("j", "holder", "process")))
        before = await catalog.scan(tags)
        await catalog.close()
        steps = migrate.standing(url).known
        for revision in reversed(steps[:-1]):
            migrate.upgrade(url, revision)
            assert migrate.standing(url).current == revision
        for revision in steps[1:]:
            migrate.upgrade(url, revision)
        catalog = open_catalog(given, file)
        assert await catalog.scan(tags) == before
        await catalog.write(lambda tx: put_model(tx, "team/n", "latest"))
        await catalog.close()


def tags(tx: Reader) -> list[tuple[str, str]]:
    return [(model.tag.model.short, str(model.tag.digest)) for model in tx.models()]


_ROWS = [
    "INSERT INTO blob (digest, size, created_at, used_at, uses, storage_key) "
    "VALUES (:digest, 1, 1, 1, 1, 'key')",
    "INSERT INTO manifest (digest, media_type, created_at, body) "
    "VALUES ('m' || CAST(:digest AS TEXT), 'x', 1, :facts)",
    "INSERT INTO manifest_reference "
    "(manifest_digest, position, target, is_blob, size, digest, media_type) "
    "VALUES ('m' || CAST(:digest AS TEXT), 0, :digest, true, 1, :digest, :type)",
    "INSERT INTO blob_facts (digest, facts) VALUES (:digest, :facts)",
]
FACTS = b'{"parameter_count":1,"file_type":"F16","values":{},"tensors":[]}'


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_what_was_kept_of_blobs_is_told_apart_by_what_it_was_read_as(
    file: Path, database: str, request: pytest.FixtureRequest
) -> None:
    with contextlib.ExitStack() as stack:
        server = request.getfixturevalue("postgres") if database == "postgres" else None
        url = resolve(stack.enter_context(server.database()) if server else "", file)
        assert told_apart(url) == {
            "weights": ("header", FACTS), "looks": ("text", FACTS), "says": ("text", b"hi"),
            "lone": ("text", FACTS),
        }  # fmt: skip


def told_apart(url: URL) -> dict[str, tuple[str, bytes]]:
    """Rows of before, as they are afterwards."""
    migrate.upgrade(url, "0008")
    engine = create_engine(url)
    kinds = {"weights": (media.MODEL, FACTS), "looks": (media.SYSTEM, FACTS),
             "says": (media.MODEL, b"hi"), "lone": ("", FACTS)}  # fmt: skip
    with engine.begin() as connection:
        for digest, (media_type, facts) in kinds.items():
            row = {"digest": digest, "type": media_type, "facts": facts}
            for line in _ROWS if media_type else _ROWS[:1] + _ROWS[-1:]:
                connection.execute(text(line), row)
    engine.dispose()
    migrate.upgrade(url)
    with engine.begin() as connection:
        found = connection.execute(text("SELECT digest, kind, facts FROM blob_facts")).all()
    engine.dispose()
    migrate.upgrade(url, "0008")
    return {digest: (kind, bytes(facts)) for digest, kind, facts in found}


def test_a_newer_schema_is_refused_and_left_alone(file: Path) -> None:
    migrate.upgrade(resolve("", file))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = schema(file)
    for revision in ("head", "base"):
        with pytest.raises(OperationFailed) as caught:
            migrate.upgrade(resolve("", file), revision)
        assert "9999" in str(caught.value)
        assert "newer version" in str(caught.value)
    assert schema(file) == before


def test_a_step_that_fails_leaves_nothing_behind(file: Path) -> None:
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE upload (something_else)")  # the last one to be made
    before = schema(file)
    with pytest.raises(Unavailable) as caught:
        migrate.upgrade(resolve("", file))
    assert str(file) not in str(caught.value)
    assert schema(file) == before


@pytest.mark.parametrize("what", ["folder", "garbage"])
def test_what_cannot_be_a_database_is_said_so(file: Path, what: str) -> None:
    file.parent.mkdir()
    if what == "folder":
        file.mkdir()
    else:
        file.write_bytes(b"garbage" * 1000)
    with pytest.raises(Unavailable) as caught:
        migrate.upgrade(resolve("", file))
    assert str(file) not in str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_processes_that_start_at_once_all_succeed(
    file: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    code = (
        "import sys, asyncio; from pathlib import Path\n"
        "from registry.adapters import migrate\n"
        "from registry.adapters.catalog_sql import open_catalog, resolve\n"
        "async def main():\n"
        "    catalog = open_catalog(sys.argv[2], Path(sys.argv[1]))\n"
        "    await catalog.check()\n"
        "    await catalog.close()\n"
        "migrate.upgrade(resolve(sys.argv[2], Path(sys.argv[1])))\n"
        "asyncio.run(main())\n"
    )
    with ExitStack() as stack:
        url = ""
        if kind == "postgres":
            server: PostgresServer = request.getfixturevalue("postgres")
            url = stack.enter_context(server.database())
        command = [sys.executable, "-c", code, str(file), url]
        pipe = subprocess.PIPE
        started = [subprocess.Popen(command, stderr=pipe, text=True) for _ in range(4)]
        assert [process.communicate()[1] for process in started] == [""] * 4
        assert [process.returncode for process in started] == [0] * 4
        assert migrate.standing(resolve(url, file)).is_current


def _models_and_images(tx: Transaction) -> None:
    put_model(tx, "team/m", "latest", "model")
    id_ = push(tx, "Team/X").id
    for word in ("tagged", "untagged"):
        tx.put_manifest(id_, manifest(word), 1)
    tx.put_tag(id_, "V1", digest("tagged"), 1)
    tx.forget_folder_changes(1 << 40)


@pytest.mark.anyio
async def test_records_of_what_was_there_before_are_due(file: Path) -> None:
    url = resolve("", file)
    migrate.upgrade(url)
    async with contextlib.AsyncExitStack() as stack:
        catalog = open_catalog("", file)
        stack.push_async_callback(catalog.close)
        await catalog.write(_models_and_images)
    migrate.upgrade(url, "0010")
    migrate.upgrade(url)
    async with contextlib.AsyncExitStack() as stack:
        catalog = open_catalog("", file)
        stack.push_async_callback(catalog.close)
        changes = await catalog.scan(lambda tx: tx.folder_changes(20))
    assert sorted(str(change.name) for change in changes) == sorted(
        ["team/x:v1", f"team/x@{digest('tagged')}", f"team/x@{digest('untagged')}"]
    )
