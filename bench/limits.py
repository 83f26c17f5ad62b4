#!/usr/bin/env python3
"""What this machine can do: the walls that uploads and downloads run into.

python bench/limits.py --folder /fast/disk
"""

import argparse
import contextlib
import hashlib
import mmap
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
_BLOCK = 4 * MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where to write")
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    size, path = args.mib * MIB, args.folder / "bench-limits"
    measures: list[tuple[str, Callable[[], None]]] = [
        ("SHA-256, one thread", lambda: _hash(size)),
        ("write to the page cache", lambda: _write(path, size, os.O_WRONLY, sync=False)),
        ("… with fdatasync", lambda: _write(path, size, os.O_WRONLY, sync=True)),
        (
            "O_DIRECT with fdatasync",
            lambda: _write(path, size, os.O_WRONLY | os.O_DIRECT, sync=True),
        ),
        ("TCP, one stream", lambda: _loopback(size)),
    ]
    rates: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for name, measure in measures:
            began = time.perf_counter()
            try:
                measure()
            except OSError as error:
                print(f"{name}: {error.strerror}")
                continue
            rates.setdefault(name, []).append(size / (time.perf_counter() - began) / 1e6)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    print("MB/s                            min  median     max")
    for name, found in rates.items():
        print(f"{name:26} {min(found):8,.0f}{statistics.median(found):8,.0f}{max(found):8,.0f}")


def _hash(size: int) -> None:
    state, block = hashlib.sha256(), bytes(_BLOCK)
    for _ in range(size // _BLOCK):
        state.update(block)


def _write(path: Path, size: int, flags: int, *, sync: bool) -> None:
    descriptor = os.open(path, flags | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
        with mmap.mmap(-1, _BLOCK) as block:
            for _ in range(size // _BLOCK):
                os.write(descriptor, block)
        if sync:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _loopback(size: int) -> None:
    def send() -> None:
        with socket.create_connection(listener.getsockname()) as sock:
            block = bytes(MIB)
            for _ in range(size // MIB):
                sock.sendall(block)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=send)
        thread.start()
        buffer = bytearray(MIB)
        with listener.accept()[0] as sock:
            while sock.recv_into(buffer):
                pass
        thread.join()


if __name__ == "__main__":
    main()
