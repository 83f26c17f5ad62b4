"""Pull: the stream, what is kept of it, and what happens when things go wrong half-way."""

import asyncio
import itertools
import json
import random
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from registry.core import retries
from registry.core.errors import (
    BlobUnknown,
    NameInvalid,
    RegistryError,
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from registry.core.events import Event
from registry.core.media import DOCKER_MANIFEST
from registry.core.names import ModelName
from registry.ports.upstream import RemoteManifest
from tests.support.transfer_place import NAME, Place, collect, progress, texts, until
from tests.support.upstream import MemoryRegistry, digest_of

pytestmark = pytest.mark.anyio

SMALL = b"small text"
BIG = random.Random(1).randbytes((5 << 20) + 123)
DIGEST = digest_of(BIG)
SHORT = DIGEST.short
MISMATCH = "digest mismatch, file must be downloaded again: want sha256:"

Open = Callable[..., Place]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
async def open_place(tmp_path: Path, registry: MemoryRegistry) -> AsyncIterator[Open]:
    places: list[Place] = []

    def make(folder: Path = tmp_path, **upstream: Any) -> Place:
        places.append(Place(folder, registry, **upstream))
        return places[-1]

    yield make
    for place in places:
        await place.close()


@pytest.fixture
def place(open_place: Open) -> Place:
    return open_place()


async def failure(place: Place, name: ModelName = NAME) -> tuple[list[Event], Exception]:
    """The events of a pull that fails, and how."""
    events: list[Event] = []
    try:
        async for event in place.pull.run(name):
            events.append(event)  # noqa: PERF401 - what came before the error counts
    except RegistryError as error:
        return events, error
    pytest.fail("the pull did not fail")


# ---- the stream


async def test_a_pull_reports_each_blob_in_order_and_stores_it(
    place: Place, registry: MemoryRegistry
) -> None:
    body = registry.add("a/b:v1", [BIG, SMALL], b"{}")
    events = await collect(place.pull.run(NAME))
    assert texts(events) == [
        "pulling manifest",
        f"pulling {SHORT}",
        f"pulling {digest_of(SMALL).short}",
        f"pulling {digest_of(b'{}').short}",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert place.adopted == [(NAME, body, DOCKER_MANIFEST)]
    assert await place.content(DIGEST) == BIG
    assert await place.content(digest_of(SMALL)) == SMALL
    assert progress(events)[-3:] == [len(BIG), len(SMALL), 2]
    assert place.incoming() == []
    assert await place.catalog.read(lambda tx: tx.fetch(DIGEST)) is None


async def test_removed_layers_are_told(place: Place, registry: MemoryRegistry) -> None:
    registry.add("a/b:v1", [SMALL])
    place.removes = True
    found = texts(await collect(place.pull.run(NAME)))
    assert found[-3:] == ["writing manifest", "removing unused layers", "success"]


async def test_what_is_here_is_not_fetched_again(place: Place, registry: MemoryRegistry) -> None:
    registry.add("a/b:v1", [BIG])
    await collect(place.pull.run(NAME))
    registry.asked.clear()
    events = await collect(place.pull.run(NAME))
    assert registry.asked == []
    assert progress(events) == [len(BIG), 2]


async def test_the_hold_on_the_blobs_ends_with_the_pull(
    place: Place, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [SMALL])
    await collect(place.pull.run(NAME))
    repository = await place.catalog.read(lambda tx: tx.repository(NAME.repository))
    assert repository is not None

    def drop(tx: object) -> int:
        tag = tx.delete_tag(repository.id, "v1")  # type: ignore[attr-defined]
        tx.delete_manifest(repository.id, tag)  # type: ignore[attr-defined]
        tx.unlink_blob(repository.id, digest_of(SMALL))  # type: ignore[attr-defined]
        return len(tx.free([digest_of(SMALL)], place.now))  # type: ignore[attr-defined]

    assert await place.catalog.write(drop) == 1


async def test_config_and_layer_may_be_one_blob(place: Place, registry: MemoryRegistry) -> None:
    registry.add("a/b:v1", [SMALL, SMALL], SMALL)
    events = await collect(place.pull.run(NAME))
    assert set(progress(events)) <= {0, len(SMALL)}  # how often it is told is up to the clock
    assert progress(events)[-1] == len(SMALL)
    assert [ask for ask in registry.asked if ask.startswith("read")] == [
        f"read {digest_of(SMALL).short} 0-{len(SMALL)}"
    ]


async def test_empty_blobs_and_no_config_are_fine(place: Place, registry: MemoryRegistry) -> None:
    body = registry.add("a/b:v1", [b""], b"")
    config = json.dumps(json.loads(body)["config"], separators=(",", ":")).encode()
    body = body.replace(config, b'{"mediaType":"","digest":"","size":0}')
    registry.manifests["a/b:v1"] = RemoteManifest(body, DOCKER_MANIFEST)
    await collect(place.pull.run(NAME))
    assert await place.content(digest_of(b"")) == b""
    assert registry.asked == []


# ---- manifests of no use


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b"<html>",
            "pull model manifest: invalid character '<' looking for beginning of value",
        ),
        (b"", "pull model manifest: unexpected end of JSON input"),
        (b"[]", "pull model manifest: invalid manifest: not a JSON object"),
        (b'{"layers":[{"digest":""}]}', "a/b: digest is empty"),
        (b'{"schemaVersion":2,"layers":5}', "pull model manifest: invalid manifest: layers is "),
        (
            b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",'
            b'"manifests":[]}',
            "pull model manifest: it is a list of manifests, not a model",
        ),
        (b'{"a":' * 1000 + b"1" + b"}" * 1000, "pull model manifest: "),
        (b"[]," * 200_000, "pull model manifest: the manifest has too many values"),
    ],
)
async def test_a_manifest_of_no_use_is_told(
    place: Place, registry: MemoryRegistry, body: bytes, text: str
) -> None:
    registry.manifests["a/b:v1"] = RemoteManifest(body, "text/plain")
    events, error = await failure(place)
    assert isinstance(error, UpstreamFailed)
    assert str(error).startswith(text)
    assert texts(events) == ["pulling manifest"]


