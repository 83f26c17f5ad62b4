"""A real Ollama server as a worker: it pulls what it lacks, signing with its own key.

Where it has no engine of its own to run, its own words for that come back.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from registry.app import build, prepare
from registry.core.access import Group
from registry.ports.fleet import NewWorker
from registry.services.access.keys import ApiKeyWish
from tests.support.accounts import PASSWORD
from tests.support.backends import BACKENDS
from tests.support.ports import free_port
from tests.support.scripted_model import scripted_model
from tests.support.server import Server, running

OLLAMA = os.environ.get("OLLAMA") or shutil.which("ollama")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not OLLAMA, reason="no ollama here"),
]
MODEL = scripted_model(["Hel", "lo"])


@contextlib.contextmanager
def ollama(folder: Path) -> Iterator[str]:
    """A started Ollama server over an empty folder; its URL."""
    port = free_port()
    folder.mkdir()
    env = dict(os.environ, OLLAMA_HOST=f"127.0.0.1:{port}", HOME=str(folder))
    env["OLLAMA_MODELS"] = str(folder / "models")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(OLLAMA), "serve"], env=env, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


async def prepared(data: Path, url: str, *, auth: bool) -> str:
    """A library that has the server as its worker; an administrator's key."""
    given = BACKENDS.settings(data, auth=auth)
    prepare(given)
    services = build(given)
    await services.fleet.add(NewWorker("old", "ollama", url))
    account = await services.accounts.create_user("root", PASSWORD, admin=True)
    key = await services.accounts.create_api_key(account.id, ApiKeyWish("k", Group.ALL))
    await services.accounts.close()
    await services.catalog.close()
    return key.text


async def asked(server: Server, client: httpx2.AsyncClient) -> httpx2.Response:
    """A model is made, and asked for something once the worker answers."""
    digest = f"sha256:{hashlib.sha256(MODEL).hexdigest()}"
    (await client.post(f"/api/blobs/{digest}", content=MODEL)).raise_for_status()
    recipe = {"model": "tiny", "files": {"m.gguf": digest}, "template": "{{ .Prompt }}\n"}
    (await client.post("/api/create", json=recipe)).raise_for_status()
    body = {"model": "tiny", "prompt": "hi", "stream": False}
    async with asyncio.timeout(30):
        while (answer := await client.post("/api/generate", json=body)).status_code == 503:
            await asyncio.sleep(0.2)
    return answer


@pytest.mark.parametrize(("auth", "known"), [(False, False), (True, True), (True, False)])
async def test_it_pulls_from_here_and_answers(tmp_path: Path, auth: bool, known: bool) -> None:
    environ = {"REGISTRY_WORKER__LOCAL": "off", "REGISTRY_AUTH": str(auth).lower()}
    with ollama(tmp_path / "ollama") as url:
        key = await prepared(tmp_path / "data", url, auth=auth)
        with running(tmp_path / "data", **environ) as server:
            headers = {"Authorization": f"Bearer {key}"} if auth else {}
            client = httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=60)
            async with client, httpx2.AsyncClient(base_url=url) as theirs:
                if known:
                    public = (tmp_path / "ollama" / ".ollama" / "id_ed25519.pub").read_text()
                    wish = {"key": public, "title": "gpu"}
                    assert (await client.post("/api/v1/keys", json=wish)).status_code == 201
                answer = await asked(server, client)
                if auth and not known:
                    assert answer.status_code == 500
                    assert "could not fetch the model" in answer.json()["error"]
                    return
                ours = (await client.get("/api/tags")).json()["models"][0]["digest"]
                rows = (await theirs.get("/api/tags")).json()["models"]
                assert [row["digest"] for row in rows] == [ours]
                if answer.status_code == 200:
                    assert answer.json()["response"] == "Hello"
                else:
                    assert "llama-server" in answer.json()["error"]
                    assert "/" not in answer.json()["error"].replace("llama/server", "")
