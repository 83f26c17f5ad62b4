"""Measure the catalog: durable pushes, point reads, the list of all models.

    python bench/catalog.py [--folder DIR] [--seconds 5] [--models 10000 100000]
    python bench/catalog.py --database-url postgresql://…    (an empty database)

A push is one transaction: repository, two blobs, their links, a manifest, a tag. The folder decides
what a durable commit costs: give one on the disk the service will use. `fsync` is this disk's own
limit, measured first: commits of one writer cannot be more frequent.
"""

import argparse
import asyncio
import itertools
import os
import resource
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from registry.adapters import migrate
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.core.digest import Digest
from registry.core.names import ModelName, RepositoryName
from registry.ports.catalog import Catalog, Manifest, Reference, Transaction

CARD = '{"size":4920753328,"families":["llama"],"details":"' + "x" * 350 + '"}'
_numbers = itertools.count()


def push(tx: Transaction, number: int, shared: Digest | None = None) -> None:
    repository = tx.put_repository(RepositoryName(f"team{number % 100}/model{number}"))
    now = time.time_ns()
    weights = shared or Digest.of(b"weights %d" % number)
    config = Digest.of(b"config %d" % number)
    for digest in (weights, config):
        tx.put_blob(digest, 1000, digest.file_name, now)
        tx.link_blob(repository.id, digest, now + 10**12)
    body = b'{"schemaVersion":2,"number":%d,"pad":"%s"}' % (number, b"x" * 500)
    manifest = Manifest(
        Digest.of(body),
        "application/vnd.docker.distribution.manifest.v2+json",
        body,
        (
            Reference(config, "application/vnd.docker.container.image.v1+json", 1000),
            Reference(weights, "application/vnd.ollama.image.model", 1000),
        ),
        config=config,
        card=CARD,
    )
    tx.put_manifest(repository.id, manifest, now)
    tx.put_tag(repository.id, "latest", manifest.digest, now)


def fsync_rate(folder: Path) -> float:
    """Appends of 4 KiB with fdatasync, per second."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 1:
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - start)


async def pushes(catalog: Catalog, writers: int, seconds: float) -> None:
    waits: list[float] = []
    end = time.perf_counter() + seconds

    async def write() -> None:
        while (start := time.perf_counter()) < end:
            await catalog.write(partial(push, number=next(_numbers)))
            waits.append(time.perf_counter() - start)

    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*(write() for _ in range(writers)))
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    cuts = statistics.quantiles(waits, n=100)
    print(
        f"{writers} writers: {len(waits) / elapsed:,.0f} pushes/s, p50 {cuts[49] * 1e3:.2f} ms, "
        f"p99 {cuts[98] * 1e3:.2f} ms, max {max(waits) * 1e3:.1f} ms, "
        f"{cpu / len(waits) * 1e6:.0f} µs CPU each"
    )


async def fill(catalog: Catalog, count: int) -> None:
    """Push until there are `count` models, a hundred to a transaction. They share their weights."""
    shared = Digest.of(b"shared")

    def some(tx: Transaction) -> None:
        for _ in range(100):
            push(tx, next(_numbers), shared)

    have = len(await catalog.scan(lambda tx: tx.models()))
    for _ in range((count - have + 99) // 100):
        await catalog.write(some)


async def reads(catalog: Catalog) -> None:
    name = ModelName.parse("team7/MODEL7")
    key = RepositoryName("team7/model7")
    known = await catalog.read(lambda tx: tx.find_model(name))
    assert known is not None
    cases = {
        "find_model": lambda tx: tx.find_model(name),
        "known_spelling": lambda tx: tx.known_spelling(name),
        "repository + tag + manifest": lambda tx: tx.manifest(
            tx.tag(tx.repository(key).id, "latest").digest
        ),
        "blob": lambda tx: tx.blob(Digest.of(b"config 7")),
    }
    for label, work in cases.items():
        start = time.perf_counter()
        for _ in range(5000):
            await catalog.read(work)
        print(f"{label}: {(time.perf_counter() - start) / 5000 * 1e6:.1f} µs")
    start = time.perf_counter()
    for _ in range(20000):
        catalog.version()
    print(f"version: {(time.perf_counter() - start) / 20000 * 1e6:.2f} µs")


async def lists(catalog: Catalog, count: int) -> None:
    await fill(catalog, count)
    waits = []
    for _ in range(5):
        start = time.perf_counter()
        models = await catalog.scan(lambda tx: tx.models())
        waits.append(time.perf_counter() - start)
    print(f"models() of {len(models):,}: median {statistics.median(waits) * 1e3:.0f} ms")
    start = time.perf_counter()
    unused = await catalog.scan(lambda tx: tx.unreferenced(1 << 62, 1 << 62, 1000))
    print(f"unreferenced() of {count:,} blobs: {(time.perf_counter() - start) * 1e3:.1f} ms")
    assert not unused


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--folder", type=Path, default=Path.cwd())
    options.add_argument("--database-url", default="", help="default: SQLite in the folder")
    options.add_argument("--seconds", type=float, default=5)
    options.add_argument("--models", type=int, nargs="*", default=[10_000, 100_000])
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        print(f"fdatasync of 4 KiB: {fsync_rate(Path(folder)):,.0f} per second")
        file = Path(folder) / "registry.db"
        migrate.upgrade(resolve(args.database_url, file))
        catalog = open_catalog(args.database_url, file)
        for writers in (1, 8, 32):
            await pushes(catalog, writers, args.seconds)
        await reads(catalog)
        for count in args.models:
            await lists(catalog, count)
        await reads(catalog)
        start = time.perf_counter()
        await catalog.close()
        print(f"close: {(time.perf_counter() - start) * 1e3:.0f} ms")
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    asyncio.run(main())
