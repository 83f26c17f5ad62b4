#!/usr/bin/env python3
"""Blobs through the service into an object store and back, beside the store's own client.

    python bench/s3.py --folder /fast/disk --s3 PATH/versitygw [--distribution PATH/registry]

Rates of an upload (POST, PATCH, PUT) and of a download, and the CPU milliseconds per 100 MB that
the server and the store take for it: of ours, of boto3's own upload_file and download_fileobj (in
this process), of the distribution project's registry over the same store. One after the other in
each round, so that whatever else the machine does meets all of them; read the ratios. What was
stored is deleted after each: its memory is used again, where fresh memory of a virtual machine
would cost the store as much as all its work.
"""

import contextlib
import os
import socket
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 1024], help="MiB of a blob")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-s3-")
        folder = Path(stack.enter_context(scratch)).absolute()
        held = stack.enter_context(store(args.s3, folder / "store"))
        peers = [stack.enter_context(ours(args.ours, folder, held.port))]
        if args.distribution:
            peers.append(stack.enter_context(_distribution(args.distribution, folder, held.port)))
        for size in args.sizes:
            with Body(size * MIB, chunked=False) as body:
                _report(size, _rates(Place(held, _client(held.port)), peers, body, args.rounds))


def ours(command: str, folder: Path, port: int) -> contextlib.AbstractContextManager[Server]:
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


def _client(port: int) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=KEYS["access"],
        aws_secret_access_key=KEYS["secret"],
        config=Config(s3={"addressing_style": "path"}),
    )


@dataclass(frozen=True, slots=True)
class Place:
    """The store, and a client of its own."""

    server: Server
    client: Any

    def empty(self) -> None:
        """Delete everything."""
        for item in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self.client.delete_object(Bucket=BUCKET, Key=item["Key"])


@dataclass(frozen=True, slots=True)
class Row:
    """An upload and a download: MB/s, and CPU ms per 100 MB of the server and of the store."""

    up: tuple[float, float, float]
    down: tuple[float, float, float]


def _rates(place: Place, peers: list[Server], body: Body, rounds: int) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for _ in range(rounds):
        digest = body.renew()
        measured = partial(_measured, place.server, body.size)
        name = f"/proc/self/fd/{body._file}"
        up = measured(time.process_time, partial(place.client.upload_file, name, BUCKET, "bench"))
        with Path(os.devnull).open("wb") as sink:
            get = partial(place.client.download_fileobj, BUCKET, "bench", sink)
            rows["boto3"].append(Row(up, measured(time.process_time, get)))
        place.empty()
        for server in peers:
            cpu = partial(getattr, server, "cpu")
            up = measured(cpu, partial(_push, server.port, body, digest))
            path = f"/v2/team/m/blobs/sha256:{digest}"
            down = measured(cpu, partial(_pull, server.port, path, body.size))
            rows[server.name].append(Row(up, down))
            place.empty()
    return rows


def _measured(
    store: Server, size: int, cpu: Callable[[], float], work: Callable[[], object]
) -> tuple[float, float, float]:
    used, stored, began = cpu(), store.cpu, time.perf_counter()
    work()
    took = time.perf_counter() - began
    scale = 100e6 / size * 1000
    return size / took / 1e6, (cpu() - used) * scale, (store.cpu - stored) * scale


def _report(size: int, rows: dict[str, list[Row]]) -> None:
    print(f"{size} MiB")
    medians: dict[str, tuple[float, float]] = {}
    for name, row in rows.items():
        up, up_cpu, up_store = map(statistics.median, zip(*(one.up for one in row), strict=True))
        down, cpu, held = map(statistics.median, zip(*(one.down for one in row), strict=True))
        medians[name] = up, down
        best = max(one.up[0] for one in row), max(one.down[0] for one in row)
        ratios = "".join(
            f", {up / other[0]:.2f} and {down / other[1]:.2f} x {peer}"
            for peer, other in medians.items()
            if name != peer
        )
        print(
            f"  {name:12} up {up:5.0f} MB/s (CPU ms/100 MB {up_cpu:3.0f}, store {up_store:3.0f}); "
            f"down {down:5.0f} ({cpu:3.0f}, {held:3.0f}); "
            f"best {best[0]:.0f}, {best[1]:.0f}{ratios}",
            flush=True,
        )


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


if __name__ == "__main__":
    main()
