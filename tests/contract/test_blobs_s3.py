"""The object store keeps the contract, and what only it promises."""

from collections.abc import AsyncIterator

import pytest

from registry.adapters.blobs_s3 import S3BlobStore
from registry.ports.blobs import BlobStore
from tests.contract.blobs import BlobStoreContract
from tests.support.s3 import S3Server

pytestmark = pytest.mark.anyio


class TestS3BlobStore(BlobStoreContract):
    @pytest.fixture
    async def store(self, s3: S3Server) -> AsyncIterator[BlobStore]:
        store = S3BlobStore(s3.open())
        yield store
        store.close()
