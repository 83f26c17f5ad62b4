"""How errors look below `/v2/`: OCI's JSON; one plain line for the ollama client, which prints it.

Source: OCI distribution-spec 1.1, "Error Codes"; spec registry-protocol 2.2, 3.3.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from registry.core import errors
from registry.core.direct_url import is_direct
from registry.core.errors import RegistryError

API_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}

OCI_CODES: dict[type[RegistryError], str] = {
    errors.RegistryError: "UNKNOWN",
    errors.RequestInvalid: "UNSUPPORTED",
    errors.NameInvalid: "NAME_INVALID",
    errors.DigestInvalid: "DIGEST_INVALID",
    errors.DigestMismatch: "DIGEST_INVALID",
    errors.SizeInvalid: "SIZE_INVALID",
    errors.TooLarge: "SIZE_INVALID",
    errors.ManifestInvalid: "MANIFEST_INVALID",
    errors.ManifestBlobUnknown: "MANIFEST_BLOB_UNKNOWN",
    errors.NotFound: "NAME_UNKNOWN",
    errors.ManifestUnknown: "MANIFEST_UNKNOWN",
    errors.BlobUnknown: "BLOB_UNKNOWN",
    errors.UploadUnknown: "BLOB_UPLOAD_UNKNOWN",
    errors.Conflict: "BLOB_UPLOAD_INVALID",
    errors.UploadOutOfOrder: "RANGE_INVALID",
    errors.BlobInUse: "UNSUPPORTED",
    errors.Unauthenticated: "UNAUTHORIZED",
    errors.Forbidden: "DENIED",
    errors.Unsupported: "UNSUPPORTED",
    errors.Unavailable: "UNAVAILABLE",
    errors.TooOften: "TOOMANYREQUESTS",
}
"""By class, or that of its nearest ancestor here."""


def is_ollama(request: Request) -> bool:
    """Whether it is the ollama client's classic engine, which shows raw bodies to its user."""
    return request.headers.get("user-agent", "").startswith("ollama/")


def is_transfer(request: Request) -> bool:
    """Whether it is the ollama client's engine for models of many tensors."""
    return request.headers.get("user-agent", "").startswith("ollama-transfer/")


def render_oci(
    request: Request, status: int, code: str, message: str, detail: object = None
) -> Response:
    """An error answer of the `/v2/` API.

    On a direct URL it has no body: the ollama client takes any answer that is long enough for the
    bytes it asked for, whatever the status.
    """
    if is_direct(request.query_params):
        return Response(b"", status, headers=API_VERSION)
    if is_ollama(request) or is_transfer(request):
        line = " ".join(message.split()) + "\n"
        return Response(line, status, headers=API_VERSION, media_type="text/plain")
    error: dict[str, Any] = {"code": code, "message": message}
    if detail is not None:
        error["detail"] = detail
    body = orjson.dumps({"errors": [error]})
    return Response(body, status, headers=API_VERSION, media_type="application/json")


def refuse_method(request: Request, allowed: Mapping[str, object]) -> Response:
    """405, with the methods that the resource does have."""
    answer = render_oci(request, 405, "UNSUPPORTED", "the operation is unsupported")
    answer.headers["Allow"] = ", ".join(allowed)
    return answer
