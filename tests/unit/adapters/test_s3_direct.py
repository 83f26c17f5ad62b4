"""Signed URLs against a real store, which checks signatures, lengths, checksums and expiry."""

import base64
import contextlib
import http.client
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from registry.adapters.s3_client import S3Bucket
from registry.adapters.s3_direct import S3Direct
from registry.core.digest import Digest
from registry.core.errors import Conflict, DigestMismatch, UploadUnknown
from registry.core.storage_url import S3Url
from registry.settings import S3Keys
from tests.support.faulty_s3 import Fault, front
from tests.support.s3 import KEYS, S3Server

pytestmark = pytest.mark.anyio

MIB = 1 << 20
TYPE = {"Content-Type": "application/octet-stream"}
DATA = os.urandom(5 * MIB) * 2 + b"rest"
PARTS = [DATA[: 5 * MIB], DATA[5 * MIB : 10 * MIB], DATA[10 * MIB :]]
BLOB = b"a tensor"
DIGEST = Digest.of(BLOB)


@dataclass
class Place:
    direct: S3Direct
    bucket: S3Bucket
    now: int = 0

    def clock(self) -> int:
        return self.now or time.time_ns()


@pytest.fixture
def place(s3: S3Server) -> Iterator[Place]:
    yield made(s3)


def made(s3: S3Server, **options: Any) -> Place:
    bucket = s3.open()
    url = replace(
        s3.place(bucket.name), public_endpoint=s3.endpoint.replace("127.0.0.1", "localhost")
    )
    place = Place(None, bucket)  # type: ignore[arg-type]  # each needs the other
    place.direct = S3Direct(bucket, url, KEYS, place.clock, **options)
    return place


