"""Every route, every kind of caller, one's own and somebody else's objects: one table.

The routes are those of the application, so one that is added without a line fails; accounts, keys,
rights and the pages are in `test_route_roles_accounts.py`. Run with `-s` to see the table. A cell
is what a request gets: the status, as seen after the method matched.
"""

import json
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.routing import Route

from registry.core.access import Group, Right, Scope, Visibility
from registry.core.digest import Digest
from registry.web import compat, inference, oci, ollama, signin, token
from registry.web.oci import _HANDLERS
from registry.web.resources import Resource
from tests.support.secured import MANIFEST_TYPE, Secured, basic, model, secured

pytestmark = pytest.mark.anyio

ROLES = ("nobody", "wrong", "stranger", "reader", "writer", "owner", "infer key", "read key",
         "token", "admin")  # fmt: skip
OWN, FOREIGN = "team/llama", "secret/model"
LAYER, HIDDEN = b"public weights", b"secret weights"
ZERO = "0" * 64
MODELS = [
    (OWN, "latest", LAYER),
    (OWN, "gone", LAYER),
    ("team/gone", "latest", LAYER),
    ("library/llama", "latest", HIDDEN),
    (FOREIGN, "latest", HIDDEN),
    (FOREIGN, "gone", HIDDEN),
    ("secret/gone", "latest", HIDDEN),
]


@dataclass(frozen=True)
class Line:
    """A request, and the statuses by role in the order of `ROLES`. `{r}` is the repository."""

    method: str
    path: str
    expected: str
    body: str = ""
    route: str = ""

    @property
    def shape(self) -> str:
        return f"{self.method} {self.route or self.path}"


