"""`registry backup` and `restore`: what was there is there again, in whichever database."""

import asyncio
import gzip
import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from registry.adapters.backup_folder import BackupFolder
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.adapters.database_rows import DatabaseRows
from registry.cli.library import opened
from registry.core.dump import Counts, Summary, encode
from registry.core.names import ModelName
from tests.support.backends import BACKENDS
from tests.support.place import Place, make
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server


@pytest.fixture
def places(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Place, Place]]:
    """Where the library is, and where it is to be restored."""
    with ExitStack() as stack:
        made = []
        for number, kind in enumerate(getattr(request, "param", ("", ""))):
            url: str | None
            storage: dict[str, str] | None
            url, storage = ("", {}) if kind else (None, None)
            if "postgres" in kind:
                server: PostgresServer = request.getfixturevalue("postgres")
                url = stack.enter_context(server.database())
            if "s3" in kind:
                store: S3Server = request.getfixturevalue("s3")
                storage = store.environ()
            made.append(Place(tmp_path / f"data{number}", monkeypatch, url, storage))
        yield made[0], made[1]


@pytest.mark.parametrize(
    "places",
    [
        ("sqlite", "sqlite"),
        ("sqlite", "postgres"),
        ("postgres", "sqlite"),
        ("postgres", "postgres"),
        ("sqlite", "postgres+s3"),
        ("postgres+s3", "sqlite"),
        ("postgres+s3", "sqlite+s3"),
    ],
    indirect=True,
    ids="-".join,
)
def test_what_was_saved_is_there_again(places: tuple[Place, Place], tmp_path: Path) -> None:
    old, new = places
    old.fill()
    before = old.models()
    assert set(before) == {"base:latest", "team/Other:Q4"}
    saved = old.run(f"backup {tmp_path / 'saved'} --with-blobs")
    assert saved.exit_code == 0, saved.stderr
    restored = new.run(f"restore {tmp_path / 'saved'}")
    assert restored.exit_code == 0, restored.stderr
    assert "Restored 2 models" in restored.stderr
    assert new.models() == before
    assert new.accounts() == ["alice"]
    if not old.settings.storage_url and not new.settings.storage_url:
        for folder in ("manifests", "blobs"):
            assert _tree(new.data / folder) == _tree(old.data / folder)
    rebuilt = new.run("doctor --rebuild")  # every tag is known: the files say what the rows do
    assert (rebuilt.exit_code, "Took in 0" in rebuilt.stderr) == (0, True)
    assert new.run("user add bob --no-password").exit_code == 0  # numbers go on after the old ones
    assert new.accounts() == ["alice", "bob"]
    assert new.run("migrate --check").exit_code == 0
    deeds = json.loads(new.run("audit --json").stdout)
    assert [deed["action"] for deed in deeds] == ["add account", "restore"]


@pytest.fixture
def saved(places: tuple[Place, Place], tmp_path: Path) -> Path:
    """A backup with all bytes, of the first place."""
    places[0].fill()
    assert places[0].run(f"backup {tmp_path / 'saved'} --with-blobs").exit_code == 0
    return tmp_path / "saved"


def test_only_its_owner_may_look_into_a_backup(saved: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [saved, *saved.iterdir()]}
    assert modes.pop("saved") == modes.pop("blobs") == 0o700
    assert set(modes.values()) == {0o600}
    assert sorted(name[:9] for name in modes) == ["backup.js", "blobs.txt", "database-"]


