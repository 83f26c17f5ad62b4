"""The same with real servers: an Ollama server and a llama-server, killed in each phase of work.

`OLLAMA` and `LLAMA_SERVER` name the programs; without both it is skipped. What a killed server had
been sent must come back as another's answer or as an error, and soon.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from registry.ports.fleet import NewWorker
from tests.integration.test_three_workers import AT_ONCE, ENVIRON, REQUESTS, Site, honest
from tests.support.foreign import ForeignLlama, ForeignOllama
from tests.support.ports import free_port
from tests.support.scripted_model import scripted_model
from tests.support.server import running
from tests.support.talkers import put

OLLAMA = os.environ.get("OLLAMA") or shutil.which("ollama")
LLAMA = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
pytestmark = [
    pytest.mark.folder("gives another program the file of a blob"),
    pytest.mark.anyio,
    pytest.mark.engine,
    pytest.mark.skipif(not (OLLAMA and LLAMA), reason="no ollama or no llama-server here"),
]
MODEL = scripted_model(["Hel", "lo"])
VICTIMS = ("local", "ollama", "llama")
PHASES = {"loading": 0, "early": 10, "middle": 50, "late": 90}
"""How many requests had begun when the kill came; at 0 nothing is loaded anywhere."""


@dataclass
class Foreign:
    """A server of somebody else's, in a session of its own: it is killed with all its children."""

    line: list[str]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.line, env={**os.environ, **self.env}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(20)


@dataclass
class RealSite(Site):
    """A site whose foreign servers are real."""

    servers: dict[str, Foreign] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    def kill(self, name: str) -> None:
        """Kill a worker: a server with all its children, or the library's own runners."""
        if name == "local":
            for pid in self.runner_pids():
                os.kill(pid, signal.SIGKILL)
        else:
            self.servers[name].kill()

    async def revive(self) -> None:
        """Everybody is there again, and has nothing loaded."""
        for server in self.servers.values():
            if server.process is None or server.process.poll() is not None:
                server.start()
        async with asyncio.timeout(40):
            while not await self._all_answer():
                await asyncio.sleep(0.2)
        await asyncio.sleep(6)  # the library asks every five seconds
        body = {"model": "tiny", "keep_alive": 0}
        await self.client.post("/api/generate", json=body)

    async def _all_answer(self) -> bool:
        try:
            for path in (f"{self.urls['ollama']}/api/version", f"{self.urls['llama']}/health"):
                if (await self.client.get(path)).status_code != 200:
                    return False
        except httpx2.HTTPError:
            return False
        return True


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[RealSite]:
    with running(tmp_path / "data", **ENVIRON) as server:
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            put(client, "tiny", MODEL, template="{{ .Prompt }}\n")
        blob = max((server.data / "blobs").glob("sha256-*"), key=lambda file: file.stat().st_size)
        ports = {"ollama": free_port(), "llama": free_port()}
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        home = tmp_path / "ollama"
        home.mkdir()
        env = {"OLLAMA_HOST": f"127.0.0.1:{ports['ollama']}", "HOME": str(home),
               "OLLAMA_MODELS": str(home / "models"), "OLLAMA_NUM_PARALLEL": "4"}  # fmt: skip
        line = [str(LLAMA), "-m", str(blob), "--host", "127.0.0.1", "--port", str(ports["llama"]),
                "-np", "4", "-c", "8192", "-t", "1"]  # fmt: skip
        servers = {
            "ollama": Foreign([str(OLLAMA), "serve"], tmp_path / "ollama.log", env),
            "llama": Foreign(line, tmp_path / "llama.log"),
        }
        own = httpx2.AsyncClient(base_url=server.url, timeout=60)
        place = RealSite(server, own, ForeignOllama(), ForeignLlama("x"), servers, urls)
        try:
            async with own:
                for worker in (
                    NewWorker("ollama", "ollama", urls["ollama"], slots=4),
                    NewWorker("llama", "openai", urls["llama"], "", (), {"tiny": "*"}),
                ):
                    await place.administer(lambda fleet, worker=worker: fleet.add(worker))  # type: ignore[misc]  # mypy sees no default
                await place.revive()
                yield place
        finally:
            for foreign in servers.values():
                foreign.kill()


async def test_each_is_killed_in_each_phase_and_nobody_hangs(site: RealSite) -> None:
    totals: dict[str, Counter[str]] = {}
    for victim in VICTIMS:
        for phase, after in PHASES.items():
            await site.revive()
            results = await site.hundred(lambda victim=victim: site.kill(victim), after)  # type: ignore[misc]  # mypy sees no default
            totals[f"{victim} {phase}"] = results
            honest(results)
            assert results["right"] >= REQUESTS - AT_ONCE, (victim, phase, results)
    await site.revive()
    totals["nobody"] = await site.hundred(lambda: None)
    for name, results in totals.items():
        print(name, dict(results))
    served = await site.served()
    print(served)
    assert totals["nobody"]["right"] == REQUESTS
    assert all(served.get(name) for name in VICTIMS)
