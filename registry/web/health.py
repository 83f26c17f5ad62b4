"""Liveness and readiness."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from registry import OLLAMA_API_VERSION, __version__
from registry.core.errors import RegistryError
from registry.services import Services
from registry.web.answers import json_response
from registry.web.resources import resource

_PATIENCE_S = 3.0  # whoever asks often waits no longer than some seconds himself


async def healthz(request: Request) -> Response:
    """The process answers."""
    return json_response({"status": "ok"})


class Readiness:
    """Whether the parts work that are needed. One per application.

    An answer is there within seconds, though a part that hangs gives none for longer: the look at
    it goes on meanwhile, and there is one at a time.
    """

    def __init__(self, services: Services, patience_s: float = _PATIENCE_S) -> None:
        self._checks = {"database": services.catalog.check, "store": services.store.check}
        self._looks: dict[str, asyncio.Task[str]] = {}
        self._patience_s = patience_s

    async def parts(self) -> dict[str, str]:
        """Each part by name: "ok", or what is wrong with it."""
        looks = {name: self._look(name) for name in self._checks}
        await asyncio.wait(looks.values(), timeout=self._patience_s)
        late = f"no answer in {self._patience_s:g} s"
        return {name: look.result() if look.done() else late for name, look in looks.items()}

    def _look(self, name: str) -> asyncio.Task[str]:
        look = self._looks.get(name)
        if look is None or look.done():
            look = self._looks[name] = asyncio.create_task(_said(self._checks[name]))
        return look


async def _said(check: Callable[[], Awaitable[None]]) -> str:
    try:
        await check()
    except RegistryError as error:
        return str(error)
    return "ok"


async def readyz(request: Request) -> Response:
    """Each part by name; 503 while one of them cannot work, but for running models."""
    services: Services = request.app.state.services
    readiness: Readiness = request.app.state.readiness
    found = await readiness.parts()
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
