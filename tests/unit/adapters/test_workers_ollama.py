"""An existing Ollama server as a worker: pulls, passing on, what runs there, what goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from registry.adapters.worker_http import Site
from registry.adapters.workers_external import External
from registry.adapters.workers_ollama import OllamaWorker
from registry.core.digest import Digest
from registry.core.errors import (
    CannotRun,
    OperationFailed,
    RegistryError,
    Unavailable,
    Unsupported,
    WorkerLost,
)
from registry.ports.workers import Dialect, Running
from tests.support.fake_worker import spec_of
from tests.support.foreign import Answer, ForeignOllama, lines

pytestmark = pytest.mark.anyio
SPEC = spec_of("tiny")
PULLED = "library.example:11434/library/tiny:latest"


@asynccontextmanager
async def worker_of(
    server: ForeignOllama, library: str = "http://library.example:11434"
) -> AsyncIterator[OllamaWorker]:
    worker = OllamaWorker(External("old", Site.parse(server.url), library=library))
    await worker.look()
    try:
        yield worker
    finally:
        await worker.close()


async def frames(running: Running, **body: Any) -> list[Any]:
    asked = {"model": "tiny", "prompt": "hi", **body}
    return [frame async for frame in running.native("/api/generate", asked)]


async def test_a_request_is_passed_on_under_its_name_for_the_model() -> None:
    async with ForeignOllama({"own:1": SPEC.manifest}) as server, worker_of(server) as worker:
        running = await worker.acquire(SPEC)
        assert running.dialect is Dialect.OLLAMA
        assert running.load_ns < 50_000_000
        made = await frames(running)
        await running.release(60.0)
    assert [frame["model"] for frame in made] == ["tiny"] * 3
    assert made[-1]["done"]
    assert server.calls("/api/pull") == []
    asked = [item.body for item in server.calls("/api/generate")]
    assert asked == [
        {"model": "own:1", "prompt": "hi"},
        {"model": "own:1", "keep_alive": "60000ms", "stream": False},
    ]


async def test_it_is_made_to_pull_from_here_what_it_lacks_and_once_for_many() -> None:
    async with ForeignOllama() as server, worker_of(server) as worker:
        server.offers[PULLED] = SPEC.manifest
        leases = await asyncio.gather(*(worker.acquire(SPEC) for _ in range(3)))
        assert [item.body for item in server.calls("/api/pull")] == [
            {"model": PULLED, "insecure": True}
        ]
        assert (await frames(leases[0]))[0]["response"] == "Hel"
        assert worker.facts().loaded[0].busy == 3


@pytest.mark.parametrize(
    ("library", "offers", "message"),
    [
        ("http://library.example:11434", {}, "could not fetch the model: .*does not exist"),
        ("http://library.example:11434", {PULLED: Digest.of(b"moved")}, "got another model"),
        ("", {}, "REGISTRY_EXTERNAL_URL is not set"),
    ],
)
async def test_a_model_that_it_cannot_get_it_cannot_run(
    library: str, offers: dict[str, Digest], message: str
) -> None:
    async with ForeignOllama() as server, worker_of(server, library) as worker:
        server.offers |= offers
        with pytest.raises(CannotRun, match=message):
            await worker.acquire(SPEC)
        assert worker.facts().loaded == ()


async def test_what_runs_there_is_told_with_sizes_and_times() -> None:
    async with ForeignOllama({PULLED: SPEC.manifest}) as server:
        server.running = {PULLED: SPEC.manifest, "their:own": Digest.of(b"other")}
        async with worker_of(server) as worker:
            found = {str(item.name): item for item in worker.facts().loaded}
            tiny = found["registry.ollama.ai/library/tiny:latest"]
            assert (tiny.size, tiny.size_vram, tiny.num_ctx) == (1000, 400, 4096)
            assert tiny.expires_at == 1_795_255_200_500_000_000
            assert "registry.ollama.ai/library/their:own" in found
            await worker.acquire(SPEC)
            again = next(item for item in worker.facts().loaded if item.busy)
            assert (again.model, again.size) == (SPEC.model.digest, 1000)
            assert worker.facts().version == "0.32.1"
            assert worker.facts().cached == {SPEC.manifest}


async def test_unloading_is_told_and_repeated_keep_alives_are_not() -> None:
    async with ForeignOllama({"own": SPEC.manifest}) as server, worker_of(server) as worker:
        for _ in range(3):
            await (await worker.acquire(SPEC)).release(None)
        await worker.unload(SPEC.model.digest)
        await worker.unload(Digest.of(b"unknown"))
        assert [item.body["keep_alive"] for item in server.calls("/api/generate")] == [-1, "0ms"]


async def test_embeddings_of_either_kind() -> None:
    async with ForeignOllama({"own": SPEC.manifest}) as server, worker_of(server) as worker:
        running = await worker.acquire(SPEC)
        assert (await running.embed(["x"])).vectors == [[0.6, 0.8]]
        assert (await running.embed(["x"])).prompt_tokens == 2
        assert (await running.embed(["x", "y"], normalize=False)).vectors == [[3.0, 4.0]] * 2
        with pytest.raises(OperationFailed, match="another number"):
            await running.embed(["x", "y"])


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (Answer(pieces=lines({"response": "Hel"})), WorkerLost, "stopped"),
        (Answer(pieces=lines({"response": "Hel"}), cut=True), WorkerLost, "broke"),
        (Answer(b'{"error":"no such thing"}', 404), OperationFailed, "no such thing"),
        (Answer(b'{"error":"server busy"}', 503), Unavailable, "server busy"),
        (Answer(b'{"error":"llama runner process has terminated"}', 500), WorkerLost, "runner"),
        (Answer(pieces=lines({"error": "an error"})), OperationFailed, "an error"),
        (
            Answer(pieces=lines({"error": "model runner has unexpectedly stopped"})),
            WorkerLost,
            "stopped",
        ),
        (Answer(pieces=[b"nonsense\n"]), OperationFailed, "not JSON"),
        (Answer(pieces=[b"[]\n"]), OperationFailed, "no JSON object"),
    ],
)
async def test_what_goes_wrong_in_an_answer_is_an_error(
    answer: Answer, error: type[RegistryError], message: str
) -> None:
    async with ForeignOllama({"own": SPEC.manifest}) as server, worker_of(server) as worker:
        running = await worker.acquire(SPEC)
        server.answers["/api/generate"] = answer
        with pytest.raises(error, match=message):
            await frames(running)


async def test_what_is_rendered_there_cannot_be_asked_for() -> None:
    async with ForeignOllama({"own": SPEC.manifest}) as server, worker_of(server) as worker:
        running = await worker.acquire(SPEC)
        with pytest.raises(Unsupported, match="renders and counts by itself"):
            running.complete({})
        with pytest.raises(Unsupported):
            running.chat({})
        with pytest.raises(Unsupported):
            await running.tokenize("x")
        with pytest.raises(Unsupported):
            await running.detokenize([1])
        with pytest.raises(Unsupported):
            await running.apply_template({})


async def test_rows_that_cannot_be_read_are_passed_over() -> None:
    async with ForeignOllama() as server:
        server.answers["/api/tags"] = Answer(b'{"models":[1,{"name":"x","digest":"y"}]}')
        server.answers["/api/ps"] = Answer(b"[]")
        async with worker_of(server) as worker:
            assert worker.facts().reachable
            assert worker.facts().cached == frozenset()
        server.answers["/api/tags"] = Answer(b"oops", 500)
        async with worker_of(server) as worker:
            assert not worker.facts().reachable
