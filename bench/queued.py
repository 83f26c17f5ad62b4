"""Measure a long queue: memory of the library, and whether others are kept waiting by it.

    python bench/queued.py [--streams 1000]

A server of ours with one existing server as its worker, which answers nothing. So many clients ask
it for a streamed chat of one model, then of 200, then all leave. Another process asks for
`/api/tags` all the time; shown are its slowest answer and the 99th percentile in each phase, beside
how late the asker itself was woken: what the machine adds.
"""

import argparse
import asyncio
import hashlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from registry.adapters.catalog_sql import open_catalog
from registry.ports.fleet import NewWorker
from registry.services.inference.fleet import Fleet
from tests.support.foreign import Answer, ForeignOpenAI
from tests.support.scripted_model import scripted_model
from tests.support.server import Server, running

_PROBE = """
import http.client, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
while True:
    began = time.perf_counter()
    connection.request("GET", "/api/tags")
    connection.getresponse().read()
    answered = time.perf_counter()
    time.sleep(0.005)
    late = time.perf_counter() - answered - 0.005
    print(time.monotonic(), (answered - began) * 1e3, late * 1e3, flush=True)
"""
_ENVIRON = {
    "REGISTRY_WORKER__LOCAL": "off",
    "REGISTRY_WORKER__MAX_QUEUE": "100000",
    "REGISTRY_WORKER__MAX_QUEUE_PER_MODEL": "100000",
    "REGISTRY_LOG_LEVEL": "warning",
}


def memory_mib(server: Server) -> float:
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    return int(found[1]) / 1024 if found else 0.0


class Probe:
    """Asks for the list of models all the time; tells how that went in a phase."""

    def __init__(self, server: Server, log: Path) -> None:
        self._server = server
        self._log = log
        line = [sys.executable, "-c", _PROBE, str(server.port)]
        self._process = subprocess.Popen(line, stdout=log.open("wb"))

    async def started(self) -> None:
        while not self._log.read_bytes():
            await asyncio.sleep(0.1)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        lines = self._log.read_text().splitlines()[:-1]
        rows = [tuple(map(float, line.split())) for line in lines]
        times = [asked for at, asked, _ in rows if at >= began]
        late = max(over for at, _, over in rows if at >= began)
        slow = statistics.quantiles(times, n=100)[98]
        print(
            f"{name:12} {time.monotonic() - began:5.1f} s   "
            f"/api/tags slowest {max(times):7.1f} ms, 99 % {slow:6.1f} ms; "
            f"asker late {late:6.1f} ms; library {memory_mib(self._server):6.1f} MiB"
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


async def fill(server: Server, worker: ForeignOpenAI, models: int) -> None:
    """Models of the same weights, and the worker that is to run them."""
    data = scripted_model(["Hel", "lo"])
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
        (await client.post(f"/api/blobs/{digest}", content=data)).raise_for_status()
        for number in range(models):
            recipe = {
                "model": f"m{number}",
                "files": {"m.gguf": digest},
                "parameters": {"num_ctx": 64 + number},
            }
            (await client.post("/api/create", json=recipe)).raise_for_status()
        catalog = open_catalog("", server.data / "registry.db")
        names = {f"m{number}": "x" for number in range(models)}
        wish = NewWorker("w", "openai", worker.url, models=names, slots=1)
        await Fleet(catalog, time.time_ns).add(wish)
        await catalog.close()
        for _ in range(100):
            await asyncio.sleep(0.2)
            if worker.calls("/v1/models"):
                break
        await asyncio.sleep(1)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(server: Server, model: str) -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    chat = {"model": model, "messages": [{"role": "user", "content": "x" * 500}]}
    body = json.dumps(chat).encode()
    writer.write(b"POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    return reader, writer


async def measure(folder: Path, streams: int, models: int) -> None:
    async with ForeignOpenAI("x") as worker:
        worker.answers["/v1/chat/completions"] = Answer(pieces=[b": wait\n\n"], pause_s=3600)
        with running(folder / f"data{models}", **_ENVIRON) as server:
            await fill(server, worker, models)
            print(f"\n{streams} streams of {models} models")
            idle = memory_mib(server)
            probe = Probe(server, folder / "probe")
            await probe.started()
            with probe.phase("idle"):
                await asyncio.sleep(4)
            with probe.phase("they come"):
                connections = [await ask(server, f"m{n % models}") for n in range(streams)]
                await asyncio.sleep(2)
            with probe.phase("they wait"):
                await asyncio.sleep(8)
            print(f"library above idle: {memory_mib(server) - idle:.1f} MiB")
            async with httpx2.AsyncClient(base_url=server.url) as client:
                text = (await client.get("/metrics")).text
                waiting = re.findall(r"registry_inference_waiting (\d+)", text)
                print(f"waiting: {waiting[0]}")
            with probe.phase("they leave"):
                for _, writer in connections:
                    writer.close()
                await asyncio.sleep(2)
            probe.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for models in (1, 200):
            asyncio.run(measure(Path(folder), asked.streams, models))


if __name__ == "__main__":
    main()
