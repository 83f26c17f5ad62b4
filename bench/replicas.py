"""Measure two replicas against one, behind nginx.

    python bench/replicas.py --folder /fast/disk --nginx /usr/sbin/nginx [--database-url URL]

Without a database URL both share the data folder's SQLite. Each case is measured in turn with one
and with both replicas behind the same nginx, round after round; medians are printed.

More replicas help where cores are free: clients, nginx, Postgres and both replicas have to share
what there is, so on two cores the rate tells nothing. `by CPU` is what the second replica brings
where each has a core of its own: twice what one does in a second of CPU, less what they cost each
other.
"""

import argparse
import http.client
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import load
import servers
import small

_CONFIG = """\
daemon off; pid {folder}/pid; error_log {folder}/error.log; master_process off; {user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    upstream registry {{ {servers} keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        keepalive_requests 1000000;
        location / {{
            proxy_pass http://registry;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_buffer_size 64k; proxy_buffers 4 64k; proxy_busy_buffers_size 64k;
        }}
    }}
}}
"""
_LARGE = b"\x5a" * (8 << 20)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a case: answers a second, and CPU seconds of each answer by who used them."""

    rate: float
    replicas: float
    everybody: float  # replicas, nginx and clients; not Postgres
    answer_bytes: float


@contextmanager
def balanced(
    nginx: Path, folder: Path, behind: Sequence[servers.Server]
) -> Iterator[servers.Server]:
    """nginx in front of servers."""
    folder.mkdir()
    port = servers._free_port()
    lines = "".join(f"server 127.0.0.1:{server.port};" for server in behind)
    user = "user root;" if os.getuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(_CONFIG.format(folder=folder, port=port, servers=lines, user=user))
    line = [str(nginx), "-c", str(file), "-p", str(folder), "-e", str(folder / "error.log")]
    with servers._running("nginx", port, line, {}) as started:
        yield started


def cases() -> dict[str, load.Ask]:
    blob = f"/v2/bench/small/blobs/{small.digest(_LARGE)}"
    kind = f"Content-Type: {small.MANIFEST_TYPE}\r\n"
    moving = "/v2/bench/small/manifests/moving"
    return {
        "manifest by tag": small.cases()["manifest by tag"],
        "list of names": load.Ask("GET", "/v2/_catalog?n=100"),
        "manifest put": load.Ask("PUT", moving, small.manifest(), kind, status=201),
        "pull of 8 MiB": load.Ask("GET", blob),
    }


def measure(
    fronts: dict[int, servers.Server], replicas: Sequence[servers.Server], args: argparse.Namespace
) -> dict[tuple[str, int], list[Run]]:
    found: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for number in range(args.rounds + 1):
        for case, ask in cases().items():
            for count, front in fronts.items():
                used = sum(one.cpu for one in replicas)
                others = front.cpu + time.process_time()
                result = load.run(
                    front.port, [ask], connections=count * args.connections, seconds=args.seconds
                )
                answers = result.rate * args.seconds
                used = (sum(one.cpu for one in replicas) - used) / answers
                others = (front.cpu + time.process_time() - others) / answers
                run = Run(result.rate, used, used + others, result.answer_bytes)
                if number:  # the first round warms up
                    found[case, count].append(run)
    return found


def report(found: dict[tuple[str, int], list[Run]]) -> None:
    print(f"{len(os.sched_getaffinity(0))} cores")
    print(
        f"{'':17} {'replicas':>8} {'r/s':>8} {'CPU ms':>8} {'all, ms':>8} {'MB/s':>7} "
        " two ÷ one    by CPU"
    )
    for case in cases():
        rates, costs = {}, {}
        for count in (1, 2):
            runs = found[case, count]
            rate, own, everybody, size = (
                statistics.median(getattr(run, name) for run in runs)
                for name in ("rate", "replicas", "everybody", "answer_bytes")
            )
            rates[count], costs[count] = rate, own
            speed = f"{rate * size / 1e6:7,.0f}" if size > 1e6 else " " * 7
            ratio = ""
            if count == 2:
                ratio = f"{rates[2] / rates[1]:8.2f} x {2 * costs[1] / costs[2]:8.2f} x"
            print(
                f"{case:17} {count:8} {rate:8,.0f} {own * 1e3:8.3f} {everybody * 1e3:8.3f} "
                f"{speed} {ratio}"
            )


def push_large(port: int) -> None:
    """Push the blob that is pulled."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    url = f"/v2/bench/small/blobs/uploads/?digest={small.digest(_LARGE)}"
    connection.request("POST", url, _LARGE, {"Content-Type": "application/octet-stream"})
    if connection.getresponse().status != 201:
        raise SystemExit("the blob could not be pushed")


def main() -> None:
    options = servers.options(__doc__)
    options.add_argument("--nginx", type=Path, default=Path("/usr/sbin/nginx"))
    options.add_argument("--database-url", default="")
    options.add_argument("--connections", type=int, default=16, help="for each replica")
    options.add_argument("--seconds", type=float, default=3.0, help="of each run")
    args = options.parse_args()
    environ = {"REGISTRY_WORKER__LOCAL": "off", "REGISTRY_DATABASE_URL": args.database_url}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder)))
        data = folder / "data"
        replicas = [
            stack.enter_context(servers.ours(args.ours, data, environ=environ)) for _ in range(2)
        ]
        fronts = {
            count: stack.enter_context(balanced(args.nginx, folder / f"{count}", replicas[:count]))
            for count in (1, 2)
        }
        small.fill(replicas[0].port)
        push_large(replicas[0].port)
        report(measure(fronts, replicas, args))


if __name__ == "__main__":
    main()
