"""The HTTP client of other registries, against a scripted registry on loopback."""

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from registry.adapters.upstream_auth import Challenge, Key, authorization, realm_is_ours
from registry.adapters.upstream_http import HttpUpstreams, Repository, _may_speak_tls
from registry.core.digest import Digest
from registry.core.errors import (
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from registry.core.media import DOCKER_MANIFEST
from registry.core.names import ModelName
from registry.ports.upstream import RemoteManifest
from registry.settings import Settings
from tests.support.certificates import self_signed
from tests.support.upstream import Blob, Reply, ScriptedRegistry, digest_of

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 40


@pytest.fixture
async def registry() -> AsyncIterator[ScriptedRegistry]:
    async with ScriptedRegistry().running() as found:
        yield found


@asynccontextmanager
async def opened(
    registry: ScriptedRegistry, tmp_path: Path, *, insecure: bool = True, **given: object
) -> AsyncIterator[Repository]:
    given.setdefault("upstream", {"retries": 2, "stall_s": 0.5, "connect_s": 2})
    settings = Settings.load({}, data=tmp_path, **given)
    upstreams = HttpUpstreams(settings)
    try:
        yield upstreams.open(ModelName.parse(f"{registry.host}/a/b:v1"), insecure=insecure)
    finally:
        await upstreams.close()


async def read(repository: Repository, digest: Digest, start: int, stop: int) -> tuple[int, bytes]:
    blob = await repository.locate(digest)
    async with blob.read(start, stop) as stream:
        return stream.start, b"".join([chunk async for chunk in stream.chunks()])


# ---- manifests and sizes


async def test_a_manifest_comes_as_its_exact_bytes(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    body = registry.add("a/b:v1", [DATA])
    async with opened(registry, tmp_path) as repository:
        assert await repository.manifest("v1") == RemoteManifest(body, DOCKER_MANIFEST)
    assert registry.log[0].headers["accept"] == DOCKER_MANIFEST
    assert "authorization" not in registry.log[0].headers


async def test_a_registry_that_hides_oci_manifests_is_asked_for_them(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.add("a/b:v1", [DATA])
    registry.say("GET", "/manifests/", Reply(404))
    async with opened(registry, tmp_path) as repository:
        await repository.manifest("v1")
    assert "application/vnd.oci.image.manifest.v1+json" in registry.log[1].headers["accept"]


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (Reply(404), UpstreamUnknown, "file does not exist"),
        (Reply(403, body=b"no"), UpstreamRefused, "403: no"),
        (Reply(400, body=b"bad"), UpstreamFailed, "400: bad"),
        (Reply(503, {"Retry-After": "7"}, b"later"), UpstreamBusy, "503: later"),
        (Reply(500, body=b"x" * 10_000), UpstreamBusy, "500: " + "x" * 4096),
        (Reply(200, body=b"x" * 5000), UpstreamFailed, "the answer is larger than 4096 bytes"),
        (Reply(302, {"Location": "ftp://a/b"}), UpstreamRefused, "a redirect to ftp://a is not "),
        (Reply(302, {"Location": "http://u@a/b"}), UpstreamRefused, "a redirect with a user name"),
    ],
)
async def test_failures_of_a_manifest_are_told_with_status_and_bounded_body(
    registry: ScriptedRegistry,
    tmp_path: Path,
    reply: Reply,
    error: type[UpstreamFailed],
    text: str,
) -> None:
    registry.say("GET", "/manifests/", reply, reply)
    async with opened(registry, tmp_path, limits={"manifest_bytes": 4096}) as repository:
        with pytest.raises(error) as caught:
            await repository.manifest("v1")
    assert type(caught.value) is error
    assert str(caught.value).startswith(text)
    assert len(str(caught.value)) < 4200
    if isinstance(caught.value, UpstreamBusy) and "Retry-After" in reply.headers:
        assert caught.value.retry_after_s == 7


async def test_redirects_end(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.say("GET", "/loop", *[Reply(302, {"Location": "/loop"})] * 20)
    registry.say("GET", "/manifests/", Reply(302, {"Location": "/loop"}))
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamFailed, match="stopped after 5 redirects"):
            await repository.manifest("v1")


async def test_the_size_of_a_blob(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.add("a/b:v1", [DATA])
    async with opened(registry, tmp_path) as repository:
        assert await repository.size(digest_of(DATA)) == len(DATA)
        assert await repository.size(digest_of(b"other")) is None


# ---- where blobs are


@pytest.mark.parametrize(
    "location",
    [
        pytest.param(None, id="no location"),
        pytest.param(lambda path: path.replace("/v2/", "/direct/"), id="relative"),
        pytest.param(lambda path: path, id="itself"),
    ],
)
async def test_ranges_are_read_where_the_registry_says(
    registry: ScriptedRegistry, tmp_path: Path, location: object
) -> None:
    registry.add("a/b:v1", [DATA])
    registry.location = location  # type: ignore[assignment]  # the parameters above
    async with opened(registry, tmp_path) as repository:
        assert await read(repository, digest_of(DATA), 100, 300) == (100, DATA[100:300])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_redirects_of_a_blob_are_followed_without_the_token(
    registry: ScriptedRegistry, tmp_path: Path, status: int, host: str
) -> None:
    registry.add("a/b:v1", [DATA])
    registry.token = "secret"
    target = f"http://{host}:{registry.port}/direct/{digest_of(DATA)}"
    registry.say("GET", "/blobs/", Reply(status, {"Location": target}))
    async with opened(registry, tmp_path) as repository:
        await repository.manifest("v1")
        assert await read(repository, digest_of(DATA), 0, 9) == (0, DATA[:9])
    assert "authorization" not in registry.log[-1].headers
    assert registry.log[-1].path.startswith("/direct/")
    assert registry.log[-2].headers["authorization"] == "Bearer secret"


async def test_a_plain_registry_gets_the_token_with_each_range_and_no_second_probe(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.add("a/b:v1", [DATA])
    registry.token, registry.location = "secret", None
    async with opened(registry, tmp_path) as repository:
        await read(repository, digest_of(DATA), 0, 9)
        await read(repository, digest_of(DATA), 9, 20)
    ranged = [r.headers.get("range") for r in registry.log if r.path.startswith("/v2/")]
    assert ranged == [None, None, "bytes=0-8", "bytes=9-19"]


async def test_a_registry_without_ranges_starts_at_the_beginning(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.add("a/b:v1", [DATA])
    registry.ranges = False
    async with opened(registry, tmp_path) as repository:
        assert await read(repository, digest_of(DATA), 100, 300) == (0, DATA[:300])


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (Reply(206, {"Content-Range": "bytes 5-9/10"}, b"12345"), UpstreamFailed, "unexpected"),
        (Reply(206, {}, b"12345"), UpstreamFailed, "unexpected answer to a range"),
        (Reply(204), UpstreamFailed, "unexpected answer to a range"),
        (Reply(200, {"Content-Encoding": "gzip"}), UpstreamFailed, "compressed"),
        (Reply(403, body=b"expired"), UpstreamRefused, "403: expired"),
        (Reply(200, {}, b"x" * 50, cut=10), UpstreamBusy, "unexpected EOF"),
        (Reply(200, {}, b"x" * 50, cut=10, stall=True), UpstreamBusy, "no data for too long"),
    ],
)
async def test_bad_answers_to_ranges(
    registry: ScriptedRegistry,
    tmp_path: Path,
    reply: Reply,
    error: type[UpstreamFailed],
    text: str,
) -> None:
    registry.add("a/b:v1", [DATA])
    registry.say("GET", "/direct/", reply)
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(error, match=text):
            await read(repository, digest_of(DATA), 0, 50)


async def test_an_unknown_blob_cannot_be_located(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamUnknown, match="file does not exist"):
            await repository.locate(digest_of(DATA))


# ---- connections


@pytest.mark.parametrize(
    ("host", "insecure", "text"),
    [
        (
            "127.0.0.1:1",
            False,
            'Get "https://127.0.0.1:1/v2/a/b/manifests/v1": '
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        (
            "127.0.0.1:1",
            True,
            'Get "http://127.0.0.1:1/v2/a/b/manifests/v1": '
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        (
            "no-such-host.invalid",
            False,
            'Get "https://no-such-host.invalid/v2/a/b/manifests/v1": '
            "dial tcp: lookup no-such-host.invalid: no such host",
        ),
        (
            "127.0.0.1:99999",
            False,
            'Get "https://127.0.0.1:99999/v2/a/b/manifests/v1": '
            "dial tcp: address 99999: invalid port",
        ),
        (
            "127.0.0.1:abc",
            False,
            'parse "https://127.0.0.1:abc/v2/a/b/manifests/v1": invalid port ":abc" after host',
        ),
    ],
)
async def test_nobody_there_is_told_in_gos_words(
    tmp_path: Path, host: str, insecure: bool, text: str
) -> None:
    upstreams = HttpUpstreams(Settings.load({}, data=tmp_path))
    with pytest.raises(UpstreamFailed) as caught:
        await upstreams.open(ModelName.parse(f"{host}/a/b:v1"), insecure=insecure).manifest("v1")
    assert str(caught.value) == text
    await upstreams.close()


async def test_plain_http_is_not_spoken_unless_insecure(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    async with opened(registry, tmp_path, insecure=False) as repository:
        with pytest.raises(UpstreamUnreachable, match="server gave HTTP response to HTTPS client"):
            await repository.manifest("v1")
    assert registry.log == []


@pytest.fixture
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssl.SSLContext]:
    yield self_signed(tmp_path_factory.mktemp("tls"))


async def test_insecure_speaks_tls_without_verification_if_it_must(
    certificate: ssl.SSLContext, tmp_path: Path
) -> None:
    async with ScriptedRegistry().running(certificate) as registry:
        body = registry.add("a/b:v1", [DATA])
        async with opened(registry, tmp_path) as repository:
            assert (await repository.manifest("v1")).body == body
            assert await repository.size(digest_of(DATA)) == len(DATA)


async def test_an_unknown_certificate_is_refused(
    certificate: ssl.SSLContext, tmp_path: Path
) -> None:
    async with (
        ScriptedRegistry().running(certificate) as registry,
        opened(registry, tmp_path, insecure=False) as repository,
    ):
        with pytest.raises(UpstreamUnreachable, match="failed to verify certificate"):
            await repository.manifest("v1")


async def test_private_addresses_are_refused_unless_allowed(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.add("a/b:v1", [DATA])
    async with opened(registry, tmp_path, host="0.0.0.0") as repository:
        with pytest.raises(UpstreamRefused, match="REGISTRY_UPSTREAM_ALLOW"):
            await repository.manifest("v1")
    assert registry.log == []
    allow = (registry.host,)
    async with opened(registry, tmp_path, host="0.0.0.0", upstream_allow=allow) as repository:
        await repository.manifest("v1")


async def test_every_hop_of_a_redirect_is_judged(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    elsewhere = f"http://localhost:{registry.port}/direct/{digest_of(DATA)}"
    registry.add("a/b:v1", [DATA])
    registry.location = lambda _: elsewhere
    allow = (f"127.0.0.1:{registry.port}",)
    async with opened(registry, tmp_path, host="0.0.0.0", upstream_allow=allow) as repository:
        assert (await read(repository, digest_of(DATA), 0, 5))[1] == DATA[:5]  # same address
    registry.location = lambda _: elsewhere.replace("localhost", "127.0.0.2")
    async with opened(registry, tmp_path, host="0.0.0.0", upstream_allow=allow) as repository:
        with pytest.raises(UpstreamRefused, match=r"127\.0\.0\.2 is a private"):
            await read(repository, digest_of(DATA), 0, 5)


# ---- tokens


async def test_a_token_is_got_once_with_a_signature_by_our_key(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.add("a/b:v1", [DATA])
    registry.token = "secret"
    async with opened(registry, tmp_path) as repository:
        await repository.manifest("v1")
        await repository.size(digest_of(DATA))
    assert [r.path for r in registry.log].count("/token") == 1
    asked = registry.log[1]
    assert [key for key, _ in asked.query] == ["nonce", "scope", "service", "ts"]
    public, _, signature = asked.headers["authorization"].partition(":")
    assert len(signature) == 88
    pub = (tmp_path / "id_ed25519.pub").read_text().split()
    assert pub[:2] == ["ssh-ed25519", public]
    assert stat.S_IMODE((tmp_path / "id_ed25519").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


async def test_the_key_is_kept(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.add("a/b:v1", [DATA])
    registry.token = "secret"
    for _ in range(2):
        async with opened(registry, tmp_path) as repository:
            await repository.manifest("v1")
    first, second = (r.headers["authorization"] for r in registry.log if r.path == "/token")
    assert first.partition(":")[0] == second.partition(":")[0]
    assert first != second  # another nonce


async def test_a_token_server_that_dislikes_the_signature_is_asked_without(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.add("a/b:v1", [DATA])
    registry.token = "secret"
    registry.say("GET", "/token", Reply(401))
    async with opened(registry, tmp_path) as repository:
        await repository.manifest("v1")
    plain = [r for r in registry.log if r.path == "/token"][1]
    assert "authorization" not in plain.headers
    assert [key for key, _ in plain.query] == ["scope", "service"]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(403, body=b"nope"), "403: nope"),
        (Reply(200, body=b"<html>"), "the token answer is not JSON"),
        (Reply(200, body=b"[]"), "the token answer holds no token"),
        (Reply(200, body=b'{"token":"a\\r\\nX: y"}'), "the token answer holds no token"),
        (Reply(200, body=b'{"access_token":"wrong"}'), "unauthorized: access denied"),
        (Reply(200, body=b"x" * 70_000), "the answer is larger than 65536 bytes"),
    ],
)
async def test_token_answers_of_no_use(
    registry: ScriptedRegistry, tmp_path: Path, reply: Reply, text: str
) -> None:
    registry.token = "secret"
    registry.say("GET", "/token", reply)
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamFailed) as caught:
            await repository.manifest("v1")
    assert str(caught.value) == text


async def test_a_realm_elsewhere_is_not_asked(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.token, registry.realm = "secret", "http://127.0.0.2:1/token"
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamRefused) as caught:
            await repository.manifest("v1")
    wanted = f'realm host "127.0.0.2:1" does not match original host "{registry.host}"'
    assert str(caught.value) == wanted
    assert not (tmp_path / "id_ed25519").exists()


@pytest.mark.parametrize("challenge", ["", "Basic realm=x", "Bearer", "Bearer scope=x"])
async def test_challenges_of_no_use_mean_no_access(
    registry: ScriptedRegistry, tmp_path: Path, challenge: str
) -> None:
    registry.say("GET", "/manifests/", Reply(401, {"WWW-Authenticate": challenge}))
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamRefused, match="unauthorized: access denied"):
            await repository.manifest("v1")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Bearer realm="https://h/t",service="s",scope="a b"'], ("https://h/t", "s", "a b")),
        (['bearer scope="a,b", realm="https://h/t"'], ("https://h/t", "", "a,b")),
        (["Bearer realm=https://h/t"], ("https://h/t", "", "")),
        (['Basic realm="x", Bearer realm="https://h/t"'], ("https://h/t", "", "")),
        (['Basic realm="x"', 'Bearer realm="h\\"t"'], ('h"t', "", "")),
        (["Negotiate abc==", 'Bearer realm="t"'], ("t", "", "")),
        (['Bearer realm=""'], None),
        (["Bearer ,,,=="], None),
        (["x" * 100_000], None),
        (["Bearer " + " " * 8000 + 'realm="t"'], ("t", "", "")),
        (["Bearer " + ", " * 4000], None),
    ],
)
def test_challenges_are_found(headers: list[str], expected: tuple[str, str, str] | None) -> None:
    found = Challenge.find(headers)
    assert (found and (found.realm, found.service, found.scope)) == expected


def test_the_token_request_merges_queries_in_alphabetical_order() -> None:
    challenge = Challenge("https://h:5/t?x=1&a=2", "svc", "repository:a/b:pull,push other")
    assert challenge.url({"ts": "9", "nonce": "n"}) == (
        "https://h:5/t?a=2&nonce=n&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=other"
        "&service=svc&ts=9&x=1"
    )


def test_the_signature_is_that_of_the_specification() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    url = (
        "https://models.example.com/v2/token?nonce=c2l4dGVlbi1ieXRlLW5vbg"
        "&scope=repository%3Ateam%2Fllama%3Apull&service=models.example.com&ts=1760000000"
    )
    assert authorization(key, url) == (
        "AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4:"
        "+YYnBQyz9h7L9eXnI9CvEJOYNUrMuBqi/UrLxMzkNOf64lgtABwrOHKQJwiH4EVC2qOq8sKFjVn8zyB5bXbaBg=="
    )


@pytest.mark.parametrize(
    ("realm", "registry_url", "verdict"),
    [
        ("https://r.example/t", "https://r.example/v2/", True),
        ("https://R.example:443/t", "https://r.example/v2/", True),
        ("https://r.example:444/t", "https://r.example/v2/", None),
        ("http://r.example/t", "https://r.example/v2/", None),
        ("https://user@r.example/t", "https://r.example/v2/", None),
        ("https://auth.example/t", "https://r.example/v2/", False),
        ("http://auth.example/t", "https://r.example/v2/", None),
        ("https://other.example/t", "https://r.example/v2/", None),
        ("https://r.example:bad/t", "https://r.example/v2/", None),
        ("file:///etc/passwd", "https://r.example/v2/", None),
    ],
)
def test_realms_are_judged(realm: str, registry_url: str, verdict: bool | None) -> None:
    def foreign(host: str, port: int) -> bool:
        return (host, port) == ("auth.example", 443)

    if verdict is None:
        with pytest.raises(UpstreamRefused):
            realm_is_ours(realm, registry_url, foreign)
    else:
        assert realm_is_ours(realm, registry_url, foreign) is verdict


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN OPENSSH PRIVATE KEY-----\n"])
async def test_a_key_file_of_no_use_is_told_without_its_path(
    registry: ScriptedRegistry, tmp_path: Path, content: bytes
) -> None:
    registry.token = "secret"
    (tmp_path / "id_ed25519").write_bytes(content)
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamRefused) as caught:
            await repository.manifest("v1")
    assert str(caught.value) == "the key file id_ed25519 of this server is unusable"
    assert (tmp_path / "id_ed25519").read_bytes() == content


async def test_a_key_of_another_kind_is_refused(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.token = "secret"
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (tmp_path / "id_ed25519").write_bytes(text)
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamRefused, match="holds no Ed25519 key"):
            await repository.manifest("v1")


async def test_two_processes_that_need_a_key_at_once_get_the_same(tmp_path: Path) -> None:
    keys = [Key(tmp_path) for _ in range(8)]
    headers = await asyncio.gather(*(key.authorization("https://h/t") for key in keys))
    assert len(set(headers)) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("12", 12),
        ("999999", 300),
        ("-5", 0),
        ("soon", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 300),
        ("Wed, 21 Oct 2099 07:28:00 -0000", 300),
    ],
)
async def test_the_wish_to_come_later_is_read(
    registry: ScriptedRegistry, tmp_path: Path, text: str, expected: float
) -> None:
    registry.say("GET", "/manifests/", Reply(429, {"Retry-After": text}))
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamBusy) as caught:
            await repository.manifest("v1")
    assert caught.value.retry_after_s == expected