async def test_an_unknown_model_is_told_after_the_first_event(place: Place) -> None:
    events, error = await failure(place)
    assert isinstance(error, UpstreamUnknown)
    assert str(error) == "pull model manifest: file does not exist"
    assert texts(events) == ["pulling manifest"]


async def test_an_invalid_name_is_told_before_it(place: Place) -> None:
    events, error = await failure(place, ModelName.parse("bad name"))
    assert isinstance(error, NameInvalid)
    assert str(error) == "invalid model name"
    assert events == []


async def test_a_manifest_without_media_type_is_one_of_dockers(
    place: Place, registry: MemoryRegistry
) -> None:
    body = registry.add("a/b:v1", [SMALL]).replace(
        f'"mediaType":"{DOCKER_MANIFEST}",'.encode(), b""
    )
    registry.manifests["a/b:v1"] = RemoteManifest(body, "text/plain")
    await collect(place.pull.run(NAME))
    assert place.adopted == [(NAME, body, DOCKER_MANIFEST)]


async def test_a_size_that_differs_from_the_manifest_is_refused(
    place: Place, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [SMALL])
    registry.blobs[digest_of(SMALL)] = SMALL + b"more"
    _, error = await failure(place)
    assert "has 14 bytes at the registry, 10 in the manifest" in str(error)


async def test_a_blob_beyond_the_limit_is_refused_before_it_is_asked_for(
    place: Place, registry: MemoryRegistry
) -> None:
    body = registry.add("a/b:v1", [SMALL]).replace(b'"size":10', b'"size":9000000000000')
    registry.manifests["a/b:v1"] = RemoteManifest(body, DOCKER_MANIFEST)
    _, error = await failure(place)
    assert "is larger than" in str(error)
    assert registry.asked == []


async def test_a_missing_blob_is_told(place: Place, registry: MemoryRegistry) -> None:
    registry.add("a/b:v1", [SMALL])
    del registry.blobs[digest_of(SMALL)]
    _, error = await failure(place)
    assert str(error) == "file does not exist"
    assert place.incoming() == []


