"""The proxies of `deploy/`, run as they stand but for names, ports, files and the certificate."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import Pair
from tests.support.ports import free_port

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
START_S = 120.0  # 2 s, where nothing else is done
PROXIES = ("nginx", "caddy")


def program(name: str) -> str | None:
    """The path of a proxy's program, if it is installed."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Front:
    """Where the proxy listens, and where the services do; their data folder, and certificate."""

    outside: int
    inside: Sequence[int]
    data: Path
    pair: Pair


@contextmanager
def proxied(name: str, folder: Path, front: Front) -> Iterator[None]:
    """A running proxy, `nginx` or `caddy`, whose names are `localhost` and `127.0.0.1`."""
    found = program(name)
    assert found is not None
    with {"nginx": _nginx, "caddy": _caddy}[name](found, folder, front):
        yield


@contextmanager
def _nginx(program: str, folder: Path, front: Front) -> Iterator[None]:
    """The recipe within the smallest configuration around it."""
    recipe = (DEPLOY / "nginx.conf").read_text()
    recipe = re.sub(r"listen \[::\]:\d+( ssl)?;", "", recipe)
    line = "server 127.0.0.1:{} fail_timeout=2s;"
    servers = "".join(line.format(port) for port in front.inside)
    for theirs, ours in {
        "listen 443 ssl;": f"listen 127.0.0.1:{front.outside} ssl;",
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        line.format(11434): servers,
        "/etc/ssl/registry/server.pem": str(front.pair.certificate),
        "/etc/ssl/registry/server.key": str(front.pair.key),
        "models.example.com": "localhost",
        "blobs.example.com": "127.0.0.1",
        "/var/lib/registry/blobs/": f"{front.data}/blobs/",
    }.items():
        assert theirs in recipe, theirs
        recipe = recipe.replace(theirs, ours)
    scratch = folder / "scratch"
    scratch.mkdir()
    paths = "".join(
        f"{kind}_temp_path {scratch}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root; " if os.getuid() == 0 else ""  # the files belong to whoever runs the test
    file = folder / "nginx.conf"
    file.write_text(
        f"{user}daemon off; pid {scratch}/pid; error_log {folder}/nginx.log warn;"
        f"events {{}} http {{ access_log off; {paths}\n{recipe}\n}}\n"
    )
    command = [program, "-c", str(file), "-p", str(scratch)]
    with started(command, front.outside, folder / "out.log"):
        yield
    for left in scratch.rglob("*"):
        assert not left.is_file() or left.name == "pid", "nothing was written to disk on its way"


@contextmanager
def _caddy(program: str, folder: Path, front: Front) -> Iterator[None]:
    """The recipe with the certificate written into its blocks."""
    recipe = (DEPLOY / "Caddyfile").read_text()
    tls = f"tls {front.pair.certificate} {front.pair.key}"
    for name, ours in (("models", "localhost"), ("blobs", "127.0.0.1")):
        block = f"\n{name}.example.com {{\n"
        assert block in recipe
        recipe = recipe.replace(block, f"\nhttps://{ours}:{front.outside} {{\n\t{tls}\n")
    servers = " ".join(f"127.0.0.1:{port}" for port in front.inside)
    recipe = recipe.replace("127.0.0.1:11434", servers)
    recipe = recipe.replace("\n{\n", "\n{\n\tadmin off\n\tauto_https disable_redirects\n", 1)
    file = folder / "Caddyfile"
    file.write_text(recipe)
    line = [program, "run", "--config", str(file), "--adapter", "caddyfile"]
    with started(line, front.outside, folder / "out.log", HOME=str(folder)):
        yield


@contextmanager
def started(line: list[str], port: int, log: Path, **environ: str) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            line, stdout=output, stderr=output, env={**os.environ, **environ}
        )
    try:
        wait_for(port, log)
        yield
    finally:
        process.terminate()
        process.wait(30)


def wait_for(port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}:\n{log.read_text()[-4000:]}")
