"""Measure inference beside a real Ollama: the same model files, asked through the same API.

    python bench/beside_ollama.py --ollama PATH [--engine PATH] [--clients 1 8 32] [--parallel 1]

PATH is an installed Ollama with its `llama-server` (`../lib/ollama`). Without `--engine` ours uses
the engine that it brings; with it the given `llama-server`, Ollama's own perhaps: then all that
differs is the way to it. Both have `--parallel` slots, queues that are long enough, and else their
own settings. They are asked in turn, round after round, by the same client. Streamed: requests and
tokens per second, and the time to the first piece; embeddings, one text a request. Models are made
here: one that says a written text and computes nothing, one of 15 million parameters with short and
with long prompts nobody has seen, and a BERT.
"""

import itertools
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import servers
from asking import Side, many, once
from comparing import compare, measured
from inference import TINY, WORDS, create, generate, prompts

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support.scripted_model import embedding_model, endless, random_model

LONG_QUEUE = "10000"


@dataclass(frozen=True)
class Pair:
    """Both servers."""

    ours: servers.Server
    theirs: servers.Server
    folder: Path
    rounds: int

    def put(self, name: str, data: bytes) -> None:
        """Make a model of a file on both."""
        file = self.folder / f"{name}.gguf"
        file.write_bytes(data)
        for server in (self.ours, self.theirs):
            create(server.port, name, file)
        file.unlink()

    def compare(
        self, what: str, path: str, bodies: Sequence[bytes], clients: int, requests: int
    ) -> None:
        """Ask both for the same, in turn."""
        sides = {}
        for name, server in (("registry", self.ours), ("ollama", self.theirs)):
            work = partial(_asked, Side(server.port, path), itertools.cycle(bodies), clients)
            cpu = partial(_cpu, name, server)
            sides[name] = partial(measured, cpu, requests, partial(work, requests))
        compare(what, self.rounds, sides)


def _asked(
    side: Side, bodies: "itertools.cycle[bytes]", clients: int, requests: int
) -> Mapping[str, float]:
    return many(side, bodies, clients, requests)


def _cpu(name: str, server: servers.Server) -> dict[str, float]:
    return {name: server.cpu, f"{name}'s engine": server.children_cpu}


def answers(pair: Pair, name: str, clients: int, load: tuple[int, int, int]) -> None:
    """Streamed answers: tokens of the prompt and of the answer, requests of each client."""
    length, tokens, requests = load
    bodies = [generate(name, prompt, tokens) for prompt in prompts(length)]
    for server in (pair.ours, pair.theirs):
        said = once(Side(server.port, "/api/generate"), bodies[0]).body
        if f'"eval_count":{tokens}'.encode() not in said:
            raise SystemExit(f"{server.name}: {said!r}")
    what = f"{name}, {f'prompt of {length}, ' if length else ''}{tokens} tokens, {clients} clients"
    pair.compare(what, "/api/generate", bodies, clients, requests * clients)


def embeddings(pair: Pair, clients: int, requests: int) -> None:
    """One text a request."""
    texts = [f"the cat sat on the mat {'dog ' * (number % 7)}hello" for number in range(50)]
    bodies = [json.dumps({"model": "vectors", "input": text}).encode() for text in texts]
    pair.compare(f"embeddings, {clients} clients", "/api/embed", bodies, clients, requests)


def main() -> None:
    parser = servers.options(__doc__)
    parser.add_argument("--ollama", type=Path, required=True, help="its binary, as installed")
    parser.add_argument("--engine", default="", help="a llama-server for ours")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--only", choices=["scripted", "tiny", "vectors"])
    args = parser.parse_args()
    slots = str(args.parallel)
    mine = {
        "REGISTRY_WORKER__PARALLEL": slots,
        "REGISTRY_WORKER__MAX_QUEUE": LONG_QUEUE,
        "REGISTRY_WORKER__MAX_QUEUE_PER_MODEL": LONG_QUEUE,
    }
    mine |= {"REGISTRY_WORKER__ENGINE": args.engine} if args.engine else {}
    its = {"OLLAMA_NUM_PARALLEL": slots, "OLLAMA_MAX_QUEUE": LONG_QUEUE}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        with (
            servers.ours(args.ours, folder / "data", environ=mine) as ours,
            servers.ollama(args.ollama, folder / "models", folder / "home", its) as theirs,
        ):
            measure(Pair(ours, theirs, folder, args.rounds), args.clients, args.only)


def measure(pair: Pair, clients: list[int], only: str | None) -> None:
    """All that is wanted."""
    if only in {None, "scripted"}:
        pair.put("scripted", endless(WORDS))
        for count, load in itertools.product(clients, ((0, 8, 20), (0, 64, 5))):
            answers(pair, "scripted", count, load)
    if only in {None, "tiny"}:
        pair.put("tiny", random_model(**TINY))
        for count, load in itertools.product(clients, ((0, 64, 3), (200, 8, 3))):
            answers(pair, "tiny", count, load)
    if only in {None, "vectors"}:
        pair.put("vectors", embedding_model(width=384, layers=6, context=512))
        for count in clients:
            embeddings(pair, count, 30 * count)


if __name__ == "__main__":
    main()
