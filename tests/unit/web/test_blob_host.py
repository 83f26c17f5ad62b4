"""The second host name: what it answers, and which client is sent there how."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.app import application, build, prepare
from registry.core.digest import Digest
from tests.support.accounts import PASSWORD
from tests.support.asgi import Caller
from tests.support.backends import BACKENDS
from tests.support.site import site

pytestmark = pytest.mark.anyio

MAIN, BLOBS = "https://models.example", "https://blobs.example"
DATA = bytes(range(256)) * 9
DIGEST = Digest.of(DATA)
PATH = f"/v2/team/Llama/blobs/{DIGEST}"
UPLOAD = f"/v2/team/Llama/blobs/uploads/?digest={DIGEST}"
CLASSIC = "ollama/0.33.0 (amd64 linux) Go/go1.26"
TRANSFER = "ollama-transfer/1.0"
SKOPEO = "skopeo/1.18"
AT_MAIN, AT_BLOBS = "models.example", "blobs.example"


class Place:
    """The whole application, with one blob."""

    def __init__(self, folder: Path, **given: Any) -> None:
        settings = BACKENDS.settings(folder, log_level="error", **given)
        prepare(settings)
        self.services = build(settings)
        self.ask = Caller(application(self.services), {})

    async def push(self) -> None:
        assert (await self.ask("POST", UPLOAD, DATA, host=AT_MAIN)).status == 201

    async def direct(self) -> str:
        """Path and query of the blob's direct URL."""
        answer = await self.ask("GET", PATH, user_agent=SKOPEO, host=AT_MAIN)
        assert answer.status == 200
        return "/v2/" + answer.headers["location"].split("/v2/", 1)[1]


@pytest.fixture
def given() -> dict[str, str]:
    return {"external_url": MAIN, "blob_base_url": BLOBS}


@pytest.fixture
async def place(tmp_path: Path, given: dict[str, str]) -> AsyncIterator[Place]:
    place = Place(tmp_path, **given)
    await place.push()
    yield place
    await place.services.catalog.close()


SAME_HOST = {"external_url": MAIN, "blob_base_url": "https://models.example:8443"}
SAME_PORT = {"external_url": MAIN, "blob_base_url": "https://MODELS.example:443"}
ONE_HOST = {"external_url": MAIN}
UNNAMED = {"blob_base_url": BLOBS, "host": "10.0.0.1"}
TWO_HOSTS = {"external_url": MAIN, "blob_base_url": BLOBS}


@pytest.mark.parametrize(
    ("given", "agent", "status"),
    [
        (TWO_HOSTS, CLASSIC, 307),
        (TWO_HOSTS, TRANSFER, 307),
        (TWO_HOSTS, SKOPEO, 200),
        (SAME_HOST, CLASSIC, 200),  # it would follow with its credentials and find no address
        (SAME_HOST, TRANSFER, 307),  # another port is another place to this one
        (SAME_PORT, CLASSIC, 200),
        (SAME_PORT, TRANSFER, 200),
        (ONE_HOST, CLASSIC, 200),
        (ONE_HOST, TRANSFER, 200),
        (UNNAMED, CLASSIC, 307),
        (UNNAMED, TRANSFER, 307),
    ],
)
async def test_each_client_is_led_to_the_direct_url_its_own_way(
    place: Place, given: dict[str, str], agent: str, status: int
) -> None:
    answer = await place.ask("GET", PATH, user_agent=agent, host=AT_MAIN)
    assert answer.status == status
    base = given.get("blob_base_url", MAIN)
    assert answer.headers["location"].startswith(f"{base}{PATH}?exp=")
    assert answer.headers["docker-content-digest"] == str(DIGEST)
    assert answer.body == (DATA if status == 200 else b"")
    if status == 307:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-length"] == "0"


@pytest.mark.parametrize("agent", [CLASSIC, TRANSFER])
async def test_ranges_heads_and_direct_urls_are_answered_here(place: Place, agent: str) -> None:
    part = await place.ask("GET", PATH, range="bytes=1-3", user_agent=agent, host=AT_MAIN)
    assert (part.status, part.body) == (206, DATA[1:4])
    head = await place.ask("HEAD", PATH, user_agent=agent, host=AT_MAIN)
    assert (head.status, head.headers["content-length"]) == (200, str(len(DATA)))
    direct = await place.ask("GET", await place.direct(), user_agent=agent, host=AT_MAIN)
    assert (direct.status, direct.body) == (200, DATA)


