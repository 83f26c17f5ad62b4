"""Who may run a model, see it run, and to whom its work is written up."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from registry.core.access import Right
from registry.core.digest import Digest
from registry.services.inference.metering import Use
from tests.support.asgi import Answer
from tests.support.desk import BERT, LLAMA
from tests.support.fake_worker import FakeWorker
from tests.support.secured import Secured, basic, secured

pytestmark = pytest.mark.anyio

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    data = tmp_path_factory.mktemp("secured") / "data"
    async with secured(data, credentials={"tries_per_minute": 1000}) as made:
        await made.user("root", admin=True)
        for name in ("alice", "carol"):
            await made.user(name)
        await made.grant("user:alice", "team/*", Right.READ)
        for name, gguf in (("team/secret", LLAMA), ("team/vectors", BERT)):
            digest = str(Digest.of(gguf))
            root = basic("root")
            await made.ask("POST", f"/api/blobs/{digest}", gguf, authorization=root)
            body = json.dumps({"model": name, "files": {"m.gguf": digest}, "stream": False})
            created = await made.ask("POST", "/api/create", body.encode(), authorization=root)
            assert created.status == 200, created.body
        made.services.router.add(FakeWorker("gpu-box"))
        yield made


async def ask(place: Secured, name: str, path: str, **body: Any) -> Answer:
    return await place.ask("POST", path, json.dumps(body).encode(), authorization=basic(name))


@pytest.mark.parametrize(
    ("path", "body", "gone"),
    [
        ("/api/chat", {"model": "team/secret", "messages": HI}, "model 'team/secret' not found"),
        ("/api/generate", {"model": "team/secret"}, "model 'team/secret' not found"),
        ("/api/generate", {"model": "team/secret", "keep_alive": 0}, "model 'team/secret' not"),
        ("/api/embed", {"model": "team/vectors", "input": "a"}, 'model "team/vectors" not found'),
        ("/api/embeddings", {"model": "team/vectors"}, 'model "team/vectors" not found'),
    ],
)
async def test_a_model_that_may_not_be_read_is_not_there(
    place: Secured, path: str, body: dict[str, Any], gone: str
) -> None:
    assert (await ask(place, "alice", path, **body)).status == 200
    refused = await ask(place, "carol", path, **body)
    absent = await ask(place, "carol", path, **{**body, "model": "team/none"})
    assert refused.status == absent.status == 404
    assert json.loads(refused.body)["error"].startswith(gone)
    assert refused.body.replace(body["model"].encode(), b"team/none") == absent.body


async def test_only_what_may_be_read_is_seen_running(place: Secured) -> None:
    await ask(place, "alice", "/api/generate", model="team/secret")
    for name, sees in (("root", True), ("alice", True), ("carol", False)):
        answer = await place.ask("GET", "/api/ps", authorization=basic(name))
        models = {item["name"]: item["worker"] for item in json.loads(answer.body)["models"]}
        assert models.get("team/secret:latest") == ("gpu-box" if sees else None)
        assert bool(models) is sees


async def test_work_is_written_up_to_who_asked(place: Secured) -> None:
    uses: list[Use] = []
    place.services.router.meter.keep_books(lambda use, seconds: uses.append(use))
    await ask(place, "alice", "/api/chat", model="team/secret", messages=HI)
    await ask(place, "root", "/api/embed", model="team/vectors", input=["a b", "c"])
    assert [(use.account, use.model.short, use.worker) for use in uses] == [
        ("alice", "team/secret:latest", "gpu-box"),
        ("root", "team/vectors:latest", "gpu-box"),
    ]
    assert [(use.prompt_tokens, use.tokens) for use in uses] == [(5, 2), (3, 0)]