async def test_an_answer_that_trickles_in_is_cut_off(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.say("GET", "/", Reply(200, {"Content-Length": "99"}, b"x", cut=1, stall=True))
    upstream = {"retries": 0, "stall_s": 30, "connect_s": 0.1}
    async with opened(registry, tmp_path, upstream=upstream) as repository:
        repository._patience_s = 0.2
        with pytest.raises(UpstreamBusy, match="no answer for too long"):
            await repository.manifest("v1")


async def test_a_blob_that_redirects_to_nowhere_is_told(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.say("GET", "/blobs/", Reply(307))
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamFailed, match="no Location header in response"):
            await repository.locate(digest_of(DATA))


async def test_a_token_is_not_sent_to_an_upload_elsewhere(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    async with ScriptedRegistry().running() as elsewhere:
        registry.token = "secret"
        elsewhere.uploads["7"] = bytearray()
        there = f"http://{elsewhere.host}/v2/a/b/blobs/uploads/7"
        registry.say("POST", "/uploads/", Reply(202, {"Location": there}))
        async with opened(registry, tmp_path) as repository:
            await repository.size(digest_of(DATA))
            await repository.upload(Blob(DATA))
        assert elsewhere.blobs == {str(digest_of(DATA)): DATA}
        assert not any("authorization" in r.headers for r in elsewhere.log)


@pytest.mark.parametrize(
    ("error", "base", "expected"),
    [
        (UpstreamBusy("Get: unexpected EOF"), "http://h:5/", True),
        (UpstreamBusy("503: later"), "http://h:5/", False),
        (UpstreamUnreachable("dial"), "http://h/", True),
        (UpstreamUnreachable("dial"), "http://h:5/", False),
        (UpstreamFailed("400: Client sent an HTTP request to an HTTPS server."), "http://h/", True),
        (UpstreamFailed("413: no"), "http://h/", False),
        (UpstreamRefused("403: no"), "http://h/", False),
    ],
)
def test_which_failures_suggest_tls(error: UpstreamFailed, base: str, expected: bool) -> None:
    assert _may_speak_tls(error, base) is expected


async def test_a_failure_that_was_no_sign_of_tls_stands(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.say("GET", "/manifests/", Reply(400, body=b"no such thing"))
    async with opened(registry, tmp_path) as repository:
        with pytest.raises(UpstreamFailed, match=r"^400: no such thing$"):
            await repository.manifest("v1")
        registry.add("a/b:v1", [DATA])
        await repository.manifest("v1")
