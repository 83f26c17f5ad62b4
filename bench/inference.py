"""Measure what the way through the library costs, beside the same engine called directly.

    python bench/inference.py [--big 100|400] [--rounds 5] [--clients 1 8] [--only tiny]

Both sides run the same runner with the same settings on the same file; they are asked in turn,
round after round, by the same client. Printed are the medians of the rounds, our rate divided by
the engine's (for times, the engine's by ours), the same of each side's best round, which other work
on the machine disturbs least, and the CPU time that a request took: ours of the library and of its
runner. Models are made here: one that says a written text and computes nothing, so that the way is
all there is; a tiny one of 15 million parameters, which computes; a BERT; and one of about `--big`
million parameters.
"""

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import servers
from asking import Side, many, once
from comparing import Work, compare, measured

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from registry.ports.workers import RunnerOptions
from registry.workers import machine
from registry.workers.launch import Files, Place, runner_environment, runner_settings
from tests.support.scripted_model import embedding_model, endless, random_model

KEY = "bench"
WORDS = [f" word{number}" for number in range(50)]
TINY = {"width": 288, "layers": 6, "vocabulary": 32_000, "inner": 768, "heads": 6, "tied": True}
BIG = {100: (768, 12, 32_000), 400: (1024, 24, 32_000)}


@dataclass(frozen=True)
class Engine:
    """A runner that is asked without the library."""

    address: str
    process: subprocess.Popen[bytes]

    def side(self, path: str = "/completion") -> Side:
        """Where it is asked; it ends a connection after each streamed answer."""
        return Side(self.address, path, keeps=False, api_key=KEY)

    @property
    def cpu(self) -> float:
        """CPU seconds that it has used."""
        return servers.Server("engine", 0, self.process).cpu


@contextlib.contextmanager
def engine(model: Path, options: RunnerOptions, folder: Path) -> Iterator[Engine]:
    """A runner, as the library starts it."""
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
        yield Engine(socket_path, process)
    finally:
        process.terminate()
        process.wait()
        Path(socket_path).unlink(missing_ok=True)


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


Loads = Sequence[tuple[int, int, int]]
"""Tokens of the prompt, 0 for a few that are the same each time; of the answer; requests."""


def generate(model: str, prompt: str, tokens: int) -> bytes:
    options = {"temperature": 0, "num_predict": tokens}
    body = {"model": model, "prompt": prompt, "raw": True, "options": options}
    return json.dumps(body).encode()


def completion(prompt: str, tokens: int) -> bytes:
    body = {"prompt": prompt, "stream": True, "temperature": 0, "n_predict": tokens}
    return json.dumps(body).encode()


def prompts(length: int) -> list[str]:
    """Prompts of so many tokens, none of which begins as another; one short one for 0."""
    if not length:
        return ["Hi\n"]
    chance = random.Random(length)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return ["".join(chance.choices(letters, k=length)) for _ in range(500)]


@dataclass(frozen=True)
class Bench:
    """What all measurements need."""

    server: servers.Server
    folder: Path
    rounds: int
    clients: list[int]
    parallel: int

    def put(self, name: str, data: bytes) -> Path:
        """Make a model of a file."""
        file = self.folder / f"{name}.gguf"
        file.write_bytes(data)
        create(self.server.port, name, file)
        return file

    def cpu(self) -> dict[str, float]:
        """CPU seconds of ours."""
        return {"library": self.server.cpu, "its runner": self.server.children_cpu}

    def side_by_side(
        self, what: str, requests: int, ours: Work, theirs: Work, direct: Engine
    ) -> None:
        """Compare rounds of so many requests."""
        mine = partial(measured, self.cpu, requests, ours)
        its = partial(measured, lambda: {"engine alone": direct.cpu}, requests, theirs)
        compare(what, self.rounds, {"registry": mine, "engine": its})


def answers(place: Bench, name: str, data: bytes, options: RunnerOptions, loads: Loads) -> None:
    """Answers, in rounds of so many requests of each client."""
    file = place.put(name, data)
    ours = Side(place.server.port, "/api/generate")
    with engine(file, options, place.folder) as direct:
        theirs = direct.side()
        for length, tokens, requests in loads:
            texts = prompts(length)
            mine = [generate(name, text, tokens) for text in texts]
            its = [completion(text, tokens) for text in texts]
            count = once(theirs, its[0]).body.count(b'"stop":false')
            if once(ours, mine[0]).body.count(b'"done":false') != count:
                raise SystemExit(f"{name}: the answers are not equal")
            what = f"{name}, {f'prompt of {length}, ' if length else ''}{tokens} tokens"
            ours_next, theirs_next = itertools.cycle(mine), itertools.cycle(its)
            for clients in place.clients:
                place.side_by_side(
                    f"{what}, {clients} clients",
                    requests * clients,
                    partial(many, ours, ours_next, clients, requests * clients),
                    partial(many, theirs, theirs_next, clients, requests * clients),
                    direct,
                )


def small(place: Bench) -> None:
    """A model that costs nothing: what is left is the way."""
    options = RunnerOptions(parallel=place.parallel)
    answers(place, "scripted", endless(WORDS), options, ((0, 8, 150), (0, 64, 30)))


def tiny(place: Bench) -> None:
    """A model as small as any that is used, which computes."""
    options = RunnerOptions(parallel=place.parallel)
    loads = ((0, 8, 40), (0, 64, 6), (200, 8, 10))
    answers(place, "tiny", random_model(**TINY), options, loads)


def large(place: Bench, millions: int) -> None:
    """A model that is busy computing."""
    width, layers, vocabulary = BIG[millions]
    data = random_model(width, layers, vocabulary, heads=16)
    answers(place, f"{millions}M", data, RunnerOptions(), ((0, 64, 1),))


def vectors(place: Bench) -> None:
    """200 short texts in one request."""
    file = place.put("vectors", embedding_model(width=384, layers=6, context=512))
    texts = [f"the cat sat on the mat {'dog ' * (number % 7)}hello" for number in range(200)]
    mine = json.dumps({"model": "vectors", "input": texts}).encode()
    its = json.dumps({"input": texts}).encode()
    options = RunnerOptions(num_ctx=512, embedding=True)
    ours = Side(place.server.port, "/api/embed")
    with engine(file, options, place.folder) as direct:
        place.side_by_side(
            "200 embeddings in one request",
            1,
            lambda: {"ms": 1e3 * once(ours, mine).whole},
            lambda: {"ms": 1e3 * once(direct.side("/v1/embeddings"), its).whole},
            direct,
        )


def main() -> None:
    parser = servers.options(__doc__)
    parser.add_argument("--big", type=int, choices=sorted(BIG), default=100)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--parallel", type=int, default=1, help="slots of the small models")
    parser.add_argument("--only", choices=["small", "tiny", "vectors", "large"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        environ = {"REGISTRY_WORKER__PARALLEL": str(args.parallel)}
        with servers.ours(args.ours, folder / "data", environ=environ) as server:
            place = Bench(server, folder, args.rounds, args.clients, args.parallel)
            works = {
                "small": partial(small, place),
                "tiny": partial(tiny, place),
                "vectors": partial(vectors, place),
                "large": partial(large, place, args.big),
            }
            for name, work in works.items():
                if args.only in {None, name}:
                    work()


if __name__ == "__main__":
    main()
