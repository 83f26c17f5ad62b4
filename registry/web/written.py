"""Lists that are too long for memory, sent from their file as fast as the client takes them."""

from starlette.requests import Request
from starlette.responses import Response

from registry.services.library.listing import Written
from registry.web.answers import JSON
from registry.web.leaving import LiveResponse


def written_response(request: Request, body: Written, media_type: str = JSON) -> Response:
    """The list; 304 if the caller has it. HEAD opens no file."""
    headers = {"etag": body.etag}
    if request.headers.get("if-none-match") == body.etag:
        return Response(status_code=304, headers=headers)
    headers |= {"content-type": media_type, "content-length": str(body.size)}
    if request.method == "HEAD":
        return Response(headers=headers)
    return LiveResponse(body.content.chunks(), headers=headers)