# The roles: nobody sends no credentials, wrong sends false ones, a stranger has an account and no
# rights, a reader READ and a writer READ and WRITE of team/*, the owner all of team/*; an API key
# of the owner's for inference only and one for reading only; a registry token of the owner's with
# pull on team/llama; an administrator.
OPEN = "200 " * 10
LINES = [
    # open to everybody
    Line("GET", "/", OPEN),
    Line("HEAD", "/", OPEN),
    Line("GET", "/api/version", OPEN),
    Line("HEAD", "/api/version", OPEN),
    Line("GET", "/api/status", OPEN),
    # the Ollama API: groups, then rights; what one may not read is not there
    Line("GET", "/api/tags", "200 401 200 200 200 200 403 200 403 200"),
    Line("HEAD", "/api/tags", "200 401 200 200 200 200 403 200 403 200"),
    Line("POST", "/api/show", "404 401 404 200 200 200 403 200 403 200", '{"model":"team/llama"}'),
    Line("POST", "/api/show", "404 401 404 404 404 404 403 404 403 200",
         '{"model":"secret/model"}'),
    Line("POST", "/api/show", "404 401 404 404 404 404 403 404 403 404", '{"model":"no/model"}'),
    Line("GET", "/api/ps", "200 401 200 200 200 200 403 200 403 200"),
    Line("POST", "/api/create", "401 401 403 403 200 200 403 403 403 200",
         '{"model":"team/new","from":"team/llama","stream":false}'),
    Line("POST", "/api/create", "401 401 403 403 403 403 403 403 403 200",
         '{"model":"team/new","from":"secret/model","stream":false}'),
    Line("POST", "/api/create", "401 401 403 403 403 403 403 403 403 200",
         '{"model":"secret/new","from":"team/llama","stream":false}'),
    Line("HEAD", "/api/blobs/sha256:{layer}", "401 401 404 200 200 200 403 403 403 200",
         route="/api/blobs/{digest}"),
    Line("HEAD", "/api/blobs/sha256:{hidden}", "401 401 404 404 404 404 403 403 403 200",
         route="/api/blobs/{digest}"),
    Line("POST", "/api/blobs/sha256:{layer}", "401 401 400 200 200 200 403 403 403 200",
         route="/api/blobs/{digest}"),
    Line("POST", "/api/blobs/sha256:{hidden}", "401 401 400 400 400 400 403 403 403 200",
         route="/api/blobs/{digest}"),
    Line("POST", "/api/copy", "401 401 404 403 200 200 403 403 403 200",
         '{"source":"team/llama","destination":"team/copy"}'),
    Line("POST", "/api/copy", "401 401 404 404 404 404 403 403 403 200",
         '{"source":"secret/model","destination":"team/copy"}'),
    Line("POST", "/api/copy", "401 401 404 403 403 403 403 403 403 200",
         '{"source":"team/llama","destination":"secret/copy"}'),
    Line("DELETE", "/api/delete", "401 401 404 403 403 200 403 403 403 200",
         '{"model":"team/gone"}'),
    Line("DELETE", "/api/delete", "401 401 404 404 404 404 403 403 403 200",
         '{"model":"secret/gone"}'),
    Line("POST", "/api/pull", "401 401 403 403 500 500 403 403 403 500",
         '{"model":"team/x","stream":false}'),
    Line("POST", "/api/push", "401 401 500 500 500 500 403 403 403 500",
         '{"model":"secret/none","stream":false}'),
    Line("POST", "/api/me", "401 401 200 200 200 200 200 200 200 200"),
    Line("POST", "/api/signout", "401 " * 10),
    Line("DELETE", "/api/user/keys/x", "401 401 404 404 404 404 403 403 403 404",
         route="/api/user/keys/{key}"),
    Line("GET", "/api/experimental/model-recommendations",
         "200 401 200 200 200 200 403 200 403 200"),
    *(Line("POST", f"/api/experimental/{name}", "401 401 403 403 403 403 403 403 403 403", "{}")
      for name in ("web_search", "web_fetch")),
    # inference: a model that one may not read is not there; 400: it has no weights
    *(line for path, body in {
        "/api/generate": '"prompt":"x"',
        "/api/chat": '"messages":[{"role":"user","content":"x"}]',
        "/v1/chat/completions": '"messages":[{"role":"user","content":"x"}]',
        "/v1/completions": '"prompt":"x"',
        "/v1/responses": '"input":"x"',
        "/v1/messages": '"max_tokens":5,"messages":[{"role":"user","content":"x"}]',
    }.items() for line in (
        Line("POST", path, "401 401 404 400 400 400 400 403 403 400",
             f'{{"model":"team/llama",{body}}}'),
        Line("POST", path, "401 401 404 404 404 404 404 403 403 400",
             f'{{"model":"secret/model",{body}}}'),
    )),
    *(line for path, body in {
        "/api/embed": '"input":"x"',
        "/api/embeddings": '"prompt":"x"',
        "/v1/embeddings": '"input":"x"',
    }.items() for line in (
        Line("POST", path, "401 401 404 400 400 400 400 403 403 400",
             f'{{"model":"team/llama",{body}}}'),
        Line("POST", path, "401 401 404 404 404 404 404 403 403 400",
             f'{{"model":"secret/model",{body}}}'),
    )),
    Line("POST", "/v1/audio/transcriptions", "401 401 400 400 400 400 400 403 403 400"),
    Line("GET", "/v1/models", "200 401 200 200 200 200 403 200 403 200"),
    Line("GET", "/v1/models/llama", "404 401 404 404 404 404 403 404 403 200",
         route="/v1/models/{model}"),
    # the registry protocol
    Line("GET", "/v2/", "401 401 200 200 200 200 200 200 200 200", route="ping"),
    Line("HEAD", "/v2/", "401 401 200 200 200 200 200 200 200 200", route="ping"),
    Line("GET", "/v2/_catalog", "401 401 200 200 200 200 200 200 401 200", route="catalog"),
    Line("GET", "/v2/token", "200 401 200 200 200 200 200 200 200 200", route="/v2/token"),
    Line("POST", "/v2/token", "400 " * 10, route="/v2/token"),
    *(Line(method, f"/v2/team/llama/{path}", "401 401 403 200 200 200 200 200 200 200", route=kind)
      for method, path, kind in (
          ("GET", "tags/list", "tags"),
          ("GET", f"referrers/sha256:{ZERO}", "referrers"),
          ("GET", "manifests/latest", "manifest"),
          ("HEAD", "manifests/latest", "manifest"),
          ("GET", "blobs/sha256:{layer}", "blob"),
          ("HEAD", "blobs/sha256:{layer}", "blob"),
      )),
    *(Line(method, f"/v2/secret/model/{path}", "401 401 403 403 403 403 403 403 403 200",
           route=kind)
      for method, path, kind in (
          ("GET", "tags/list", "tags"),
          ("GET", f"referrers/sha256:{ZERO}", "referrers"),
          ("GET", "manifests/latest", "manifest"),
          ("HEAD", "manifests/latest", "manifest"),
          ("GET", "blobs/sha256:{hidden}", "blob"),
          ("HEAD", "blobs/sha256:{hidden}", "blob"),
      )),
    Line("HEAD", "/v2/team/llama/blobs/sha256:{hidden}", "401 401 403 404 404 404 404 404 404 404",
         route="blob"),
    Line("POST", "/v2/team/llama/blobs/uploads/", "401 401 403 403 202 202 403 403 401 202",
         route="uploads"),
    Line("POST", "/v2/team/llama/blobs/uploads/?mount=sha256:{hidden}&from=secret/model",
         "401 401 403 403 202 202 403 403 401 201", route="uploads"),
    Line("POST", "/v2/team/llama/blobs/uploads/?mount=sha256:{hidden}",
         "401 401 403 403 202 202 403 403 401 201", route="uploads"),
    Line("POST", "/v2/secret/model/blobs/uploads/", "401 401 403 403 403 403 403 403 403 202",
         route="uploads"),
    *(Line(method, "/v2/team/llama/blobs/uploads/{session}" + query,
           f"401 401 403 403 404 404 403 403 401 {begun}", route="upload")
      for method, query, begun in (  # the administrator began it
          ("GET", "", 204), ("PATCH", "", 202), ("PUT", f"?digest=sha256:{ZERO}", 400),
          ("DELETE", "", 404))),
    Line("PUT", "/v2/team/llama/manifests/new", "401 401 403 403 201 201 403 403 401 201",
         "{manifest}", route="manifest"),
    Line("PUT", "/v2/secret/model/manifests/new", "401 401 403 403 403 403 403 403 403 201",
         "{secret manifest}", route="manifest"),
    Line("DELETE", "/v2/team/llama/manifests/gone", "401 401 403 403 403 202 403 403 401 202",
         route="manifest"),
    Line("DELETE", "/v2/secret/model/manifests/gone", "401 401 403 403 403 403 403 403 403 202",
         route="manifest"),
    Line("DELETE", f"/v2/team/llama/blobs/sha256:{ZERO}",
         "401 401 403 403 403 404 403 403 401 404", route="blob"),
    Line("DELETE", f"/v2/secret/model/blobs/sha256:{ZERO}",
         "401 401 403 403 403 403 403 403 403 404", route="blob"),
]  # fmt: skip


