"""The whole application with authentication on, and a browser without scripts to look at it."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.types import ASGIApp

from registry.app import application, build, prepare
from registry.services import Services
from registry.services.access.accounts import Accounts
from tests.support.accounts import PASSWORD, Clock, cheap_passwords
from tests.support.asgi import Answer, Caller
from tests.support.backends import BACKENDS

HOST = "127.0.0.1:11434"


@dataclass
class Site:
    """The application and what it is made of."""

    app: ASGIApp
    services: Services
    clock: Clock
    host: str = HOST

    @property
    def accounts(self) -> Accounts:
        return self.services.accounts

    def browser(self) -> "Browser":
        return Browser(self)

    async def person(self, name: str = "alice", *, admin: bool = False) -> int:
        """An account with the password of all tests."""
        return (await self.accounts.create_user(name, PASSWORD, admin=admin)).id

    async def signed_in(self, name: str = "alice", *, admin: bool = False) -> "Browser":
        """A browser in which somebody new is signed in."""
        await self.person(name, admin=admin)
        browser = self.browser()
        answer = await browser.sign_in(name)
        assert answer.status == 303, answer.body
        return browser

    async def api(
        self, method: str, path: str, body: Any = None, key: str = "", **headers: str
    ) -> tuple[int, Any]:
        """Ask `/api/v1`; the status and the JSON answer."""
        content = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        if body is not None:
            headers.setdefault("content_type", "application/json")
        if key:
            headers["authorization"] = f"Bearer {key}"
        ask = Caller(self.app, {"host": self.host})
        answer = await ask(
            method, f"/api/v1{path}", content, leaves=False, breaks_off=False, **headers
        )
        return answer.status, orjson.loads(answer.body) if answer.body else None


@asynccontextmanager
async def site(folder: Path, **settings: Any) -> AsyncIterator[Site]:
    """A site over an empty folder."""
    given = BACKENDS.settings(folder, **{"auth": True, **settings})
    prepare(given)
    clock = Clock()
    services = build(given, clock)
    accounts = Accounts(services.catalog, given, clock, cheap_passwords())
    services = replace(services, accounts=accounts)
    host = given.external_url.partition("://")[2] or HOST
    try:
        yield Site(application(services), services, clock, host)
    finally:
        await services.accounts.close()
        await services.audit.close()
        await services.catalog.close()


class _Page(HTMLParser):
    """What a test wants to know of a page: the hidden fields of its forms and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "input" and given.get("type") == "hidden":
            self.hidden[given["name"] or ""] = given.get("value") or ""

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@dataclass
class Browser:
    """Keeps cookies as a browser does and sends forms with the hidden fields of the last page."""

    site: Site
    cookies: dict[str, str] = field(default_factory=dict)
    page: _Page = field(default_factory=lambda: _Page(""))

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._ask("GET", path, b"", headers)

    async def post(self, path: str, fields: Mapping[str, Any], **headers: str) -> Answer:
        """Send a form as a browser does: with the token, and an Origin of its own page."""
        given = {"token": self.page.hidden.get("token", ""), **fields}
        headers = {
            "origin": f"http://{self.site.host}",
            "content_type": "application/x-www-form-urlencoded",
            **headers,
        }
        return await self._ask("POST", path, urlencode(given, doseq=True).encode(), headers)

    async def sign_in(self, name: str = "alice", password: str = PASSWORD) -> Answer:
        await self.get("/ui/sign-in")
        return await self.post("/ui/sign-in", {"name": name, "password": password})

    @property
    def text(self) -> str:
        """What can be read on the last page."""
        return " ".join(" ".join(self.page.words).split())

    async def _ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if self.cookies:
            cookie = "; ".join(f"{name}={text}" for name, text in self.cookies.items())
            headers = {"cookie": cookie, **headers}
        answer = await Caller(self.site.app, {"host": self.site.host})(
            method, path, body, leaves=False, breaks_off=False, **headers
        )
        for name, value in answer.pairs:
            if name == "set-cookie":
                self._keep(value)
        if answer.headers.get("content-type", "").startswith("text/html"):
            self.page = _Page(answer.body.decode())
        return answer

    def _keep(self, header: str) -> None:
        name, _, text = header.partition(";")[0].partition("=")
        if re.search(r"max-age=0\b", header, re.I):
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = text
