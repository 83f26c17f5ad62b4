"""Measure what the way through the library costs, beside the same engine called directly.

    python bench/inference.py [--big 100|400] [--rounds 5] [--clients 1 8]

Both sides run the same runner with the same settings on the same file; they are asked in turn,
round after round, by the same client. Printed are the medians of the rounds, our rate divided by
the engine's (for times, the engine's by ours), and the same of each side's best round, which other
work on the machine disturbs least. Models are made here: one that says a written text, a BERT, and
noise of about `--big` million parameters.
"""

import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import servers

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from registry.ports.workers import RunnerOptions
from registry.workers import machine
from registry.workers.launch import Files, Place, runner_environment, runner_settings
from tests.support.scripted_model import embedding_model, endless, random_model

KEY = "bench"
WORDS = [f" word{number}" for number in range(50)]
BIG = {100: (768, 12, 32_000), 400: (1024, 24, 32_000)}


@dataclass(frozen=True)
class Side:
    """Where requests go, and how: the engine drops kept connections, so it gets new ones."""

    path: str
    connect: Callable[[], http.client.HTTPConnection]
    keeps: bool = True


class SocketConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("runner")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@dataclass
class Answer:
    """When the first piece and the last came, in seconds after the request."""

    first: float
    whole: float


class Client:
    """Asks one side, one request after the other."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._connection = side.connect()

    def ask(self, body: bytes) -> Answer:
        began = time.perf_counter()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        if not self._side.keeps:
            self._connection.close()
            headers["Connection"] = "close"
        self._connection.request("POST", self._side.path, body, headers)
        response = self._connection.getresponse()
        body = response.read1(1 << 16)
        first = time.perf_counter()
        body += response.read()
        if response.status != 200:
            raise SystemExit(f"{self._side.path}: {response.status} {body!r}")
        return Answer(first - began, time.perf_counter() - began)


@contextlib.contextmanager
def engine(
    model: Path, options: RunnerOptions, folder: Path, path: str = "/completion"
) -> Iterator[Side]:
    """A runner, as the library starts it, asked without the library."""
    socket_path = str(folder / f"{model.name[:8]}.sock")
    place = Place(socket_path, KEY, machine.cores())
    settings = runner_settings(Files(str(model), size=model.stat().st_size), options, place)
    root = str(Path(__file__).resolve().parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "registry.workers.runner"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=runner_environment(os.environ, root, dedicated=False),
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps({**settings, "parent": os.getpid()}).encode() + b"\n")
    process.stdin.flush()
    said = process.stdout.readline()
    if b"address" not in said:
        raise SystemExit(f"the runner did not start: {said!r}")
    try:
        yield Side(path, lambda: SocketConnection(socket_path), keeps=False)
    finally:
        process.terminate()
        process.wait()
        Path(socket_path).unlink(missing_ok=True)


def library(port: int, path: str = "/api/generate") -> Side:
    return Side(path, lambda: http.client.HTTPConnection("127.0.0.1", port))


def create(port: int, name: str, file: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    data = file.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    connection.request("HEAD", f"/api/blobs/{digest}")
    if connection.getresponse().status != 200:
        connection.close()
        connection.request("POST", f"/api/blobs/{digest}", data)
        connection.getresponse().read()
    connection.close()
    body = {"model": name, "files": {file.name: digest}, "stream": False}
    connection.request("POST", "/api/create", json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200 or b"success" not in text:
        raise SystemExit(f"create: {answer.status} {text!r}")


def rate(side: Side, body: bytes, clients: int, requests: int) -> dict[str, float]:
    """Requests per second, and the median time to the first piece in milliseconds."""
    firsts: list[float] = []

    def client() -> None:
        asking = Client(side)
        firsts.extend([asking.ask(body).first for _ in range(requests // clients)])

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return {"requests/s": len(firsts) / seconds, "first piece, ms": 1000 * median(firsts)}


def generate(model: str, tokens: int) -> bytes:
    options = {"temperature": 0, "num_predict": tokens}
    return json.dumps({"model": model, "prompt": "Hi\n", "raw": True, "options": options}).encode()


def completion(tokens: int) -> bytes:
    return json.dumps(
        {"prompt": "Hi\n", "stream": True, "temperature": 0, "n_predict": tokens}
    ).encode()


Measure = Callable[[], dict[str, float]]


def compare(what: str, rounds: int, ours: Measure, theirs: Measure) -> None:
    """Print medians and their ratio, and that of the best rounds; of ms fewer are better."""
    both: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(rounds):
        its = theirs()
        both.append((ours(), its))
    for unit in both[0][0]:
        mine, other = [one[unit] for one, _ in both], [two[unit] for _, two in both]
        less = unit.endswith("ms")
        best = min if less else max
        ratios = [
            pair[1] / pair[0] if less else pair[0] / pair[1]
            for pair in ((median(mine), median(other)), (best(mine), best(other)))
        ]
        print(
            f"{what + ', ' + unit:<40} registry {median(mine):9.2f}   engine {median(other):9.2f}"
            f"   ratio {ratios[0]:5.2f}, best {ratios[1]:5.2f}",
            flush=True,
        )


def small(place: "Bench") -> None:
    """A model that costs nothing: what is left is the way."""
    file = place.folder / "small.gguf"
    file.write_bytes(endless(WORDS))
    create(place.port, "small", file)
    ours = library(place.port)
    with engine(file, RunnerOptions(parallel=place.parallel), place.folder) as direct:
        for tokens, requests in ((8, 240), (64, 80)):
            for clients in place.clients:
                mine = partial(rate, ours, generate("small", tokens), clients, requests)
                its = partial(rate, direct, completion(tokens), clients, requests)
                mine(), its()
                compare(f"{tokens} tokens, {clients} clients", place.rounds, mine, its)


def vectors(place: "Bench") -> None:
    """200 short texts in one request."""
    file = place.folder / "vectors.gguf"
    file.write_bytes(embedding_model(width=384, layers=6, context=512))
    create(place.port, "vectors", file)
    texts = [f"the cat sat on the mat {'dog ' * (number % 7)}hello" for number in range(200)]
    mine = json.dumps({"model": "vectors", "input": texts}).encode()
    its = json.dumps({"input": texts}).encode()
    options = RunnerOptions(num_ctx=512, embedding=True)
    with engine(file, options, place.folder, "/v1/embeddings") as direct:
        one, other = Client(library(place.port, "/api/embed")), Client(direct)
        one.ask(mine), other.ask(its)
        compare(
            "200 embeddings in one request",
            place.rounds,
            lambda: {"ms": 1000 * one.ask(mine).whole},
            lambda: {"ms": 1000 * other.ask(its).whole},
        )


def large(place: "Bench", millions: int) -> None:
    """A model that is busy computing: tokens per second of one answer."""
    width, layers, vocabulary = BIG[millions]
    file = place.folder / "large.gguf"
    file.write_bytes(random_model(width, layers, vocabulary, heads=16))
    create(place.port, "large", file)
    tokens = 64
    with engine(file, RunnerOptions(), place.folder) as direct:
        one, other = Client(library(place.port)), Client(direct)
        mine, its = generate("large", tokens), completion(tokens)
        one.ask(mine), other.ask(its)
        compare(
            f"{millions}M parameters, F16",
            place.rounds,
            lambda: {"tokens/s": tokens / one.ask(mine).whole},
            lambda: {"tokens/s": tokens / other.ask(its).whole},
        )


@dataclass(frozen=True)
class Bench:
    """What all measurements need."""

    port: int
    folder: Path
    rounds: int
    clients: list[int]
    parallel: int


def main() -> None:
    parser = servers.options(__doc__)
    parser.add_argument("--big", type=int, choices=sorted(BIG), default=100)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--parallel", type=int, default=1, help="slots of the small model")
    parser.add_argument("--only", choices=["small", "vectors", "large"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        environ = {"REGISTRY_WORKER__PARALLEL": str(args.parallel)}
        with servers.ours(args.ours, folder / "data", environ=environ) as server:
            place = Bench(server.port, folder, args.rounds, args.clients, args.parallel)
            if args.only in {None, "small"}:
                small(place)
            if args.only in {None, "vectors"}:
                vectors(place)
            if args.only in {None, "large"}:
                large(place, args.big)


if __name__ == "__main__":
    main()
