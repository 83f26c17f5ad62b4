"""`/api/v1`: workers, placements and usage, as an administrator asks; `/metrics`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.core.access import Group
from registry.core.names import ModelName
from registry.ports.workers import Dialect
from registry.services.access.keys import ApiKeyWish
from registry.services.inference.metering import Use
from tests.support.asgi import Caller
from tests.support.catalog_rows import put_model
from tests.support.fake_worker import FakeWorker, spec_of
from tests.support.site import HOST, Site, site

pytestmark = pytest.mark.anyio
GPU = {"name": "GPU", "kind": "ollama", "url": "http://gpu:11434/", "labels": ["Big"], "slots": 2}


class Place:
    """A site, and an administrator who asks."""

    def __init__(self, made: Site, key: str) -> None:
        self.site = made
        self.key = key

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await self.site.api(method, path, body, self.key)


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Place]:
    async with site(tmp_path) as made:
        account = await made.person("root", admin=True)
        key = (await made.accounts.create_api_key(account, ApiKeyWish("k", Group.ALL))).text
        await made.services.catalog.write(lambda tx: put_model(tx, "team/m", "latest", "m"))
        yield Place(made, key)


async def test_a_worker_is_added_drained_and_removed(ask: Place) -> None:
    status, made = await ask("POST", "/workers", {**GPU, "key": "s3cret"})
    assert status == 201
    expected = {
        "name": "gpu",
        "kind": "ollama",
        "url": "http://gpu:11434",
        "has_key": True,
        "labels": ["big"],
        "models": [],
        "drained": False,
        "reachable": False,
        "engine": "",
        "version": "",
        "memory_total": 0,
        "memory_free": 0,
        "running": [],
    }
    assert made == expected
    assert await ask("GET", "/workers") == (200, {"workers": [expected], "resting": []})
    assert (await ask("POST", "/workers", GPU))[0] == 409
    assert (await ask("PATCH", "/workers/gpu", {"drained": True}))[1]["drained"]
    assert (await ask("GET", "/workers"))[1]["workers"][0]["drained"]
    assert await ask("DELETE", "/workers/gpu") == (204, None)
    assert (await ask("DELETE", "/workers/gpu"))[0] == 404
    assert (await ask("PATCH", "/workers/gpu", {"drained": True}))[0] == 404
    drained = (await ask("PATCH", "/workers/Local", {"drained": True}))[1]
    assert (drained["name"], drained["kind"], drained["drained"]) == ("local", "node", True)


async def test_what_runs_is_told(ask: Place) -> None:
    worker = FakeWorker("local", dialect=Dialect.LLAMA)
    worker.change(labels=frozenset({"cpu"}))
    lease = await worker.acquire(spec_of("team/m"))
    ask.site.services.router.add(worker)
    status, answer = await ask("GET", "/workers")
    (told,) = answer["workers"]
    assert (status, told["name"], told["kind"], told["url"]) == (200, "local", "node", None)
    assert (told["engine"], told["labels"], told["reachable"]) == ("fake", ["cpu"], True)
    assert told["running"] == [
        {
            "model": "team/m:latest",
            "size": 1000,
            "slots": 1,
            "busy": 1,
            "waiting": 0,
            "loading": False,
        }
    ]
    await lease.release(None)


async def test_models_that_rest_are_told(ask: Place) -> None:
    router = ask.site.services.router
    for worker in ("a", "b", "a"):
        router.quarantine.note(spec_of().model.digest, worker, "it stopped", "tiny:latest")
    resting = (await ask("GET", "/workers"))[1]["resting"]
    assert [(item["model"], item["reason"]) for item in resting] == [("tiny:latest", "it stopped")]
    assert 590 < resting[0]["seconds"] <= 600


async def test_models_of_an_openai_server_are_mapped(ask: Place) -> None:
    wish = {"name": "vllm", "kind": "openai", "url": "https://h/v1"}
    models = [{"model": "team/m", "id": "Org/M"}]
    status, made = await ask("POST", "/workers", {**wish, "models": models})
    assert (status, made["url"], made["has_key"]) == (201, "https://h", False)
    assert made["models"] == [{"model": "registry.ollama.ai/team/m:latest", "id": "Org/M"}]
    status, made = await ask("POST", "/workers", {**wish, "name": "all"})
    assert made["models"] == [{"model": "*", "id": "*"}]


@pytest.mark.parametrize(
    "change",
    [
        {"url": "ftp://h"},
        {"url": "http://u:p@h"},
        {"name": "local"},
        {"name": "a b"},
        {"kind": "other"},
        {"models": [{"model": "a", "id": "b"}]},
        {"slots": -1},
        {"key": "a\nb"},
        {"labels": ["ä"]},
        {"is_admin": True},
    ],
)
async def test_servers_that_cannot_be_workers(ask: Place, change: dict[str, Any]) -> None:
    status, answer = await ask("POST", "/workers", {**GPU, **change})
    assert status in {400, 409}
    assert list(answer) == ["error"]
    assert await ask("GET", "/workers") == (200, {"workers": [], "resting": []})


async def test_a_model_is_placed_and_pinned(ask: Place) -> None:
    wish = {"model": "team/m", "labels": ["GPU"], "pinned": True}
    placed = {"model": "team/m:latest", "labels": ["gpu"], "pinned": True}
    assert await ask("PUT", "/placements", wish) == (200, placed)
    assert await ask("GET", "/placements") == (200, {"placements": [placed]})
    assert (await ask("PUT", "/placements", {"model": "none", "pinned": True}))[0] == 404
    assert (await ask("PUT", "/placements", {"model": "a//b"}))[0] == 400
    await ask("PUT", "/placements", {"model": "team/m"})
    assert await ask("GET", "/placements") == (200, {"placements": []})


@pytest.mark.parametrize("by", ["model", "account", "worker", "hour"])
async def test_usage_is_added_up(ask: Place, by: str) -> None:
    name = ModelName.parse("team/m")
    ledger = ask.site.services.ledger
    for worker in ("gpu", "cpu"):
        ledger.record(Use(name, worker, "ann", 0.0, prompt_tokens=1, tokens=2), 1.5)
    status, answer = await ask("GET", f"/usage?by={by}&hours=1")
    assert status == 200
    assert sum(row["tokens"] for row in answer["usage"]) == 4
    assert sum(row["seconds"] for row in answer["usage"]) == 3.0
    for row in answer["usage"]:
        assert [key for key in ("hour", "account", "model", "worker") if row[key]] == [by]
    assert (await ask("GET", f"/usage?by={by}&hours=0"))[0] == 400
    assert (await ask("GET", "/usage?by=key"))[0] == 400
    await ledger.close()


@pytest.mark.parametrize(
    ("auth", "groups", "admin", "status"),
    [
        (False, None, False, 200),
        (True, None, False, 401),
        (True, Group.READ, False, 403),
        (True, Group.INFER, True, 403),
        (True, Group.READ, True, 200),
    ],
)
async def test_metrics_are_for_administrators_who_may_read(
    tmp_path: Path, auth: bool, groups: Group | None, admin: bool, status: int
) -> None:
    async with site(tmp_path, auth=auth) as made:
        headers: dict[str, str] = {}
        if groups is not None:
            account = await made.person("ann", admin=admin)
            key = (await made.accounts.create_api_key(account, ApiKeyWish("k", groups))).text
            headers = {"authorization": f"Bearer {key}"}
        answer = await Caller(made.app, {"host": HOST, **headers})("GET", "/metrics")
        assert answer.status == status
        if status == 200:
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert b"registry_inference_waiting 0.0" in answer.body
