"""Measure the catalog at 1,000 and at 100,000 models: what a request asks, and what upkeep asks.

    python bench/scale.py [--folder DIR] [--models 1000 100000] [--blobs 10] [--seconds 5]
    python bench/scale.py --database-url postgresql://…    (an empty database)

Each model has `--blobs` blobs of its own; a tenth as many blobs again belong to no model. Names are
drawn at random, so that no page is warm by repetition. What counts is the ratio of the last size to
the first: the CPU time of this process (on SQLite that is all of it), and the wall time, which on
Postgres has the server's share in it. A step is the median of several rounds.
"""

import argparse
import asyncio
import gc
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from catalog import CARD, pushes

from registry.adapters import migrate
from registry.adapters.blobs_fs import FileBlobStore
from registry.adapters.catalog_sql import open_catalog, resolve
from registry.adapters.models_folder import FolderOnDisk
from registry.adapters.scratch_file import ScratchFile
from registry.core.access import Caller, Policy, Right, Rule, Visibility
from registry.core.digest import Digest
from registry.core.names import ModelName, RepositoryName
from registry.ports.catalog import Catalog, Manifest, Reader, Reference, Transaction
from registry.services.access.rights import Policies
from registry.services.library.blobs import Blobs
from registry.services.library.history import History
from registry.services.library.housekeeping import Housekeeping
from registry.services.library.listing import Listing
from registry.services.library.manifests import Manifests
from registry.services.upkeep.adoption import Adoption
from registry.services.upkeep.gc import Collection
from registry.services.upkeep.storage import Storage
from registry.services.uploading.uploads import Uploads
from registry.settings import Retention

_ASKED = 2_000
_ROUNDS = 5
_NOW = 1_800_000_000 * 10**9
_CONFIG = "application/vnd.docker.container.image.v1+json"
_WEIGHTS = "application/vnd.ollama.image.model"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def path_of(number: int) -> str:
    return f"team{number % 100}/model{number}"


def blob_of(number: int, position: int) -> Digest:
    return Digest.of(b"%d of %d" % (position, number))


