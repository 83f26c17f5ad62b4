"""What the compose file starts, started as processes: two replicas, Postgres, S3, Caddy.

Names of services become addresses; nothing else of the settings and of the Caddyfile is changed.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support import s3
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.proxies import program, started
from tests.support.recipes import DEPLOY, compose, environment
from tests.support.server import Server, start
from tests.support.stock_clients import (
    OLLAMA,
    SKOPEO,
    digest_of,
    ollama_round_trip,
    push_blob,
    skopeo_round_trip,
    some_bytes,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KEY = "a-secret-of-the-tests"


@dataclass
class Stack:
    """What was started."""

    folder: Path
    port: int
    authority: Authority
    replicas: list[Server]
    objects: Path


@pytest.fixture
def stack(tmp_path: Path, postgres: PostgresServer) -> Iterator[Stack]:
    gateway, caddy = s3.binary(), program("caddy")
    if gateway is None or caddy is None:
        pytest.skip("versitygw or caddy is not installed: the stack was not started")
    port, s3_port = free_port(), free_port()
    services: dict[str, Any] = compose(S3_SECRET_KEY=KEY)["services"]
    objects = tmp_path / "objects"
    objects.mkdir()

    def local(text: str) -> str:
        return text.replace("http://s3:7070", f"http://127.0.0.1:{s3_port}")

    with ExitStack() as running:
        command = [word.replace("/objects", str(objects)) for word in services["s3"]["command"]]
        command = [word.replace(":7070", f"127.0.0.1:{s3_port}") for word in command]
        told = environment(services["s3"])
        running.enter_context(started([gateway, *command], s3_port, tmp_path / "s3.log", **told))
        making = [local(word) for word in services["bucket"]["command"]]
        told = environment(services["bucket"])
        for _ in range(2):  # at every start of the stack
            subprocess.run([sys.executable, "-c", *making], env=os.environ | told, check=True)
        settings = {name: local(text) for name, text in environment(services["registry"]).items()}
        settings |= {
            "REGISTRY_DATABASE_URL": running.enter_context(postgres.database()),
            "REGISTRY_EXTERNAL_URL": f"https://localhost:{port}",
            "REGISTRY_TRUSTED_PROXIES": "127.0.0.1",
        }
        replicas = []
        for name in ("one", "other"):
            replicas.append(start(tmp_path / name, None, **settings))
            running.callback(replicas[-1].stop)
        authority = Authority(tmp_path)
        pair = authority.issue("localhost")
        recipe = (DEPLOY / "compose" / "Caddyfile").read_text()
        inside = " ".join(f"127.0.0.1:{server.port}" for server in replicas)
        recipe, count = re.subn(r"dynamic a {[^}]*}", f"to {inside}", recipe)
        assert count == 1
        block = "{$MODELS_HOST} {"
        assert block in recipe
        tls = f"tls {pair.certificate} {pair.key}"
        recipe = recipe.replace(block, f"https://localhost:{port} {{\n\t{tls}\n")
        recipe = recipe.replace("\n{\n", "\n{\n\tadmin off\n\tauto_https disable_redirects\n", 1)
        file = tmp_path / "Caddyfile"
        file.write_text(recipe)
        line = [caddy, "run", "--config", str(file), "--adapter", "caddyfile"]
        running.enter_context(started(line, port, tmp_path / "caddy.log", HOME=str(tmp_path)))
        yield Stack(tmp_path, port, authority, replicas, objects)


def test_stock_clients_push_to_the_object_store_and_pull_from_it(stack: Stack) -> None:
    data = some_bytes(1)
    base = f"https://localhost:{stack.port}"
    with httpx2.Client(base_url=base, verify=stack.authority.trust(), timeout=90) as client:
        push_blob(client, "team/plain", data)
        path = f"/v2/team/plain/blobs/{digest_of(data)}"
        for _ in range(2):
            assert client.get(path).content == data
        part = client.get(path, headers={"Range": "bytes=1000-2999"})
        assert (part.status_code, part.content) == (206, data[1000:3000])
    if SKOPEO:
        skopeo_round_trip(stack.folder, stack.port, stack.authority, some_bytes(2))
    if OLLAMA:
        ollama_round_trip(stack.folder, stack.port, stack.authority, some_bytes(3))
    kept = sum(file.stat().st_size for file in stack.objects.rglob("*") if file.is_file())
    assert kept >= len(data)
    for server in stack.replicas:
        assert not list(server.data.glob("blobs/*")), "scratch space, nothing more"
        assert server.log.read_text().count("/blobs/") > 2, "both had a share of it"
