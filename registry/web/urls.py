"""The addresses that clients know this service by: its own, and that of direct URLs."""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import Request

from registry.settings import Settings

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_host(text: str) -> bool:
    """Whether it is the host, with or without a port, of a URL."""
    return _HOST.fullmatch(text) is not None


def external_base(request: Request) -> str:
    """`scheme://host[:port]` without a slash: the setting, else what the request says.

    A Host header that is none (it goes into answers) gives way to the address of the connection.
    """
    configured = _settings(request).external_url
    if configured:
        return configured
    host = request.headers.get("host", "")
    if not is_host(host):
        address, port = request.scope.get("server") or ("localhost", None)
        host = f"[{address}]" if ":" in address else address
        host += f":{port}" if port else ""
    return f"{request.scope['scheme']}://{host}"


def blob_base(request: Request) -> str:
    """The same for direct URLs: the second host name, if there is one."""
    return _settings(request).blob_base_url or external_base(request)


def leads_elsewhere(request: Request, url: str, *, port_counts: bool) -> bool:
    """Whether `url` is on another host than the one this request was sent to.

    For clients that take a redirect to another host as the address to read from, but follow one to
    the same host with their credentials, and then miss the address.
    """
    there = _authority(url)
    here = _addresses(request)
    return all(there != each if port_counts else there[0] != each[0] for each in here)


def is_foreign(request: Request, url: str) -> bool:
    """Whether a client that follows a redirect to `url` keeps its credentials for itself.

    Many take them along to the same host, whatever the port, and to hosts below it.
    """
    there = _authority(url)[0]
    return not any(f".{there}".endswith(f".{name}") for name, _ in _addresses(request))


def _addresses(request: Request) -> list[tuple[str, int]]:
    """What this service is called, and what this request called it."""
    asked = f"{request.scope['scheme']}://{request.headers.get('host', '')}"
    return [_authority(external_base(request)), _authority(asked)]


def is_own_host(request: Request) -> bool:
    """Whether the address that the client used is certainly ours.

    It is if the settings name it. Else what the client says is believed only if it is the address
    that the connection came in by: any name could be that of another server, which passes on what
    was meant for it.
    """
    if _settings(request).external_url:
        return True
    address, port = request.scope.get("server") or ("", None)
    host, asked_port = _authority(external_base(request))
    try:
        own = ip_address(address)
        is_same = own.is_loopback if host == "localhost" else ip_address(host) == own
    except ValueError:
        return False
    return is_same and asked_port == port


def own_names(settings: Settings) -> list[str]:
    """The host names of the settings' URLs."""
    urls = (settings.external_url, settings.blob_base_url)
    return [name for name, _ in map(_authority, filter(None, urls))]


def is_blob_host(settings: Settings, host: str) -> bool:
    """Whether a Host header names the second host, and not the first."""
    blobs, own = settings.blob_base_url, settings.external_url
    if not blobs or not is_host(host):
        return False
    scheme = blobs.partition(":")[0]
    asked = _authority(f"{scheme}://{host}")
    return asked == _authority(blobs) and not (own and asked == _authority(own))


def _authority(url: str) -> tuple[str, int]:
    """Host name in lower case, and port; ("", 0) if it has none that makes sense."""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return "", 0


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.services.settings
    return settings
