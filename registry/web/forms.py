"""Forms of the pages: read within bounds, and shown to come from a page of ours.

Three things must hold before a form counts. Its token is the HMAC of a text that only this
browser's cookie holds: the session's, or before a sign-in that of a visit. Its `Origin` (and
`Sec-Fetch-Site`, where the browser sends one) is our own. And the cookie is `SameSite=Lax`, so that
it does not come with forms of other sites at all. Nothing is kept on the server for it.

The pages' Referrer-Policy is `same-origin` and not `no-referrer`: with that one browsers send
`Origin: null` with our own forms (Fetch, "append a request Origin header").
"""

import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from registry.core.errors import Forbidden, RequestInvalid
from registry.services.access.callers import csrf_of
from registry.web.reading import read_bounded as read_bounded
from registry.web.urls import external_base

SESSION = "registry_session"
VISIT = "registry_visit"
FORM_BYTES = 32 << 10
_FIELDS = 40
_COOKIE = re.compile(r"[A-Za-z0-9_.-]{16,200}")
_OWN_PATH = re.compile(r"/ui/(?:keys|account|enrol/[A-Za-z0-9_-]{1,128})?")
STALE = "this form is not from a page of this session: go back, load the page again and retry"


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form that was checked."""

    fields: Mapping[str, tuple[str, ...]]

    def text(self, name: str) -> str:
        """A field without white space around it; empty if it is missing."""
        return self.secret(name).strip()

    def secret(self, name: str) -> str:
        """A field exactly as it was typed."""
        return self.fields.get(name, ("",))[0]

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of a field that may come several times."""
        return self.fields.get(name, ())


async def read_form(request: Request) -> Form:
    """The form that was sent.

    Raises:
        Forbidden: it does not come from a page of ours, or from one of another session.
        RequestInvalid: it is no form, or one with odd bytes or too many fields.
        TooLarge: more than `FORM_BYTES`.
    """
    check_origin(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise RequestInvalid("this is no form of a page")
    form = _parse(await read_bounded(request, FORM_BYTES))
    expected = form_token(request)
    if not expected or not hmac.compare_digest(expected.encode(), form.secret("token").encode()):
        raise Forbidden(STALE)
    return form


def _parse(body: bytes) -> Form:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS
        )
    except ValueError as error:
        raise RequestInvalid("a form with characters or fields that no page of ours sends") from (
            error
        )
    fields: dict[str, tuple[str, ...]] = {}
    for name, text in pairs:
        fields[name] = (*fields.get(name, ()), text)
    return Form(fields)


def check_origin(request: Request) -> None:
    """Refuse what a page of another site sent.

    Raises:
        Forbidden: the browser says so. A client that says nothing is no browser.
    """
    origin = request.headers.get("origin")
    site = request.headers.get("sec-fetch-site", "same-origin")
    own = {urlsplit(external_base(request)).netloc, request.headers.get("host", "")}
    if (origin is not None and urlsplit(origin).netloc not in own - {""}) or site not in {
        "same-origin",
        "none",
    }:
        raise Forbidden("this form was sent by a page of another site")


def own_path(text: str) -> str:
    """Where to go after a sign-in: `text` if it is one of our pages, else the first page."""
    return text if _OWN_PATH.fullmatch(text) else "/ui/"


def form_token(request: Request) -> str:
    """The token that forms of this browser carry; empty if it has no cookie of ours."""
    text = cookie(request, SESSION) or cookie(request, VISIT)
    return csrf_of(text) if text else ""


def new_visit() -> str:
    """The text of a cookie for a browser that is not signed in."""
    return secrets.token_urlsafe(24)


def is_secure(request: Request) -> bool:
    """Whether the browser reached us by https."""
    return external_base(request).startswith("https://")


def cookie_name(request: Request, name: str) -> str:
    """By https the name that browsers let nobody else set: neither http nor a sister host."""
    return f"__Host-{name}" if is_secure(request) else name


def cookie(request: Request, name: str) -> str:
    """A cookie of ours; empty if it is missing or nothing we would have set."""
    text = request.cookies.get(cookie_name(request, name), "")
    return text if _COOKIE.fullmatch(text) else ""


def session_cookie(request: Request) -> str:
    """The session that a browser shows; empty if it shows none."""
    return cookie(request, SESSION)


def set_cookie(request: Request, name: str, text: str, life_s: int, response: Response) -> None:
    """Set a cookie that scripts and other sites cannot use."""
    response.set_cookie(
        cookie_name(request, name), text, max_age=life_s, path="/",
        secure=is_secure(request), httponly=True, samesite="lax",
    )  # fmt: skip


def drop_cookie(request: Request, name: str, response: Response) -> None:
    """Have the browser forget a cookie."""
    response.delete_cookie(
        cookie_name(request, name), path="/",
        secure=is_secure(request), httponly=True, samesite="lax",
    )  # fmt: skip
