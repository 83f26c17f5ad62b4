"""Errors in the shapes of the OpenAI and the Anthropic API, which clients under /v1 expect.

Source: spec ollama-api 19.1 and 19.3.
"""

from typing import Any

from starlette.responses import Response

from registry.web.answers import json_response

_OPENAI_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def render_openai(status: int, message: str) -> Response:
    """An error as OpenAI's clients read it."""
    return json_response(openai_error(status, message), status)


def openai_error(status: int, message: str) -> dict[str, Any]:
    """The object of such an error; it is also what ends a stream that fails."""
    kind = _OPENAI_TYPES.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def render_anthropic(status: int, message: str, request_id: str) -> Response:
    """An error as Anthropic's clients read it; `request_id` gets their prefix if it has none."""
    marked = request_id if request_id.startswith("req_") else f"req_{request_id}"
    return json_response(anthropic_error(status, message) | {"request_id": marked}, status)


def anthropic_error(status: int, message: str) -> dict[str, Any]:
    """The object of such an error, as it also ends a stream that fails."""
    kind = _ANTHROPIC_TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}
