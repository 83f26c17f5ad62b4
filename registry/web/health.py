"""Liveness and readiness."""

from starlette.requests import Request
from starlette.responses import Response

from registry import OLLAMA_API_VERSION, __version__
from registry.core.errors import RegistryError
from registry.services import Services
from registry.web.answers import json_response
from registry.web.resources import resource


async def healthz(request: Request) -> Response:
    """The process answers."""
    return json_response({"status": "ok"})


async def parts(services: Services) -> dict[str, str]:
    """Each part that is needed: "ok", or what is wrong with it."""
    found: dict[str, str] = {}
    for name, check in (("database", services.catalog.check), ("store", services.store.check)):
        try:
            await check()
            found[name] = "ok"
        except RegistryError as error:
            found[name] = str(error)
    return found


async def readyz(request: Request) -> Response:
    """Each part by name; 503 while one of them cannot work, but for running models."""
    services: Services = request.app.state.services
    found = await parts(services)
    ready = all(text == "ok" for text in found.values())
    body = {
        "status": "ok" if ready else "unavailable",
        "version": __version__,
        "ollama_api": OLLAMA_API_VERSION,
        "parts": found | {"inference": services.router.problem or "ok"},
    }
    return json_response(body, 200 if ready else 503)


routes = [
    resource("/healthz", GET=healthz, HEAD=healthz),
    resource("/readyz", GET=readyz, HEAD=readyz),
]
