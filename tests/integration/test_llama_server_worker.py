"""The real engine as a server of its own, taken for a llama-server and for any OpenAI API."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.adapters.openai_running import OpenAIRunning
from registry.adapters.worker_http import Site, SiteWire
from registry.adapters.workers_external import External
from registry.adapters.workers_openai import OpenAIWorker
from registry.core.errors import Unsupported
from registry.ports.workers import Dialect, Piece
from tests.support.engine import Engine
from tests.support.fake_worker import spec_of
from tests.support.scripted_model import embedding_model, scripted_model

pytestmark = [pytest.mark.anyio, pytest.mark.engine]
SPEC = spec_of("tiny")
ASK = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0}


async def text_of(pieces: AsyncIterator[Piece]) -> tuple[str, Piece]:
    """The text, and the last piece."""
    found = [piece async for piece in pieces]
    return "".join(piece.content for piece in found), found[-1]


async def test_a_llama_server_is_known_by_its_props(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(scripted_model(["Hel", "lo"]))
    with Engine(tmp_path / "model") as engine:
        site = Site.parse(engine.address)
        worker = OpenAIWorker(External("llama", site, models={str(SPEC.name): "*"}))
        await worker.look()
        assert worker.dialect is Dialect.LLAMA
        assert worker.facts().slots == 1
        running = await worker.acquire(SPEC)
        said, last = await text_of(running.complete({"prompt": "hi\n", "temperature": 0}))
        assert said == "Hello"
        assert last.stop is not None
        assert last.stop.timings.tokens == 3
        assert (await text_of(running.chat(ASK)))[0] == "Hello"
        assert await running.tokenize("hi") == [104, 105]
        with pytest.raises(Unsupported, match="does not support embeddings"):
            await running.embed(["x"])
        await running.release(None)
        await worker.close()


async def test_it_chats_as_any_openai_server_does(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(scripted_model(["Hel", "lo"]))
    with Engine(tmp_path / "model") as engine:
        wire = SiteWire(Site.parse(engine.address))
        running = OpenAIRunning(wire, "any", "model", _nothing)
        said, last = await text_of(running.chat({**ASK, "max_tokens": 50}))
        assert said == "Hello"
        assert last.stop is not None
        assert (last.stop.limit, last.stop.timings.tokens) == (False, 3)
        assert last.stop.timings.prompt_tokens > 10
        said, last = await text_of(running.chat({**ASK, "max_tokens": 1}))
        assert last.stop is not None
        assert (said, last.stop.limit) == ("Hel", True)
        await wire.close()


async def test_it_embeds_as_any_openai_server_does(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(embedding_model())
    with Engine(tmp_path / "model", embeds=True) as engine:
        wire = SiteWire(Site.parse(engine.address))
        running = OpenAIRunning(wire, "any", "model", _nothing)
        made = await running.embed(["some", "words"])
        assert len(made.vectors) == 2
        assert made.vectors[0] != made.vectors[1]
        assert made.prompt_tokens > 2
        await wire.close()


async def _nothing(keep_alive_s: float | None) -> None:
    return None
