"""What goes into the audit: every write and its result, every refusal. Never a secret.

Not noted are the 401 that invites a client of the registry protocol to show its credentials, and
uses of credentials that are good. Nothing is noted while authentication is off: there is nobody to
name.
"""

from collections.abc import Awaitable
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response

from registry.core.errors import Forbidden, RegistryError
from registry.core.events import Events
from registry.ports.accounts import AuditEntry
from registry.services import Services
from registry.web.proxies import client_address

OK, DENIED = "ok", "denied"


def note(request: Request, action: str, target: str, result: str = OK) -> None:
    """Take note of what was done or refused. The caller is whom the credentials proved."""
    services: Services = request.app.state.services
    if not services.settings.auth:
        return
    state = request.scope.get("state", {})
    found = state.get("evidence")
    state["was_noted"] = result == DENIED
    services.audit.record(
        AuditEntry(
            at=services.clock(),
            who=found.owner.name if found else "",
            via=found.owner.via if found else "",
            address=client_address(request),
            action=action,
            target=target,
            result=result,
            request_id=str(state.get("request_id", "")),
        )
    )


def was_noted(request: Request) -> bool:
    """Whether the refusal that comes now was noted by whoever refused."""
    return bool(request.scope.get("state", {}).get("was_noted"))


def word_of(error: RegistryError) -> str:
    """How an error is noted: its kind. Its text may quote what the client sent."""
    return DENIED if isinstance(error, Forbidden) else type(error).__name__


async def noted(request: Request, action: str, target: str, work: Awaitable[Response]) -> Response:
    """Await the answer to a write and note how it went."""
    try:
        answer = await work
    except RegistryError as error:
        if not was_noted(request):
            note(request, action, target, word_of(error))
        raise
    note(request, action, target, OK if answer.status_code < 400 else str(answer.status_code))
    return answer


async def noted_events(request: Request, action: str, target: str, events: Events) -> Events:
    """Pass on the events of a write and note how it ends."""
    result = "cancelled"
    try:
        async with aclosing(events):
            async for event in events:
                yield event
        result = OK
    except RegistryError as error:
        result = word_of(error)
        raise
    finally:
        note(request, action, target, result)
