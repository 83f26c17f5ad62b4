#!/usr/bin/env python3
"""What it costs the service when clients exchange bytes with an object store by themselves.

    python bench/s3_direct.py --folder /fast/disk --s3 PATH/versitygw

CPU milliseconds of our process per part of 100 MB: to tell where a part goes (the client sends on
meanwhile, as ollama does, and hangs up), to verify it at the commit, to say where to read it; and
per tensor, whatever its size, for the request before and the commit after its one PUT. The hash
alone is one thread of hashlib over the same bytes in memory.
"""

import contextlib
import hashlib
import http.client
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import servers
from servers import Server
from transfers import Body, read_head

PART = 100 * 10**6
KEYS = {"access": "bench", "secret": "a-secret-of-the-bench"}
BUCKET = "models"


def main() -> None:
    parser = servers.options(__doc__)
    parser.add_argument("--s3", type=Path, required=True, help="a versitygw binary")
    parser.add_argument("--parts", type=int, default=10, help="of 100 MB, in one blob")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-s3-")
        folder = Path(stack.enter_context(scratch)).absolute()
        port = stack.enter_context(store(args.s3, folder / "store")).port
        ours = servers.ours(args.ours, folder / "data", environ=environ(port))
        server = stack.enter_context(ours)
        body = stack.enter_context(Body(PART // (1 << 20) << 20, chunked=False))
        for _ in range(args.rounds):
            round_of(server, body, args.parts)
            tensors(server, 100)


@contextlib.contextmanager
def store(binary: Path, folder: Path) -> Iterator[Server]:
    """An object store with an empty bucket."""
    (folder / BUCKET).mkdir(parents=True)
    port = servers._free_port()
    line = [binary, "--port", f"127.0.0.1:{port}", "--quiet", "--keep-alive", "posix", folder]
    keys = {"ROOT_ACCESS_KEY": KEYS["access"], "ROOT_SECRET_KEY": KEYS["secret"]}
    process = subprocess.Popen(line, env=os.environ | keys, stdout=subprocess.DEVNULL)
    try:
        servers._wait(port, process)
        yield Server("store", port, process)
    finally:
        process.terminate()
        process.wait(30)


def environ(port: int) -> dict[str, str]:
    """The settings of a service whose clients reach the store by themselves."""
    return {
        "REGISTRY_STORAGE_URL": f"s3://{BUCKET}?endpoint=http://127.0.0.1:{port}"
        f"&public_endpoint=http://localhost:{port}",
        "REGISTRY_S3__ACCESS_KEY": KEYS["access"],
        "REGISTRY_S3__SECRET_KEY": KEYS["secret"],
        "REGISTRY_WORKER__LOCAL": "off",
    }


def round_of(server: Server, body: Body, parts: int) -> None:
    digest = hashlib.sha256()
    part = hashing(body, digest, parts)
    session = ask(server.port, "POST", "/v2/team/m/blobs/uploads/")["location"]
    path = urlsplit(session).path
    began, urls, wasted = server.cpu, [], 0
    for number in range(parts):
        url, sent = redirect(server.port, path, body, number * body.size)
        urls.append(url)
        wasted += sent
    told = server.cpu - began
    threads = [threading.Thread(target=put, args=(url, body)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    began, clock = server.cpu, time.perf_counter()
    name = f"sha256:{digest.hexdigest()}"
    ask(server.port, "PUT", f"{path}?digest={name}")
    verified, took = server.cpu - began, time.perf_counter() - clock
    began, reads = server.cpu, 200
    for _ in range(reads):
        ask(server.port, "GET", f"/v2/team/m/blobs/{name}", {"User-Agent": "ollama/0.33"})
    read = (server.cpu - began) / reads
    scale = 1000 * PART / body.size / parts
    print(
        f"per 100 MB: told where {told * scale:5.2f} ms ({wasted / parts / 1e6:.1f} MB came here), "
        f"verified {verified * scale:5.1f} ms, {parts * body.size / took / 1e6:.0f} MB/s "
        f"(hash alone {part * 1000 * PART / body.size:.1f} ms); a read {read * 1000:.2f} ms; "
        f"{server.memory:.0f} MiB",
        flush=True,
    )


def tensors(server: Server, count: int) -> None:
    cpu = 0.0
    for number in range(count):
        data = f"{time.time_ns()} {number}".encode()
        path = f"/v2/team/m/blobs/uploads/?digest=sha256:{hashlib.sha256(data).hexdigest()}"
        began = server.cpu
        headers = {"X-Redirect-Uploads": "2", "X-Content-Length": str(len(data))}
        told = ask(server.port, "POST", path, headers)
        url = urlsplit(told["x-direct-upload-url"])
        signed = {
            name.removeprefix("x-signed-header-"): text
            for name, text in told.items()
            if name.startswith("x-signed-header-")
        }
        connection = http.client.HTTPConnection(url.netloc)
        connection.request("PUT", f"{url.path}?{url.query}", data, signed)
        if connection.getresponse().status != 200:
            raise SystemExit("PUT of a tensor failed")
        connection.close()
        ask(server.port, "PUT", f"{urlsplit(told['location']).path}?{path.partition('?')[2]}")
        cpu += server.cpu - began
    print(f"a tensor {cpu * 1000 / count:.2f} ms", flush=True)


def hashing(body: Body, digest, parts: int) -> float:
    """Hash the blob that the parts make; the CPU seconds of one part."""
    body.renew()
    data = os.pread(body._file, body.size, 0)
    began = time.process_time()
    for _ in range(parts):
        digest.update(data)
    return (time.process_time() - began) / parts


def ask(port: int, method: str, path: str, headers: dict[str, str] | None = None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request(method, path, headers={"Content-Length": "0"} | (headers or {}))
    answer = connection.getresponse()
    answer.read()
    if answer.status >= 400:
        raise SystemExit(f"{method} {path}: {answer.status}")
    connection.close()
    return {name.lower(): text for name, text in answer.headers.items()}


def redirect(port: int, path: str, body: Body, offset: int) -> tuple[str, int]:
    """Ask where a part goes and send it until the answer is here; the URL, and bytes sent."""
    head = (
        f"PATCH {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: ollama/0.33\r\n"
        f"Content-Length: {body.size}\r\nContent-Range: {offset}-{offset + body.size - 1}\r\n"
        "X-Redirect-Uploads: 1\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(head.encode())
        over, sent = threading.Event(), [0]

        def send() -> None:
            with contextlib.suppress(OSError):
                while not over.is_set() and sent[0] < body.size:
                    sent[0] += os.sendfile(sock.fileno(), body._file, sent[0], 1 << 18)

        sender = threading.Thread(target=send)
        sender.start()
        status, headers, _ = read_head(sock)
        over.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sender.join()
    if status != 307:
        raise SystemExit(f"PATCH: {status}")
    return headers["location"], sent[0]


def put(url: str, body: Body) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as sock:
        head = (
            f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {body.size}\r\n\r\n"
        )
        sock.sendall(head.encode())
        done = 0
        while done < body.size:
            done += os.sendfile(sock.fileno(), body._file, done, body.size - done)
        status, _, _ = read_head(sock)
        if status != 200:
            raise SystemExit(f"PUT: {status}")


if __name__ == "__main__":
    main()
