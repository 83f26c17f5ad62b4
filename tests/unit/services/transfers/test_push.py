"""Push: the stream, what is sent and what not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from registry.core.errors import OperationFailed, UpstreamFailed
from registry.core.manifest import Descriptor, encode_model
from registry.core.media import CONFIG, DOCKER_MANIFEST, MODEL
from registry.core.names import ModelName
from registry.ports.catalog import Transaction
from registry.ports.upstream import RemoteManifest
from tests.support.transfer_place import NAME, Place, collect, progress, texts, until
from tests.support.upstream import MemoryRegistry, digest_of

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 8192
SMALL = b"small text"
CONFIG_DATA = b"{}"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    found = Place(tmp_path, MemoryRegistry())
    yield found
    await found.close()


async def store(place: Place, *data: bytes) -> None:
    for item in data:
        incoming = await place.store.create(len(item))
        await incoming.write(item)
        key = await incoming.publish(await incoming.seal())

        def commit(tx: Transaction, item: bytes = item, key: str = key) -> None:
            tx.put_blob(digest_of(item), len(item), key, place.now)

        await place.catalog.write(commit)
        await incoming.close()


async def add(place: Place, layers: list[bytes], origin: str = "") -> bytes:
    """A model as create writes it, newline included."""
    await store(place, *layers, CONFIG_DATA)
    body = encode_model(
        Descriptor(CONFIG, digest_of(CONFIG_DATA), len(CONFIG_DATA)),
        [Descriptor(MODEL, digest_of(data), len(data), origin) for data in layers],
    )
    holder = "test"
    digests = [digest_of(data) for data in [*layers, CONFIG_DATA]]
    await place.catalog.write(lambda tx: tx.lease(digests, holder, place.now + 1))
    await place.adopt(NAME, body, DOCKER_MANIFEST, holder)
    await place.catalog.write(lambda tx: tx.release(holder))
    return body


async def test_a_push_sends_blobs_then_the_manifest_without_its_newline(place: Place) -> None:
    body = await add(place, [DATA, SMALL])
    events = await collect(place.push.run(NAME))
    assert texts(events) == [
        "retrieving manifest",
        f"pushing {digest_of(DATA).short}",
        f"pushing {digest_of(SMALL).short}",
        f"pushing {digest_of(CONFIG_DATA).short}",
        "pushing manifest",
        "success",
    ]
    assert body.endswith(b"}\n")
    assert place.registry.manifests == {"a/b:v1": RemoteManifest(body[:-1], DOCKER_MANIFEST)}
    assert place.registry.blobs[digest_of(DATA)] == DATA
    assert progress(events)[-1] == len(CONFIG_DATA)


async def test_what_the_registry_has_is_not_sent(place: Place) -> None:
    await add(place, [DATA])
    await collect(place.push.run(NAME))
    place.registry.origins.clear()
    events = await collect(place.push.run(NAME))
    assert place.registry.origins == []
    assert progress(events) == [len(DATA), len(CONFIG_DATA)]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [("tiny:latest", "library/tiny"), ("h.example/x/y:z", "x/y"), ("a b.gguf", ""), ("", "")],
)
async def test_the_base_model_is_offered_for_a_mount(
    place: Place, origin: str, expected: str
) -> None:
    await add(place, [SMALL], origin)
    await collect(place.push.run(NAME))
    assert place.registry.origins == [expected, ""]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nobody", "open /manifests/registry.ollama.ai/library/nobody/latest: no such file or dir"),
        ("bad name", "unqualified name: registry.ollama.ai/library/bad name:latest"),
        ("mario:", "unqualified name: registry.ollama.ai/library/mario:!MISSING!"),
    ],
)
async def test_a_model_that_is_not_here_is_told_in_the_stream(
    place: Place, name: str, text: str
) -> None:
    found = []
    with pytest.raises(OperationFailed) as caught:
        async for event in place.push.run(ModelName.parse(name)):
            found.append(event.text)  # noqa: PERF401 - what came before the error counts
    assert str(caught.value).startswith(text)
    assert found == ["retrieving manifest", "couldn't retrieve manifest"]


async def test_a_refused_blob_ends_the_push(place: Place) -> None:
    await add(place, [SMALL])
    place.registry.faults = [UpstreamFailed("403: no")]
    with pytest.raises(UpstreamFailed, match="403: no"):
        await collect(place.push.run(NAME))
    assert place.registry.manifests == {}


async def test_a_cancelled_push_stops_sending(place: Place) -> None:
    await add(place, [DATA])
    place.registry.gate.clear()
    task = asyncio.create_task(collect(place.push.run(NAME)))
    await until(lambda: f"size {digest_of(DATA).short}" in place.registry.asked)
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    place.registry.gate.set()
    await asyncio.sleep(0.05)
    assert place.registry.blobs == {}
    freed = await place.catalog.write(lambda tx: tx.free([digest_of(DATA)], place.now))
    assert freed == []  # still the model's
