"""Blobs that a proxy sends in our place, or that are sent piece by piece."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Message, Scope

from registry.adapters.blobs_fs import FileBlobStore
from registry.core.digest import Digest
from registry.web.files import BlobResponse
from registry.web.proxies import SENDS_FILES
from tests.contract.blobs import keep, some_bytes

pytestmark = pytest.mark.anyio

DATA = b"0123456789"
KEY = Digest.of(DATA).file_name


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileBlobStore]:
    store = FileBlobStore(tmp_path)
    await keep(store, DATA)
    yield store
    store.close()


async def answered(
    store: FileBlobStore, scope: Scope, file: str = KEY
) -> tuple[dict[str, str], bytes]:
    """Headers and body of an answer to a proxy that has the files."""
    response = BlobResponse(
        await store.open(KEY), Digest.of(DATA), {"Docker-Content-Digest": "d"}, file=file
    )
    said = await messages(response, {"headers": [], SENDS_FILES: "/.blobs", **scope})
    headers = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return headers, b"".join(message["body"] for message in said[1:])


async def messages(response: BlobResponse, scope: Scope) -> list[Message]:
    """What the response says to its server."""
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    async def receive() -> Message:
        await asyncio.sleep(60)  # the client stays
        raise AssertionError

    await response({"type": "http", "method": "GET", **scope}, receive, send)
    return said


@pytest.mark.parametrize("headers", [[], [(b"range", b"bytes=2-3")]])
async def test_a_proxy_is_told_which_file_to_send(
    store: FileBlobStore, headers: list[tuple[bytes, bytes]]
) -> None:
    said, body = await answered(store, {"headers": headers})
    assert said["x-accel-redirect"] == f"/.blobs/{KEY}"
    assert (said["content-length"], body) == ("0", b"")
    assert said["etag"] == f'"{Digest.of(DATA)}"'
    assert said["docker-content-digest"] == "d"


@pytest.mark.parametrize(
    "scope",
    [
        {SENDS_FILES: ""},
        {"method": "HEAD"},
        {"headers": [(b"if-none-match", b'"x"')]},
        {"headers": [(b"if-range", b'"x"'), (b"range", b"bytes=2-3")]},
    ],
)
async def test_everything_else_is_answered_here(store: FileBlobStore, scope: Scope) -> None:
    said, body = await answered(store, scope)
    assert "x-accel-redirect" not in said
    assert body == (b"" if scope.get("method") == "HEAD" else DATA)


async def test_a_blob_that_is_no_file_is_sent_here(store: FileBlobStore) -> None:
    said, body = await answered(store, {}, file="")
    assert "x-accel-redirect" not in said
    assert body == DATA


async def test_a_file_that_cannot_be_sent_by_the_kernel_goes_in_small_messages(
    store: FileBlobStore,
) -> None:
    """Under TLS, where the server offers no zero copy: each slow reader has several in memory."""
    data = some_bytes(600_000)
    opened = await store.open(await keep(store, data))
    said = await messages(BlobResponse(opened, Digest.of(data)), {"headers": []})
    assert [len(message["body"]) for message in said[1:]] == [262_144, 262_144, 75_712]
    assert b"".join(message["body"] for message in said[1:]) == data
    assert [message.get("more_body", False) for message in said[1:]] == [True, True, False]
