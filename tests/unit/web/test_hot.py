"""Answers kept ready, and that none of them is served after a write."""

import time

import pytest
from starlette.types import Receive, Scope, Send

from registry.core.errors import OperationFailed
from registry.web import hot
from registry.web.hot import Hot
from tests.support.asgi import Caller

pytestmark = pytest.mark.anyio

MANIFEST = "/v2/team/model/manifests/latest"
BLOB = "/v2/team/model/blobs/sha256:" + "0" * 64


class Application:
    """Answers each request with its number, in as many messages as it is told."""

    def __init__(self) -> None:
        self.version = 1
        self.calls = 0
        self.status = 200
        self.body = b"%d"
        self.pieces = 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        headers = [(b"etag", b"%d" % self.calls)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        body = self.body % self.calls
        for number in range(self.pieces):
            more = number + 1 < self.pieces
            await send({"type": "http.response.body", "body": body, "more_body": more})


@pytest.fixture
def app() -> Application:
    return Application()


@pytest.fixture
def ask(app: Application) -> Caller:
    return Caller(Hot(app, lambda: app.version))


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", MANIFEST),
        ("HEAD", MANIFEST),
        ("GET", "/v2/team/model/tags/list"),
        ("GET", "/v2/team/model/tags/list?n=5"),
        ("HEAD", BLOB),
    ],
)
async def test_an_answer_is_kept_until_something_is_written(
    app: Application, ask: Caller, method: str, target: str
) -> None:
    first = await ask(method, target)
    again = await ask(method, target)
    assert (again.body, again.pairs) == (first.body, first.pairs)
    assert app.calls == 1
    app.version += 1
    assert (await ask(method, target)).pairs == [("etag", "2")]


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", BLOB),
        ("HEAD", BLOB + "?exp=1&kid=k&sig=s"),
        ("HEAD", BLOB + "?%73ig=s"),
        ("PUT", MANIFEST),
        ("DELETE", MANIFEST),
        ("GET", "/v2/_catalog"),
        ("GET", "/api/tags"),
    ],
)
async def test_what_is_no_small_answer_of_the_catalog_is_made_each_time(
    app: Application, ask: Caller, method: str, target: str
) -> None:
    for _ in range(3):
        await ask(method, target)
    assert app.calls == 3


@pytest.mark.parametrize("name", ["if-none-match", "range", "authorization", "cookie"])
async def test_a_request_with_conditions_or_a_caller_is_not_answered_from_memory(
    app: Application, ask: Caller, name: str
) -> None:
    await ask("GET", MANIFEST)
    await Caller(ask.app, ask.headers | {name: "x"})("GET", MANIFEST)
    assert app.calls == 2


@pytest.mark.parametrize(
    "other", [MANIFEST + "?x=1", "/v2/team%2Fmodel/manifests/latest", "/v2/Team/model/manifests/a"]
)
async def test_another_spelling_of_the_address_is_another_answer(
    app: Application, ask: Caller, other: str
) -> None:
    await ask("GET", MANIFEST)
    assert (await ask("GET", other)).body == b"2"


async def test_get_and_head_are_kept_apart(app: Application, ask: Caller) -> None:
    await ask("GET", MANIFEST)
    await ask("HEAD", MANIFEST)
    assert app.calls == 2


async def test_errors_and_answers_in_pieces_are_not_kept(app: Application, ask: Caller) -> None:
    app.status = 404
    await ask("GET", MANIFEST)
    app.status, app.pieces = 200, 2
    await ask("GET", MANIFEST)
    await ask("GET", MANIFEST)
    assert app.calls == 3


async def test_an_old_answer_is_made_anew(
    app: Application, ask: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask("HEAD", BLOB)
    monkeypatch.setattr(hot, "MAX_AGE_S", -1.0)
    app.version += 1
    await ask("HEAD", BLOB)
    await ask("HEAD", BLOB)
    assert app.calls == 3


async def test_memory_is_bounded(
    app: Application, ask: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "MAX_TOTAL", 10_000)
    app.body = b"x" * 2000 + b"%d"
    for number in range(20):
        await ask("GET", f"/v2/a/manifests/{number}")
    await ask("GET", "/v2/a/manifests/19")
    assert app.calls == 20
    await ask("GET", "/v2/a/manifests/0")
    assert app.calls == 21


class Plain(Application):
    """Says how long its answers are, so that they can be sent as bytes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        headers = [(b"Content-Length", b"1"), *self.more]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"x"})

    more: tuple[tuple[bytes, bytes], ...] = ()


def scope(method: str, path: str, **headers: str) -> Scope:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw = path.encode()
    return {"method": method, "raw_path": raw, "query_string": b"", "headers": pairs}


@pytest.mark.parametrize(("method", "body"), [("GET", b"x"), ("HEAD", b"")])
async def test_a_kept_answer_is_there_as_bytes_until_something_is_written(
    method: str, body: bytes
) -> None:
    app = Plain()
    kept = Hot(app, lambda: app.version)
    assert kept.quick(scope(method, MANIFEST)) is None
    await Caller(kept)(method, MANIFEST)
    assert kept.quick(scope(method, MANIFEST)) == (b"content-length: 1\r\n", body)
    assert kept.quick(scope(method, MANIFEST + "2")) is None
    assert kept.quick(scope(method, MANIFEST, range="bytes=0-1")) is None
    assert kept.quick(scope(method, MANIFEST, authorization="x")) is None
    app.version += 1
    assert kept.quick(scope(method, MANIFEST)) is None


@pytest.mark.parametrize(
    "header", [(b"x", b"a\r\ny: b"), (b"connection", b"close"), (b"content-length", b"2")]
)
async def test_what_needs_a_closer_look_is_not_there_as_bytes(header: tuple[bytes, bytes]) -> None:
    app = Plain()
    app.more = (header,)
    kept = Hot(app, lambda: app.version)
    await Caller(kept)("GET", MANIFEST)
    assert kept.quick(scope("GET", MANIFEST)) is None


async def test_bytes_are_for_proven_credentials_only(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Plain()
    good = {b"a": True, b"b": True}

    async def proof(scope: Scope) -> bool:
        return good[dict(scope["headers"])[b"authorization"]]

    kept = Hot(app, lambda: app.version, proof)
    await Caller(kept)("GET", MANIFEST, authorization="a")
    assert kept.quick(scope("GET", MANIFEST, authorization="a")) is not None
    assert kept.quick(scope("GET", MANIFEST, authorization="b")) is None
    assert kept.quick(scope("GET", MANIFEST)) is None
    later = time.monotonic() + 2
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert kept.quick(scope("GET", MANIFEST, authorization="a")) is None


async def test_a_catalog_that_fails_is_left_to_the_ordinary_way() -> None:
    def version() -> int:
        raise OperationFailed("no")

    assert Hot(Plain(), version).quick(scope("GET", MANIFEST)) is None
