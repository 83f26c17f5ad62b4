"""Servers of each kind, on asyncio's loop and on the one used in earnest."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.adapters.blobs_fs import FileBlobStore
from registry.settings import Limits
from tests.support.serving import WAYS, Client, Seen, blob_app, connected, serving


@pytest.fixture
def anyio_backend(loop: str) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": loop == "uvloop"}


@pytest.fixture(params=["uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def limits() -> Limits:
    return Limits.model_validate({"body_idle_s": 0.6, "blob_bytes": 64 << 20})


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileBlobStore]:
    store = FileBlobStore(tmp_path)
    yield store
    store.close()


@pytest.fixture
async def port(store: FileBlobStore, limits: Limits, seen: Seen, way: str) -> AsyncIterator[int]:
    async with serving(blob_app(store, limits, seen), limits, way) as port:
        yield port


@pytest.fixture
async def client(port: int) -> AsyncIterator[Client]:
    async with connected(port) as client:
        yield client
