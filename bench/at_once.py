#!/usr/bin/env python3
"""The memory of one server while many large blobs come and go at the same time.

    python bench/at_once.py --folder /fast/disk [--s3 PATH/versitygw] [--uploads 16 --downloads 48]

Each transfer is a connection of its own and is paced by its client to last as long as all others,
so that all of them are under way together; none is, if the server cannot keep up, quicker than
that. Uploads are of bytes that nobody has seen, downloads of one blob. What is printed is the most
that the service took at any time: resident (RSS), its share of that (PSS), and what is anonymous,
that is, not a file's page. The folder takes a GiB for each upload, and one more.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import s3
import servers
from s3_direct import store
from servers import Server
from transfers import MIB, read_head, request

_KEPT_FREE = 3 << 30
_COMMITS = 4  # at once: a store may copy an object's parts before it deletes them
_BLOCK = os.urandom(MIB)


class Blob:
    """So many MiB, all alike but the last."""

    def __init__(self, mib: int) -> None:
        self.mib = mib
        self._hash = hashlib.sha256()
        for _ in range(mib - 1):
            self._hash.update(_BLOCK)

    def new(self) -> tuple[bytes, str]:
        """A last MiB that nobody has seen, and the digest that it makes."""
        last = os.urandom(32) + _BLOCK[32:]
        whole = self._hash.copy()
        whole.update(last)
        return last, f"sha256:{whole.hexdigest()}"


class Pace:
    """When a transfer may go on: all last the same."""

    def __init__(self, seconds: float, steps: int) -> None:
        self._began = time.monotonic()
        self._step_s = seconds / steps

    def wait(self, done: int) -> None:
        """Wait until so many steps may be done."""
        time.sleep(max(0.0, self._began + done * self._step_s - time.monotonic()))


class Watch:
    """The most memory that a server had, in MiB, by kind."""

    def __init__(self, server: Server) -> None:
        self._file = Path(f"/proc/{server.process.pid}/smaps_rollup")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.most: dict[str, float] = {}

    def look(self) -> None:
        """Read it now."""
        for line in self._file.read_text().splitlines()[1:]:
            kind, size = line.split()[:2]
            self.most[kind] = max(self.most.get(kind, 0.0), int(size) / 1024)

    def _run(self) -> None:
        while not self._over.wait(0.1):
            self.look()

    def __enter__(self) -> "Watch":
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def __str__(self) -> str:
        rss, pss, own = (self.most[kind] for kind in ("Rss:", "Pss:", "Anonymous:"))
        return f"RSS {rss:.0f} MiB, PSS {pss:.0f}, anonymous {own:.0f}"


def upload(
    port: int, blob: Blob, seconds: float, commits: threading.Semaphore
) -> tuple[str, float]:
    """Push a blob; its digest, and when its bytes were all there."""
    last, digest = blob.new()
    _, headers = request(port, "POST", "/v2/team/m/blobs/uploads/")
    path = "/" + headers["location"].split("/", 3)[3]
    head = f"PATCH {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {blob.mib * MIB}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(head.encode())
        pace = Pace(seconds, blob.mib)
        for number in range(1, blob.mib + 1):
            sock.sendall(_BLOCK if number < blob.mib else last)
            pace.wait(number)
        status, headers, _ = read_head(sock)
    ended = time.monotonic()
    if status != 202:
        raise SystemExit(f"PATCH: {status}")
    path = "/" + headers.get("location", path).split("/", 3)[3]
    mark = "&" if "?" in path else "?"
    with commits:
        status, _ = request(port, "PUT", f"{path}{mark}digest={digest}")
    if status != 201:
        raise SystemExit(f"PUT: {status}")
    return digest, ended


def download(port: int, digest: str, mib: int, seconds: float) -> float:
    """Pull a blob; when its last byte came."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        head = f"GET /v2/team/m/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        sock.sendall(head.encode())
        status, _, got = read_head(sock)
        nothing, pace = bytearray(MIB), Pace(seconds, mib)
        while got < mib * MIB:
            count = sock.recv_into(nothing, min(MIB, mib * MIB - got), socket.MSG_TRUNC)
            if not count:
                raise SystemExit(f"GET: {status}, {got} bytes")
            got += count
            pace.wait(got // MIB)
    return time.monotonic()


def run(server: Server, args: argparse.Namespace) -> None:
    blob, commits = Blob(args.mib), threading.Semaphore(_COMMITS)
    with Watch(server) as idle:
        digest, _ = upload(server.port, blob, 0, commits)
    jobs: list[Callable[[], float]] = [
        lambda: upload(server.port, blob, args.seconds, commits)[1] for _ in range(args.uploads)
    ] + [
        lambda: download(server.port, digest, args.mib, args.seconds) for _ in range(args.downloads)
    ]
    used, began = server.cpu, time.monotonic()
    with Watch(server) as watch, ThreadPoolExecutor(len(jobs)) as pool:
        ends = list(pool.map(lambda job: job(), jobs))
        committed = time.monotonic()
    cpu = (server.cpu - used) / len(jobs) / args.mib * 1024
    both, last_s = min(ends) - began, max(ends) - began
    print(f"one upload: {idle}")
    print(f"{args.uploads} uploads, {args.downloads} downloads of {args.mib} MiB at once: {watch}")
    print(
        f"all under way for {both:.0f} s, the last for {last_s:.0f}, committed after "
        f"{committed - began:.0f}; {cpu:.2f} CPU s/GiB"
    )


def main() -> None:
    parser = servers.options(__doc__)
    parser.add_argument("--s3", type=Path, help="a versitygw binary: blobs lie there, proxied")
    parser.add_argument("--uploads", type=int, default=32)
    parser.add_argument("--downloads", type=int, default=32)
    parser.add_argument("--mib", type=int, default=1024, help="of each")
    parser.add_argument("--seconds", type=float, default=120.0, help="that each takes, or longer")
    args = parser.parse_args()
    need = (args.uploads + 1 + (_COMMITS if args.s3 else 0)) * args.mib * MIB + _KEPT_FREE
    if shutil.disk_usage(args.folder).free < need:
        raise SystemExit(f"{need >> 30} GiB of disk are needed: take fewer uploads")
    with contextlib.ExitStack() as stack:
        scratch = tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-at-once-")
        folder = Path(stack.enter_context(scratch)).absolute()
        if args.s3:
            port = stack.enter_context(store(args.s3, folder / "store")).port
            ours = s3.ours(args.ours, folder, port)
        else:
            ours = servers.ours(args.ours, folder / "data")
        run(stack.enter_context(ours), args)


if __name__ == "__main__":
    main()
