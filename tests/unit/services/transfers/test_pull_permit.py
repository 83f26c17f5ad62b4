"""Pull for a caller who may not use every blob that is here: the other registry must have it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core import retries
from registry.core.digest import Digest
from registry.core.errors import UpstreamFailed
from registry.services.access.rights import FREE, Permit
from tests.support.transfer_place import NAME, Place, collect, progress
from tests.support.upstream import MemoryRegistry, digest_of

pytestmark = pytest.mark.anyio

SECRET, OPEN = b"secret weights" * 1000, b"for everybody"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
async def place(tmp_path: Path, registry: MemoryRegistry) -> AsyncIterator[Place]:
    made = Place(tmp_path, registry)
    registry.add("a/b:v1", [SECRET, OPEN])
    await collect(made.pull.run(NAME))
    registry.asked.clear()
    made.adopted.clear()
    yield made
    await made.close()


async def usable(digest: Digest) -> bool:
    return digest != digest_of(SECRET)


async def test_a_blob_that_is_here_and_not_for_the_caller_is_fetched_all_the_same(
    place: Place, registry: MemoryRegistry
) -> None:
    events = await collect(place.pull.run(NAME, permit=Permit(FREE, usable)))
    assert registry.asked
    assert progress(events)[-3:] == [len(SECRET), len(OPEN), 2]
    assert len(place.adopted) == 1
    assert await place.content(digest_of(SECRET)) == SECRET
    assert place.incoming() == []


async def test_a_registry_that_only_names_the_digest_does_not_get_it(
    place: Place, registry: MemoryRegistry
) -> None:
    del registry.blobs[digest_of(SECRET)]
    with pytest.raises(UpstreamFailed):
        await collect(place.pull.run(NAME, permit=Permit(FREE, usable)))
    assert place.adopted == []
    registry.blobs[digest_of(SECRET)] = b"x" * len(SECRET)
    with pytest.raises(UpstreamFailed, match="digest mismatch"):
        await collect(place.pull.run(NAME, permit=Permit(FREE, usable)))
    assert place.adopted == []
    assert await place.content(digest_of(SECRET)) == SECRET
