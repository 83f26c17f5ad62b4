"""Endpoints of `/api/v1` as data: one row says what is asked, who may ask and what is answered.

The row both runs (`routes_of`) and is documented (`openapi.py`), so that the document is true.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.core.access import Caller, Group
from registry.core.errors import (
    Conflict,
    Forbidden,
    NotFound,
    RegistryError,
    RequestInvalid,
    Unauthenticated,
)
from registry.web import auth
from registry.web.answers import bytes_response, empty_response
from registry.web.api_v1_schemas import PATH_PARTS
from registry.web.auditing import note, was_noted, word_of
from registry.web.reading import read_bounded
from registry.web.resources import Handler, resource

BODY_BYTES = 64 << 10
AUTH_OFF = "authentication is off here: start the service with REGISTRY_AUTH=true"
_SHOWN_FAULTS = 3

M = TypeVar("M", bound=BaseModel)


class For(Enum):
    """Who may call an endpoint."""

    EVERYBODY = "everybody"
    SIGNED_IN = "signed in"  # with any credential
    OWNER = "owner"  # with a credential that was not narrowed: it makes others
    ADMIN = "admin"
    KEEPER = "admin; without authentication everybody"  # who could delete it all anyway


@dataclass(frozen=True, slots=True)
class Call:
    """One checked request."""

    request: Request
    caller: Caller
    path: dict[str, Any]
    query: BaseModel | None
    body: BaseModel | None
    writes: list[tuple[str, str]] = field(default_factory=list)
    changes: list[Callable[[Response], None]] = field(default_factory=list)

    def note(self, action: str, target: str) -> None:
        """Have the audit say how this ends: what is tried, and with what."""
        self.writes.append((action, target))

    def then(self, change: Callable[[Response], None]) -> None:
        """Change the answer before it goes out: a cookie."""
        self.changes.append(change)

    def asked(self, model: type[M]) -> M:
        """The body."""
        assert isinstance(self.body, model)
        return self.body

    def wanted(self, model: type[M]) -> M:
        """The query."""
        assert isinstance(self.query, model)
        return self.query

    @property
    def account_id(self) -> int:
        """The account that asks."""
        assert self.caller.account is not None
        return self.caller.account


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method of a path. The handler's docstring is its description."""

    method: str
    path: str
    handler: Callable[[Call], Awaitable[BaseModel | Response | None]]
    access: For
    answer: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    status: int = 200
    errors: tuple[int, ...] = ()  # besides those that follow from the rest
    stream: bool = False  # `answer` is a line of NDJSON


def routes_of(endpoints: Sequence[Endpoint]) -> list[Route]:
    """A route per path with all its methods."""
    paths: dict[str, dict[str, Handler]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method] = _handler(endpoint)
    return [resource(path, **handlers) for path, handlers in paths.items()]


def _handler(endpoint: Endpoint) -> Handler:
    async def answer(request: Request) -> Response:
        writes: list[tuple[str, str]] = []
        try:
            call = await _call(endpoint, request, writes)
            response = _worded(endpoint, await endpoint.handler(call))
        except RegistryError as error:
            is_refusal = isinstance(error, Forbidden | Unauthenticated)
            if is_refusal and not writes and not was_noted(request):
                writes.append((f"{endpoint.method} {endpoint.path}", ""))
            for action, target in writes:
                note(request, action, target, word_of(error))
            raise
        for action, target in writes:
            note(request, action, target)
        for change in call.changes:
            change(response)
        return response

    return answer


async def _call(endpoint: Endpoint, request: Request, writes: list[tuple[str, str]]) -> Call:
    """The request, checked: first who asks, then what."""
    caller = await _admit(request, endpoint.access)
    path = {name: _part(name, text) for name, text in request.path_params.items()}
    query = _query(endpoint.query, request)
    return Call(request, caller, path, query, await _body(endpoint.body, request), writes)


def _worded(endpoint: Endpoint, made: BaseModel | Response | None) -> Response:
    if isinstance(made, Response):
        response = made
    elif made is None:
        response = empty_response(204)
    else:
        response = bytes_response(made.model_dump_json().encode(), endpoint.status)
    response.headers["cache-control"] = "no-store"
    return response


async def _admit(request: Request, access: For) -> Caller:
    """The caller, if such a one may call it."""
    is_off = not request.app.state.services.settings.auth
    if is_off and access not in {For.SIGNED_IN, For.KEEPER}:
        raise Conflict(AUTH_OFF)
    if access is For.EVERYBODY:
        return Caller()
    group = Group.READ if access is For.SIGNED_IN else Group.ADMIN
    caller = await auth.require(request, group)
    if not caller.is_signed_in:
        raise Unauthenticated("sign in: this needs a password, or an API key")
    if access in {For.ADMIN, For.KEEPER} and not caller.is_admin:
        raise Forbidden("only an administrator can do this")
    return caller


def _part(name: str, text: str) -> Any:
    try:
        return PATH_PARTS[name].validate_python(text)
    except ValidationError as error:
        raise NotFound(f"there is no such {name}") from error


def _query(model: type[BaseModel] | None, request: Request) -> BaseModel | None:
    """The query as the model has it; each name once, and none that it does not have."""
    pairs = request.query_params.multi_items()
    if model is None:
        if pairs:
            raise RequestInvalid("this endpoint takes no query")
        return None
    if len({name for name, _ in pairs}) < len(pairs):
        raise RequestInvalid("a query parameter was given twice")
    return _checked(lambda: model.model_validate(dict(pairs)))


async def _body(model: type[BaseModel] | None, request: Request) -> BaseModel | None:
    if model is None:
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a form of another site's page cannot say so
        raise RequestInvalid("the body must be JSON: Content-Type: application/json")
    body = await read_bounded(request, BODY_BYTES)
    return _checked(lambda: model.model_validate_json(body, strict=True))


def _checked(parse: Callable[[], M]) -> M:
    """What `parse` makes. A refusal names the fields and never their content.

    Raises:
        RequestInvalid: it does not fit the schema.
    """
    try:
        return parse()
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        words = [
            ": ".join(filter(None, (".".join(map(str, fault["loc"]))[:60], fault["msg"][:200])))
            for fault in faults[:_SHOWN_FAULTS]
        ]
        raise RequestInvalid("; ".join(words)) from error


def part_schema(name: str) -> dict[str, Any]:
    """The JSON schema of a part of a path."""
    adapter: TypeAdapter[Any] = PATH_PARTS[name]
    return adapter.json_schema()
