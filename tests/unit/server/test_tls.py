"""TLS: transfers over it, which versions, which files are refused, and following changed files."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from registry.adapters.blobs_fs import FileBlobStore
from registry.core.digest import Digest
from registry.core.errors import OperationFailed
from registry.server import tls
from registry.server.tls import Certificates, certificates
from registry.settings import Limits
from tests.support.certificates import Authority, Pair
from tests.support.serving import Client, Seen, blob_app, connected, serving
from tests.unit.server.test_takeover import chunked, kept, some_bytes, with_length

pytestmark = pytest.mark.anyio

MIB = 1 << 20
GET = b"GET /size HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("127.0.0.1")


@pytest.fixture
async def port(
    store: FileBlobStore, limits: Limits, seen: Seen, pair: Pair, loop: str
) -> AsyncIterator[int]:
    context = Certificates(str(pair.certificate), str(pair.key)).context
    async with serving(blob_app(store, limits, seen), limits, tls=context) as port:
        yield port


@pytest.fixture
async def client(port: int, authority: Authority) -> AsyncIterator[Client]:
    async with connected(port, authority.trust()) as client:
        yield client


def get(digest: Digest, *headers: str, method: str = "GET", query: str = "") -> bytes:
    lines = [f"{method} /blobs/{digest}{query} HTTP/1.1", "Host: x", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def put(client: Client, data: bytes) -> Digest:
    await client.send(with_length(data))
    assert (await client.answer()).status == 201
    return Digest.of(data)


@pytest.mark.parametrize("size", [0, 1, MIB, 9 * MIB + 4095])
async def test_uploads_and_downloads_share_one_connection(
    client: Client, seen: Seen, tmp_path: Path, size: int
) -> None:
    data = some_bytes(size)
    await client.send(chunked(data))
    assert (await client.answer()).status == 201
    digest = await put(client, data)
    assert (tmp_path / "blobs" / digest.file_name).read_bytes() == data
    await client.send(get(digest))
    answer = await client.answer()
    assert (answer.status, answer.body == data) == (200, True)
    assert len(kept(tmp_path)) == 1
    assert not any(seen.offers), "a body under TLS cannot be read past the TLS layer"


async def test_ranges_heads_and_pipelined_requests_are_answered_in_order(client: Client) -> None:
    data = some_bytes(3 * MIB)
    digest = await put(client, data)
    await client.send(
        get(digest, "Range: bytes=1000000-1999999")
        + get(digest, method="HEAD")
        + get(digest, "Range: bytes=-5")
        + GET
    )
    part = await client.answer()
    assert (part.status, part.body == data[1_000_000:2_000_000]) == (206, True)
    head = await client.answer(head=True)
    assert head.headers["content-length"] == str(len(data))
    assert (await client.answer()).body == data[-5:]
    assert (await client.answer()).body == b"0"


async def test_a_wrong_digest_is_refused_and_the_connection_goes_on(
    client: Client, tmp_path: Path
) -> None:
    data = some_bytes(2 * MIB)
    raw = with_length(data)
    await client.send(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert (await client.answer()).status == 400
    assert kept(tmp_path) == []
    await client.send(GET)
    assert (await client.answer()).status == 200


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(
    port: int, authority: Authority, seen: Seen, tmp_path: Path
) -> None:
    async with connected(port, authority.trust()) as client:
        await client.send(with_length(some_bytes(4 * MIB))[: 2 * MIB])
        await asyncio.sleep(0.1)
        client.writer.transport.abort()
    async with asyncio.timeout(5):
        while not seen.errors:
            await asyncio.sleep(0.01)
    assert kept(tmp_path) == []


async def test_an_early_answer_reaches_a_client_that_is_still_sending(client: Client) -> None:
    body = bytes(8 * MIB)
    head = f"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    sending = asyncio.create_task(client.send(head, body))
    assert (await client.answer()).status == 403
    await sending
    await client.send(GET)
    assert (await client.answer()).status == 200


async def test_a_client_has_the_headers_in_time_to_hang_up(client: Client) -> None:
    digest = await put(client, some_bytes(30 * MIB))
    await client.send(get(digest, query="?probe"))
    await client.reader.readuntil(b"\r\n\r\n")
    assert client.reader._buffer == b""  # type: ignore[attr-defined]  # what has come besides


@pytest.mark.parametrize(
    ("newest", "accepted"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_nothing_older_than_tls_1_2_is_spoken(
    port: int, authority: Authority, newest: ssl.TLSVersion, accepted: bool
) -> None:
    trust = authority.trust()
    trust.minimum_version = ssl.TLSVersion.TLSv1_1
    trust.set_ciphers("ALL:@SECLEVEL=0")
    trust.maximum_version = newest
    if accepted:
        async with connected(port, trust) as client:
            await client.send(GET)
            assert (await client.answer()).status == 200
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(port, trust):
                pass


@pytest.mark.parametrize("said", [GET, b"\x16\x03\x01\xff\xff" + b"\0" * 3000, b""])
async def test_who_speaks_no_tls_is_cut_off_and_hurts_nobody(
    port: int, authority: Authority, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(port) as stranger:
        await stranger.send(said)
        if said:
            assert not (await stranger.reader.read(4096)).startswith(b"HTTP")
        async with connected(port, authority.trust()) as client:
            await client.send(GET)
            assert (await client.answer()).status == 200
    assert caplog.records == []


# ---- the files


def unusable(authority: Authority, folder: Path, fault: str) -> tuple[Pair, str]:
    """A pair with a fault, and what must be said about it."""
    good = authority.issue("127.0.0.1", file=fault)
    other = authority.issue("127.0.0.1", file=f"{fault}-other")
    if fault == "missing-certificate":
        return replace(good, certificate=folder / "none.pem"), "cannot read .*none.pem: No such"
    if fault == "missing-key":
        return replace(good, key=folder / "none.key"), "cannot read .*none.key: No such file"
    if fault == "folder":
        return replace(good, certificate=folder), "cannot read .*: Is a directory"
    if fault == "mismatch":
        return replace(good, key=other.key), "key in .*other.key is not that of the certificate in"
    if fault == "encrypted":
        return authority.issue("a", file=fault, password="x"), "encrypted; give one without"
    if fault == "empty":
        good.certificate.write_bytes(b"")
        return good, "holds no PEM certificate"
    if fault == "garbage":
        good.certificate.write_bytes(os.urandom(5000))
        return good, "holds no PEM certificate"
    if fault == "swapped":
        return Pair(good.key, good.certificate), "holds no PEM certificate"
    assert fault == "garbage-key"
    good.key.write_bytes(os.urandom(5000))
    return good, "cannot use the certificate .*: the key file holds no private key"


FAULTS = [
    "missing-certificate", "missing-key", "folder", "mismatch", "encrypted", "empty", "garbage",
    "swapped", "garbage-key",
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("loop", ["asyncio"])
def test_a_pair_that_cannot_be_used_is_one_sentence(
    authority: Authority, tmp_path: Path, fault: str, loop: str
) -> None:
    pair, message = unusable(authority, tmp_path, fault)
    with pytest.raises(OperationFailed, match=message) as caught:
        Certificates(str(pair.certificate), str(pair.key))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loop", ["asyncio"])
def test_a_key_alone_is_refused_and_nothing_means_plain_http(pair: Pair, loop: str) -> None:
    assert certificates("", "") is None
    with pytest.raises(OperationFailed, match="REGISTRY_TLS_CERT is not"):
        certificates("", str(pair.key))
    both = pair.certificate.with_name("both.pem")
    both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    assert certificates(str(both), "") is not None


@pytest.mark.parametrize(
    ("mode", "days", "events"),
    [
        (0o640, 90, ["tls_certificate_loaded"]),
        (0o644, 90, ["tls_key_readable_by_everybody", "tls_certificate_loaded"]),
        (0o600, -1, ["tls_certificate_expired"]),
    ],
)
@pytest.mark.parametrize("loop", ["asyncio"])
def test_what_deserves_attention_is_logged(
    authority: Authority, mode: int, days: int, events: list[str], loop: str
) -> None:
    pair = authority.issue("127.0.0.1", file="attention", days=days)
    pair.key.chmod(mode)
    with capture_logs() as lines:
        Certificates(str(pair.certificate), str(pair.key))
    assert [line["event"] for line in lines] == events


# ---- changes


class Watched:
    """A server whose pair is watched, looked at often."""

    def __init__(self, port: int, pair: Pair, authority: Authority) -> None:
        self.port, self.pair, self.authority = port, pair, authority

    async def served(self, name: str | None = None) -> bytes:
        """The certificate that a new connection gets, with a Server Name or without."""
        context = self.authority.trust()
        context.check_hostname = False
        _, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=name or "127.0.0.1"
        )
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return found

    async def changes_from(self, old: bytes) -> bytes:
        async with asyncio.timeout(5):
            while (found := await self.served()) == old:
                await asyncio.sleep(0.02)
        return found


@pytest.fixture
async def watched(
    store: FileBlobStore,
    limits: Limits,
    seen: Seen,
    authority: Authority,
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Watched]:
    monkeypatch.setattr(tls, "LOOK_EVERY_S", 0.05)
    found = Certificates(str(pair.certificate), str(pair.key))
    watching = asyncio.create_task(found.watch())
    async with serving(blob_app(store, limits, seen), limits, tls=found.context) as port:
        yield Watched(port, pair, authority)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(
    watched: Watched, authority: Authority
) -> None:
    async with connected(watched.port, authority.trust()) as old:
        await old.send(GET)
        assert (await old.answer()).status == 200
        before = await watched.served()
        authority.issue("127.0.0.1", "models.example")
        after = await watched.changes_from(before)
        assert await watched.served("models.example") == after
        await old.send(GET)
        assert (await old.answer()).status == 200


async def test_a_download_that_runs_during_a_reload_is_complete(
    watched: Watched, authority: Authority
) -> None:
    async with connected(watched.port, authority.trust()) as client:
        data = some_bytes(20 * MIB)
        digest = await put(client, data)
        before = await watched.served()
        await client.send(get(digest))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        authority.issue("127.0.0.1")
        await watched.changes_from(before)
        assert await client.reader.readexactly(len(data)) == data


async def test_a_broken_pair_is_told_once_and_the_old_one_stays(
    watched: Watched, authority: Authority
) -> None:
    before = await watched.served()
    good = watched.pair.certificate.read_bytes()
    with capture_logs() as lines:
        watched.pair.certificate.write_bytes(good[:100])
        await asyncio.sleep(0.5)
        assert await watched.served() == before
    assert [line["event"] for line in lines] == ["tls_reload_failed"]
    assert lines[0]["log_level"] == "error"
    authority.issue("127.0.0.1")
    await watched.changes_from(before)


async def test_a_pair_behind_links_is_followed(
    store: FileBlobStore, limits: Limits, seen: Seen, authority: Authority, tmp_path: Path
) -> None:
    """Renewal tools write new files and turn a link."""
    one, two = (authority.issue("127.0.0.1", file=name) for name in ("one", "two"))
    links = Pair(tmp_path / "live.pem", tmp_path / "live.key")
    links.certificate.symlink_to(one.certificate)
    links.key.symlink_to(one.key)
    found = Certificates(str(links.certificate), str(links.key))
    before = found._stamp()
    links.certificate.unlink()
    links.certificate.symlink_to(two.certificate)
    assert found._stamp() != before


@pytest.mark.parametrize("loop", ["uvloop"])
async def test_a_hangup_reloads_at_once(
    watched: Watched, authority: Authority, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    await asyncio.sleep(0.1)
    monkeypatch.setattr(tls, "LOOK_EVERY_S", 60)
    await asyncio.sleep(0.1)
    before = await watched.served()
    authority.issue("127.0.0.1")
    await asyncio.sleep(0.2)
    assert await watched.served() == before
    os.kill(os.getpid(), signal.SIGHUP)
    await watched.changes_from(before)


# ---- the process


def serve(data: Path, **environ: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "registry", "serve", "--port", "0", "--data", str(data)],
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("loop", ["uvloop"])
def test_the_command_says_https_and_stops_at_once_with_idle_connections(
    authority: Authority, pair: Pair, tmp_path: Path, loop: str
) -> None:
    environ = {"REGISTRY_TLS_CERT": str(pair.certificate), "REGISTRY_TLS_KEY": str(pair.key)}
    with serve(tmp_path / "data", **environ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " at https://127.0.0.1:" in line
            port = int(line.split(":")[2].split()[0])
            raw = socket.create_connection(("127.0.0.1", port), timeout=10)
            with authority.trust().wrap_socket(raw, server_hostname="127.0.0.1") as sock:
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert sock.recv(1000).startswith(b"HTTP/1.1 200")
                process.terminate()
                began = time.monotonic()
                assert process.wait(10) == 0
                assert time.monotonic() - began < 5
        finally:
            process.kill()


@pytest.mark.parametrize("loop", ["uvloop"])
def test_the_command_ends_with_one_sentence_when_the_files_are_bad(
    authority: Authority, tmp_path: Path, loop: str
) -> None:
    pair, _ = unusable(authority, tmp_path, "mismatch")
    environ = {"REGISTRY_TLS_CERT": str(pair.certificate), "REGISTRY_TLS_KEY": str(pair.key)}
    with serve(tmp_path / "data", **environ) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert "Traceback" not in err
    assert "is not that of the certificate in" in " ".join(err.split())
