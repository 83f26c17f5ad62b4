"""`/api/v1`: what the service signs with, begun anew when something may have leaked."""

from registry.services import Services
from registry.web import api_v1_schemas as schemas
from registry.web.endpoints import Call, Endpoint, For


def _services(call: Call) -> Services:
    found: Services = call.request.app.state.services
    return found


async def rotate_tokens(call: Call) -> None:
    """Begin a new key for registry tokens.

    Every token that was given out is refused, by other processes within seconds; clients ask for
    another one. API keys, which are no such tokens, stay as they are.
    """
    call.note("tokens.rotate", "")
    await _services(call).tokens.rotate()


async def rotate_urls(call: Call) -> None:
    """Begin a new key for direct URLs of blobs.

    URLs signed by the key before it are still accepted, unless `revoke` makes all of them void.
    """
    revoke = call.asked(schemas.UrlRotation).revoke
    call.note("urls.rotate", "revoke" if revoke else "")
    await _services(call).blobs.signing_keys.rotate(revoke=revoke)


_SIGNING = "/api/v1/signing"
ENDPOINTS = (
    Endpoint("POST", f"{_SIGNING}/tokens", rotate_tokens, For.ADMIN),
    Endpoint("POST", f"{_SIGNING}/urls", rotate_urls, For.ADMIN, body=schemas.UrlRotation),
)
