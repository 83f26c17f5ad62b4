"""What goes wrong around a service: each a block in which it does, and after which it does not."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.faulty_s3 import Fault, Front
from tests.support.postgres import PostgresServer
from tests.support.server import Server, start

_SKEWS_S = (3600, -3600)
_KEPT_FREE = (0, 4096, 300_000)  # bytes of a full disk


@dataclass
class Site:
    """Servers of one library, and what they stand on."""

    places: list[tuple[Path, dict[str, str]]]
    """The data folder of each, and its settings."""
    servers: list[Server] = field(default_factory=list)
    slowest_start_s: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(1))

    @property
    def ports(self) -> list[int]:
        """Where they listen, running or not."""
        return [server.port for server in self.servers]

    def start(self) -> None:
        """Start them all."""
        for folder, environ in self.places:
            self.servers.append(self._started(folder, None, environ))

    def again(self, number: int) -> None:
        """Start one anew on its port."""
        folder, environ = self.places[number]
        self.servers[number] = self._started(folder, self.servers[number].port, environ)

    def _started(self, folder: Path, port: int | None, environ: dict[str, str]) -> Server:
        began = time.monotonic()
        server = start(folder, port, **environ)
        self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - began)
        return server

    def stop(self) -> None:
        """Stop them all; each has to end well."""
        codes = [server.stop() for server in self.servers]
        assert codes == [0] * len(codes), codes


Trouble = Callable[[Site], AbstractContextManager[None]]


@contextmanager
def killed(site: Site) -> Iterator[None]:
    """`kill -9` of a server, and its start."""
    number = site.dice.randrange(len(site.servers))
    site.servers[number].kill()
    yield
    site.again(number)


def stopped(postgres: PostgresServer, how: signal.Signals) -> Trouble:
    """The database stops: SIGINT breaks connections off, SIGQUIT is a crash."""

    @contextmanager
    def trouble(site: Site) -> Iterator[None]:
        postgres.stop(how)
        yield
        postgres.start()

    return trouble


def frozen(postgres: PostgresServer) -> Trouble:
    """The database stands still."""

    @contextmanager
    def trouble(site: Site) -> Iterator[None]:
        postgres.freeze()
        yield
        postgres.thaw()

    return trouble


def faulty(front: Front, fault: Fault, every: tuple[int, ...] = (1, 2, 3, 7)) -> Trouble:
    """The object store does wrong at every n-th call, of different n."""

    @contextmanager
    def trouble(site: Site) -> Iterator[None]:
        front.fault, front.every = fault, site.dice.choice(every)
        yield
        front.every = 0

    return trouble


def full(folder: Path) -> Trouble:
    """The disk is full, or all but."""

    @contextmanager
    def trouble(site: Site) -> Iterator[None]:
        ballast = folder / "ballast"
        size = shutil.disk_usage(folder).free - site.dice.choice(_KEPT_FREE)
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        yield
        ballast.unlink()

    return trouble


@contextmanager
def small_disk(folder: Path, size: int) -> Generator[bool]:
    """A file system of so many bytes at a folder; False if that is not permitted here."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    program = shutil.which("mount")
    if sys.platform != "linux" or program is None or subprocess.run([program, *options]).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Clocks:
    """A clock for each of some servers, to be set while they run (Debian's `faketime`).

    Times of files stay what they are, as on a file server with a clock of its own.
    """

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder, self._library = folder, library

    @classmethod
    def found(cls, folder: Path) -> "Clocks | None":
        """None where it is not installed."""
        places = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        return next((cls(folder, library) for library in places), None)

    def environ(self, name: str, offset_s: int = 0) -> dict[str, str]:
        """What a server needs to go by such a clock."""
        self.set(name, offset_s)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self.folder / f"clock-{name}"),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, name: str, offset_s: int) -> None:
        """So many seconds ahead of the others, in a second or two."""
        file = self.folder / f"clock-{name}"
        fresh = file.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}")
        fresh.replace(file)

    def off(self, *names: str) -> Trouble:
        """They are an hour wrong: the first ahead or behind, the next the other way."""

        @contextmanager
        def trouble(site: Site) -> Iterator[None]:
            skew = site.dice.choice(_SKEWS_S)
            for name, sign in zip(names, itertools.cycle((1, -1))):
                self.set(name, sign * skew)
            yield
            for name in names:
                self.set(name, 0)

        return trouble
