"""Measure create by layering over a model that is here, beside a real Ollama.

    python bench/create.py [--ollama BINARY] [--weights-mib 64]

`from` a model, with a new system text and new parameters each time, so that each create writes
three blobs (system, parameters, config), a manifest and a tag; one after the other, and eight at a
time. Ours survives a power cut when it answers; Ollama syncs nothing. Also counted: the bytes that
our server read and wrote for a create, which must not grow with the weights.
"""

import argparse
import hashlib
import http.client
import json
import shutil
import statistics
import struct
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import servers

_KEY = b"general.architecture"


def gguf(size: int) -> bytes:
    """A model file with one tensor of `size` bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    head += struct.pack("<Q", len(_KEY)) + _KEY + struct.pack("<IQ", 8, 5) + b"llama"
    name = b"token_embd.weight"
    head += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, size // 4, 0, 0)
    head += bytes(-len(head) % 32)
    return head + b"\1" * size


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def ask(self, path: str, body: bytes) -> bytes:
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status not in {200, 201} or b'"error"' in content:
            raise SystemExit(f"{path}: {answer.status} {content[:300]!r}")
        return content

    def create(self, name: str, **recipe: object) -> float:
        """Seconds that it takes."""
        body = json.dumps({"model": name, "stream": False, **recipe}).encode()
        began = time.perf_counter()
        self.ask("/api/create", body)
        return time.perf_counter() - began


def prepare(port: int, weights: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    client = Client(port)
    client.ask(f"/api/blobs/{digest}", weights)
    client.create("base", files={"model.gguf": digest})


def layer(client: Client, label: str) -> float:
    system, parameters = f"You are {label}.", {"seed": abs(hash(label)) % 10**9, "stop": [label]}
    return client.create(
        f"layered-{label}", **{"from": "base"}, system=system, parameters=parameters
    )


def parallel(port: int, label: str, writers: int, each: int) -> float:
    """Creates per second of several clients at once."""

    def work(writer: int) -> None:
        client = Client(port)
        for number in range(each):
            layer(client, f"{label}-{writer}-{number}")

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(writers)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return writers * each / (time.perf_counter() - began)


def measure(args: argparse.Namespace, started: list[servers.Server]) -> None:
    singles: dict[str, list[float]] = {server.name: [] for server in started}
    rates: dict[str, list[float]] = {server.name: [] for server in started}
    for number in range(args.rounds + 1):
        for server in started:
            client = Client(server.port)
            took = [layer(client, f"{number}-{index}") for index in range(args.creates)]
            rate = parallel(server.port, f"p{number}", 8, args.creates // 4)
            if number:
                singles[server.name] += took
                rates[server.name].append(rate)
    mine, my_rate = 0.0, 0.0
    print(f"{'':10} {'p50 ms':>8} {'p99 ms':>8} {'8 at once, per s':>17}  ours ÷ it")
    for server in started:
        cuts = statistics.quantiles(singles[server.name], n=100)
        rate = statistics.median(rates[server.name])
        mine, my_rate = mine or cuts[49], my_rate or rate
        ratio = (
            f"{cuts[49] / mine:.1f} x, {my_rate / rate:.1f} x" if server.name == "ollama" else ""
        )
        print(
            f"{server.name:10} {cuts[49] * 1e3:8.2f} {cuts[98] * 1e3:8.2f} {rate:17,.0f}  {ratio}"
        )


def count_bytes(server: servers.Server) -> None:
    client = Client(server.port)
    read, written = server.bytes_read, server.bytes_written
    for number in range(50):
        layer(client, f"counted-{number}")
    print(
        f"ours per create: {(server.bytes_read - read) / 50 / 1024:.0f} KiB read, "
        f"{(server.bytes_written - written) / 50 / 1024:.0f} KiB written, all files and sockets"
    )


def main() -> None:
    options = servers.options(__doc__)
    options.add_argument("--ollama", type=Path)
    options.add_argument("--weights-mib", type=int, default=64)
    options.add_argument("--creates", type=int, default=40, help="one after the other, per round")
    args = options.parse_args()
    weights = gguf(args.weights_mib << 20)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder)))
        started = [stack.enter_context(servers.ours(args.ours, folder / "ours"))]
        prepare(started[0].port, weights)
        if args.ollama:
            # its own create from a file needs a program beside it; our folder is one of its kind
            for part in ("blobs", "manifests"):
                shutil.copytree(folder / "ours" / part, folder / "models" / part)
            home = folder / "home"
            home.mkdir()
            peer = servers.ollama(args.ollama, folder / "models", home)
            started.append(stack.enter_context(peer))
        measure(args, started)
        count_bytes(started[0])


if __name__ == "__main__":
    main()
