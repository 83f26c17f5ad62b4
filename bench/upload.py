#!/usr/bin/env python3
"""Uploads side by side: rate, CPU per GiB and memory of each server, interleaved.

    python bench/upload.py --folder /fast/disk --ollama PATH/ollama --docker-registry PATH

Bodies of 1 GiB by default, with a length and in chunks of 32 KiB. One unmeasured round comes first.
The blob's file is deleted after each upload. `sha256` is one thread of hashlib in the same rounds.
"""

import contextlib
import tempfile
import time
from functools import partial
from pathlib import Path

import servers
from servers import Server
from transfers import GIB, MIB, Body, Row, at_once, upload, warm_memory


def main() -> None:
    parser = servers.options(__doc__)
    parser.add_argument("--ollama", type=Path, help="a real Ollama's binary")
    parser.add_argument("--docker-registry", type=Path, help="a distribution registry's binary")
    parser.add_argument("--mib", type=int, default=1024, help="size of a body")
    parser.add_argument("--streams", type=int, default=1, help="uploads at once")
    parser.add_argument("--framing", choices=["length", "chunked", "both"], default="both")
    parser.add_argument("--no-warm", action="store_true", help="do not touch memory before each")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-upload-")
        folder = Path(stack.enter_context(scratch)).absolute()
        peers = _start(stack, args, folder)
        for framing in ("length", "chunked"):
            if args.framing in (framing, "both"):
                _measure(peers, folder, args, chunked=framing == "chunked")


def _start(stack: contextlib.ExitStack, args, folder: Path) -> list[tuple[Server, str, Path]]:
    peers = []
    own = stack.enter_context(servers.ours(args.ours, folder / "ours"))
    peers.append((own, "api", folder / "ours"))
    if args.ollama:
        peer = stack.enter_context(servers.ollama(args.ollama, folder / "ollama", folder))
        peers.append((peer, "api", folder / "ollama"))
    if args.docker_registry:
        peer = servers.distribution("docker-registry", args.docker_registry, folder / "dr")
        peers.append((stack.enter_context(peer), "oci", folder / "dr"))
    return peers


def _measure(peers: list[tuple[Server, str, Path]], folder: Path, args, *, chunked: bool) -> None:
    size = args.mib * MIB
    rows: dict[str, Row] = {}
    hashes = []
    with contextlib.ExitStack() as stack:
        bodies = [stack.enter_context(Body(size, chunked=chunked)) for _ in range(args.streams)]
        for turn in range(args.rounds + 1):
            for server, kind, data in peers:
                before = server.memory
                digests = [body.renew() for body in bodies]
                hashes.append(bodies[0].hash_rate)
                if not args.no_warm:
                    warm_memory(folder, min(size * args.streams, 2 * GIB))
                cpu, began = server.cpu, time.perf_counter()
                at_once(
                    [
                        partial(upload, server.port, kind, body, digest)
                        for body, digest in zip(bodies, digests, strict=True)
                    ]
                )
                took, used = time.perf_counter() - began, server.cpu - cpu
                _delete(data)
                total = size * args.streams
                if turn:
                    row = rows.setdefault(server.name, Row([], []))
                    row.rates.append(total / took)
                    row.cpu.append(used / (total / GIB))
                    row.memory = max(row.memory, server.memory)
                elif server is peers[0][0]:
                    print(f"resident before: {before:.0f} MiB")
    framing = "chunked" if chunked else "with a length"
    print(f"\n{args.streams} × {args.mib} MiB {framing}, min / median / max of {args.rounds}")
    hashing = Row(hashes, [GIB / rate for rate in hashes])
    print(hashing.show("sha256", {}))
    for name, row in rows.items():
        others = {"sha256": hashing.median} | {
            other: rows[other].median for other in rows if other != name
        }
        print(row.show(name, others if name == "registry" else {}), flush=True)


def _delete(data: Path) -> None:
    """Free the room: the files of blobs, in whatever layout."""
    for path in data.rglob("*"):
        if path.is_file() and path.stat().st_size >= MIB and path.suffix not in {".db", ".db-wal"}:
            path.unlink()


if __name__ == "__main__":
    main()
