"""Work on tensors on a worker: from a library without an engine over the link and back."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from registry.adapters.link_replies import LinkReply
from registry.adapters.tensors_process import TensorProcesses
from registry.adapters.tensors_remote import DATA, FAULT, Elsewhere, RemoteMaking, record
from registry.core.digest import Digest
from registry.core.errors import OperationFailed, RegistryError, RequestInvalid, Unsupported
from registry.ports.tensors import Making, TensorJob, TensorWorkshop
from registry.services.building.conversions import Conversions, Converted, Order
from registry.services.sharing.efforts import Asking
from registry.services.sharing.sharing import Sharing
from registry.settings import Settings
from registry.workers.agent import Agent
from registry.workers.library import Library
from registry.workers.tensors import TensorJobs
from tests.support.linked import Place, ScriptedNode, taking_workers
from tests.support.slow_workshop import SlowWorkshop
from tests.support.weighty import model

pytestmark = pytest.mark.anyio

SOURCE = model("F16", layers=3)


class Without:
    """A workshop that lacks the engine."""

    refusal = "quantization Q8_0 needs the engine: install the worker extra or add a worker"

    @asynccontextmanager
    async def begin(self, job: TensorJob) -> AsyncIterator[Making]:
        raise Unsupported(self.refusal)
        yield


class World:
    """A library without an engine, and a worker with a workshop of its own."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self.sharing = Sharing(place.lib.catalog, place.lib.clock)
        workshop = Elsewhere(Without(), place.remotes.linked)
        settings = Settings.load({}, data=folder)
        self.conversions = Conversions(place.lib.manifests, self.sharing, workshop, settings)

    async def link(self, workshop: TensorWorkshop | None, name: str = "gpu") -> None:
        there = Library(self.place.url, name)
        there.sign(await self.place.enrol(name))
        self.place.libraries.append(there)
        cache = self.place.cache(there)
        tensors = None if workshop is None else TensorJobs(workshop, cache)
        agent = Agent(ScriptedNode(), there, cache, 60.0, tensors)
        self.place.tasks.append(asyncio.create_task(agent.run()))
        await self.place.worker(name)

    async def made(self, target: str = "Q8_0", source: bytes = SOURCE) -> Converted:
        digest = Digest.parse(await self.place.lib.put(source))
        order = Order("gguf", (("m.gguf", digest),), target)
        async with self.conversions.join(order, Asking("me")) as conversion:
            while (found := await conversion.wait(1)) is None:
                pass
            return found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with taking_workers(tmp_path) as place:
        made = World(place, tmp_path)
        yield made
        await made.sharing.close()


async def test_a_worker_makes_what_the_library_cannot(world: World, tmp_path: Path) -> None:
    own = TensorProcesses(tmp_path, 2, 1 << 30)
    await world.link(own)
    made = await world.made()
    assert made.facts.file_type == "Q8_0"
    assert str(made.blob.digest) in world.place.lib.files()  # each checked to be what it is called
    local = Conversions(
        world.place.lib.manifests,
        world.sharing,
        own,
        Settings.load({}, data=tmp_path),
    )
    world.conversions = local
    assert (await world.made()).blob.digest == made.blob.digest


async def test_without_a_worker_the_reason_is_told(world: World) -> None:
    with pytest.raises(Unsupported, match="needs the engine"):
        await world.made()
    await world.link(None)  # one that does not know such work
    with pytest.raises(Unsupported, match="needs the engine"):
        await world.made()


async def test_the_next_worker_is_asked_when_one_cannot(world: World, tmp_path: Path) -> None:
    await world.link(Without(), "first")
    await world.link(TensorProcesses(tmp_path, 2, 1 << 30), "second")
    assert (await world.made()).facts.file_type == "Q8_0"


async def test_what_goes_wrong_on_the_way_is_told_in_the_workers_words(world: World) -> None:
    slow = SlowWorkshop(SOURCE)
    slow.error = OperationFailed("tensor x has values that are not finite")
    slow.go_on.set()
    await world.link(slow)
    with pytest.raises(OperationFailed, match="tensor x has values that are not finite"):
        await world.made()


async def test_a_worker_that_goes_away_is_told_of(world: World) -> None:
    slow = SlowWorkshop(SOURCE)
    await world.link(slow)
    making = asyncio.create_task(world.made())
    await slow.half_way.wait()
    world.place.remotes.dismiss("gpu")
    with pytest.raises(OperationFailed, match="the worker that did this went away"):
        await making


async def test_the_work_there_ends_with_the_wish_for_it(world: World) -> None:
    slow = SlowWorkshop(SOURCE)
    await world.link(slow)
    making = asyncio.create_task(world.made())
    await slow.half_way.wait()
    making.cancel()
    await asyncio.wait({making})
    async with asyncio.timeout(5):
        while slow.running:
            await asyncio.sleep(0.01)


async def test_jobs_follow_one_another_there(world: World) -> None:
    slow = SlowWorkshop(SOURCE)
    await world.link(slow)
    both = [asyncio.create_task(world.made(target)) for target in ("Q8_0", "Q4_0")]
    await slow.half_way.wait()
    slow.go_on.set()
    await asyncio.gather(*both)
    assert slow.most == 1


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"files": 1, "options": {}},
        {"files": [["m", "sha256:x", 1]], "options": {}},
        {"files": [["m", "sha256:" + "0" * 64, 1]] * 600, "options": {}},
        {"kind": "quantized", "files": [], "options": {}},
    ],
)
async def test_an_order_that_means_nothing_is_refused(
    world: World, tmp_path: Path, order: dict[str, Any]
) -> None:
    there = Library(world.place.url, "s")
    world.place.libraries.append(there)
    jobs = TensorJobs(Without(), world.place.cache(there))
    with pytest.raises(RequestInvalid):
        async with jobs.begin(order):
            pass


class Sink:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    async def borrow(self) -> memoryview:
        raise NotImplementedError

    async def fill(self, size: int) -> None:
        raise NotImplementedError


async def fed(size: int, chunks: Sequence[bytes]) -> bytes:
    reply = LinkReply({"status": 200, "plan": {"size": size, "total": 10}}, lambda: None)
    for chunk in chunks:
        await reply.feed(chunk)
    reply.end(complete=True)
    sink = Sink()
    making = RemoteMaking(reply)
    assert await making.feed(sink) == size
    assert making.done == making.total
    return sink.data


@pytest.mark.parametrize("step", [1, 2, 7, 100])
async def test_records_may_come_in_any_pieces(step: int) -> None:
    body = record(DATA, b"ab") + record(DATA, b"") + record(DATA, b"cde")
    pieces = [body[at : at + step] for at in range(0, len(body), step)]
    assert await fed(5, pieces) == b"abcde"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (record(DATA, b"abcdef"), "another size"),
        (record(DATA, b"abc"), "another size"),
        (record(DATA, b"abcde") + b"\0\0", "went away"),
        (b"\0\xff\xff\xff\xff", "cannot be read"),
        (record(FAULT, b'{"kind": "OperationFailed", "message": "why"}'), "why"),
        (record(FAULT, b"nothing"), "not valid JSON"),
    ],
)
async def test_an_answer_that_is_wrong_is_told(body: bytes, words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        await fed(5, [body])
