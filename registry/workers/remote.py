"""`registry worker`: a node on this machine that runs models for a library elsewhere.

It keeps its credential and its cache in the data folder, below `worker/`.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import signal
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import structlog

from registry.adapters.tensors_process import TensorProcesses
from registry.core.errors import CannotRun, OperationFailed
from registry.settings import Settings
from registry.workers.agent import Agent
from registry.workers.cache import BlobCache, in_use
from registry.workers.engine import find_engine
from registry.workers.library import Library
from registry.workers.library import check_url as check_url
from registry.workers.links import Links
from registry.workers.machine import cores
from registry.workers.node import Node, NodeConfig
from registry.workers.tensors import TensorJobs
from registry.workers.transfer import Source

_NOT_NAME = re.compile(r"[^a-z0-9-]+")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Post:
    """Where a worker serves. `token` enrols it, and is not needed again afterwards.

    `store` is a data folder that may be the library's own, seen from here.
    """

    server: str
    token: str = ""
    name: str = ""
    labels: frozenset[str] = frozenset()
    cache_bytes: int = 0
    store: Path | None = None


async def serve(post: Post, settings: Settings, ready: Callable[[str], None]) -> None:
    """Run models for the library until SIGTERM, which lets what runs end; a second ends it now.

    `ready` is called with the worker's name once it may link itself.

    Raises:
        CannotRun: there is no engine on this machine.
        UpstreamFailed: the library refuses it, or there is none.
        OperationFailed: the folder of the worker cannot be used.
    """
    engine = find_engine(settings.worker.engine)
    if engine.problem:
        raise CannotRun(engine.problem)
    folder = settings.data / "worker"
    library = Library(post.server, secrets.token_hex(8))
    lock = await asyncio.to_thread(_locked, folder)
    try:
        name, credential = await _credential(folder, post, library)
        library.sign(credential)
        nodes: list[Node] = []
        links: list[Links] = []
        cache = BlobCache(
            folder,
            Source(library.url, library.headers),
            lambda: in_use(nodes[0].facts()),
            limit_bytes=post.cache_bytes,
            store=post.store,
        )
        await asyncio.to_thread(cache.prepare)
        nodes.append(
            Node(
                NodeConfig(
                    name,
                    settings.worker,
                    engine,
                    cache.path,
                    lambda: cache.digests,
                    post.labels,
                    crashed=lambda crash: links[0].crashed(crash),
                )
            )
        )

        wanted = settings.conversion
        tensors = TensorJobs(
            TensorProcesses(folder, wanted.threads or cores(), wanted.memory_bytes), cache
        )

        def agent(replica: str) -> tuple[Agent, Library]:
            there = library.at(replica)
            return Agent(nodes[0], there, cache, settings.worker.keep_alive_s, tensors), there

        links.append(Links(library, agent))
        ready(name)
        await _work(links[0], nodes[0])
    finally:
        lock.close()
        await library.close()


async def _work(links: Links, node: Node) -> None:
    """Serve until told to stop."""
    stops = asyncio.Queue[None]()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stops.put_nowait, None)
    serving = asyncio.create_task(links.run())
    stopping = asyncio.create_task(stops.get())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            log.info("no new work is taken; what runs ends; a second signal stops it now")
            await _drained(node, stops)
    finally:
        await links.leave()
        serving.cancel()
        stopping.cancel()
        await asyncio.gather(serving, stopping, return_exceptions=True)
        await node.close()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    if serving.done() and not serving.cancelled():
        serving.result()


async def _drained(node: Node, stops: "asyncio.Queue[None]") -> None:
    """Wait until nothing runs, or for the second signal."""
    draining = asyncio.create_task(node.drain())
    again = asyncio.create_task(stops.get())
    await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, again):
        task.cancel()
    await asyncio.gather(draining, again, return_exceptions=True)


def _locked(folder: Path) -> IO[bytes]:
    """Make the folder this process's own, until it is closed.

    Raises:
        OperationFailed: another worker runs in it; two with one credential would cut each other
            off.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("ab")
    except OSError as error:
        raise OperationFailed(f"the worker's folder cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise OperationFailed(
            "another worker runs in this data folder; give each its own with --data"
        ) from error
    return lock


# --- the credential -----------------------------------------------------------------------------


async def _credential(folder: Path, post: Post, library: Library) -> tuple[str, str]:
    """Name and credential: those of this machine's folder, or new ones for the token."""
    file = folder / "credential"
    known = await asyncio.to_thread(_read, file, library.url)
    if known is not None and post.name in {"", known[0]}:
        return known
    if not post.token:
        raise OperationFailed(
            "this worker is not enrolled: make a token with `registry worker token` on the "
            "library's host and give it with --token"
        )
    name = post.name or _default_name()
    credential = await library.enrol(post.token, name)
    await asyncio.to_thread(_write, file, f"{library.url}\n{name}\n{credential}\n")
    return name, credential


def _default_name() -> str:
    """The machine's, and something of its own: several may be called alike."""
    host = _NOT_NAME.sub("-", socket.gethostname().partition(".")[0].lower()).strip("-")
    return f"{host[:40] or 'worker'}-{secrets.token_hex(3)}"


def _read(file: Path, url: str) -> tuple[str, str] | None:
    """What is kept for that library; None if nothing is."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            file.chmod(0o600)
        lines = file.read_text().split("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OperationFailed(f"the credential cannot be read: {error.strerror}") from error
    if len(lines) < 3 or lines[0] != url:
        return None
    return lines[1], lines[2]


def _write(file: Path, text: str) -> None:
    """Keep a credential where only this user reads it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = file.with_suffix(".part")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            file.with_suffix(".part").unlink(missing_ok=True)
        raise OperationFailed(f"the credential cannot be kept: {error.strerror}") from error
