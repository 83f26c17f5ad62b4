#!/usr/bin/env python3
"""Downloads side by side: whole, in ranges, to slow readers, and HEAD meanwhile; interleaved.

    python bench/download.py --folder /fast/disk --nginx PATH/nginx --docker-registry PATH

The client throws away what it gets. The blob is in the page cache.
"""

import contextlib
import multiprocessing
import selectors
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import servers
from servers import Server
from transfers import GIB, MIB, Body, Row, at_once, download, read_head, upload

_NGINX = """
daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 2048; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_timeout 75; keepalive_requests 1000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""
_RANGES = 16
_HEADS_PER_S = 300


@dataclass
class Peer:
    """A server and where its blob is."""

    server: Server
    path: str


def main() -> None:
    parser = servers.options(__doc__)
    parser.add_argument("--nginx", type=Path, help="nginx's binary")
    parser.add_argument("--docker-registry", type=Path, help="a distribution registry's binary")
    parser.add_argument("--mib", type=int, default=1024, help="size of the blob")
    parser.add_argument("--readers", type=int, default=500, help="slow readers at once")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack, Body(args.mib * MIB, chunked=False) as body:
        scratch = tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-download-")
        folder = Path(stack.enter_context(scratch)).absolute()
        peers = _start(stack, args, folder, body)
        size, step = body.size, body.size // _RANGES
        print(f"{args.mib} MiB, min / median / max of {args.rounds}")
        _rates("whole", peers, args.rounds, size, lambda p: [_get(p, 0, None)])
        _rates(
            f"{_RANGES} ranges at once",
            peers,
            args.rounds,
            size,
            lambda p: [_get(p, n * step, (n + 1) * step) for n in range(_RANGES)],
        )
        _heads_beside_downloads(peers)
        _heads_beside_upload(peers)
        _slow_readers(peers, args.readers)


def _start(stack: contextlib.ExitStack, args, folder: Path, body: Body) -> list[Peer]:
    digest = body.renew()
    blob = f"/v2/bench/x/blobs/sha256:{digest}"
    peers = [Peer(stack.enter_context(servers.ours(args.ours, folder / "ours")), blob)]
    upload(peers[0].server.port, "oci", body, digest)
    if args.nginx:
        peers.append(Peer(stack.enter_context(_nginx(args.nginx, folder / "nginx")), "/blob"))
        shutil.copy(folder / "ours" / "blobs" / f"sha256-{digest}", folder / "nginx" / "blob")
    if args.docker_registry:
        peer = servers.distribution("docker-registry", args.docker_registry, folder / "dr")
        peers.append(Peer(stack.enter_context(peer), blob))
        upload(peers[-1].server.port, "oci", body, digest)
    for peer in peers:  # into the page cache
        for _ in range(2):
            download(peer.server.port, peer.path)
    return peers


@contextlib.contextmanager
def _nginx(binary: Path, folder: Path) -> Iterator[Server]:
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port))
    process = subprocess.Popen([str(binary), "-c", str(config), "-p", str(folder)])
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.02)
        yield Server("nginx", port, process)
    finally:
        process.terminate()
        process.wait(10)


def _get(peer: Peer, start: int, stop: int | None) -> Callable[[], int]:
    return partial(download, peer.server.port, peer.path, start, stop)


def _rates(
    what: str, peers: list[Peer], rounds: int, size: int, jobs: Callable[[Peer], list]
) -> None:
    rows = {peer.server.name: Row([], []) for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            cpu, began = peer.server.cpu, time.perf_counter()
            at_once(jobs(peer))
            row = rows[peer.server.name]
            row.rates.append(size / (time.perf_counter() - began))
            row.cpu.append((peer.server.cpu - cpu) / (size / GIB))
            row.memory = max(row.memory, peer.server.memory)
    _show(what, rows)


def _show(what: str, rows: dict[str, Row]) -> None:
    print(f"\n{what}")
    for name, row in rows.items():
        others = {other: rows[other].median for other in rows if other != name}
        print(row.show(name, others if name == "registry" else {}), flush=True)


def _heads_beside_downloads(peers: list[Peer]) -> None:
    print(f"\nHEAD {_HEADS_PER_S} times per second: alone, and beside 4 downloads at full speed")
    for peer in peers:
        _heads_beside(peer, [partial(download, peer.server.port, peer.path)] * 4)


def _heads_beside_upload(peers: list[Peer]) -> None:
    print(f"\nHEAD {_HEADS_PER_S} times per second: alone, and beside an upload at full speed")
    for peer in peers:
        if peer.server.name != "nginx":
            _heads_beside(peer, [partial(_upload_new, peer)])


def _heads_beside(peer: Peer, loads: list[Callable[[], object]]) -> None:
    alone = _heads(peer, 4.0)
    others = [multiprocessing.Process(target=_again, args=(load,)) for load in loads]
    for other in others:  # processes: threads would share this one's lock
        other.start()
    time.sleep(0.5)
    beside = _heads(peer, 6.0)
    for other in others:
        other.kill()
        other.join()
    print(f"{peer.server.name:16} {alone}    {beside}", flush=True)


def _again(load: Callable[[], object]) -> None:
    while True:
        load()


def _upload_new(peer: Peer) -> None:
    with Body(GIB, chunked=False) as body:
        upload(peer.server.port, "oci", body, body.renew())


def _heads(peer: Peer, seconds: float) -> str:
    """Latencies counted from when each was due, so that a stall counts for all it held up."""
    request = f"HEAD {peer.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    waits = []
    with socket.create_connection(("127.0.0.1", peer.server.port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begin = time.perf_counter()
        for number in range(int(seconds * _HEADS_PER_S)):
            due = begin + number / _HEADS_PER_S
            time.sleep(max(0.0, due - time.perf_counter()))
            sock.sendall(request)
            read_head(sock)
            waits.append(time.perf_counter() - due)
    cuts = statistics.quantiles(waits, n=100)
    return f"p50 {cuts[49] * 1e3:.2f} p99 {cuts[98] * 1e3:.2f} ms"


def _slow_readers(peers: list[Peer], count: int) -> None:
    print(f"\n{count} readers of 128 KiB/s: resident memory before and after, CPU cores")
    for peer in peers:
        before = peer.server.memory
        with contextlib.ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            for _ in range(count):
                sock = stack.enter_context(socket.socket())
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
                sock.connect(("127.0.0.1", peer.server.port))
                sock.sendall(f"GET {peer.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                selector.register(sock, selectors.EVENT_READ)
            most, cpu, began = 0.0, peer.server.cpu, time.monotonic()
            while time.monotonic() < began + 8:
                turn = time.monotonic()
                for key, _ in selector.select(0):
                    key.fileobj.recv(16_384)
                most = max(most, peer.server.memory)
                time.sleep(max(0.0, turn + 0.125 - time.monotonic()))
            cores = (peer.server.cpu - cpu) / (time.monotonic() - began)
        print(
            f"{peer.server.name:16} {before:6.0f} {most:6.0f} MiB  (+{most - before:.0f})"
            f"  {cores:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
