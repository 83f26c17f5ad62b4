"""Browsers: which origins and host names may ask."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from registry.web.guard import Guard
from registry.web.resources import plain, resource


async def hello(request: Request) -> Response:
    return plain(200, "hello")


def client(*origins: str, check_host: bool = True, host: str = "127.0.0.1:11434") -> TestClient:
    app = Guard(Starlette(routes=[resource("/x", GET=hello)]), origins, check_host=check_host)
    return TestClient(app, base_url=f"http://{host}")


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "https://localhost:3000", "http://127.0.0.1:1", "http://0.0.0.0"]
    + ["app://obsidian.md", "file://", "tauri://localhost", "vscode-webview://abc"],
)
def test_local_origins_are_allowed_and_told_so(origin: str) -> None:
    answer = client().get("/x", headers={"Origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost.evil.example", "http://localhostx"]
    + ["chrome-extension://abc", "http://localhost@evil.example"],
)
def test_foreign_origins_get_an_empty_403(origin: str) -> None:
    answer = client().get("/x", headers={"Origin": origin})
    assert (answer.status_code, answer.content) == (403, b"")
    assert "access-control-allow-origin" not in answer.headers


def test_configured_origins_may_hold_a_wildcard() -> None:
    asker = client("https://*.example.com")
    assert asker.get("/x", headers={"Origin": "https://a.example.com"}).status_code == 200
    assert asker.get("/x", headers={"Origin": "https://example.org"}).status_code == 403
    everybody = client("*").get("/x", headers={"Origin": "https://any.where"})
    assert everybody.headers["access-control-allow-origin"] == "*"


def test_the_own_origin_is_no_cross_origin() -> None:
    answer = client().get("/x", headers={"Origin": "http://127.0.0.1:11434"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_names_methods_and_headers() -> None:
    answer = client().options("/nope", headers={"Origin": "http://localhost"})
    assert answer.status_code == 204
    assert "DELETE" in answer.headers["access-control-allow-methods"]
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "43200"


def test_a_refused_preflight_tells_the_methods_of_a_known_path() -> None:
    answer = client().options("/x", headers={"Origin": "http://evil.example"})
    assert (answer.status_code, answer.headers["allow"]) == (403, "GET")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:11434", 200),
        ("127.0.0.1", 200),
        ("[::1]:11434", 200),
        ("192.168.7.7:11434", 200),
        ("box.local", 200),
        ("a.localhost", 200),
        ("evil.example", 403),
        ("8.8.8.8", 403),
        ("localhost.evil.example", 403),
    ],
)
def test_only_own_host_names_are_taken_on_loopback(host: str, status: int) -> None:
    assert client().get("/x", headers={"Host": host}).status_code == status


def test_any_host_name_is_taken_elsewhere() -> None:
    assert client(check_host=False, host="models.example.com").get("/x").status_code == 200


@pytest.mark.parametrize(("host", "status"), [("localhost", 204), ("127.0.0.1", 405)])
def test_options_without_an_origin(host: str, status: int) -> None:
    assert client(host=host).options("/x").status_code == status


@pytest.mark.parametrize(
    ("host", "status"), [("models.example", 200), ("MODELS.example:8", 200), ("x.example", 403)]
)
def test_names_of_our_own_are_let_in_on_loopback_too(host: str, status: int) -> None:
    routes = Starlette(routes=[resource("/x", GET=hello)])
    app = Guard(routes, (), check_host=True, names=["models.example"])
    assert TestClient(app, base_url=f"http://{host}").get("/x").status_code == status
