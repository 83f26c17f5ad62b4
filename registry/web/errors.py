"""The one place that writes an error answer.

Each API has its own shape: `{"error": "…"}` for Ollama's, `{"errors": […]}` (or one plain line for
the ollama client) below `/v2/`, OpenAI's and Anthropic's below `/v1/`.
"""

import structlog
from starlette.requests import Request
from starlette.responses import Response

from registry.core import errors
from registry.core.errors import RegistryError
from registry.web import openai, page
from registry.web.answers import json_response
from registry.web.auth import challenge_headers, refusal_status
from registry.web.oci_errors import OCI_CODES, render_oci
from registry.web.statuses import headers_of, status_of

log = structlog.get_logger()


def code_of(error: RegistryError) -> str:
    """The OCI code of an error, found the same way."""
    return next((OCI_CODES[kind] for kind in type(error).__mro__ if kind in OCI_CODES), "UNKNOWN")


async def answer(request: Request, error: Exception) -> Response:
    """Starlette's handler for every domain error."""
    assert isinstance(error, RegistryError)
    status = status_of(error)
    if status >= 500:
        log.info("request failed", error=str(error), kind=type(error).__name__)
    response = render(request, status, str(error), error)
    response.headers.update(headers_of(error))
    if isinstance(error, errors.Unauthenticated):
        response.status_code = refusal_status(request, error)
        for challenge in challenge_headers(request, error):
            response.headers.append("WWW-Authenticate", challenge)
    return response


async def crash(request: Request, error: Exception) -> Response:
    """Starlette's handler for everything that is no domain error: no internals go out."""
    request_id = str(request.scope.get("state", {}).get("request_id", ""))
    log.error("unexpected error", exc_info=error)
    message = f"internal server error (request {request_id})"
    return render(request, 500, message, RegistryError(message))


def render(request: Request, status: int, message: str, error: RegistryError) -> Response:
    """An error answer in the shape of the API that the path belongs to."""
    path = request.url.path
    if path == "/v2" or path.startswith("/v2/"):
        return render_oci(request, status, code_of(error), message, detail_of(error))
    if path == "/ui" or path.startswith("/ui/"):
        return page.render_error(request, status, message)
    if path.startswith("/v1/messages"):
        request_id = str(request.scope.get("state", {}).get("request_id", ""))
        return openai.render_anthropic(status, message, request_id)
    if path.startswith("/v1/"):
        return openai.render_openai(status, message)
    return json_response({"error": message}, status)


def detail_of(error: RegistryError) -> object:
    """What an OCI client may want to know besides the message."""
    if isinstance(error, errors.ManifestBlobUnknown | errors.BlobUnknown):
        return {"digest": error.digest}
    return None
