"""What every page has: its frame, its headers, who looks at it. No page itself.

Pages are whole documents made here, with no script; their one style sheet and icon come from
`/ui/static/`. Everything that a page shows goes through Jinja's escaping.
"""

import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from registry import __version__
from registry.core.access import Caller
from registry.core.accounts import PASSWORD_MAX, PASSWORD_MIN
from registry.core.errors import NotFound, RegistryError, Unauthenticated
from registry.services import Services
from registry.services.access.callers import csrf_of
from registry.web.auditing import note, word_of
from registry.web.auth import Evidence
from registry.web.forms import SESSION, VISIT, cookie, new_visit, own_path, set_cookie
from registry.web.resources import Handler
from registry.web.urls import external_base

_NS = 1_000_000_000
_VISIT_S = 43_200
_KINDS = {"style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}
_FOLDER = files("registry.web") / "static"
_FILES = {name: (_FOLDER / name).read_bytes() for name in _KINDS}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # see forms.py
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_HEADINGS = {
    400: "That did not work",
    403: "Not allowed",
    404: "Not found",
    409: "That did not work",
    413: "Too large",
    429: "Too many tries",
    503: "Not just now",
}


def _when(ns: int, form: str) -> str:
    return time.strftime(form, time.gmtime(ns // _NS))


def _address(name: str) -> str:
    """The URL of a static file; another one whenever its content is another."""
    return f"/ui/static/{name}?v={hashlib.sha256(_FILES[name]).hexdigest()[:12]}"


_pages = Environment(
    loader=PackageLoader("registry.web"), autoescape=True, undefined=StrictUndefined,
    auto_reload=False, trim_blocks=True,
)  # fmt: skip
_pages.filters["iso"] = lambda ns: _when(ns, "%Y-%m-%dT%H:%M:%SZ")
_pages.filters["day"] = lambda ns: _when(ns, "%Y-%m-%d")
_pages.filters["minute"] = lambda ns: _when(ns, "%Y-%m-%d %H:%M UTC")
_pages.globals |= {
    "version": __version__,
    "shortest": PASSWORD_MIN,
    "longest": PASSWORD_MAX,
    "style": _address("style.css"),
    "icon": _address("icon.svg"),
}


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a page: who looks at it, in which session."""

    request: Request
    person: Caller | None = None
    session: str = ""

    @property
    def services(self) -> Services:
        """The bundle that the application was built with."""
        bundle: Services = self.request.app.state.services
        return bundle

    @property
    def account(self) -> int:
        """Whose page it is; only in handlers of `signed_in`."""
        assert self.person is not None and self.person.account is not None
        return self.person.account

    @property
    def name(self) -> str:
        """What who is signed in is called."""
        return self.person.name if self.person else ""

    def render(
        self, template: str, status: int = 200, session: str = "", **values: Any
    ) -> Response:
        """A page. A browser without a cookie of ours gets one, for its forms.

        `session` is that of a sign-in that has just been made.
        """
        browser = session or self.session or cookie(self.request, VISIT)
        fresh = "" if browser else new_visit()
        base = external_base(self.request)
        shown = {
            "person": self.person, "host": base.partition("://")[2], "base": base,
            "token": csrf_of(browser or fresh), "here": "", "done": "", "wrong": "", **values,
        }  # fmt: skip
        text = _pages.get_template(f"{template}.html").render(shown)
        response = Response(text, status, headers=HEADERS, media_type="text/html")
        if fresh:
            set_cookie(self.request, VISIT, fresh, _VISIT_S, response)
        return response


PageHandler = Callable[[Visit], Awaitable[Response]]


def anybody(handler: PageHandler) -> Handler:
    """The handler of a page that needs no sign-in; while authentication is off, only `/ui/`."""

    async def answer(request: Request) -> Response:
        return await _answer(handler, await _visit(request))

    return answer


def signed_in(handler: PageHandler) -> Handler:
    """The handler of a page for people; others are sent to sign in, and back afterwards."""

    async def answer(request: Request) -> Response:
        visit = await _visit(request)
        if visit.person is not None:
            return await _answer(handler, visit)
        if not visit.services.settings.auth:
            return go("/ui/")
        wanted = own_path(request.url.path)
        return go("/ui/sign-in" + ("" if wanted == "/ui/" else f"?{urlencode({'next': wanted})}"))

    return answer


async def _answer(handler: PageHandler, visit: Visit) -> Response:
    """The page; a form that was refused without one is noted."""
    try:
        return await handler(visit)
    except RegistryError as error:
        if visit.request.method == "POST":
            note(visit.request, f"POST {visit.request.url.path}", visit.name, word_of(error))
        raise


async def _visit(request: Request) -> Visit:
    text = cookie(request, SESSION)
    services: Services = request.app.state.services
    if not text or not services.settings.auth:
        return Visit(request, None, text)
    try:
        person = await services.accounts.by_session(text)
        request.state.evidence = Evidence(person, person)  # whom the audit names
        return Visit(request, person, text)
    except Unauthenticated:  # it is over: whoever needs one is asked to sign in
        return Visit(request, None, text)


def go(path: str) -> Response:
    """Have the browser GET another page of ours."""
    return RedirectResponse(path, 303, headers=HEADERS)


def render_error(request: Request, status: int, message: str) -> Response:
    """The page for an error that no handler made a page of."""
    return Visit(request, None, cookie(request, SESSION)).render(
        "message", status, heading=_HEADINGS.get(status, "Something went wrong"),
        text=sentence(message), way="/ui/", way_text="To the first page",
    )  # fmt: skip


def sentence(message: str) -> str:
    """A message of the domain as a sentence of a page."""
    text = message[:1].upper() + message[1:].replace("`", "'")
    return text if re.search(r"[.!?]$", text) else f"{text}."


async def static(request: Request) -> Response:
    """GET /ui/static/:name. The address changes with the content, so it is kept for long."""
    name = request.path_params["name"]
    if name not in _FILES:
        raise NotFound("there is no such file")
    headers = {**HEADERS, "content-type": _KINDS[name], "cache-control": "max-age=31536000"}
    return Response(_FILES[name], headers=headers)
