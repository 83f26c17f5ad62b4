"""Measure backup, restore, export and import.

    python bench/backup.py [--folder DIR] [--models 100000] [--megabytes 1024]
                           [--database-url postgresql://…]    (an empty database; else SQLite)

Rows: a library of so many models is dumped and loaded into another SQLite file. Bytes: one blob of
random bytes comes in from a folder, goes out as an archive and comes in again; CPU is that of this
process, hashing included.
"""

import argparse
import asyncio
import hashlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from catalog import push

from registry.adapters import migrate
from registry.adapters.backup_folder import BackupFolder
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.adapters.database_rows import DatabaseRows
from registry.adapters.export_files import ExportArchive
from registry.adapters.import_files import OciLayout
from registry.cli.library import opened
from registry.core.digest import Digest
from registry.core.dump import Counts, Summary, decode, encode
from registry.core.names import ModelName
from registry.ports.catalog import Transaction
from registry.services.upkeep.exporting import Export
from registry.services.upkeep.importing import Import, Wanted
from registry.settings import Settings

_BATCH = 500
BIG = ModelName.parse("bench/big")


def peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@contextmanager
def measured(what: str, size: int = 0) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rate = f", {size / wall / 1e6:.0f} MB/s, {cpu * 1e9 / size:.2f} CPU s per GB" if size else ""
    print(f"{what}: {wall:.1f} s, CPU {cpu:.1f} s{rate}; peak {peak_mb()} MB", flush=True)


async def fill(url: str, file: Path, models: int) -> None:
    catalog = open_catalog(url, file)
    for begin in range(0, models, _BATCH):

        def some(tx: Transaction, begin: int = begin) -> None:
            for number in range(begin, min(begin + _BATCH, models)):
                push(tx, number)

        await catalog.write(some)
    await catalog.close()


def rows(folder: Path, url: str, models: int) -> None:
    file = folder / "registry.db"
    migrate.upgrade(resolve(url, file))
    with measured(f"filling with {models} models"):
        asyncio.run(fill(url, file, models))
    place, counts = BackupFolder(folder / "saved"), Counts()
    place.begin()
    with measured("dump"), DatabaseRows(resolve(url, file)).snapshot() as (schema, items):
        name, sha256 = place.write_database(encode(items, counts))
    size = (folder / "saved" / name).stat().st_size
    print(f"{sum(counts.rows.values())} rows, {size / 1e6:.1f} MB")
    summary = Summary("", "", schema, name, sha256, counts.rows, 0, 0, False)
    place.finish(summary)
    target = DatabaseRows(resolve("", folder / "other.db"))
    with measured("load into SQLite"):
        target.load(schema, decode(place.lines(summary)), force=False)


def layout(folder: Path, size: int) -> Path:
    """An image layout with one manifest of one layer."""
    blobs = folder / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    block, hasher = os.urandom(1 << 20), hashlib.sha256()
    with (blobs / "new").open("wb") as file:
        for number in range(size >> 20):
            data = number.to_bytes(8) + block[8:]
            hasher.update(data)
            file.write(data)
    (blobs / "new").rename(blobs / hasher.hexdigest())
    layer = _described("application/octet-stream", hasher.hexdigest(), size)
    (blobs / Digest.of(b"{}").hex).write_bytes(b"{}")
    config = _described("application/vnd.oci.empty.v1+json", Digest.of(b"{}").hex, 2)
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}
    body = json.dumps(manifest).encode()
    (blobs / Digest.of(body).hex).write_bytes(body)
    named = _described(kind, Digest.of(body).hex, len(body))
    named["annotations"] = {"org.opencontainers.image.ref.name": "bench/big:latest"}
    index = {"schemaVersion": 2, "manifests": [named]}
    (folder / "layout" / "index.json").write_text(json.dumps(index))
    return folder / "layout"


def _described(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}


async def bytes_(folder: Path, size: int) -> None:
    archive = folder / "big.tar"
    for source, data in ((layout(folder, size), "a"), (archive, "b")):
        async with opened(Settings.load({}, data=folder / data)) as library:
            what = f"import of a {'tar' if data == 'b' else 'folder'}"
            with measured(what, size), closing(OciLayout(source)) as given:
                work = Import(library.blobs, library.manifests, given, 1 << 40)
                async for _ in work.run(Wanted()):
                    pass
            if data == "a":
                with measured("export to a tar", size):
                    target = ExportArchive(archive)
                    async for _ in Export(library.blobs, target).run([BIG], "oci"):
                        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--models", type=int, default=100_000)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--database-url", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        if given.megabytes:
            asyncio.run(bytes_(Path(folder), given.megabytes << 20))
        if given.models:
            rows(Path(folder), given.database_url, given.models)


if __name__ == "__main__":
    main()
