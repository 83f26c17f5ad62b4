"""The address that clients know this service by."""

import re

from starlette.requests import Request

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def external_base(request: Request) -> str:
    """`scheme://host[:port]` without a slash: the setting, else what the request says.

    A Host header that is none (it goes into answers) gives way to the address of the connection.
    """
    configured: str = request.app.state.services.settings.external_url
    if configured:
        return configured
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        address, port = request.scope.get("server") or ("localhost", None)
        host = f"[{address}]" if ":" in address else address
        host += f":{port}" if port else ""
    return f"{request.scope['scheme']}://{host}"