def no_host(*_: object, **__: object) -> object:
    raise socket.gaierror(socket.EAI_NONAME, "there is no network here")


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Secured]:
    monkeypatch.setattr(socket, "getaddrinfo", no_host)  # a pull goes no further
    async with secured(tmp_path / "data", credentials={"tries_per_minute": 10_000}) as made:
        for name in ("stranger", "reader", "writer", "owner"):
            await made.user(name)
        await made.user("root", admin=True)
        await made.grant("user:reader", "team/*", Right.READ)
        await made.grant("user:writer", "team/*", Right.READ | Right.WRITE)
        await made.grant("user:owner", "team/*", Right.ALL)
        yield made


class Table:
    """The state that the lines are tried on, made anew where a line changes it."""

    def __init__(self, place: Secured) -> None:
        self.place = place
        self.headers: dict[str, str] = {}
        self.session = ""

    async def begin(self) -> None:
        place = self.place
        for name in ("stranger", "reader", "writer", "owner"):
            self.headers[name] = basic(name)
        self.headers |= {"nobody": "", "wrong": "Bearer nonsense", "admin": basic("root")}
        owner = await place.services.accounts.named("owner")
        for role, group in (("infer key", Group.INFER), ("read key", Group.READ)):
            self.headers[role] = "Bearer " + await place.api_key(owner, group)
        scope = "repository:team/llama:pull"
        token = await place.token(scope, authorization=self.headers["owner"])
        self.headers["token"] = f"Bearer {token}"
        admin = self.headers["admin"]
        begun = await place.ask("POST", "/v2/team/llama/blobs/uploads/", authorization=admin)
        self.session = begun.headers["docker-upload-uuid"]

    async def reset(self) -> None:
        """Every model that a line may want, and none that one may have made."""
        admin = self.headers["admin"]
        for name in ("team/new", "team/copy", "secret/new", "secret/copy"):
            body = json.dumps({"model": name}).encode()
            await self.place.ask("DELETE", "/api/delete", body, authorization=admin)
        for name, tag, layer in MODELS:
            answer = await self.place.push(name, tag, layer, authorization=admin)
            assert answer.status == 201, answer.body
        path = f"/v2/{OWN}/blobs/{Digest.of(HIDDEN)}"
        await self.place.ask("DELETE", path, authorization=admin)
        now = self.place.now + 10**9 * 86_400 * 2  # what a deleted model leaves is forgotten too
        await self.place.services.catalog.write(lambda tx: tx.expire(now, 1000))

    async def try_line(self, line: Line, role: str) -> int:
        marks = {
            "{layer}": Digest.of(LAYER).hex,
            "{hidden}": Digest.of(HIDDEN).hex,
            "{session}": self.session,
            "{manifest}": manifest_of(LAYER),
            "{secret manifest}": manifest_of(HIDDEN),
        }
        path, body = line.path, line.body
        for mark, text in marks.items():
            path, body = path.replace(mark, text), body.replace(mark, text)
        headers = {"authorization": self.headers[role]} if self.headers[role] else {}
        if line.body.endswith("manifest}"):
            headers["content_type"] = MANIFEST_TYPE
        return (await self.place.ask(line.method, path, body.encode(), **headers)).status


