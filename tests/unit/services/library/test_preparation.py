"""What a manifest is made of, and where it is read."""

import asyncio
import json
from pathlib import Path

import pytest

from registry.core import media
from registry.core.digest import Digest
from registry.core.errors import ManifestInvalid
from registry.core.facts import Facts
from registry.services.library.preparation import Known, read_manifest
from tests.support.gguf import SMALLEST
from tests.support.library import library

pytestmark = pytest.mark.anyio


def manifest(layers: int) -> bytes:
    layer = {"mediaType": media.SYSTEM, "digest": str(Digest.of(b"text")), "size": 4}
    config = {"mediaType": media.CONFIG, "digest": str(Digest.of(b"{}")), "size": 2}
    kind = media.DOCKER_MANIFEST
    return json.dumps(
        {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer] * layers}
    ).encode()


async def test_a_small_manifest_is_read_at_once_and_a_large_one_lets_others_run() -> None:
    small = asyncio.create_task(read_manifest(manifest(2)))
    large = asyncio.create_task(read_manifest(manifest(2000)))
    await asyncio.sleep(0)  # each ran until it waited for something
    assert small.done()
    assert not large.done()
    assert len((await large).blobs) == 2001


@pytest.mark.parametrize("size", [10, 100_000])
async def test_what_is_no_manifest_is_refused_wherever_it_is_read(size: int) -> None:
    with pytest.raises(ManifestInvalid):
        await read_manifest(b"x" * size)


async def test_facts_of_a_base_are_not_written_again(tmp_path: Path) -> None:
    async with library(tmp_path) as lib:
        await lib.base()
        digest = Digest.of(SMALLEST)
        read = await lib.catalog.read(lambda tx: tx.facts(digest, "header"))
        assert read is not None
        marked = read + b" "
        await lib.catalog.write(lambda tx: tx.put_facts(digest, "header", marked))
        await lib.make("layered", origin="base", system="Be brief.")
        assert await lib.catalog.read(lambda tx: tx.facts(digest, "header")) == marked


CRAFTED = Facts(10**15, "Q4_0", {"general.architecture": "llama"}, ()).to_json()


@pytest.mark.parametrize(("content", "is_weights"), [(CRAFTED, False), (SMALLEST, True)])
async def test_what_was_read_as_a_text_is_never_taken_for_the_facts_of_weights(
    tmp_path: Path, content: bytes, is_weights: bool
) -> None:
    async with library(tmp_path) as lib:
        digest = Digest.parse(await lib.put(content))

        async def read_as(media_type: str) -> Known:
            layer = {"mediaType": media_type, "digest": str(digest), "size": len(content)}
            body = json.dumps({"schemaVersion": 2, "layers": [layer]}).encode()
            return (await lib.manifests.prepare(body, media.DOCKER_MANIFEST)).facts

        assert await read_as(media.SYSTEM) == {digest: content}
        await lib.catalog.write(lambda tx: tx.put_facts(digest, "text", content))
        found = await read_as(media.MODEL)
        assert isinstance(found.get(digest), Facts) is is_weights
        assert len(found) == is_weights
