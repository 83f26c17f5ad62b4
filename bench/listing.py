"""Measure the list of models and show, beside a real Ollama over the same data folder.

    python bench/listing.py [--ollama BINARY] [--models 1000 10000 100000] [--peer-most 10000]

The folder is filled by our service's own parts: models of one tiny GGUF, each with a system text of
its own. Our data folder is a valid models folder, so both servers are started over it. Measured:
`/api/tags` (median of the rounds), its first answer after a start and 304 by ETag; `/api/show` of
all names in turn on 16 connections (Ollama: one connection, a few names: it takes seconds each).
Times of Ollama are taken up to `--peer-most` models: its first list takes a minute of 100,000.
"""

import argparse
import asyncio
import http.client
import json
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import load
import servers

from registry.adapters import migrate
from registry.adapters.catalog_sql import resolve
from registry.app import build
from registry.core import media
from registry.core.digest import Digest
from registry.core.manifest import Descriptor, encode_model
from registry.core.names import ModelName
from registry.ports.catalog import Transaction
from registry.services import Services
from registry.services.library.preparation import Prepared
from registry.settings import Settings

_BATCH = 500
_KEY = b"general.architecture"
GGUF = (
    b"GGUF"
    + struct.pack("<IQQ", 3, 0, 1)
    + struct.pack("<Q", len(_KEY))
    + _KEY
    + struct.pack("<IQ", 8, 5)
    + b"llama"
)
CONFIG = b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"os":"linux"}'
TEMPLATE = b"{{ .System }} {{ .Prompt }}"


def name_of(number: int) -> str:
    return f"team{number % 100}/model{number}:8b"


async def fill(data: Path, count: int) -> None:
    """Make the folder hold `count` models, as creates would have left it."""
    settings = Settings.load({}, data=data)
    data.mkdir(parents=True, exist_ok=True)
    migrate.upgrade(resolve("", settings.sqlite_path))
    services = build(settings)
    try:
        here = len(await services.catalog.scan(lambda tx: tx.models()))
        for content in (GGUF, CONFIG, TEMPLATE):
            await services.blobs.put_bytes(content)
        for start in range(here, count, _BATCH):
            await _fill(services, range(start, min(start + _BATCH, count)))
    finally:
        await services.housekeeping.finish()
        await services.catalog.close()


async def _fill(services: Services, numbers: range) -> None:
    made: list[tuple[ModelName, Prepared, bytes]] = []
    for number in numbers:
        system = b"You are number %d." % number
        layers = [
            Descriptor(kind, Digest.of(content), len(content))
            for kind, content in (
                (media.MODEL, GGUF),
                (media.TEMPLATE, TEMPLATE),
                (media.SYSTEM, system),
            )
        ]
        config = Descriptor(media.CONFIG, Digest.of(CONFIG), len(CONFIG))
        body = encode_model(config, layers)
        prepared = await services.manifests.prepare(
            body, media.DOCKER_MANIFEST, known={Digest.of(system): system}
        )
        made.append((ModelName.parse(name_of(number)), prepared, system))
    blobs = Path(services.settings.data) / "blobs"
    for _, _, system in made:  # not synced one by one, as creates would
        (blobs / Digest.of(system).file_name).write_bytes(system)

    def work(tx: Transaction) -> None:
        for name, prepared, system in made:
            digest = Digest.of(system)
            tx.put_blob(digest, len(system), digest.file_name, time.time_ns())
            services.manifests.replace_model(tx, name, prepared)

    await services.catalog.write(work)
    await services.housekeeping.settle([])


