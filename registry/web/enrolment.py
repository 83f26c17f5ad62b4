"""The link that an unknown key is answered with: a person who is signed in adds the key by it.

A signature proves that whoever asks has the key, so the link can name it. Whoever opens the link
sees fingerprint and host and must confirm: anybody could send his own link to somebody else.

Source: spec registry-protocol 1.4 "Enrolment".
"""

from starlette.requests import Request

from registry.core.ssh_key import SshKey
from registry.services import Services
from registry.web.auditing import note
from registry.web.proxies import client_address
from registry.web.urls import external_base


def host_of(request: Request) -> str:
    """The service's host as the client knows it."""
    return external_base(request).partition("://")[2]


async def enrolment_url(request: Request, key: SshKey) -> str:
    """The address where a key can be added, good for some minutes and once."""
    services: Services = request.app.state.services
    code = await services.accounts.begin_enrolment(key.blob, client_address(request))
    note(request, "key.ask", key.fingerprint)
    return f"{external_base(request)}/ui/enrol/{code}"


async def unknown_key(request: Request, key: SshKey) -> str:
    """The sentence for a key that nobody added."""
    url = await enrolment_url(request, key)
    minutes = max(1, request.app.state.services.settings.credentials.code_s // 60)
    return (
        f"key {key.fingerprint} is not registered on {host_of(request)}; to add it, open {url} "
        f"within {minutes} minutes and sign in"
    )
