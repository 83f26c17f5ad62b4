"""Blobs on a worker's disk: the library's own folder where it is seen here, else a cache.

What is not here is fetched by digest, once for all who ask, hashed on the way; it gets its name
when all of it is on disk and is what it is called. A part that was begun goes on where it ended.
Room is made before a fetch begins: what was not used for the longest goes first, never what a
runner has.

Source: spec inference-and-gguf 3.1.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from registry.adapters.store_marker import read_marker
from registry.core.digest import Digest
from registry.core.errors import CannotRun, DigestInvalid, StorageFull, Unavailable
from registry.ports.workers import Weights, WorkerFacts
from registry.workers.transfer import FetchBroken, FetchRefused, WrongBytes

_TRIES = 5
_PAUSE_S = 0.5
_FULL_RETRY_S = 60
_PARTS_S = 7 * 86_400
"""Parts that nobody went on with for so long are deleted at the next start."""
_SPARE = 0.05
"""This part of the disk is left free where no limit was set."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Kept:
    size: int
    used_at: float


@dataclass(slots=True)
class _Fetching:
    """A fetch and how many wait for it."""

    task: asyncio.Task[Path]
    waiting: int = 0
    abandoned: bool = False


class Try(Protocol):
    """One try to fetch a blob into a file: see `Transfer`."""

    received: int

    async def run(self) -> None:
        """Fetch what is missing of it."""


class Origin(Protocol):
    """Where blobs come from."""

    def transfer(self, weights: Weights, part: Path) -> Try:
        """A try to fetch one into `part`, which may have its beginning."""


