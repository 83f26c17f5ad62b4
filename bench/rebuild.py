"""Measure what reads the whole store: rebuild, the daily look, doctor, collection, at many files.

    python bench/rebuild.py [--folder DIR] [--models 100000] [--blobs 10]
    python bench/rebuild.py --database-url postgresql://…    (an empty database)
    python bench/rebuild.py --storage-url s3://bucket/x?endpoint=…  --objects FOLDER_OF_THE_BUCKET

A store is made without a library: a file for each blob, a few hundred bytes long, and one for each
tag. Then come, each in a process of its own and at a time when all graces have passed: the rebuild
of the database, the look at the start with nothing to do, doctor, the plan of a collection, and
the collection itself after a tenth of the models was deleted. CPU and the memory that is the
process's own (`RssAnon`, its most) of each; what matters is that time grows as the files do and
that memory does not. For an object store the objects are put straight into the folder in which a
server such as versitygw keeps a bucket: put by put would take hours.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from registry.app import build, prepare
from registry.cli.examination import examine
from registry.core.digest import Digest
from registry.core.events import Count
from registry.core.names import ModelName
from registry.services import Services
from registry.settings import Settings

_DAY_NS = 86_400 * 10**9
_OLD_S = 5 * 86_400
_CONFIG = "application/vnd.docker.container.image.v1+json"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_TYPE = "application/vnd.ollama.image."


def contents(number: int, blobs: int) -> list[tuple[str, bytes]]:
    """A model's blobs: config, system text, weights that are none, licenses."""
    family = (
        b'{"model_format":"gguf","model_family":"llama","model_type":"8B","number":%d}' % number
    )
    texts = [(f"{_TYPE}license", b"license %d of %d. " % (i, number) * 20) for i in range(3, blobs)]
    system = (f"{_TYPE}system", b"You are model %d." % number)
    weights = (f"{_TYPE}model", random.Random(number).randbytes(300))
    return [(_CONFIG, family), system, weights, *texts][:blobs]


def name_of(number: int) -> ModelName:
    return ModelName.parse(f"team{number % 100}/model{number}:latest")


class Place:
    """Where files of a store go: a data folder, or below a prefix in a bucket's folder."""

    def __init__(self, root: Path, *, is_bucket: bool) -> None:
        self._root, self._is_bucket = root, is_bucket
        self._made: set[Path] = set()
        self._old = time.time() - _OLD_S

    def put_blob(self, digest: Digest, content: bytes) -> None:
        key = digest.file_name
        if self._is_bucket:
            drawn = random.randbytes(16).hex()
            key = f"{drawn[:2]}/{drawn}"
        self._write(self._root / "blobs" / key, content)

    def put_tag(self, name: ModelName, body: bytes) -> None:
        self._write(self._root / "manifests" / name.file_path, body)

    def _write(self, path: Path, content: bytes) -> None:
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        path.write_bytes(content)
        os.utime(path, (self._old, self._old))


def fill(place: Place, have: int, count: int, blobs: int) -> None:
    began = time.perf_counter()
    for number in range(have, count):
        layers = []
        for kind, content in contents(number, blobs):
            digest = Digest.of(content)
            place.put_blob(digest, content)
            layers.append({"mediaType": kind, "digest": str(digest), "size": len(content)})
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST}
        body = json.dumps({**manifest, "config": layers[0], "layers": layers[1:]}).encode()
        place.put_tag(name_of(number), body)
    print(f"filled to {count:,} models in {time.perf_counter() - began:,.0f} s", flush=True)


# what is measured, each in a process of its own


def later() -> int:
    """All graces have passed."""
    return time.time_ns() + 20 * _DAY_NS


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Services]:
    prepare(settings)
    services = build(settings, later)
    try:
        yield services
    finally:
        await services.housekeeping.finish()
        await services.accounts.close()
        await services.audit.close()
        await services.catalog.close()


