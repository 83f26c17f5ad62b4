"""Three workers behind one library: its own, an Ollama server, a llama-server; each killed in turn.

Every one of a hundred requests is answered right or with an honest error, and none hangs.
"""

import asyncio
import hashlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from registry.core.digest import Digest
from registry.core.names import ModelName
from registry.ports.fleet import NewWorker
from registry.services.inference.fleet import Fleet
from tests.support.backends import BACKENDS
from tests.support.foreign import ForeignLlama, ForeignOllama
from tests.support.scripted_model import scripted_model
from tests.support.server import Server, running

pytestmark = [pytest.mark.anyio, pytest.mark.engine]
MODEL = scripted_model(["Hel", "lo"])
ENVIRON = {"REGISTRY_WORKER__REPLICAS_MAX": "3", "REGISTRY_WORKER__MAX_QUEUE_PER_MODEL": "200"}
REQUESTS, AT_ONCE = 100, 25


@dataclass
class Site:
    """The library, the two servers, and what an administrator does."""

    server: Server
    client: httpx2.AsyncClient
    ollama: ForeignOllama
    llama: ForeignLlama

    async def administer(self, work: Callable[[Fleet], object]) -> None:
        catalog = BACKENDS.catalog(self.server.data)
        await work(Fleet(catalog, lambda: 1))  # type: ignore[misc]  # every one of them is awaited
        await catalog.close()

    async def place(self, *labels: str) -> None:
        name = ModelName.parse("tiny")
        await self.administer(lambda fleet: fleet.place(name, labels))

    async def ask(self, number: int) -> str:
        """One request, in one of three forms: `right`, or what went wrong."""
        body = {"model": "tiny", "prompt": "hi", "stream": number % 3 == 0}
        if number % 3 == 2:
            body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
        path = "/api/chat" if number % 3 == 2 else "/api/generate"
        answer = await self.client.post(path, json=body)
        lines = [json.loads(line) for line in answer.text.splitlines()]
        if answer.status_code != 200:
            assert set(lines[0]) == {"error"}, lines
            return f"{answer.status_code} {lines[0]['error']}"
        if "error" in lines[-1]:
            return f"cut off {lines[-1]['error']}"
        assert lines[-1]["done"], "no end and no error"
        said = "".join(line.get("response") or line["message"]["content"] for line in lines
                       if "message" in line or line.get("response"))  # fmt: skip
        return "right" if said == "Hello" else f"wrong {said!r}"

    async def hundred(self, kill: Callable[[], object], after: int = 30) -> Counter[str]:
        """A hundred requests, some at once; the kill comes when so many were answered."""
        turns, results = asyncio.Semaphore(AT_ONCE), Counter[str]()

        async def one(number: int) -> None:
            async with turns:
                if number == after:
                    done = kill()
                    if asyncio.iscoroutine(done):
                        await done
                async with asyncio.timeout(30):
                    results[await self.ask(number)] += 1

        await asyncio.gather(*(one(number) for number in range(REQUESTS)))
        return results

    async def served(self) -> dict[str, int]:
        """Requests by worker so far."""
        text = (await self.client.get("/metrics")).text
        found: Counter[str] = Counter()
        for line in text.splitlines():
            if line.startswith("registry_inference_requests_total{"):
                found[line.split('worker="')[1].split('"')[0]] += int(float(line.split()[-1]))
        return dict(found)

    def runner_pids(self) -> list[int]:
        """Processes of the library that run models."""
        path = Path(f"/proc/{self.server.process.pid}/task/{self.server.process.pid}/children")
        return [
            int(pid)
            for pid in path.read_text().split()
            if b"runner" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    digest = f"sha256:{hashlib.sha256(MODEL).hexdigest()}"
    with running(tmp_path / "data", **ENVIRON) as server:
        client = httpx2.AsyncClient(base_url=server.url, timeout=40)
        async with client, ForeignOllama() as ollama, ForeignLlama("x", slots=4) as llama:
            place = Site(server, client, ollama, llama)
            assert (await client.post(f"/api/blobs/{digest}", content=MODEL)).status_code == 201
            recipe = {"model": "tiny", "files": {"m.gguf": digest}, "template": "{{ .Prompt }}\n"}
            assert (await client.post("/api/create", json=recipe)).status_code == 200
            manifest = (await client.get("/api/tags")).json()["models"][0]["digest"]
            ollama.offers[f"{server.address}/library/tiny:latest"] = Digest.parse(
                f"sha256:{manifest}"
            )
            for answer in ("/completion", "/v1/chat/completions"):
                llama.answers[answer].pause_s = 0.02  # type: ignore[union-attr]  # ones written down
            ollama.pause_s = 0.02
            ollama_site = NewWorker("ollama", "ollama", ollama.url, labels=("o",), slots=4)
            llama_site = NewWorker("llama", "openai", llama.url, "", ("l",), {"tiny": "*"})
            await place.administer(lambda fleet: fleet.add(ollama_site))
            await place.administer(lambda fleet: fleet.add(llama_site))
            yield place


async def warm_all(site: Site) -> None:
    """Have the model loaded on each of them."""
    assert await site.ask(0) == "right"
    for label in ("o", "l"):
        await site.place(label)
        async with asyncio.timeout(20):
            while await site.ask(0) != "right" or not (await site.served()).get(
                {"o": "ollama", "l": "llama"}[label]
            ):
                await asyncio.sleep(0.2)
    await site.place()
    await asyncio.sleep(2.5)


def honest(results: Counter[str]) -> None:
    assert sum(results.values()) == REQUESTS
    assert not [text for text in results if text.startswith("wrong")]
    told = ("right", "503 ", "500 model runner", "500 the connection", "500 the worker", "cut off ")
    assert all(text.startswith(told) for text in results), results


async def test_each_of_three_workers_is_killed_and_nobody_hangs(site: Site) -> None:
    await warm_all(site)
    calm = await site.hundred(lambda: None)
    assert calm == {"right": REQUESTS}
    served = await site.served()
    assert min(served[name] for name in ("local", "ollama", "llama")) > 5, served

    def kill_runner() -> None:
        for pid in site.runner_pids():
            os.kill(pid, signal.SIGKILL)

    for kill in (site.llama.kill, kill_runner, site.ollama.kill):
        results = await site.hundred(kill)
        honest(results)
        assert results["right"] >= REQUESTS - AT_ONCE, results
    assert (await site.hundred(lambda: None))["right"] == REQUESTS