def put(tx: Transaction, number: int, blobs: int) -> None:
    """A model, a hundred in a second, with blobs of its own; with every tenth some of no model."""
    repository = tx.put_repository(RepositoryName(path_of(number)))
    digests = [blob_of(number, position) for position in range(blobs)]
    for digest in digests:
        tx.put_blob(digest, 1000, digest.file_name, _NOW)
        tx.link_blob(repository.id, digest, _NOW)
    body = b'{"schemaVersion":2,"model":%d,"pad":"%s"}' % (number, b"x" * 500)
    references = [Reference(digests[0], _CONFIG, 1000)]
    references += [Reference(digest, _WEIGHTS, 1000) for digest in digests[1:]]
    manifest = Manifest(
        Digest.of(body), _MANIFEST, body, tuple(references), config=digests[0], card=CARD
    )
    tx.put_manifest(repository.id, manifest, _NOW)
    tx.put_tag(repository.id, "latest", manifest.digest, _NOW - number // 100 * 10**9)
    if number % 10 == 0:
        for position in range(blobs):
            loose = blob_of(number, blobs + position)
            tx.put_blob(loose, 1000, loose.file_name, _NOW)


async def fill(catalog: Catalog, have: int, count: int, blobs: int) -> None:
    start = time.perf_counter()

    def some(tx: Transaction, begin: int) -> None:
        for number in range(begin, min(begin + 100, count)):
            put(tx, number, blobs)

    for begin in range(have, count, 100):
        await catalog.write(partial(some, begin=begin))
    print(f"filled to {count:,} models in {time.perf_counter() - start:,.0f} s", flush=True)


class Measured:
    """CPU and wall time by label, at each size."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[float, float]]] = {}

    async def each(self, label: str, ask: Callable[[], Any], times: int = _ASKED) -> None:
        """µs of one call, the median of the rounds."""
        cpu, wall = [], []
        for _ in range(_ROUNDS):
            began, spent = time.perf_counter(), time.process_time()
            for _ in range(times):
                await ask()
            wall.append((time.perf_counter() - began) / times * 1e6)
            cpu.append((time.process_time() - spent) / times * 1e6)
        self.rows.setdefault(label, []).append((statistics.median(cpu), statistics.median(wall)))

    def print(self) -> None:
        print(f"\n{'':34}{'CPU µs':>20}{'ratio':>8}{'wall µs':>20}{'ratio':>8}")
        for label, sizes in self.rows.items():
            texts = []
            for kind in (0, 1):
                values = [size[kind] for size in sizes]
                texts.append(f"{' → '.join(f'{v:,.0f}' for v in values):>20}")
                texts.append(f"{values[-1] / values[0]:>8.2f}")
            print(f"{label:34}{''.join(texts)}")


async def requests(catalog: Catalog, count: int, blobs: int, measured: Measured) -> None:
    def number() -> int:
        return random.randrange(count)

    def manifest(tx: Reader, path: RepositoryName) -> None:
        repository = tx.repository(path)
        tag = repository and tx.tag(repository.id, "latest")
        assert tag and tx.manifest(tag.digest)

    def head(tx: Reader, at: int) -> None:
        repository, digest = tx.repository(RepositoryName(path_of(at))), blob_of(at, 1)
        assert repository and tx.has_blob(repository.id, digest) and tx.blob(digest)

    async def first_page() -> None:
        assert len(await catalog.scan(lambda tx: tx.repositories("", 100))) == 100

    async def find() -> None:
        name = ModelName.parse(path_of(number()))
        assert await catalog.read(lambda tx: tx.find_model(name))

    async def get() -> None:
        path = RepositoryName(path_of(number()))
        await catalog.read(lambda tx: manifest(tx, path))

    async def has() -> None:
        at = number()
        await catalog.read(lambda tx: head(tx, at))

    own = [Policy(path_of(n * 100), Visibility.INTERNAL) for n in range(count // 100)]
    policies = Policies.of([Policy("team1/*", Visibility.PUBLIC), *own])
    rules = tuple(Rule(f"team{n}/*", Right.READ) for n in range(50))

    async def permit() -> None:
        caller = Caller(1, "ann", rules=rules)  # a new one: nothing is remembered
        policies.rights(caller, RepositoryName(path_of(number())))

    await measured.each("first page of repositories", first_page, 50)
    await measured.each("tag lookup", find)
    await measured.each("manifest GET", get)
    await measured.each("HEAD blob", has)
    await measured.each("permission check, nothing kept", permit)


async def timed(label: str, work: Any) -> Any:
    began, spent = time.perf_counter(), time.process_time()
    found = await work
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    print(f"{label}: {wall:.2f} s ({cpu:.2f} s CPU here)", flush=True)
    return found


async def upkeep(catalog: Catalog, folder: Path, count: int) -> None:
    clock = lambda: _NOW + 10 * 86_400 * 10**9  # noqa: E731 - all graces have passed
    store, retention = FileBlobStore(folder), Retention()
    housekeeping = Housekeeping(catalog, store, FolderOnDisk(folder), retention, clock)
    manifests = Manifests(catalog, store, housekeeping, clock)
    adoption = Adoption(manifests, FolderOnDisk(folder), retention.leftover_s)
    uploads = Uploads(Blobs(catalog, store, clock=clock))
    collection = Collection(manifests, uploads, History(manifests), adoption, retention)
    storage = Storage(catalog)
    print(f"\n{count:,} models; {rss():.0f} MiB")
    plan = await timed("gc plan", collection.plan(orphans=False))
    print("  " + ", ".join(f"{item.reason} {item.count:,}" for item in (*plan.goes, *plan.stays)))
    await timed("du: totals", storage.totals())
    await timed("du: a namespace's page of 100", storage.within("team7"))
    await timed("du: ten namespaces", storage.namespaces("", 10))
    await timed("du: one model", storage.within("team7/model7"))
    print(f"{rss():.0f} MiB after these")
    gc.collect()
    listing = Listing(catalog, lambda at: "2026-01-01T00:00:00Z", partial(ScratchFile, folder))
    before, most = anonymous(), [0.0]
    watch = asyncio.create_task(peak(most))
    size = await timed("list of all models, first", whole_list(listing))
    await timed("list of all models, again", whole_list(listing))
    watch.cancel()
    print(f"  {size / 1e6:.0f} MB; {most[0] - before:.0f} MiB more anonymous memory at most")


async def whole_list(listing: Listing) -> int:
    """Read the list as a request does; its size."""
    long = await listing.written()
    if long is None:
        return len((await listing.body()).content)
    return sum([len(piece) async for piece in long.content.chunks()])


async def peak(most: list[float]) -> None:
    """Look at the memory every 5 ms; a list that is made on the loop is seen when it is there."""
    while True:
        most[0] = max(most[0], anonymous())
        await asyncio.sleep(0.005)


def anonymous() -> float:
    """MiB that are ours alone: a mapped database file is the system's to take back."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return rss()


def rss() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--folder", type=Path, default=Path.cwd())
    options.add_argument("--database-url", default="", help="default: SQLite in the folder")
    options.add_argument("--models", type=int, nargs="*", default=[1_000, 100_000])
    options.add_argument("--blobs", type=int, default=10, help="of each model")
    options.add_argument("--seconds", type=float, default=5, help="of inserting")
    args = options.parse_args()
    measured = Measured()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        file = Path(folder) / "registry.db"
        url = resolve(args.database_url, file)
        migrate.upgrade(url)
        catalog = open_catalog(args.database_url, file)
        have = 0
        for count in args.models:
            await fill(catalog, have, count, args.blobs)
            have = count
            await requests(catalog, count, args.blobs, measured)
            await pushes(catalog, 8, args.seconds)
            await upkeep(catalog, Path(folder), count)
        measured.print()
        await catalog.close()


if __name__ == "__main__":
    asyncio.run(main())
