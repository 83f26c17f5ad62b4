"""Forwarded headers: whose are believed, and how much of them."""

from types import SimpleNamespace

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from registry.settings import Settings, SettingsInvalid
from registry.web.proxies import SENDS_FILES, Forwarded, client_address
from registry.web.urls import external_base

pytestmark = pytest.mark.anyio

TRUSTED = ["10.0.0.0/8", "127.0.0.1", "fd00::/8"]
FOR, PROTO, HOST = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"
Pairs = list[tuple[str, str]]


async def seen(
    peer: str | None, *pairs: tuple[str, str], trusted: list[str] | None = None, url: str = ""
) -> tuple[str, str]:
    """The client's address and the base of absolute URLs, as the application sees them."""
    found: list[Request] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(Request(scope))

    async def nothing() -> Message:
        raise AssertionError

    async def nowhere(message: Message) -> None:
        raise AssertionError

    services = SimpleNamespace(settings=Settings.load({}, external_url=url))
    scope = {
        "type": "http",
        "scheme": "http",
        "client": None if peer is None else (peer, 50_000),
        "server": ("10.0.0.9", 11434),
        "headers": [(b"host", b"models.example")]
        + [(name.encode(), text.encode("latin-1")) for name, text in pairs],
        "app": SimpleNamespace(state=SimpleNamespace(services=services)),
    }
    await Forwarded(app, TRUSTED if trusted is None else trusted)(scope, nothing, nowhere)
    assert scope["scheme"] == "http", "the server's own scope is left alone"
    return client_address(found[0]), external_base(found[0])


