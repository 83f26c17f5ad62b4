"""Measure small requests of the registry protocol, beside other registries.

    python bench/small.py [--docker-registry /usr/bin/docker-registry] [--other NAME=BINARY ...]

A manifest by tag, HEAD of a blob, a list of 1,000 tags; 16 keep-alive connections. All servers run
at once and are asked in turn, round after round; the medians of the rounds are printed, and our
rate divided by each other's. CPU is what the server used per request; Go servers use all cores,
ours one. Each binary is a registry of the distribution project, which takes its `config.yml`.
"""

import argparse
import hashlib
import http.client
import statistics
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import load
import servers

CONFIG = b'{"model_format":"gguf","model_family":"llama"}'
BLOB = b"x" * 10_000
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
TAGS = 1000

_Runs = dict[tuple[str, str], list[tuple[load.Result, float]]]


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def manifest(config: bytes = CONFIG, blob: bytes = BLOB) -> bytes:
    return (
        b'{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":'
        b'"application/vnd.docker.container.image.v1+json","digest":"%s","size":%d},"layers":['
        b'{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"%s",'
        b'"size":%d}]}'
    ) % (
        MANIFEST_TYPE.encode(),
        digest(config).encode(),
        len(config),
        digest(blob).encode(),
        len(blob),
    )


def fill(port: int) -> None:
    """Push one image and give it many tags."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(method: str, url: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, url, body, names)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status not in {200, 201, 202}:
            raise SystemExit(f"{method} {url}: {answer.status} {text!r}")
        return answer

    for content in (CONFIG, BLOB):
        begun = ask("POST", "/v2/bench/small/blobs/uploads/").getheader("location") or ""
        place = begun.partition("://")[2].partition("/")[2] if "://" in begun else begun[1:]
        mark = "&" if "?" in place else "?"
        kind = "application/octet-stream"
        ask("PUT", f"/{place}{mark}digest={digest(content)}", content, Content_Type=kind)
    for number in range(TAGS):
        url = f"/v2/bench/small/manifests/tag{number:04}"
        ask("PUT", url, manifest(), Content_Type=MANIFEST_TYPE)
    connection.close()


def cases() -> dict[str, load.Ask]:
    accept = f"Accept: {MANIFEST_TYPE}\r\n"
    return {
        "manifest by tag": load.Ask("GET", "/v2/bench/small/manifests/tag0500", headers=accept),
        "HEAD blob": load.Ask("HEAD", f"/v2/bench/small/blobs/{digest(BLOB)}"),
        f"list of {TAGS:,} tags": load.Ask("GET", "/v2/bench/small/tags/list"),
    }


def measure(started: list[servers.Server], args: argparse.Namespace) -> _Runs:
    found: _Runs = defaultdict(list)
    for number in range(args.rounds + 1):
        for case, ask in cases().items():
            for server in started:
                cpu = server.cpu
                result = load.run(
                    server.port, [ask], connections=args.connections, seconds=args.seconds
                )
                used = (server.cpu - cpu) / (result.rate * args.seconds)
                if number:  # the first round warms up
                    found[case, server.name].append((result, used))
    return found


def report(found: _Runs, started: list[servers.Server]) -> None:
    print(f"{'':20} {'server':16} {'r/s':>8} {'CPU µs':>7} {'p50 ms':>7} {'p99 ms':>7}  ours ÷ it")
    for case in cases():
        rates = {}
        for server in started:
            runs = found[case, server.name]
            rate, p50, p99 = (
                statistics.median(getattr(result, name) for result, _ in runs)
                for name in ("rate", "p50", "p99")
            )
            cpu = statistics.median(used for _, used in runs)
            rates[server.name] = rate
            ratio = "" if len(rates) == 1 else f"{rates[started[0].name] / rate:8.1f} x"
            print(
                f"{case:20} {server.name:16} {rate:8,.0f} {cpu * 1e6:7.0f} "
                f"{p50 * 1e3:7.2f} {p99 * 1e3:7.2f} {ratio}"
            )


def main() -> None:
    options = servers.options(__doc__)
    options.add_argument("--docker-registry", type=Path)
    options.add_argument("--other", action="append", default=[], metavar="NAME=BINARY")
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--seconds", type=float, default=3.0, help="of each run")
    args = options.parse_args()
    others = dict(item.partition("=")[::2] for item in args.other)
    if args.docker_registry:
        others = {"docker-registry": str(args.docker_registry)} | others
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder)))
        started = [stack.enter_context(servers.ours(args.ours, folder / "ours"))]
        for name, binary in others.items():
            other = servers.distribution(name, Path(binary), folder / name)
            started.append(stack.enter_context(other))
        for server in started:
            fill(server.port)
        report(measure(started, args), started)


if __name__ == "__main__":
    main()
