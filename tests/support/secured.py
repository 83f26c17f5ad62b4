"""A whole application with authentication on, people with rights in it, and keys that sign."""

import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.app import application, build, prepare
from registry.core.access import Group, Right, Scope, Visibility
from registry.core.digest import Digest
from registry.ports.accounts import Account
from registry.services import Services
from registry.services.access.keys import ApiKeyWish
from tests.support.asgi import Answer, Caller
from tests.support.backends import BACKENDS

HOST = "models.example.com"
BASE = f"https://{HOST}"
PASSWORD = "correct horse battery"
OLLAMA = "ollama/0.33.0 (amd64 linux) Go/go1.26"
CONSTANT = (
    "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
)
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Signer:
    """An ollama client's key."""

    def __init__(self, seed: bytes = bytes(range(32))) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        raw = self._private.public_key().public_bytes_raw()
        self.blob = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + raw).decode()

    def sign(self, text: str) -> str:
        """The value of `Authorization` for a signed text."""
        return f"{self.blob}:{base64.b64encode(self._private.sign(text.encode())).decode()}"

    def token_request(self, realm: str, query: dict[str, Any], at_s: int) -> tuple[str, str]:
        """Query and header of a token request."""
        full = {"nonce": "c2l4dGVlbi1ieXRlLW5vbg", "ts": str(at_s), **query}
        text = urlencode(sorted(full.items()), doseq=True)
        return text, self.sign(f"GET,{realm}?{text},{CONSTANT}")

    def api(self, method: str, path: str, at_s: int) -> tuple[str, str]:
        """Target and header of a request to the API."""
        return f"{path}?ts={at_s}", self.sign(f"{method},{path}?ts={at_s}")


def basic(name: str, password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def challenge_of(answer: Answer) -> dict[str, str]:
    """The parameters of the first challenge."""
    first = next(value for name, value in answer.pairs if name.lower() == "www-authenticate")
    assert first.startswith("Bearer ")
    parts = first.removeprefix("Bearer ").split('",')
    return {item.partition("=")[0]: item.partition("=")[2].strip('"') for item in parts}


class Secured:
    """The application, and short ways to use it."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.app = application(services)
        self.now = 1_760_000_000 * 10**9
        self._nonce = 0

    def clock(self) -> int:
        return self.now

    async def ask(self, method: str, target: str, body: bytes = b"", /, **headers: str) -> Answer:
        """Send a request. Header names are written with underscores."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return await Caller(self.app, {"host": HOST} | named)(method, target, body)

    @property
    def now_s(self) -> int:
        return self.now // 10**9

    async def user(self, name: str, *, admin: bool = False) -> Account:
        return await self.services.accounts.create_user(name, PASSWORD, admin=admin)

    async def grant(self, subject: str, pattern: str, rights: Right) -> int:
        return (await self.services.accounts.grant(subject, pattern, rights)).id

    async def policy(
        self, pattern: str, visibility: Visibility, immutable: Sequence[str] = ()
    ) -> None:
        await self.services.accounts.set_policy(pattern, visibility, immutable)

    async def api_key(
        self,
        account: Account,
        groups: Group = Group.ALL,
        scopes: tuple[Scope, ...] | None = None,
        lifetime_s: int | None = None,
    ) -> str:
        wish = ApiKeyWish("test", groups, scopes, lifetime_s)
        return (await self.services.accounts.create_api_key(account.id, wish)).text

    async def token(self, *scopes: str, **headers: str) -> str:
        """A token by GET."""
        query = urlencode({"service": HOST, "scope": scopes}, doseq=True)
        answer = await self.ask("GET", f"/v2/token?{query}", **headers)
        assert answer.status == 200, answer.body
        token: str = json.loads(answer.body)["token"]
        return token

    async def signed_token(self, signer: Signer, scope: str, **query: Any) -> Answer:
        """The answer to an ollama client that asks for a token."""
        self._nonce += 1
        fields = {"scope": scope, "service": HOST, "nonce": f"nonce{self._nonce:017}", **query}
        text, header = signer.token_request(f"{BASE}/v2/token", fields, self.now_s)
        return await self.ask(
            "GET", f"/v2/token?{text}", authorization=header, user_agent=OLLAMA
        )  # fmt: skip

    async def follow(self, signer: Signer, refused: Answer) -> Answer:
        """What an ollama client does with a challenge."""
        told = challenge_of(refused)
        assert urlsplit(told["realm"]).path == "/v2/token"
        assert not parse_qs(urlsplit(told["realm"]).query)
        return await self.signed_token(signer, told["scope"], service=told["service"])

    async def push(self, repository: str, tag: str, layer: bytes, **headers: str) -> Answer:
        """Put a small model; the first answer that is no success, or that of the manifest."""
        config = json.dumps({"model_format": "gguf", "layer": str(Digest.of(layer))}).encode()
        for data in (config, layer):
            answer = await self.upload(repository, data, **headers)
            if answer.status != 201:
                return answer
        body = model(config, layer)
        return await self.ask(
            "PUT", f"/v2/{repository}/manifests/{tag}", body, content_type=MANIFEST_TYPE, **headers
        )

    async def upload(self, repository: str, data: bytes, **headers: str) -> Answer:
        path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(data)}"
        return await self.ask("POST", path, data, **headers)


def model(config: bytes, layer: bytes) -> bytes:
    """The manifest of a model of two blobs."""
    kind = "application/vnd.ollama.image.model"
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _descriptor("application/vnd.docker.container.image.v1+json", config),
        "layers": [_descriptor(kind, layer)],
    }
    return json.dumps(value).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


@asynccontextmanager
async def secured(data: Path, **settings: Any) -> AsyncIterator[Secured]:
    """An application over an empty folder."""
    loaded = BACKENDS.settings(data, **{"auth": True, "external_url": BASE, **settings})
    prepare(loaded)
    holder: list[Secured] = []
    services = build(loaded, lambda: holder[0].now)
    holder.append(Secured(services))
    try:
        yield holder[0]
    finally:
        await services.uploads.close()
        await services.housekeeping.purge()
        await services.housekeeping.finish()
        await services.accounts.close()
        await services.audit.close()
        await services.catalog.close()