# ---- ranges and retries


@pytest.mark.folder
async def test_a_large_blob_comes_in_parallel_ranges(
    place: Place, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [BIG])
    await collect(place.pull.run(NAME))
    reads = [ask for ask in registry.asked if ask.startswith(f"read {SHORT}")]
    starts = [0, 1 << 20, 2 << 20, 3 << 20, 4 << 20, 5 << 20, len(BIG)]
    expected = [f"read {SHORT} {a}-{b}" for a, b in itertools.pairwise(starts)]
    assert sorted(reads) == sorted(expected)
    assert registry.asked.count(f"locate {SHORT}") == 1


@pytest.mark.folder
async def test_a_broken_range_goes_on_behind_its_last_byte(
    place: Place, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [BIG])
    registry.cuts = [300_000]
    await collect(place.pull.run(NAME))
    assert await place.content(DIGEST) == BIG
    assert registry.served == len(BIG) + 2
    assert any("327680-1048576" in ask for ask in registry.asked)


@pytest.mark.parametrize(
    "error",
    [UpstreamBusy("503: later"), UpstreamUnreachable("dial tcp: no"), UpstreamBusy("x", 0.01)],
)
async def test_what_may_pass_is_tried_again(
    place: Place, registry: MemoryRegistry, error: UpstreamFailed
) -> None:
    registry.add("a/b:v1", [SMALL])
    registry.faults = [error, error]
    await collect(place.pull.run(NAME))
    assert await place.content(digest_of(SMALL)) == SMALL


async def test_tries_are_limited(place: Place, registry: MemoryRegistry) -> None:
    registry.add("a/b:v1", [BIG])
    registry.faults = [UpstreamBusy("503: later")] * 50
    _, error = await failure(place)
    assert str(error) == "max retries exceeded: 503: later"


async def test_tries_that_bring_bytes_do_not_count(
    open_place: Open, registry: MemoryRegistry
) -> None:
    place = open_place(streams=1)
    registry.add("a/b:v1", [BIG])
    registry.cuts = [262_144] * 10
    await collect(place.pull.run(NAME))
    assert await place.content(DIGEST) == BIG


@pytest.mark.folder
async def test_an_expired_address_is_asked_for_again(
    open_place: Open, registry: MemoryRegistry
) -> None:
    place = open_place(streams=1)
    registry.add("a/b:v1", [BIG])
    task = await begun(place, registry, 1)
    registry.faults = [UpstreamRefused("403: expired")]
    registry.gate.set()
    await task
    assert registry.asked.count(f"locate {SHORT}") == 2
    assert await place.content(DIGEST) == BIG


async def test_a_stream_that_hardly_moves_is_given_up(
    open_place: Open, registry: MemoryRegistry
) -> None:
    place = open_place(stall_s=0.005)
    registry.add("a/b:v1", [BIG])
    registry.chunk = 1
    _, error = await failure(place)
    assert str(error) == "max retries exceeded: the registry sends too slowly"


async def test_a_refusal_is_final(place: Place, registry: MemoryRegistry) -> None:
    registry.add("a/b:v1", [SMALL])
    registry.faults = [UpstreamRefused("403: no")] * 2
    _, error = await failure(place)
    assert str(error) == "403: no"


async def test_a_registry_without_ranges_sends_all_in_one_go(
    place: Place, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [BIG])
    registry.ranges = False
    await collect(place.pull.run(NAME))
    assert await place.content(DIGEST) == BIG


# ---- wrong bytes


@pytest.mark.parametrize("data", [SMALL, BIG], ids=["one part", "six parts"])
async def test_wrong_bytes_are_fetched_once_more(
    place: Place, registry: MemoryRegistry, data: bytes
) -> None:
    registry.add("a/b:v1", [data])
    registry.corrupt[digest_of(data)] = 1
    events = await collect(place.pull.run(NAME))
    assert await place.content(digest_of(data)) == data
    assert progress(events) == sorted(progress(events)[:-1]) + [2]