class Client:
    """One keep-alive connection, for what is asked once."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[float, bytes]:
        """Seconds to the last byte, and the body."""
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        began = time.perf_counter()
        self._connection.request(method, path, body or None, names)
        answer = self._connection.getresponse()
        content = answer.read()
        took = time.perf_counter() - began
        if answer.status not in {200, 304}:
            raise SystemExit(f"{method} {path}: {answer.status} {content[:200]!r}")
        self.etag = answer.getheader("etag") or ""
        return took, content


def show_ask(number: int) -> load.Ask:
    return load.Ask("POST", "/api/show", json.dumps({"model": name_of(number)}).encode())


def median(count: int, work: Callable[[], float]) -> float:
    return statistics.median(work() for _ in range(count))


def measure(args: argparse.Namespace, data: Path, count: int) -> None:
    with ExitStack() as stack:
        began = time.perf_counter()
        own = stack.enter_context(servers.ours(args.ours, data))
        client = Client(own.port)
        started = time.perf_counter() - began
        first, content = client.ask("GET", "/api/tags")
        etag = client.etag
        assert len(json.loads(content)["models"]) == count
        print(
            f"\n{count:,} models: answer of {len(content) / 1e6:.1f} MB; start {started:.2f} s, "
            f"first list {first * 1e3:.0f} ms, resident {own.memory:.0f} MiB"
        )
        peer = None
        if args.ollama and count <= args.peer_most:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder)))
            peer = stack.enter_context(servers.ollama(args.ollama, data, home))
            its_first, its_content = Client(peer.port).ask("GET", "/api/tags")
            assert len(json.loads(its_content)["models"]) == count
            print(f"ollama's first list {its_first * 1e3:.0f} ms: {its_first / first:.0f} x")
        _lists(args, own, peer, etag)
        _shows(args, own, peer, count)
        print(f"resident at the end {own.memory:.0f} MiB")


def _lists(
    args: argparse.Namespace, own: servers.Server, peer: servers.Server | None, etag: str
) -> None:
    client = Client(own.port)
    ask = load.Ask("GET", "/api/tags")
    ours, theirs = [], []
    for _ in range(args.rounds):
        ours.append(median(7, lambda: load.once(own.port, ask)))
        if peer:
            port = peer.port
            theirs.append(load.once(port, ask))
    mine = statistics.median(ours)
    line = f"list: ours {mine * 1e3:.2f} ms"
    if theirs:
        its = statistics.median(theirs)
        line += f", ollama {its * 1e3:.1f} ms: {its / mine:.0f} x"
    print(line)
    unchanged = median(50, lambda: client.ask("GET", "/api/tags", If_None_Match=etag)[0])
    print(f"list, 304 by ETag: {unchanged * 1e3:.2f} ms")


def _shows(
    args: argparse.Namespace, own: servers.Server, peer: servers.Server | None, count: int
) -> None:
    asks = [show_ask(number) for number in range(count)]
    rates, cpus, results = [], [], []
    made = []
    done = 0
    while done < count:  # every name once: after that the answers are kept
        made.append(load.run(own.port, asks[done:] + asks[:done], seconds=1.0).rate)
        done += int(made[-1])
    print(f"show, each name for the first time: ours {statistics.median(made):,.0f} per second")
    for number in range(args.rounds):
        cpu = own.cpu
        turned = asks[number * 97 % count :] + asks[: number * 97 % count]
        result = load.run(own.port, turned, seconds=args.seconds)
        rates.append(result.rate)
        results.append(result)
        cpus.append((own.cpu - cpu) / (result.rate * args.seconds))
    rate = statistics.median(rates)
    p50 = statistics.median(result.p50 for result in results)
    p99 = statistics.median(result.p99 for result in results)
    line = (
        f"show: ours {rate:,.0f} per second, {statistics.median(cpus) * 1e6:.0f} µs CPU, "
        f"p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms"
    )
    if peer:
        port = peer.port
        few = [load.once(port, asks[number * count // 4]) for number in range(4)]
        line += (
            f"; ollama {1 / statistics.median(few):,.1f}: {rate * statistics.median(few):,.0f} x"
        )
    print(line)


def main() -> None:
    options = servers.options(__doc__)
    options.add_argument("--ollama", type=Path)
    options.add_argument("--models", type=int, nargs="*", default=[1000, 10_000])
    options.add_argument("--peer-most", type=int, default=10_000)
    options.add_argument("--seconds", type=float, default=3.0)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        data = Path(folder) / "data"
        for count in sorted(args.models):
            began = time.perf_counter()
            asyncio.run(fill(data, count))
            print(f"filled to {count:,} in {time.perf_counter() - began:.0f} s")
            measure(args, data, count)


if __name__ == "__main__":
    main()