def test_the_list_of_blobs_is_one_that_others_can_check(saved: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", "--quiet", "blobs.txt"], cwd=saved, check=False)
    assert done.returncode == 0


def test_a_second_backup_saves_what_is_new(places: tuple[Place, Place], saved: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (saved / "blobs").iterdir()}
    old = json.loads((saved / "backup.json").read_text())["database"]
    old_place = places[0]

    async def more() -> None:
        async with opened(old_place.settings) as library:
            await make(library, "more", origin="base", system="Be long.")

    asyncio.run(more())
    assert old_place.run(f"backup {saved} --with-blobs").exit_code == 0
    after = {path: path.stat().st_mtime_ns for path in (saved / "blobs").iterdir()}
    assert len(after) > len(before)
    assert {path: after[path] for path in before} == before
    assert not (saved / old).exists()
    assert places[1].run(f"restore {saved}").exit_code == 0
    assert "more:latest" in places[1].models()


@pytest.mark.folder("links to files of the store")
def test_links_are_no_copies(places: tuple[Place, Place], tmp_path: Path) -> None:
    places[0].fill()
    assert places[0].run(f"backup {tmp_path / 'b'} --with-blobs --link").exit_code == 0
    for path in (tmp_path / "b" / "blobs").iterdir():
        assert path.samefile(places[0].data / "blobs" / path.name)
    assert places[0].run(f"backup {tmp_path / 'c'} --link").exit_code == 2


@pytest.mark.folder("brings a store its bytes by copying files")
def test_without_bytes_the_store_must_have_them(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    old, new = places
    old.fill()
    before = old.models()
    assert old.run(f"backup {tmp_path / 'saved'}").exit_code == 0
    refused = new.run(f"restore {tmp_path / 'saved'}")
    assert refused.exit_code == 1
    assert "neither in the backup nor in the store" in refused.stderr
    shutil.copytree(old.data / "blobs", new.data / "blobs", dirs_exist_ok=True)
    assert new.run(f"restore {tmp_path / 'saved'} --verify").exit_code == 0
    assert new.models() == before
    BACKENDS.lose_database(old.data)  # the same folder
    assert old.run(f"restore {tmp_path / 'saved'}").exit_code == 0
    assert old.models() == before


def test_a_library_that_is_there_is_replaced_only_by_force(
    places: tuple[Place, Place], saved: Path
) -> None:
    new = places[1]
    assert new.run("user add carol --no-password").exit_code == 0
    refused = new.run(f"restore {saved}")
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert new.accounts() == ["carol"]
    assert new.run(f"restore {saved} --force").exit_code == 0
    assert new.accounts() == ["alice"]


@pytest.mark.parametrize(
    "places", [("sqlite", "sqlite"), ("sqlite", "postgres")], indirect=True, ids="-".join
)
def test_a_database_in_use_is_left_alone(places: tuple[Place, Place], saved: Path) -> None:
    new = places[1]
    assert new.run("user add carol --no-password").exit_code == 0
    catalog = open_catalog(new.url, new.data / "registry.db")
    try:
        refused = new.run(f"restore {saved} --force")
    finally:
        asyncio.run(catalog.close())
    assert refused.exit_code == 1
    assert "stop the server" in refused.stderr
    assert new.accounts() == ["carol"]


@pytest.mark.parametrize("places", [("sqlite", "postgres")], indirect=True, ids="-".join)
def test_postgres_knows_the_size_of_what_was_restored(
    places: tuple[Place, Place], saved: Path
) -> None:
    new = places[1]
    assert new.run(f"restore {saved}").exit_code == 0
    with psycopg.connect(new.url, autocommit=True) as connection:
        sizes = connection.execute(
            "SELECT reltuples FROM pg_class WHERE relname IN ('tag', 'blob') AND relkind = 'r'"
        ).fetchall()
    assert len(sizes) == 2
    assert all(size >= 2 for (size,) in sizes)


def _cut(saved: Path) -> None:
    file = next(saved.glob("database-*"))
    file.write_bytes(file.read_bytes()[:-20])


def _flip(saved: Path) -> None:
    file = max((saved / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def _unfinished(saved: Path) -> None:
    (saved / "backup.json").unlink()


def _later(saved: Path) -> None:
    (saved / "backup.json").write_text('{"format": 2, "more": true}')


def _newer_schema(saved: Path) -> None:
    found = json.loads((saved / "backup.json").read_text())
    (saved / "backup.json").write_text(json.dumps(found | {"schema": "9999"}))


def _elsewhere(saved: Path) -> None:
    found = json.loads((saved / "backup.json").read_text())
    (saved / "backup.json").write_text(json.dumps(found | {"database": "../../etc/passwd"}))


def _link(saved: Path) -> None:
    file = max((saved / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    file.unlink()
    (saved / "elsewhere").write_bytes(content)
    file.symlink_to("../elsewhere")


def _strange_table(saved: Path) -> None:
    found = json.loads((saved / "backup.json").read_text())
    lines = [b'{"table": "alembic_version", "columns": [], "next": null}', b'{"end": {}}']
    packed = gzip.compress(b"\n".join(lines))
    sha256 = hashlib.sha256(packed).hexdigest()
    found |= {"database": f"database-{sha256[:12]}.jsonl.gz", "sha256": sha256}
    (saved / found["database"]).write_bytes(packed)
    (saved / "backup.json").write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_cut, "damaged"),
        (_flip, "digest mismatch"),
        (_unfinished, "no finished backup"),
        (_later, "format"),
        (_newer_schema, "schema"),
        (_elsewhere, "damaged"),
        (_link, "neither in the backup"),
        (_strange_table, "damaged"),
    ],
)
def test_a_harmed_backup_changes_nothing(
    places: tuple[Place, Place], saved: Path, harm: Callable[[Path], None], said: str
) -> None:
    harm(saved)
    new = places[1]
    refused = new.run(f"restore {saved}")
    assert refused.exit_code == 1
    assert said in refused.stderr
    assert new.models() == {}


@pytest.mark.folder("brings a store its bytes by copying files")
def test_a_backup_of_an_older_schema_is_brought_up_to_date(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    old, new = places
    old.fill()
    before = old.models()
    assert old.run("migrate --to 0005 --yes").exit_code == 0
    refused = old.run(f"backup {tmp_path / 'x'}")
    assert (refused.exit_code, "0005" in refused.stderr) == (1, True)
    folder, counts = BackupFolder(tmp_path / "saved"), Counts()
    folder.begin()
    rows = DatabaseRows(resolve(old.url, old.data / "registry.db"))
    with rows.snapshot() as (schema, items):
        name, sha256 = folder.write_database(encode(items, counts))
    folder.finish(Summary("", "0", schema, name, sha256, counts.rows, 0, 0, False))
    shutil.copytree(old.data / "blobs", new.data / "blobs")
    restored = new.run(f"restore {tmp_path / 'saved'}")
    assert restored.exit_code == 0, restored.stderr
    assert new.models() == before


def test_a_backup_goes_on_while_others_write(places: tuple[Place, Place], saved: Path) -> None:
    """What is deleted meanwhile is held until it is copied, and let go of afterwards."""
    held = asyncio.run(_leases(places[0]))
    assert held == 0


async def _leases(place: Place) -> int:
    async with opened(place.settings) as library:
        blobs = await library.catalog.scan(lambda tx: tx.blobs_after("", 100))
        digests = [blob.digest for blob in blobs]
        for model in await library.listing.models():
            await library.models.delete(ModelName.parse(model.name.short))
        await library.housekeeping.sweep()
        left = await library.catalog.scan(lambda tx: tx.blobs_after("", 100))
        assert digests
        return len(left)


def test_a_folder_of_something_else_is_not_written_into(
    places: tuple[Place, Place], tmp_path: Path
) -> None:
    places[0].fill()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    refused = places[0].run(f"backup {tmp_path / 'home'}")
    assert refused.exit_code == 1
    assert os.listdir(tmp_path / "home") == ["thesis.tex"]


@pytest.mark.sqlite("a database of the tests has a schema")
def test_where_nothing_is_nothing_is_saved(places: tuple[Place, Place], tmp_path: Path) -> None:
    refused = places[0].run(f"backup {tmp_path / 'saved'}")
    assert (refused.exit_code, "no library" in refused.stderr) == (1, True)
    assert not places[0].data.exists()


def _tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_wiped_bucket_is_filled_again(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bucket and the same database, both emptied: the keys are others, the models not."""
    place = Place(tmp_path / "data", monkeypatch, storage=s3.environ())
    place.fill()
    before = place.models()
    assert place.run(f"backup {tmp_path / 'saved'} --with-blobs").exit_code == 0

    async def wipe() -> set[str]:
        async with opened(place.settings) as library:
            keys = {key async for key, _ in library.store.keys(library.clock())}
            for key in keys:
                library.store.remove(key)
            return keys

    keys = asyncio.run(wipe())
    assert keys
    BACKENDS.lose_database(place.data)
    shutil.rmtree(place.data)
    restored = place.run(f"restore {tmp_path / 'saved'}")
    assert restored.exit_code == 0, restored.stderr
    assert place.models() == before
    assert place.run("doctor --deep").exit_code == 0