async def rebuild(settings: Settings) -> str:
    taken = faults = 0
    async with opened(settings) as services:
        async for deed in services.adoption.adopting():
            taken, faults = taken + (deed.fault is None), faults + (deed.fault is not None)
        models = await services.catalog.scan(lambda tx: tx.blob_tally())
    return f"{taken} more taken in, {faults} left out; {models.count:,} blobs"


async def look(settings: Settings) -> str:
    async with opened(settings) as services:
        await services.catalog.write(lambda tx: tx.put_secret("catalog-since", b"0"))
        return f"{await services.adoption.run()} blobs went"


async def doctor(settings: Settings, *, deep: bool = False) -> str:
    return "; ".join([found.what async for found in examine(settings, deep=deep)][-3:])


async def deep(settings: Settings) -> str:
    return await doctor(settings, deep=True)


async def plan(settings: Settings) -> str:
    async with opened(settings) as services:
        found = await services.upkeep.collection.plan(0)
        return ", ".join(f"{item.reason} {item.count:,}" for item in (*found.goes, *found.stays))


async def delete(settings: Settings) -> str:
    """Every tenth model. Not what is measured, but what the next one needs."""
    async with opened(settings) as services:
        names = [model.tag.model for model in await services.catalog.scan(lambda tx: tx.models())]
        chosen = names[::10]

        async def some(begin: int) -> None:
            for name in chosen[begin::16]:
                await services.models.delete(name)

        await asyncio.gather(*(some(begin) for begin in range(16)))
        return f"{len(chosen):,} models"


async def collect(settings: Settings) -> str:
    async with opened(settings) as services:
        texts: dict[str, int] = {}
        async for event in services.upkeep.collection.run(0):
            if isinstance(event, Count):
                texts[event.text] = event.count
        left = await services.catalog.scan(lambda tx: tx.blob_tally())
        return f"{texts}; {left.count:,} blobs left"


PHASES: dict[str, Callable[[Settings], Coroutine[Any, Any, str]]] = {
    work.__name__: work for work in (rebuild, look, doctor, deep, delete, plan, collect)
}


class Watch(threading.Thread):
    """Looks at the memory of this process that no file stands behind; keeps the most, in MiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0
        self.start()

    def run(self) -> None:
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.most = max(self.most, int(line.split()[1]) / 1024)
            time.sleep(0.05)


def measure(phase: str) -> None:
    """One phase, with the settings of the environment."""
    settings = Settings.load()
    watch = Watch()
    time.sleep(0.1)
    began, spent, start = time.perf_counter(), time.process_time(), watch.most
    said = asyncio.run(PHASES[phase](settings))
    wall, cpu = time.perf_counter() - began, time.process_time() - spent
    print(
        f"{phase:8} {wall:9.2f} s, {cpu:8.2f} s CPU, {watch.most:5.0f} MiB at most "
        f"({start:.0f} at the start): {said}",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--folder", type=Path, default=Path.cwd())
    options.add_argument("--database-url", default="", help="default: SQLite in the folder")
    options.add_argument("--storage-url", default="", help="default: the folder")
    options.add_argument("--objects", type=Path, help="the bucket's folder, with the prefix")
    options.add_argument("--models", type=int, default=1_000)
    options.add_argument("--blobs", type=int, default=10, help="of each model")
    options.add_argument("--phases", nargs="*", choices=list(PHASES), default=list(PHASES))
    options.add_argument("--in", dest="place", type=Path, help="use this folder, and keep it")
    options.add_argument("--phase", help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.phase:
        measure(args.phase)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as passing:
        data = args.place or Path(passing)
        if not (data / "registry.db").exists():
            place = Place(args.objects or data, is_bucket=bool(args.storage_url))
            fill(place, 0, args.models, args.blobs)
        environment = {
            **os.environ,
            "REGISTRY_DATA": str(data),
            "REGISTRY_DATABASE_URL": args.database_url,
            "REGISTRY_STORAGE_URL": args.storage_url,
            "REGISTRY_RETENTION__PRUNE": "false",  # what a deleted model leaves is for the last
        }
        for phase in args.phases:
            command = [sys.executable, __file__, "--phase", phase]
            subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