def manifest_of(layer: bytes) -> str:
    config = json.dumps({"model_format": "gguf", "layer": str(Digest.of(layer))}).encode()
    return model(config, layer).decode()


def is_write(line: Line, statuses: list[str]) -> bool:
    return line.method in {"PUT", "DELETE", "POST"} and any(s[0] == "2" for s in statuses)


@pytest.mark.timeout(300)
async def test_the_table_is_true(place: Secured) -> None:
    table = Table(place)
    await table.begin()
    await table.reset()
    wrong = []
    print("\n" + " " * 62 + " ".join(f"{role[:8]:>8}" for role in ROLES))
    for line in LINES:
        expected = line.expected.split()
        assert len(expected) == len(ROLES), line
        got = []
        for role, status in zip(ROLES, expected, strict=True):
            got.append(str(await table.try_line(line, role)))
            if is_write(line, [got[-1]]):
                await table.reset()
            if got[-1] != status:
                wrong.append(f"{line.shape} {line.body[:60]} as {role}: {got[-1]}, not {status}")
        shown = f"{line.method:6} {line.path[:28]:28} {line.body[:25]:25}"
        print(shown + " " + " ".join(f"{status:>8}" for status in got))
    assert wrong == []


def shapes() -> Iterator[str]:
    """Every method of these routes, and of every kind of path of the registry protocol."""
    for route in (*ollama.routes, *inference.routes, *compat.routes, *signin.routes):
        assert isinstance(route, Route)
        assert isinstance(route.app, Resource)
        yield from (f"{method} {route.path}" for method in route.app.methods)
    for kind, handlers in _HANDLERS.items():
        yield from (f"{method} {kind.value}" for method in handlers)
    assert [route.path for route in token.routes] == ["/v2/token"]
    assert [route.path for route in oci.routes] == ["/v2", "/v2/{rest:path}"]
    yield from ("GET /v2/token", "POST /v2/token")


def test_every_route_has_a_line() -> None:
    assert set(shapes()) - {line.shape for line in LINES} == set()


@pytest.mark.parametrize("visibility", list(Visibility))
async def test_visibility_is_what_lets_others_read(place: Secured, visibility: Visibility) -> None:
    table = Table(place)
    await table.begin()
    await table.reset()
    await place.policy(FOREIGN, visibility)
    path = f"/v2/{FOREIGN}/manifests/latest"
    statuses = [
        (await place.ask("GET", path, **headers)).status
        for headers in ({}, {"authorization": basic("stranger")})
    ]
    assert statuses == {
        Visibility.PUBLIC: [200, 200],
        Visibility.INTERNAL: [401, 200],
        Visibility.PRIVATE: [401, 403],
    }[visibility]  # fmt: skip
    tags = await place.ask("GET", "/api/tags")
    names = sorted(item["name"] for item in json.loads(tags.body)["models"])
    assert names == (
        ["secret/model:gone", "secret/model:latest"] if visibility is Visibility.PUBLIC else []
    )


async def test_a_key_of_one_repository_reaches_no_other(place: Secured) -> None:
    table = Table(place)
    await table.begin()
    await table.reset()
    root = await place.services.accounts.named("root")
    key = await place.api_key(root, scopes=(Scope("team/*", Right.READ | Right.WRITE),))
    bearer = f"Bearer {key}"
    answer = await place.ask("GET", "/api/tags", authorization=bearer)
    names = {item["name"].split("/")[0] for item in json.loads(answer.body)["models"]}
    assert names == {"team"}
    listed = await place.ask("GET", "/v2/_catalog", authorization=bearer)
    assert json.loads(listed.body)["repositories"] == ["team/gone", "team/llama"]
    for path, status in ((f"/v2/{OWN}/tags/list", 200), (f"/v2/{FOREIGN}/tags/list", 403)):
        assert (await place.ask("GET", path, authorization=bearer)).status == status
