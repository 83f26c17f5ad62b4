#!/usr/bin/env python3
"""A cold worker's fetch beside a plain ranged download of the same blob, interleaved.

    python bench/worker_fetch.py --folder /fast/disk --mib 1024

Both read the whole blob as one range. The fetch hashes it and has it on disk with its name when it
is done; `curl` does neither, so it is also given `sync` to wait for the disk. The blob is in the
page cache of the server.
"""

import asyncio
import hashlib
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import servers

from registry.core.digest import Digest
from registry.ports.workers import Weights
from registry.workers.cache import BlobCache
from registry.workers.transfer import Source

MIB = 1 << 20


class DirectSource(Source):
    """The blob where anybody may read it: this is about bytes, not about who asks."""

    def blob(self, weights: Weights) -> str:
        return f"{self.url}/v2/library/bench/blobs/{weights.digest}"


def main() -> None:
    parser = servers.options(__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the blob")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-fetch-") as scratch:
        folder = Path(scratch)
        with servers.ours(args.ours, folder / "library") as server:
            url = f"http://127.0.0.1:{server.port}"
            weights = _put(url, args.mib)
            rows: dict[str, list[float]] = {"curl": [], "curl, sync": [], "fetch": []}
            for number in range(args.rounds + 1):
                for name, seconds in (
                    ("curl", _curl(url, weights, folder, sync=False)),
                    ("curl, sync", _curl(url, weights, folder, sync=True)),
                    ("fetch", _fetch(url, weights, folder / f"cache-{number}")),
                ):
                    if number:  # the first round warms up
                        rows[name].append(args.mib / seconds)
    for name, speeds in rows.items():
        print(f"{name:12} {statistics.median(speeds):8.0f} MiB/s  (of {len(speeds)})")
    base = statistics.median(rows["curl, sync"])
    print(f"fetch / curl, sync: {statistics.median(rows['fetch']) / base:.2f}")
    print(f"fetch / curl: {statistics.median(rows['fetch']) / statistics.median(rows['curl']):.2f}")


def _put(url: str, mib: int) -> Weights:
    data = os.urandom(MIB) * mib
    digest = Digest.sha256(hashlib.sha256(data).hexdigest())
    target = f"{url}/v2/library/bench/blobs/uploads/?digest={digest}"
    line = ["curl", "-sf", "-X", "POST", "--data-binary", "@-", target]
    line += ["-H", "Content-Type: application/octet-stream"]
    subprocess.run(line, input=data, check=True)
    return Weights(digest, len(data))


def _curl(url: str, weights: Weights, folder: Path, *, sync: bool) -> float:
    out = folder / "curl.out"
    out.unlink(missing_ok=True)
    began = time.perf_counter()
    target = f"{url}/v2/library/bench/blobs/{weights.digest}"
    subprocess.run(["curl", "-sf", "-r", "0-", "-o", str(out), target], check=True)
    if sync:
        subprocess.run(["sync", str(out)], check=True)
    seconds = time.perf_counter() - began
    out.unlink()
    return seconds


def _fetch(url: str, weights: Weights, folder: Path) -> float:
    cache = BlobCache(folder, DirectSource(url, dict), frozenset)
    cache.prepare()
    began = time.perf_counter()
    path = asyncio.run(cache.path(weights))
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


if __name__ == "__main__":
    main()
