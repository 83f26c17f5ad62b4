from types import SimpleNamespace

import pytest
from starlette.requests import Request

from registry.web.urls import external_base


def request(host: str | None, external_url: str = "", server: object = ("10.0.0.1", 80)) -> Request:
    services = SimpleNamespace(
        settings=SimpleNamespace(external_url=external_url, trusted_proxies=())
    )
    app = SimpleNamespace(state=SimpleNamespace(services=services))
    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    scope = {"type": "http", "scheme": "http", "headers": headers, "server": server, "app": app}
    return Request(scope)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request("models.example.com"), "http://models.example.com"),
        (request("127.0.0.1:8000"), "http://127.0.0.1:8000"),
        (request("[::1]:8000"), "http://[::1]:8000"),
        (request("x", "https://models.example.com"), "https://models.example.com"),
        (request(None), "http://10.0.0.1:80"),
        (request(None, server=("::1", 80)), "http://[::1]:80"),
        (request(None, server=None), "http://localhost"),
        (request('a"b'), "http://10.0.0.1:80"),
        (request("a/b"), "http://10.0.0.1:80"),
        (request("a b"), "http://10.0.0.1:80"),
        (request("a\r\nx: y"), "http://10.0.0.1:80"),
        (request("user@host"), "http://10.0.0.1:80"),
        (request("a" * 300), "http://10.0.0.1:80"),
    ],
)
def test_the_address_is_the_setting_or_what_the_client_used(asked: Request, expected: str) -> None:
    assert external_base(asked) == expected
