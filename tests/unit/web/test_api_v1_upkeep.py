"""`/api/v1`: storage, collection, scrub, quotas, retention, history; with and without accounts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.core.access import Group
from registry.core.digest import Digest
from registry.core.layering import Recipe
from registry.core.names import ModelName
from registry.services.access.keys import ApiKeyWish
from registry.settings import Retention
from tests.support.asgi import Caller
from tests.support.backends import BACKENDS
from tests.support.gguf import SMALLEST
from tests.support.site import Site, site

pytestmark = pytest.mark.anyio
DIGEST = Digest.of(SMALLEST)


class Place:
    """A site with one model, and an administrator who asks."""

    def __init__(self, made: Site, key: str) -> None:
        self.site = made
        self.key = key

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await self.site.api(method, path, body, self.key)

    async def stream(self, path: str, body: Any) -> list[dict[str, Any]]:
        """The lines of an answer."""
        headers = {"content_type": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        answer = await Caller(self.site.app, {"host": self.site.host})(
            "POST", f"/api/v1{path}", orjson.dumps(body), leaves=False, breaks_off=False, **headers
        )
        assert answer.status == 200, answer.body
        return [orjson.loads(line) for line in answer.body.splitlines()]

    async def create(self, name: str, **recipe: Any) -> None:
        events = self.site.services.create.run(ModelName.parse(name), Recipe(**recipe))
        async for _ in events:
            pass


@pytest.fixture(params=[True, False], ids=["accounts", "no accounts"])
async def ask(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    settings = {"auth": request.param, "retention": Retention(undelete_s=1000)}
    async with site(tmp_path, **settings) as made:
        key = ""
        if request.param:
            account = await made.person("root", admin=True)
            key = (await made.accounts.create_api_key(account, ApiKeyWish("k", Group.ALL))).text
        place = Place(made, key)
        digest = (await made.services.blobs.put_bytes(SMALLEST)).digest
        await place.create("team/m:v1", files={"a.gguf": str(digest)})
        made.clock.now += 10**9
        await place.create("team/m:v2", origin="team/m:v1", system="be kind")
        yield place


async def test_storage_tells_sums_and_pages_of_names(ask: Place) -> None:
    status, answer = await ask("GET", "/storage?limit=1")
    assert status == 200
    assert answer["blobs"]["count"] == 3
    assert answer["unused"] == {"count": 0, "bytes": 0, "since": None}
    (team,) = answer["names"]
    assert (team["name"], team["bytes"]) == ("team", team["unique"])
    assert team["bytes"] == answer["blobs"]["bytes"]
    assert (await ask("GET", f"/storage?after={answer['next']}"))[1]["names"] == []
    status, answer = await ask("GET", "/storage?name=team/m&limit=1")
    assert [item["name"] for item in answer["names"]] == ["team/m:v1"]
    status, answer = await ask("GET", f"/storage?name=team/m&after={answer['next']}")
    assert [item["name"] for item in answer["names"]] == ["team/m:v2"]
    assert (answer["names"][0]["unique"], answer["next"]) == (len("be kind"), None)
    assert (await ask("GET", "/storage?name=none"))[0] == 404


async def test_a_collection_is_planned_and_done(ask: Place) -> None:
    await ask.site.services.blobs.put_bytes(b"forgotten")
    ask.site.clock.now += 10**9
    status, answer = await ask("GET", "/gc")
    assert status == 200
    assert answer["goes"] == []
    assert [(item["reason"], item["count"]) for item in answer["stays"]] == [("grace", 1)]
    status, answer = await ask("GET", "/gc?grace_s=0&orphans=false")
    (finding,) = answer["goes"]
    assert (finding["reason"], finding["count"], finding["bytes"]) == ("unused", 1, 9)
    lines = await ask.stream("/gc", {"grace_s": 0})
    assert {"status": finding["text"], "count": 1, "size": 9} in lines
    assert lines[-1] == {"status": "success"}
    assert (await ask("GET", "/gc?grace_s=0"))[1]["goes"] == []


async def test_damage_is_found_told_and_refused(ask: Place, tmp_path: Path) -> None:
    stored = BACKENDS.stored(tmp_path, DIGEST)
    stored.write(b"x" * len(SMALLEST))
    lines = await ask.stream("/scrub", {"subset": "1/1"})
    assert {"status": f"damaged: {DIGEST}"} in lines
    _, answer = await ask("GET", "/storage")
    (damaged,) = answer["damaged"]
    assert (damaged["digest"], damaged["repositories"]) == (str(DIGEST), ["team/m"])
    headers: Any = {"authorization": f"Bearer {ask.key}"} if ask.key else {}
    for method in ("HEAD", "GET"):
        answer = await Caller(ask.site.app, {"host": ask.site.host})(
            method, f"/v2/team/m/blobs/{DIGEST}", leaves=False, breaks_off=False, **headers
        )
        assert answer.status == 404
        assert method == "HEAD" or b"is damaged in the store" in answer.body
    stored.write(SMALLEST)
    await ask.stream("/scrub", {"only_damaged": True})
    assert (await ask("GET", "/storage"))[1]["damaged"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"subset": "0/2"},
        {"subset": "x"},
        {"repair_from": "ftp://x"},
        {"repair_from": "http://a/b"},
        {"repair_from": "http://["},
        {"repair_from": "http://a@b"},
        {"bytes_per_second": -1},
        {"more": 1},
    ],
)
async def test_a_scrub_that_cannot_be_is_refused(ask: Place, body: Any) -> None:
    assert (await ask("POST", "/scrub", body))[0] == 400


async def test_quotas_are_set_and_hold(ask: Place) -> None:
    status, made = await ask("PUT", "/quotas", {"namespace": "team", "bytes": 10})
    assert (status, made["bytes"]) == (200, 10)
    assert made["used"] > 10
    assert (await ask("GET", "/quotas"))[1]["quotas"] == [made]
    headers: Any = {"authorization": f"Bearer {ask.key}"} if ask.key else {}
    caller = Caller(ask.site.app, {"host": ask.site.host})
    path = f"/v2/team/n/blobs/uploads/?digest={Digest.of(b'abc')}"
    for agent, told in (("curl/8", b'"DENIED"'), ("ollama/0.9", b"the quota of team is 10 bytes")):
        answer = await caller(
            "POST", path, b"abc", leaves=False, breaks_off=False, user_agent=agent, **headers
        )
        assert answer.status == 403
        assert told in answer.body
    answer = await caller(
        "POST", "/v2/team/n/blobs/uploads/", leaves=False, breaks_off=False,
        x_content_length="9999", **headers,
    )  # fmt: skip
    assert answer.status == 403  # what is announced is set aside
    assert (await ask("DELETE", "/quotas?namespace=team"))[0] == 204
    assert (await ask("DELETE", "/quotas?namespace=team"))[0] == 404
    assert (await ask("PUT", "/quotas", {"namespace": "a b", "bytes": 10}))[0] == 400


async def test_retention_tells_first_and_then_does(ask: Place) -> None:
    rule = {"pattern": "team/*", "keep_last": 1, "keep_s": 0, "keep_tags": []}
    assert await ask("PUT", "/retention", rule) == (200, rule)
    assert (await ask("GET", "/retention"))[1] == {"rules": [rule]}
    told = await ask.stream("/retention", {"dry_run": True})
    assert told == [{"status": "would go: team/m:v1"}, {"status": "success"}]
    done = await ask.stream("/retention", {"dry_run": False})
    assert done == [{"status": "gone: team/m:v1"}, {"status": "success"}]
    assert (await ask("PUT", "/retention", {"pattern": "team/*"}))[0] == 400
    assert (await ask("DELETE", "/retention?pattern=team/*"))[0] == 204
    assert (await ask("DELETE", "/retention?pattern=team/*"))[0] == 404


async def test_a_deleted_model_is_brought_back_and_its_history_tells_who(ask: Place) -> None:
    headers: Any = {"authorization": f"Bearer {ask.key}"} if ask.key else {}
    answer = await Caller(ask.site.app, {"host": ask.site.host})(
        "DELETE", "/api/delete", b'{"model":"team/m:v2"}', leaves=False, breaks_off=False, **headers
    )
    assert answer.status == 200
    status, told = await ask("GET", "/history?model=team/m:v2")
    assert status == 200
    gone, made = told["changes"]
    assert (gone["new"], gone["kept"], gone["who"]) == (None, True, "root" if ask.key else "")
    assert (made["old"], made["new"]) == (None, gone["old"])
    status, restored = await ask("POST", "/history", {"model": "team/m:v2"})
    assert (status, restored) == (200, {"model": "team/m:v2", "digest": gone["old"]})
    _, told = await ask("GET", "/history?model=team/m:v2&limit=1")
    assert told["changes"][0]["new"] == gone["old"]
    assert (await ask("GET", "/history?model=team/none"))[0] == 404
    assert (await ask("POST", "/history", {"model": "team/m:v2", "to": 99}))[0] == 404


async def test_what_one_may_not_read_has_no_history(tmp_path: Path) -> None:
    async with site(tmp_path) as made:
        account = await made.person("eve")
        key = (await made.accounts.create_api_key(account, ApiKeyWish("k", Group.ALL))).text
        place = Place(made, key)
        digest = (await made.services.blobs.put_bytes(SMALLEST)).digest
        await place.create("team/m:v1", files={"a.gguf": str(digest)})
        assert (await place("GET", "/history?model=team/m:v1"))[0] == 404
        assert (await place("POST", "/history", {"model": "team/m:v1"}))[0] == 404
        for method, path in (("GET", "/storage"), ("GET", "/gc"), ("GET", "/quotas")):
            assert (await place(method, path))[0] == 403
