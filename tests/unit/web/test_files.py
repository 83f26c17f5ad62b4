"""Blobs that a proxy sends in our place."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.types import Message, Scope

from registry.adapters.blobs_fs import FileBlobStore
from registry.core.digest import Digest
from registry.web.files import BlobResponse
from registry.web.proxies import SENDS_FILES
from tests.contract.blobs import keep

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
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    async def receive() -> Message:
        await asyncio.sleep(60)  # the client stays
        raise AssertionError

    response = BlobResponse(
        await store.open(KEY), Digest.of(DATA), {"Docker-Content-Digest": "d"}, file=file
    )
    base: Scope = {"type": "http", "method": "GET", "headers": [], SENDS_FILES: "/.blobs"}
    await response({**base, **scope}, receive, send)
    headers = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return headers, b"".join(message["body"] for message in said[1:])


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
