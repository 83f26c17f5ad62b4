#!/usr/bin/env python3
"""Blobs through the service into an object store and back, beside the store's own client.

    python bench/s3.py --folder /fast/disk --s3 PATH/versitygw [--distribution PATH/registry]

Rates of an upload (POST, PATCH, PUT) and of a download, and the server's CPU milliseconds per
100 MB: of ours, of boto3's own upload_file and download_fileobj (in this process), of the
distribution project's registry over the same store. One after the other in each round, so that
whatever else the machine does meets all of them; read the ratios. Last, the most memory that ours
took while many uploads and downloads ran at once.
"""

import contextlib
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import boto3
import servers
from botocore.config import Config
from s3_direct import BUCKET, KEYS, store
from servers import Server
from transfers import MIB, Body, read_head, request

_CONFIG = """\
version: 0.1
storage:
  s3: {{accesskey: {access}, secretkey: {secret}, region: us-east-1, bucket: {bucket},
       regionendpoint: "http://127.0.0.1:{s3}", forcepathstyle: true, secure: false,
       rootdirectory: /peer}}
  redirect: {{disable: true}}
  cache: {{blobdescriptor: inmemory}}
http: {{addr: "127.0.0.1:{port}"}}
"""


def main() -> None:
    parser = servers.options(__doc__)
    parser.add_argument("--s3", type=Path, required=True, help="a versitygw binary")
    parser.add_argument("--distribution", type=Path, help="a distribution v3 binary")
    parser.add_argument("--size", type=int, default=256, help="MiB of a blob")
    parser.add_argument("--at-once", type=int, default=64, help="transfers for the memory")
    parser.add_argument("--each", type=int, default=64, help="MiB of each of those")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-s3-")
        folder = Path(stack.enter_context(scratch)).absolute()
        port = stack.enter_context(store(args.s3, folder / "store"))
        body = stack.enter_context(Body(args.size * MIB, chunked=False))
        server = stack.enter_context(_ours(args.ours, folder, port))
        peers = [server]
        if args.distribution:
            peers.append(stack.enter_context(_distribution(args.distribution, folder, port)))
        _rates(peers, _client(port), body, args.rounds)
        _memory(server, args.at_once, args.each)


def _ours(command: str, folder: Path, port: int) -> contextlib.AbstractContextManager[Server]:
    environ = {
        "REGISTRY_STORAGE_URL": f"s3://{BUCKET}/ours?endpoint=http://127.0.0.1:{port}",
        "REGISTRY_S3__ACCESS_KEY": KEYS["access"],
        "REGISTRY_S3__SECRET_KEY": KEYS["secret"],
        "REGISTRY_WORKER__LOCAL": "off",
        "REGISTRY_REDIRECT__PULL": "never",
        "REGISTRY_REDIRECT__PUSH": "never",
    }
    return servers.ours(command, folder / "data", environ=environ)


@contextlib.contextmanager
def _distribution(binary: Path, folder: Path, s3: int) -> Iterator[Server]:
    port = servers._free_port()
    config = folder / "config.yml"
    config.write_text(_CONFIG.format(**KEYS, bucket=BUCKET, s3=s3, port=port))
    line = [str(binary), "serve", str(config)]
    with servers._running("distribution", port, line, {}) as server:
        yield server


def _client(port: int):
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=KEYS["access"],
        aws_secret_access_key=KEYS["secret"],
        config=Config(s3={"addressing_style": "path"}),
    )


def _rates(peers: list[Server], client, body: Body, rounds: int) -> None:
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    for _ in range(rounds):
        digest = body.renew()
        file = os.dup(body._file)
        name = f"/proc/self/fd/{file}"
        up = _timed(time.process_time, partial(client.upload_file, name, BUCKET, "bench"))
        with Path(os.devnull).open("wb") as sink:
            get = partial(client.download_fileobj, BUCKET, "bench", sink)
            down = _timed(time.process_time, get)
        rows.setdefault("boto3", []).append((*up, *down))
        os.close(file)
        for server in peers:
            cpu = partial(getattr, server, "cpu")
            up = _timed(cpu, partial(_push, server.port, body, digest))
            path = f"/v2/team/m/blobs/sha256:{digest}"
            down = _timed(cpu, partial(_pull, server.port, path, body.size))
            rows.setdefault(server.name, []).append((*up, *down))
    scale = 100e6 / body.size * 1000
    best = {name: [min(column) for column in zip(*row, strict=True)] for name, row in rows.items()}
    for name, row in rows.items():
        up, up_cpu, down, down_cpu = map(statistics.median, zip(*row, strict=True))
        print(
            f"{name:12} up {body.size / up / 1e6:5.0f} MB/s, {up_cpu * scale:4.0f} ms CPU/100 MB; "
            f"down {body.size / down / 1e6:5.0f} MB/s, {down_cpu * scale:4.0f} ms; "
            f"best {body.size / best[name][0] / 1e6:.0f}, {body.size / best[name][2] / 1e6:.0f}",
            flush=True,
        )


def _timed(cpu: Callable[[], float], work: Callable[[], object]) -> tuple[float, float]:
    used, began = cpu(), time.perf_counter()
    work()
    took = time.perf_counter() - began
    return took, cpu() - used


def _push(port: int, body: Body, digest: str) -> None:
    status, headers = request(port, "POST", "/v2/team/m/blobs/uploads/")
    path = "/" + headers["location"].split("/", 3)[3]
    status, headers = request(port, "PATCH", path, body)
    path = "/" + headers.get("location", path).split("/", 3)[3]
    more = "&" if "?" in path else "?"
    status, _ = request(port, "PUT", f"{path}{more}digest=sha256:{digest}")
    if status != 201:
        raise SystemExit(f"upload: {status}")


def _pull(port: int, path: str, size: int) -> None:
    scratch = bytearray(MIB)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        status, _, got = read_head(sock)
        while got < size:
            count = sock.recv_into(scratch)
            if not count:
                raise SystemExit(f"download: {status}, {got} of {size} bytes")
            got += count
    if status != 200:
        raise SystemExit(f"download: {status}")


def _memory(server: Server, at_once: int, each: int) -> None:
    most, done = [server.memory], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            most[0] = max(most[0], server.memory)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with contextlib.ExitStack() as stack:
        bodies = [
            stack.enter_context(Body(MIB * each, chunked=False)) for _ in range(min(at_once, 8))
        ]
        names = [body.renew() for body in bodies]
        jobs = [(bodies[n % len(bodies)], names[n % len(bodies)]) for n in range(at_once)]
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda job: _push(server.port, *job), jobs))
            up = most[0]
            path = "/v2/team/m/blobs/sha256:"
            list(pool.map(lambda job: _pull(server.port, path + job[1], job[0].size), jobs))
    done.set()
    watcher.join()
    print(f"{at_once} at once: {up:.0f} MiB at most for uploads, {most[0]:.0f} MiB with downloads")


if __name__ == "__main__":
    main()