@pytest.mark.parametrize("data", [SMALL, BIG], ids=["one part", "six parts"])
async def test_bytes_that_stay_wrong_are_refused_and_not_kept(
    place: Place, registry: MemoryRegistry, data: bytes
) -> None:
    registry.add("a/b:v1", [data])
    registry.corrupt[digest_of(data)] = 99
    events, error = await failure(place)
    wrong = digest_of(bytes([data[0] ^ 1]) + data[1:])
    assert str(error) == f"{MISMATCH}{digest_of(data).hex}, got {wrong}"
    assert texts(events)[-1] == "verifying sha256 digest"
    assert place.adopted == []
    assert place.incoming() == []
    assert await place.catalog.read(lambda tx: tx.fetch(digest_of(data))) is None
    assert registry.served <= 2 * len(data)


# ---- cancel, kill, resume


async def begun(place: Place, registry: MemoryRegistry, served: int) -> asyncio.Task[list[Event]]:
    """A pull that was held up after some bytes."""
    registry.hold_at = served
    task = asyncio.create_task(collect(place.pull.run(NAME)))
    await until(lambda: not registry.gate.is_set())
    await asyncio.sleep(0.1)  # for what was served to be written
    return task


async def cancelled(task: asyncio.Task[list[Event]]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_pull_goes_on_where_it_ended(
    open_place: Open, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [BIG])
    place = open_place()
    await cancelled(await begun(place, registry, 3 << 20))
    registry.gate.set()
    fetch = await place.catalog.read(lambda tx: tx.fetch(DIGEST))
    assert fetch is not None
    kept = sum(part.done for part in fetch.parts)
    assert kept > 2 << 20
    await place.close()

    registry.served = 0
    place = open_place()
    events = await collect(place.pull.run(NAME))
    assert await place.content(DIGEST) == BIG
    assert registry.served == len(BIG) - kept + 2
    assert progress(events)[0] >= kept
    assert len(place.incoming()) == 0


@pytest.mark.folder
async def test_the_file_of_a_process_that_may_still_write_it_is_left_alone(
    open_place: Open, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It seemed dead, and has its turn at the fetch nevertheless."""
    registry.add("a/b:v1", [BIG])
    frozen = open_place()
    await cancelled(await begun(frozen, registry, 3 << 20))
    registry.gate.set()
    (file,) = frozen.incoming()
    before = file.read_bytes()
    turn = await frozen.store.turn(f"fetch {DIGEST}")
    assert turn is not None
    monkeypatch.setattr("registry.adapters.fs_turns.WAIT_S", 0.05)
    registry.served = 0
    place = open_place()
    await collect(place.pull.run(NAME))
    assert await place.content(DIGEST) == BIG
    assert registry.served >= len(BIG)
    assert place.incoming() == [file]
    assert file.read_bytes() == before
    turn.end()


@pytest.mark.folder
async def test_a_killed_pull_goes_on_with_what_was_recorded(
    open_place: Open, registry: MemoryRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.services.transfers.download.PERSIST_S", 0.02)
    registry.add("a/b:v1", [BIG])
    place = open_place(tmp_path / "first")
    task = await begun(place, registry, 3 << 20)
    while not (fetch := await place.catalog.read(lambda tx: tx.fetch(DIGEST))):
        await asyncio.sleep(0.01)
    shutil.copytree(tmp_path / "first", tmp_path / "second")  # as a kill would leave it
    await cancelled(task)
    registry.gate.set()

    registry.served = 0
    second = open_place(tmp_path / "second")
    await collect(second.pull.run(NAME))
    assert await second.content(DIGEST) == BIG
    assert registry.served <= len(BIG) - sum(part.done for part in fetch.parts) + 2


@pytest.mark.folder
async def test_a_part_that_the_disk_changed_is_fetched_again(
    open_place: Open, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [BIG])
    place = open_place()
    await cancelled(await begun(place, registry, 4 << 20))
    registry.gate.set()
    fetch = await place.catalog.read(lambda tx: tx.fetch(DIGEST))
    assert fetch is not None
    whole = next(part for part in fetch.parts if part.sha256)
    file = next(path for path in place.incoming() if path.name == fetch.storage_key)
    with file.open("r+b") as opened:
        opened.seek(whole.start + 5)
        opened.write(b"\0\0\0\0\0")
    registry.asked.clear()
    await collect(place.pull.run(NAME))
    assert f"read {SHORT} {whole.start}-{whole.stop}" in registry.asked
    assert await place.content(DIGEST) == BIG


@pytest.mark.folder
async def test_bytes_that_are_gone_are_fetched_again(
    open_place: Open, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [BIG])
    place = open_place()
    await cancelled(await begun(place, registry, 3 << 20))
    registry.gate.set()
    for path in place.incoming():
        path.unlink()
    await collect(place.pull.run(NAME))
    assert await place.content(DIGEST) == BIG


@pytest.mark.folder
async def test_a_failed_pull_keeps_its_parts(place: Place, registry: MemoryRegistry) -> None:
    registry.add("a/b:v1", [BIG])
    task = await begun(place, registry, 2 << 20)
    registry.faults = [UpstreamFailed("400: no")]
    registry.gate.set()
    with pytest.raises(UpstreamFailed):
        await task
    assert await place.catalog.read(lambda tx: tx.fetch(DIGEST)) is not None
    await collect(place.pull.run(NAME))
    assert registry.served < len(BIG) * 2


# ---- sharing


async def test_two_pulls_of_a_blob_share_it_and_see_the_same(
    place: Place, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [BIG])
    registry.add("a/b:v2", [BIG, SMALL])
    first = await begun(place, registry, 4 << 20)
    second = asyncio.create_task(collect(place.pull.run(NAME.with_tag("v2"))))
    await asyncio.sleep(0.2)
    registry.gate.set()
    one, other = await asyncio.gather(first, second)
    assert registry.served == len(BIG) + len(SMALL) + 2
    assert len(BIG) in progress(one)
    assert progress(other)[0] > 0
    assert len(place.adopted) == 2


async def test_one_of_two_may_leave(place: Place, registry: MemoryRegistry) -> None:
    registry.add("a/b:v1", [BIG])
    first = await begun(place, registry, 1 << 20)
    second = asyncio.create_task(collect(place.pull.run(NAME)))
    await asyncio.sleep(0.1)
    await cancelled(first)
    registry.gate.set()
    await second
    assert registry.served == len(BIG) + 2
    assert await place.content(DIGEST) == BIG


async def test_the_last_to_leave_stops_the_transfer(place: Place, registry: MemoryRegistry) -> None:
    registry.add("a/b:v1", [BIG])
    first = await begun(place, registry, 1 << 20)
    second = asyncio.create_task(collect(place.pull.run(NAME)))
    await asyncio.sleep(0.1)
    await cancelled(first)
    await cancelled(second)
    registry.gate.set()
    before = registry.served
    await asyncio.sleep(0.1)
    assert registry.served == before
    with pytest.raises(BlobUnknown):
        await place.content(DIGEST)
    await collect(place.pull.run(NAME))
    assert await place.content(DIGEST) == BIG


@pytest.mark.folder  # parts of an object are larger: none is left to be asked for and to fail
async def test_the_failure_of_a_joined_transfer_is_not_ours(
    place: Place, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [BIG])
    first = await begun(place, registry, 1 << 20)
    second = asyncio.create_task(collect(place.pull.run(NAME)))
    await asyncio.sleep(0.1)
    registry.faults = [UpstreamFailed("400: no")]
    registry.gate.set()
    with pytest.raises(UpstreamFailed, match="400: no"):
        await first
    await second
    assert await place.content(DIGEST) == BIG


async def test_leases_are_renewed_while_a_pull_lasts(
    place: Place, registry: MemoryRegistry
) -> None:
    registry.add("a/b:v1", [SMALL, BIG])
    task = await begun(place, registry, 1 << 20)
    for _ in range(4):
        place.now += place.settings.retention.lease_s * 10**9 * 2 // 3
        await asyncio.sleep(0.15)
    assert await place.catalog.write(lambda tx: tx.free([digest_of(SMALL)], place.now)) == []
    registry.gate.set()
    await task