@pytest.mark.parametrize(
    ("peer", "pairs", "client"),
    [
        ("203.0.113.5", [], "203.0.113.5"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("203.0.113.5", [(FOR, "198.51.100.1")], "203.0.113.5"),  # not a proxy of ours
        ("10.0.0.1", [(FOR, "198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [(FOR, " 198.51.100.1 ")], "198.51.100.1"),
        ("10.0.0.1", [(FOR, "1.1.1.1, 198.51.100.1")], "198.51.100.1"),  # a lie before it
        ("10.0.0.1", [(FOR, "1.1.1.1, 198.51.100.1, 10.0.0.2")], "198.51.100.1"),
        ("10.0.0.1", [(FOR, "10.0.0.3, 10.0.0.2")], "10.0.0.3"),  # all ours: a client within
        ("10.0.0.1", [(FOR, "1.1.1.1"), (FOR, "198.51.100.1")], "198.51.100.1"),
        ("10.0.0.1", [(FOR, "198.51.100.1"), (FOR, "10.0.0.2")], "198.51.100.1"),
        ("10.0.0.1", [(FOR, "198.51.100.1:4711")], "198.51.100.1"),
        ("10.0.0.1", [(FOR, "[2001:db8::1]:4711")], "2001:db8::1"),
        ("10.0.0.1", [(FOR, "[2001:db8::1]")], "2001:db8::1"),
        ("10.0.0.1", [(FOR, "2001:DB8:0::1")], "2001:db8::1"),
        ("fd00::1", [(FOR, "::ffff:198.51.100.1")], "198.51.100.1"),
        ("::ffff:10.0.0.1", [(FOR, "198.51.100.1")], "198.51.100.1"),
        ("::ffff:203.0.113.5", [], "203.0.113.5"),
        (None, [(FOR, "198.51.100.1")], ""),
        ("not an address", [(FOR, "198.51.100.1")], "not an address"),
    ],
)
async def test_the_client_is_the_last_address_that_is_no_proxy(
    peer: str | None, pairs: Pairs, client: str
) -> None:
    assert (await seen(peer, *pairs))[0] == client


@pytest.mark.parametrize(
    "garbage",
    ["", ",", "unknown", "198.51.100.1, _hidden", "1.2.3", "1.2.3.4.5", "0x7f.1", "1.2.3.4:x",
     "1.2.3.4:123456", "[::1", "fe80::1%eth0", "a" * 10_000, "\x00", "ÿ", "١.1.1.1",
     "1.1.1.1;2.2.2.2", "1.1.1.1 2.2.2.2", "01.02.03.04"],
)  # fmt: skip
async def test_what_is_no_address_leaves_the_proxy_as_the_client(garbage: str) -> None:
    garbage = garbage.encode().decode("latin-1")
    assert (await seen("10.0.0.1", (FOR, garbage)))[0] == "10.0.0.1"
    assert (await seen("10.0.0.1", (FOR, f"{garbage}, 10.0.0.2")))[0] == "10.0.0.2"


async def test_only_so_many_hops_are_looked_through() -> None:
    chain = ", ".join(["198.51.100.1", *["10.0.0.2"] * 1000])
    assert (await seen("10.0.0.1", (FOR, chain)))[0] == "10.0.0.2"


@pytest.mark.parametrize(
    ("pairs", "base"),
    [
        ([], "http://models.example"),
        ([(PROTO, "https")], "https://models.example"),
        ([(PROTO, "HTTPS")], "https://models.example"),
        ([(PROTO, "https, http")], "http://models.example"),
        ([(PROTO, "http"), (PROTO, "https")], "https://models.example"),
        ([(PROTO, "javascript")], "http://models.example"),
        ([(PROTO, "")], "http://models.example"),
        ([(HOST, "other.example:8443")], "http://other.example:8443"),
        ([(HOST, "evil.example, other.example")], "http://other.example"),
        ([(HOST, "evil.example"), (HOST, "other.example")], "http://other.example"),
        ([(HOST, "[::1]:8443")], "http://[::1]:8443"),
        ([(HOST, "user@evil.example")], "http://models.example"),
        ([(HOST, "evil.example/path")], "http://models.example"),
        ([(HOST, "evil.example\r\nx: y")], "http://models.example"),
        ([(HOST, "ÿ")], "http://models.example"),
        ([(HOST, "")], "http://models.example"),
        ([("forwarded", "for=1.1.1.1;proto=https;host=evil.example")], "http://models.example"),
    ],
)
async def test_scheme_and_host_are_what_the_nearest_proxy_said(pairs: Pairs, base: str) -> None:
    assert (await seen("10.0.0.1", *pairs))[1] == base
    assert (await seen("203.0.113.5", *pairs))[1] == "http://models.example"


async def test_no_header_changes_urls_when_the_service_knows_its_own() -> None:
    lies = [(PROTO, "http"), (HOST, "evil.example"), (FOR, "1.1.1.1")]
    found = await seen("10.0.0.1", *lies, url="https://own.example")
    assert found == ("1.1.1.1", "https://own.example")


async def test_without_trusted_proxies_nobody_is_believed() -> None:
    found = await seen("10.0.0.1", (FOR, "1.1.1.1"), (PROTO, "https"), trusted=[])
    assert found == ("10.0.0.1", "http://models.example")


@pytest.mark.parametrize("text", ["10.0.0.0/33", "proxy.example", "*", "10.0.0.1-5", "::/129"])
def test_a_trusted_proxy_must_be_an_address_or_a_network(text: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"REGISTRY_TRUSTED_PROXIES.*is no address"):
        Settings.load({"REGISTRY_TRUSTED_PROXIES": f"127.0.0.1,{text}"})
    assert Settings.load({"REGISTRY_TRUSTED_PROXIES": "10.1.2.3/8, ::1"}).trusted_proxies == (
        "10.1.2.3/8",
        "::1",
    )


@pytest.mark.parametrize(
    ("peer", "pairs", "location"),
    [
        ("10.0.0.1", [(FOR, "198.51.100.1")], "/.blobs"),
        ("203.0.113.5", [(FOR, "198.51.100.1")], None),  # not a proxy of ours
        ("127.0.0.1", [], None),  # a client beside the proxy
    ],
)
async def test_files_are_left_to_trusted_proxies_alone(
    peer: str, pairs: Pairs, location: str | None
) -> None:
    found: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope)

    async def no_receive() -> Message:
        raise AssertionError

    async def no_send(message: Message) -> None:
        raise AssertionError

    headers = [(name.encode(), text.encode()) for name, text in pairs]
    scope = {"type": "http", "client": (peer, 1), "headers": headers}
    await Forwarded(app, TRUSTED, "/.blobs")(scope, no_receive, no_send)
    assert found[0].get(SENDS_FILES) == location


@pytest.mark.parametrize("text", ["blobs", "/", "/a b", "/a//b", "/a;b", "/a/{b}"])
def test_the_location_of_files_must_be_a_path(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="REGISTRY_ACCEL_REDIRECT"):
        Settings.load({"REGISTRY_ACCEL_REDIRECT": text})
    assert Settings.load({"REGISTRY_ACCEL_REDIRECT": "/.blobs/"}).accel_redirect == "/.blobs"
