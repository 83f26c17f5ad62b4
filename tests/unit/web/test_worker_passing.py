"""A worker's request reaches the replica it is for, whichever gets it first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from registry.adapters.replica_http import ReplicaWire, own_address
from registry.adapters.wire import Ask
from registry.core.errors import UpstreamFailed, WorkerLost
from registry.ports.links import Member
from registry.services.inference.replicas import Replicas
from registry.workers.agent import Agent
from registry.workers.library import Library, LinkRefused
from registry.workers.links import Links
from tests.support.fake_worker import spec_of
from tests.support.linked import Place, Script, ScriptedNode, answer_of, said, taking_workers

pytestmark = pytest.mark.anyio
SPEC = spec_of()


class Both(Replicas):
    """A replica that knows another one, as its row would tell."""

    other = ("", "")

    def ids(self) -> list[str]:
        return [self.id, *filter(None, self.other[:1])]

    def url_of(self, id_: str) -> str:
        return self.other[1] if id_ == self.other[0] else ""


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[Place, Place]]:
    """Two servers that know each other and take the same credentials."""
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(taking_workers(folder / n)) for n in "ab"]
        for place in places:
            place.services.replicas.__class__ = Both
            place.services.courier = ReplicaWire()
            stack.push_async_callback(place.services.courier.close)
        for place, other in (places, places[::-1]):
            place.services.replicas.other = (other.services.replicas.id, other.url)
            place.services.worker_keys = places[0].keys
        yield places[0], places[1]


@pytest.fixture
async def places(tmp_path: Path) -> AsyncIterator[tuple[Place, Place]]:
    async with two(tmp_path) as made:
        yield made


async def text(place: Place) -> str:
    running = await (await place.worker()).acquire(SPEC)
    return "".join([piece.content async for piece in answer_of(running)])


async def linked(places: tuple[Place, Place], node: ScriptedNode) -> Links:
    """A worker whose only address is the first server's."""
    first = places[0]
    scout = Library(first.url, "s1")
    scout.sign(await first.enrol())
    first.libraries.append(scout)

    def agent(replica: str) -> tuple[Agent, Library]:
        there = scout.at(replica)
        return Agent(node, there, first.cache(there), 60.0), there

    links = Links(scout, agent)
    first.tasks.append(asyncio.create_task(links.run()))
    return links


async def test_a_worker_is_linked_to_both_by_one_address(places: tuple[Place, Place]) -> None:
    node = ScriptedNode()
    links = await linked(places, node)
    assert [await text(place) for place in places] == ["Hello", "Hello"]
    await links.leave()
    for place in places:
        await place.gone()


async def test_long_answers_and_reports_pass_through(places: tuple[Place, Place]) -> None:
    node = ScriptedNode()
    node.script = Script([said("x" * 60_000)[0]] * 50 + [0.2, *said("end")])
    links = await linked(places, node)
    assert (await text(places[1])).endswith("end")
    node.script = Script([*said("Hel")[:1], WorkerLost()])
    with pytest.raises(WorkerLost):  # what breaks off is never complete
        await text(places[1])
    await links.leave()


async def test_what_one_has_told_a_worker_to_run_the_other_lets_it_read(
    places: tuple[Place, Place],
) -> None:
    first, second = places
    links = await linked(places, ScriptedNode())
    await first.worker()
    await (await second.worker()).acquire(SPEC)
    member = Member("gpu", "s1")
    assert not first.remotes.may_read(member, SPEC.model.digest)
    there = Library(first.url, "s1")
    there.sign(first.libraries[0].headers()["Authorization"].split()[1])
    first.libraries.append(there)
    for digest, status in ((SPEC.model.digest, 404), (SPEC.manifest, 404)):
        assert await _status(there, f"/blobs/{digest}") == status  # the store has neither
    assert first.remotes.may_read(member, SPEC.model.digest)
    assert not first.remotes.may_read(member, SPEC.manifest)
    await links.leave()


async def _status(library: Library, path: str) -> int:
    url = f"{library.url}/api/v1/link{path}"
    async with library._wire.send(Ask("GET", url, library.headers())) as reply:
        return reply.status


async def test_a_replica_that_is_unknown_or_away_is_told(places: tuple[Place, Place]) -> None:
    first, _ = places
    scout = Library(first.url, "s1")
    scout.sign(await first.enrol())
    first.libraries.append(scout)
    assert await scout.replicas() == first.services.replicas.ids()
    lost = scout.at("nobody")
    first.libraries.append(lost)
    with pytest.raises(LinkRefused, match="there is no such replica"):
        await lost.report({})
    first.services.replicas.other = ("away", "http://127.0.0.1:1")
    away = scout.at("away")
    first.libraries.append(away)
    with pytest.raises(UpstreamFailed, match="cannot be reached from here"):
        await away.report({})


async def test_without_a_credential_nothing_is_passed_on(places: tuple[Place, Place]) -> None:
    first, second = places
    stranger = Library(first.url, "s1", second.services.replicas.id)
    stranger.sign("rgw_gpu." + "x" * 43)
    first.libraries.append(stranger)
    with pytest.raises(LinkRefused, match="not enrolled"):
        await stranger.report({})
    with pytest.raises(LinkRefused, match="not enrolled"):
        await stranger.replicas()


def test_the_address_toward_a_host_is_ones_own() -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"
    assert own_address("no such host") == "127.0.0.1"
