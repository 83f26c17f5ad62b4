"""What `Auth` keeps of credentials; what they are good for is tried in `test_auth.py`."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.requests import Request

from registry.services import Services
from registry.web import credentials
from registry.web.credentials import Auth
from tests.support.secured import basic, secured

pytestmark = pytest.mark.anyio


def request_with(services: Services, header: str) -> Request:
    app = SimpleNamespace(state=SimpleNamespace(services=services))
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/v2/",
            "query_string": b"",
            "headers": [(b"authorization", header.encode())],
            "client": ("192.0.2.1", 1),
            "app": app,
        }
    )


async def test_what_headers_proved_is_bounded_and_holds_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_KEPT", 3)
    async with secured(tmp_path / "data") as place:
        key = await place.api_key(await place.user("alice"))
        auth = Auth(place.services)
        for number in range(9):
            header = basic(f"n{number}", key)
            found = await auth.evidence(request_with(place.services, header))
            assert found is await auth.evidence(request_with(place.services, header))
            assert found.owner.name == "alice"
        assert 0 < len(auth._proven) <= 3
        assert key not in repr(auth._proven)