class BlobCache:
    """Blobs in `folder`, no more than `limit_bytes` of them (0: what the disk has, less a little).

    `in_use` tells which ones a runner has open. `store` is a data folder that may be the library's:
    `believe` says whether it is.
    """

    def __init__(
        self,
        folder: Path,
        source: Origin,
        in_use: Callable[[], frozenset[Digest]],
        *,
        limit_bytes: int = 0,
        store: Path | None = None,
    ) -> None:
        self._blobs = folder / "blobs"
        self._incoming = folder / "incoming"
        self._source = source
        self._in_use = in_use
        self._limit = limit_bytes
        self._store = store
        self._shares = False
        self._kept: dict[Digest, _Kept] = {}
        self._fetching: dict[Digest, _Fetching] = {}
        self._reserved = 0

    def prepare(self) -> None:
        """Make the folders, and look what is here.

        Raises:
            StorageFull: they cannot be made.
        """
        try:
            for place in (self._blobs, self._incoming):
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
            for file in self._blobs.iterdir():
                with contextlib.suppress(DigestInvalid):
                    digest = Digest.parse(file.name.replace("-", ":", 1))
                    facts = file.stat()
                    self._kept[digest] = _Kept(facts.st_size, facts.st_mtime)
            for part in self._incoming.iterdir():
                if part.stat().st_mtime < time.time() - _PARTS_S:
                    part.unlink()
        except OSError as error:
            raise StorageFull(f"the cache folder cannot be used: {_reason(error)}") from error

    def believe(self, name: str) -> bool:
        """Whether `store` is the folder of that name; its blobs are opened where they lie then."""
        own = read_marker(self._store) if self._store is not None else ""
        self._shares = bool(name) and own == name
        return self._shares

    @property
    def digests(self) -> frozenset[Digest]:
        """What is in the cache."""
        return frozenset(self._kept)

    async def path(self, weights: Weights) -> Path:
        """Where a blob lies, fetched if it does not.

        Raises:
            CannotRun: it is larger than the cache, or what the library sends is not what it is
                called.
            Unavailable: it could not be fetched, or there is no room for it now.
        """
        own = await asyncio.to_thread(self._own, weights)
        if own is not None:
            return own
        fetching = self._fetching.get(weights.digest)
        while fetching is not None and fetching.abandoned:
            await asyncio.wait({fetching.task})
            fetching = self._fetching.get(weights.digest)
        if fetching is None:
            fetching = _Fetching(asyncio.create_task(self._fetch(weights)))
            self._fetching[weights.digest] = fetching
            fetching.task.add_done_callback(partial(self._fetched, weights.digest))
        fetching.waiting += 1
        try:
            return await asyncio.shield(fetching.task)
        finally:
            fetching.waiting -= 1
            if not fetching.waiting and not fetching.task.done():
                fetching.abandoned = True  # nobody wants it any more; the part stays
                fetching.task.cancel()

    def _fetched(self, digest: Digest, task: asyncio.Task[Path]) -> None:
        self._fetching.pop(digest, None)
        if not task.cancelled():
            task.exception()  # whoever waits for it gets it; perhaps nobody does any more

    def _own(self, weights: Weights) -> Path | None:
        """A file of the right size that is here."""
        if self._shares and self._store is not None:
            file = self._store / "blobs" / weights.digest.file_name
            if _size(file) == weights.size:
                return file
        file = self._blobs / weights.digest.file_name
        if weights.digest not in self._kept:
            return None
        if _size(file) != weights.size:
            self._kept.pop(weights.digest, None)
            return None
        self._kept[weights.digest].used_at = time.time()
        with contextlib.suppress(OSError):
            os.utime(file)  # which is used the longest ago outlives a restart
        return file

    # --- fetching

    async def _fetch(self, weights: Weights) -> Path:
        part = self._incoming / weights.digest.file_name
        self._make_room(weights.size)
        self._reserved += weights.size
        try:
            await self._tried(weights, part)
            file = self._blobs / weights.digest.file_name
            await asyncio.to_thread(_publish, part, file)
        except OSError as error:
            told = f"the cache of the worker cannot be written: {_reason(error)}"
            raise Unavailable(told, _FULL_RETRY_S) from error
        finally:
            self._reserved -= weights.size
        self._kept[weights.digest] = _Kept(weights.size, time.time())
        return file

    async def _tried(self, weights: Weights, part: Path) -> None:
        """Fetch it, again and again while that may help."""
        failures, wrong = 0, 0
        while True:
            transfer = self._source.transfer(weights, part)
            began = time.monotonic()
            try:
                await transfer.run()
            except WrongBytes as error:
                wrong += 1
                log.warning("a blob is not what it is called", digest=str(weights.digest))
                if wrong > 1:
                    raise CannotRun(
                        f"the library sends other bytes than {weights.digest}"
                    ) from error
            except FetchBroken as error:
                failures = 1 if transfer.received else failures + 1
                if failures >= _TRIES or isinstance(error, FetchRefused):
                    raise Unavailable(f"{weights.digest} cannot be fetched: {error}", 10) from error
                await asyncio.sleep(_PAUSE_S * 2**failures)
            else:
                seconds = round(time.monotonic() - began, 3)
                log.info("blob fetched", digest=str(weights.digest), seconds=seconds)
                return

    # --- room

    def _make_room(self, size: int) -> None:
        """Delete what was not used for the longest until `size` more bytes fit.

        Raises:
            CannotRun: it is larger than the cache.
            Unavailable: what is left is in use.
        """
        if self._limit and size > self._limit:
            raise CannotRun(f"{size} bytes are more than the cache of the worker holds")
        used = self._in_use() | frozenset(self._fetching)
        old = sorted(
            (digest for digest in self._kept if digest not in used),
            key=lambda digest: self._kept[digest].used_at,
        )
        while not self._fits(size):
            if not old:
                told = f"the cache of the worker has no room for {size} bytes"
                raise Unavailable(told, _FULL_RETRY_S)
            digest = old.pop(0)
            with contextlib.suppress(OSError):
                (self._blobs / digest.file_name).unlink()
            del self._kept[digest]

    def _fits(self, size: int) -> bool:
        wanted = self._reserved + size
        if self._limit:
            return sum(item.size for item in self._kept.values()) + wanted <= self._limit
        disk = shutil.disk_usage(self._blobs)
        return disk.free - wanted >= disk.total * _SPARE


def in_use(facts: WorkerFacts) -> frozenset[Digest]:
    """Blobs that runners have open: a runner's key begins with them."""
    found = set()
    for item in facts.loaded:
        for part in item.key.split("|"):
            try:
                found.add(Digest.parse(part))
            except DigestInvalid:
                break
    return frozenset(found)


def _publish(part: Path, file: Path) -> None:
    """Give a complete file its name, for good."""
    part.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown error").lower()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1