def ask(method: str, url: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """One request; the status is 0 where the store hangs up on a body that it does not want."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body, names)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def put(url: str, body: bytes, **headers: str) -> int:
    return ask("PUT", url, body, **TYPE | headers)[0]


async def sent(place: Place) -> str:
    key = await place.direct.begin()
    for number, part in enumerate(PARTS, 1):
        assert put(await place.direct.part_url(key, number, len(part), 60), part) == 200
    return key


async def test_parts_become_an_object_that_is_hashed_and_read(place: Place) -> None:
    key = await sent(place)
    parts = await place.direct.parts(key)
    assert [(part.number, part.size) for part in parts] == list(enumerate(map(len, PARTS), 1))
    assert await place.direct.landed(key) is None
    await place.direct.complete(key, parts)
    landed = await place.direct.landed(key)
    assert landed is not None
    assert (landed.size, landed.sha256) == (len(DATA), None)
    arrived = place.direct.arrived(key, landed)
    assert await arrived.seal() == Digest.of(DATA)
    assert await arrived.digest("sha512") == Digest.of(DATA, "sha512")
    with pytest.raises(DigestMismatch):
        await arrived.publish(DIGEST)
    storage_key = await arrived.publish(Digest.of(DATA))
    arrived.confirm()
    url = await place.direct.read_url(storage_key, 60)
    assert ask("GET", url) == (200, DATA)
    assert ask("GET", url, Range="bytes=3-9") == (206, DATA[3:10])


async def test_a_url_is_for_one_request_on_one_object_for_a_time(place: Place) -> None:
    key = await place.direct.begin()
    url = await place.direct.part_url(key, 1, 8, 60)
    assert put(url.replace("partNumber=1", "partNumber=2"), BLOB) in {0, 403}
    assert put(url.replace("Expires=60", "Expires=61"), BLOB) in {0, 403}
    assert ask("GET", url)[0] == 403
    assert put(url, BLOB) == 200
    place.now = time.time_ns() - 120 * 10**9
    assert put(await place.direct.part_url(key, 1, 8, 60), BLOB) in {0, 403}


async def test_a_sender_is_held_to_length_and_type(place: Place) -> None:
    url = await place.direct.part_url(await place.direct.begin(), 1, 8, 60)
    assert put(url, BLOB + b"!") in {0, 403}
    assert put(url, BLOB, **{"Content-Type": "text/html"}) in {0, 403}
    assert put(url, BLOB) == 200


async def test_where_headers_are_changed_only_the_host_is_signed(s3: S3Server) -> None:
    place = made(s3, strict=False)
    url = await place.direct.part_url(await place.direct.begin(), 1, 8, 60)
    assert put(url, BLOB + b"!", **{"Content-Type": "text/plain"}) == 200


async def test_whatever_a_sender_calls_its_bytes_they_are_no_page(s3: S3Server) -> None:
    place = made(s3, strict=False)
    key = place.direct.new_key()
    wanted = await place.direct.put_url(key, DIGEST, 8, 60)
    assert put(wanted.url, BLOB, **wanted.headers | {"content-type": "text/html"}) == 200
    url = urlsplit(await place.direct.read_url(key, 60))
    connection = http.client.HTTPConnection(url.netloc, timeout=20)
    connection.request("GET", f"{url.path}?{url.query}")
    assert connection.getresponse().headers["content-type"] == "application/octet-stream"
    connection.close()


async def test_a_whole_object_is_taken_only_if_it_is_what_was_announced(place: Place) -> None:
    key = place.direct.new_key()
    wanted = await place.direct.put_url(key, DIGEST, len(BLOB), 60)
    assert put(wanted.url, b"other by", **wanted.headers) == 400
    other = {"x-amz-checksum-sha256": base64.b64encode(bytes(32)).decode()}
    assert put(wanted.url, BLOB, **wanted.headers | other) == 403
    assert put(wanted.url, BLOB) == 403
    assert await place.direct.landed(key) is None
    assert put(wanted.url, BLOB, **wanted.headers) == 200
    landed = await place.direct.landed(key)
    assert landed is not None
    assert (landed.size, landed.sha256) == (len(BLOB), DIGEST)
    assert await place.direct.arrived(key, landed).publish(DIGEST) == key
    assert put(wanted.url, b"other by", **wanted.headers) == 400  # nor can it be replaced later


async def test_the_store_is_tried_whether_it_checks_sums(place: Place) -> None:
    assert await place.direct.checks_sums()
    assert not list(place.bucket.listed(place.bucket.path("incoming", "")))


async def test_one_that_does_not_check_is_found_out(place: Place) -> None:
    taken: list[str] = []
    place.bucket.client = SimpleNamespace(
        put_object=lambda **given: taken.append(given["Key"]),
        delete_object=lambda **given: taken.remove(given["Key"]),
    )
    assert not await place.direct.checks_sums()
    assert taken == []


async def test_a_part_that_is_sent_anew_meanwhile_spoils_the_commit(place: Place) -> None:
    key = await sent(place)
    parts = await place.direct.parts(key)
    assert put(await place.direct.part_url(key, 3, 4, 60), b"tser") == 200
    with pytest.raises(Conflict):
        await place.direct.complete(key, parts)
    await place.direct.complete(key, await place.direct.parts(key))


async def test_what_is_complete_or_gone_has_no_parts(place: Place) -> None:
    key, begun = await sent(place), await place.direct.begin()
    parts = await place.direct.parts(key)
    await place.direct.complete(key, parts)
    with contextlib.suppress(UploadUnknown):  # stores differ in what they say the second time
        await place.direct.complete(key, parts)
    await place.direct.drop(begun)
    for ended in (key, begun):
        with pytest.raises(UploadUnknown):
            await place.direct.parts(ended)
    with pytest.raises(UploadUnknown):
        await place.direct.complete(begun, parts)
    assert await place.direct.landed(key)
    for _ in range(2):
        await place.direct.drop(key)
    assert await place.direct.landed(key) is None
    with pytest.raises(UploadUnknown):
        await place.direct.landed("no key")


@pytest.mark.parametrize("fault", ["500", "503", "lost", "cut", "200-error"])
async def test_a_store_that_fails_at_every_second_call_is_asked_again(
    s3: S3Server, fault: Fault
) -> None:
    with front(s3.endpoint) as faulty:
        url = replace(s3.place(s3.bucket()), endpoint=faulty.endpoint, public_endpoint=s3.endpoint)
        bucket = S3Bucket.open(url, KEYS)
        place = Place(S3Direct(bucket, url, KEYS, time.time_ns), bucket)
        key = await sent(place)
        faulty.fault, faulty.every = fault, 2
        if fault == "200-error":  # that is how completing alone may fail
            faulty.methods, faulty.calls = frozenset({"POST"}), 1
        parts = await place.direct.parts(key)
        with contextlib.suppress(UploadUnknown):  # done, and the answer was lost
            await place.direct.complete(key, parts)
        landed = await place.direct.landed(key)
        assert landed is not None
        assert await place.direct.arrived(key, landed).seal() == Digest.of(DATA)
        assert faulty.faults
        faulty.every = 0
        bucket.client.close()


@pytest.mark.parametrize(
    ("text", "address", "path", "is_public"),
    [
        (
            "s3://bkt/p?region=eu-west",
            "https://bkt.s3.eu-west.amazonaws.com",
            "/p/blobs/",
            True,
        ),
        ("s3://b.c?region=eu-west", "https://s3.eu-west.amazonaws.com", "/b.c/blobs/", True),
        ("s3://bkt?endpoint=http://s3:9000", "http://s3:9000", "/bkt/blobs/", False),
        (
            "s3://bkt?endpoint=http://s3:9000&path_style=false",
            "http://bkt.s3:9000",
            "/blobs/",
            False,
        ),
        (
            "s3://bkt?endpoint=http://s3:9000&public_endpoint=https://models.net",
            "https://models.net",
            "/bkt/blobs/",
            True,
        ),
    ],
)
async def test_urls_lead_where_clients_can_go(
    text: str, address: str, path: str, is_public: bool
) -> None:
    url, keys = S3Url.parse(text), replace_keys("session")
    direct = S3Direct(S3Bucket.open(url, keys), url, keys, time.time_ns)
    made = await direct.read_url("0" * 32, 60)
    assert (direct.address, direct.is_public) == (address, is_public)
    assert made.startswith(f"{address}{path}00/{'0' * 32}?")
    assert parse_qs(urlsplit(made).query)["X-Amz-Security-Token"] == ["session"]
    assert keys.secret_key not in made


def replace_keys(token: str) -> S3Keys:
    return KEYS.model_copy(update={"session_token": token})


async def test_without_keys_those_of_the_environment_are_used(
    monkeypatch: pytest.MonkeyPatch, s3: S3Server
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS.secret_key)
    bucket = s3.open()
    direct = S3Direct(bucket, s3.place(bucket.name), S3Keys(), time.time_ns)
    for _ in range(2):
        url = await direct.part_url(await direct.begin(), 1, 8, 60)
        assert put(url, BLOB) == 200