@pytest.mark.parametrize("given", [UNNAMED])
async def test_a_client_that_uses_the_second_name_for_all_is_not_sent_in_circles(
    place: Place,
) -> None:
    asked = await place.ask("GET", await place.direct(), user_agent=CLASSIC, host=AT_BLOBS)
    assert asked.status == 200


@pytest.mark.parametrize(
    "host",
    ["blobs.example", "BLOBS.example", "blobs.example:443", "models.example", "10.0.0.1"],
)  # fmt: skip
async def test_a_direct_url_is_good_on_every_name(place: Place, host: str) -> None:
    query = await place.direct()
    whole = await place.ask("GET", query, host=host)
    assert (whole.status, whole.body) == (200, DATA)
    assert whole.headers["location"] == BLOBS + query
    part = await place.ask("GET", query, host=host, range="bytes=5-9")
    assert (part.status, part.body) == (206, DATA[5:10])
    assert (await place.ask("HEAD", query, host=host)).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"), ("HEAD", "/"), ("GET", "/healthz"), ("GET", "/readyz"),
        ("GET", "/api/tags"), ("POST", "/api/show"), ("GET", "/v2/"), ("GET", "/v2"),
        ("GET", "/v2/_catalog"), ("GET", "/v2/team/Llama/tags/list"), ("GET", PATH),
        ("HEAD", PATH), ("DELETE", f"{PATH}?sig=1"), ("PUT", f"{PATH}?sig=1"),
        ("POST", "/v2/team/Llama/blobs/uploads/?sig=1"), ("GET", "/v2/x/manifests/y?sig=1"),
        ("GET", "/no-such?sig=1"), ("GET", f"{PATH}?Sig=1"), ("GET", f"/x{PATH}?sig=1"),
        ("GET", "/v2//blobs/?sig=1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("host", ["blobs.example", "Blobs.Example:443"])
async def test_nothing_else_is_found_on_the_second_name(
    place: Place, method: str, path: str, host: str
) -> None:
    await place.ask("HEAD", PATH, host=AT_MAIN)  # an answer kept ready must not slip through
    assert (await place.ask(method, path, host=host)).status == 404


@pytest.mark.parametrize("query", ["?sig=", "?sig=0&exp=99999999999&kid=0", "?sig=" + "f" * 9000])
async def test_a_forged_direct_url_is_refused_there_as_anywhere(place: Place, query: str) -> None:
    for host in ("blobs.example", "models.example"):
        answer = await place.ask("GET", PATH + query, host=host)
        assert (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize("host", ["evil.example", "x@models.example", "a b", "", "[", "a:99999999"])
async def test_strange_hosts_never_change_an_address(place: Place, host: str) -> None:
    answer = await place.ask("POST", UPLOAD, DATA, host=host)
    assert answer.status == 403 or answer.headers["location"].startswith(MAIN + "/v2/team/Llama/")
    direct = await place.ask("GET", await place.direct(), host=host)
    assert direct.status == 403 or direct.headers["location"].startswith(BLOBS + PATH)


async def test_both_names_are_ours_behind_a_proxy_on_this_machine(place: Place) -> None:
    """The service listens on loopback, where foreign host names are refused."""
    assert place.services.settings.is_loopback
    assert (await place.ask("GET", "/healthz", host=AT_MAIN)).status == 200
    assert (await place.ask("GET", "/healthz", host="evil.example")).status == 403


async def test_a_private_blob_is_read_there_without_credentials(tmp_path: Path) -> None:
    """And no cache on the way may keep it, or the address of it, for others."""
    basic = "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
    own = PATH.replace("team", "alice")
    async with site(tmp_path, **TWO_HOSTS) as place:
        await place.person("alice", admin=True)
        ask = Caller(place.app, {"host": AT_MAIN})
        upload = UPLOAD.replace("team", "alice")
        assert (await ask("POST", upload, DATA, authorization=basic)).status == 201
        assert (await ask("GET", own)).status == 401
        for method in ("GET", "HEAD"):
            answer = await ask(method, own, authorization=basic)
            assert (answer.status, answer.headers["cache-control"][:8]) == (200, "private,")
        sent = await ask("GET", own, authorization=basic, user_agent=CLASSIC)
        assert sent.status == 307
        path = sent.headers["location"].removeprefix(BLOBS)
        part = await ask("GET", path, host=AT_BLOBS, range="bytes=2-4")
        assert (part.status, part.body) == (206, DATA[2:5])
        assert (await ask("GET", own, host=AT_BLOBS, authorization=basic)).status == 404
        await place.services.blobs.signing_keys.rotate(revoke=True)
        assert (await ask("GET", path, host=AT_BLOBS)).status == 403
