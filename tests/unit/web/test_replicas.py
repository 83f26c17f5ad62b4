"""Two replicas over one folder and database: any of them answers any request of any session."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from registry.core.access import Right
from registry.core.digest import Digest
from tests.support.asgi import Answer
from tests.support.secured import MANIFEST_TYPE, OLLAMA, Secured, Signer, basic, model, secured

pytestmark = pytest.mark.anyio

NS = 10**9
CONFIG = b'{"model_format":"gguf"}'
TEAM = "/v2/team/llama"


class Pair:
    """Sends each request to the next replica."""

    def __init__(self, replicas: list[Secured]) -> None:
        self.replicas = replicas
        self._turns = itertools.cycle(replicas)

    async def ask(self, method: str, target: str, body: bytes = b"", /, **headers: str) -> Answer:
        return await next(self._turns).ask(method, target, body, **headers)

    def pass_s(self, seconds: float) -> None:
        for replica in self.replicas:
            replica.now += int(seconds * NS)

    async def sweep(self) -> None:
        for replica in self.replicas:
            await replica.services.housekeeping.sweep()


@asynccontextmanager
async def pair_of(data: Path, **settings: Any) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(secured(data, **settings)) for _ in range(2)]
        await replicas[0].user("alice")
        await replicas[0].grant("user:alice", "team/*", Right.ALL)
        yield Pair(replicas)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair_of(tmp_path / "data") as made:
        yield made


def place_of(answer: Answer) -> str:
    return answer.headers["location"].removeprefix("https://models.example.com")


async def test_a_push_goes_on_at_whichever_replica_is_next(pair: Pair) -> None:
    me = {"authorization": basic("alice")}
    for data in (b"weights" * 50, CONFIG):
        answer = await pair.ask("POST", f"{TEAM}/blobs/uploads/", **me)
        for start in range(0, len(data), 100):
            part = data[start : start + 100]
            span = f"{start}-{start + len(part) - 1}"
            answer = await pair.ask("PATCH", place_of(answer), part, content_range=span, **me)
            assert (answer.status, answer.headers["range"]) == (202, f"0-{start + len(part) - 1}")
            status = await pair.ask("GET", place_of(answer), **me)
            assert status.headers["range"] == f"0-{start + len(part) - 1}"
        target = f"{place_of(answer)}?digest={Digest.of(data)}"
        assert (await pair.ask("PUT", target, **me)).status == 201
        assert (await pair.ask("PUT", target, **me)).status == 201  # the answer was lost
    body = model(CONFIG, b"weights" * 50)
    target = f"{TEAM}/manifests/1"
    assert (await pair.ask("PUT", target, body, content_type=MANIFEST_TYPE, **me)).status == 201
    for _ in pair.replicas:
        assert (await pair.ask("GET", target, **me)).body == body
        got = await pair.ask("GET", f"{TEAM}/blobs/{Digest.of(CONFIG)}", **me)
        assert got.body == CONFIG
    assert (await pair.ask("DELETE", target, **me)).status == 202
    for _ in pair.replicas:
        assert (await pair.ask("GET", target, **me)).status == 404


async def test_credentials_are_the_same_everywhere(pair: Pair) -> None:
    one, two = pair.replicas
    signer = Signer()
    alice = await one.services.accounts.named("alice")
    key = await one.services.accounts.add_public_key(alice.id, signer.blob)
    assert (await one.push("team/llama", "1", b"x", authorization=basic("alice"))).status == 201
    got = await one.signed_token(signer, "repository:team/llama:pull")
    bearer = f"Bearer {json.loads(got.body)['token']}"
    path = f"{TEAM}/manifests/1"
    for replica in (one, two, one, two):
        assert (await replica.ask("GET", path, authorization=bearer)).status == 200
    await two.services.accounts.remove_public_key(key.fingerprint)
    for replica in (one, two):
        assert (await replica.ask("GET", path, authorization=bearer)).status == 401


async def test_a_nonce_is_good_once_for_all_of_them(pair: Pair) -> None:
    one, two = pair.replicas
    signer = Signer()
    alice = await one.services.accounts.named("alice")
    await one.services.accounts.add_public_key(alice.id, signer.blob)
    query = {"scope": "repository:team/llama:pull", "service": "models.example.com"}
    text, header = signer.token_request("https://models.example.com/v2/token", query, one.now_s)
    statuses = [
        (await replica.ask("GET", f"/v2/token?{text}", authorization=header,
                           user_agent=OLLAMA)).status
        for replica in (one, two, one)
    ]  # fmt: skip
    assert statuses == [200, 401, 401]


async def test_no_manifest_refers_to_what_was_collected_meanwhile(tmp_path: Path) -> None:
    """Pushes of models with common layers, deletes, and both replicas' sweeps without grace."""
    retention = {"grace_s": 0, "lease_s": 900}
    async with pair_of(tmp_path / "data", retention=retention) as pair:
        is_over = asyncio.Event()

        async def sweep() -> None:
            while not is_over.is_set():
                pair.pass_s(1)
                await pair.sweep()
                await asyncio.sleep(0.02)  # a push takes less: one without pause is never through

        me = {"authorization": basic("alice")}
        await pair.ask("GET", "/v2/", **me)
        sweeping = asyncio.create_task(sweep())
        counts = await asyncio.gather(*(push_and_delete(pair, n, me) for n in range(6)))
        is_over.set()
        await sweeping
        assert counts == [4] * 6
        await check_whole(pair, me)


async def push_and_delete(pair: Pair, number: int, me: dict[str, str]) -> int:
    """Push a model until that was acknowledged four times; delete every second."""
    pushed, repository = 0, f"team/m{number}"
    for turn in range(200):
        if pushed == 4:
            break
        layer = b"layer %d" % (turn % 3)
        answer = await pair.replicas[(number + turn) % 2].push(repository, "1", layer, **me)
        if answer.status != 201:  # swept before the manifest came: a client sends it again
            assert b"BLOB_UNKNOWN" in answer.body, answer.body
            continue
        pushed += 1
        got = await pair.ask("GET", f"/v2/{repository}/blobs/{Digest.of(layer)}", **me)
        assert (got.status, got.body) == (200, layer)
        if pushed % 2:
            target = f"/v2/{repository}/manifests/1"
            assert (await pair.ask("DELETE", target, **me)).status == 202
    return pushed


async def check_whole(pair: Pair, me: dict[str, str]) -> None:
    """Every tag's manifest is there with all of its blobs."""
    listed = json.loads((await pair.ask("GET", "/v2/_catalog", **me)).body)["repositories"]
    for name in listed:
        tags = json.loads((await pair.ask("GET", f"/v2/{name}/tags/list", **me)).body)["tags"]
        for tag in tags:
            manifest = json.loads((await pair.ask("GET", f"/v2/{name}/manifests/{tag}", **me)).body)
            for part in (manifest["config"], *manifest["layers"]):
                got = await pair.ask("GET", f"/v2/{name}/blobs/{part['digest']}", **me)
                assert (got.status, len(got.body)) == (200, part["size"])
