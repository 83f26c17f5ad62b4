"""Measure two replicas against one, behind nginx.

    python bench/replicas.py --folder /fast/disk [--database-url URL] [--s3 PATH/versitygw]

Without a database URL both share the data folder's SQLite; with an S3 server the blobs lie there,
and who pulls is sent to it. Each case is measured in turn with one and with both replicas behind
the same nginx, round after round; medians are printed.

More replicas help where cores are free: clients, nginx, Postgres and both replicas have to share
what there is. So each replica gets a small share of one core (a control group of the kernel does
that; it takes root), and what is left is enough for everybody else: the rate tells then what a
second machine brings. `--share 0` leaves them alone. `by CPU` is twice what one does in a second of
CPU, less what they cost each other.
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
import s3_direct
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
_PUSHES = 48  # of each connection in a run; after that they are of what is there
_PERIOD_US = 10_000  # a share is given out so often: nobody waits long for who holds a lock


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


@contextmanager
def group(share: float) -> Iterator[Path | None]:
    """A control group whose processes get that much of one core; None without limit."""
    if not share:
        yield None
        return
    quota = int(share * _PERIOD_US)
    first = Path("/sys/fs/cgroup/cpu")
    if (first / "cpu.cfs_quota_us").exists() or (first / "cgroup.procs").exists():
        root, knobs = first, {"cpu.cfs_period_us": _PERIOD_US, "cpu.cfs_quota_us": quota}
    else:
        root, knobs = first.parent, {"cpu.max": f"{quota} {_PERIOD_US}"}
        (root / "cgroup.subtree_control").write_text("+cpu")
    made = Path(tempfile.mkdtemp(prefix="bench-replica-", dir=root))
    try:
        for name, value in knobs.items():
            (made / name).write_text(str(value))
        yield made
    finally:
        made.rmdir()


def cases(connections: int, *, redirects: bool) -> dict[str, list[load.Ask]]:
    """What is asked for in turn; every push is of bytes and names that nobody has seen."""
    name, accept = "/v2/bench/small", f"Accept: {small.MANIFEST_TYPE}\r\n"
    blob, agent = f"{name}/blobs/{small.digest(_LARGE)}", "User-Agent: ollama-transfer/1\r\n"
    redirect = load.Ask("GET", blob, headers=agent, status=307)
    found = {
        "pull": [
            load.Ask("HEAD", f"{name}/manifests/tag0500", headers=accept),
            load.Ask("GET", f"{name}/manifests/tag0500", headers=accept),
            redirect if redirects else load.Ask("HEAD", blob),
        ],
        "list of names": [load.Ask("GET", "/v2/_catalog?n=100")],
        "list of tags": [load.Ask("GET", f"{name}/tags/list?n=100")],
        "tag": [tagging(f"{name}/manifests/tag{number:04}") for number in range(64)],
        "push": [ask for _ in range(connections * _PUSHES) for ask in push(os.urandom(8).hex())],
    }
    return found if redirects else {**found, "8 MiB": [load.Ask("GET", blob)]}


def tagging(path: str, manifest: bytes = small.manifest()) -> load.Ask:
    kind = f"Content-Type: {small.MANIFEST_TYPE}\r\n"
    return load.Ask("PUT", path, manifest, kind, status=201)


def push(name: str) -> Iterator[load.Ask]:
    """A model of two blobs that are its own."""
    config = b'{"model_format":"gguf","model_name":"%s"}' % name.encode()
    blob = name.encode() * 500
    kind = "Content-Type: application/octet-stream\r\n"
    for content in (config, blob):
        path = f"/v2/bench/{name}/blobs/uploads/?digest={small.digest(content)}"
        yield load.Ask("POST", path, content, kind, status=201)
    yield tagging(f"/v2/bench/{name}/manifests/latest", small.manifest(config, blob))


def measure(
    fronts: dict[int, servers.Server], replicas: Sequence[servers.Server], args: argparse.Namespace
) -> dict[tuple[str, int], list[Run]]:
    found: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for number in range(args.rounds + 1):
        for count, front in fronts.items():
            connections = count * args.connections
            for case, asks in cases(connections, redirects=bool(args.s3)).items():
                used = sum(one.cpu for one in replicas)
                others = front.cpu + time.process_time()
                result = load.run(front.port, asks, connections=connections, seconds=args.seconds)
                answers = result.rate * args.seconds
                used = (sum(one.cpu for one in replicas) - used) / answers
                others = (front.cpu + time.process_time() - others) / answers
                run = Run(result.rate, used, used + others, result.answer_bytes)
                if number:  # the first round warms up
                    found[case, count].append(run)
    return found


def report(found: dict[tuple[str, int], list[Run]]) -> None:
    print(
        f"{'':17} {'replicas':>8} {'r/s':>8} {'CPU ms':>8} {'all, ms':>8} {'MB/s':>7} "
        " two ÷ one    by CPU"
    )
    for case in dict.fromkeys(case for case, _ in found):
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
    options.add_argument("--s3", type=Path, help="a versitygw binary")
    options.add_argument("--share", type=float, default=0.2, help="of a core, for each replica")
    options.add_argument("--connections", type=int, default=16, help="for each replica")
    options.add_argument("--seconds", type=float, default=2.0, help="of each run")
    args = options.parse_args()
    environ = {"REGISTRY_WORKER__LOCAL": "off", "REGISTRY_DATABASE_URL": args.database_url}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder)))
        if args.s3:
            port = stack.enter_context(s3_direct.store(args.s3, folder / "store")).port
            environ |= s3_direct.environ(port)
        groups = [stack.enter_context(group(args.share)) for _ in range(2)]
        replicas = [
            stack.enter_context(servers.ours(args.ours, folder / "data", environ=environ))
            for _ in groups
        ]
        fronts = {
            count: stack.enter_context(balanced(args.nginx, folder / f"{count}", replicas[:count]))
            for count in (1, 2)
        }
        small.fill(replicas[0].port)
        push_large(replicas[0].port)
        for limits, replica in zip(groups, replicas, strict=True):
            if limits:
                (limits / "cgroup.procs").write_text(str(replica.process.pid))
        print(f"{len(os.sched_getaffinity(0))} cores, {args.share or 'all'} for each replica")
        report(measure(fronts, replicas, args))


if __name__ == "__main__":
    main()
