from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.core.errors import Conflict, NotFound, RequestInvalid, Unauthenticated
from registry.ports.fleet import NewWorker
from registry.services.inference.fleet import Fleet
from registry.services.inference.worker_keys import WorkerKeys
from tests.support.library import Clock, library

pytestmark = pytest.mark.anyio


@dataclass
class Place:
    """Keys over a library's catalog."""

    keys: WorkerKeys
    clock: Clock


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with library(tmp_path) as lib:
        yield Place(WorkerKeys(lib.catalog, lib.clock), lib.clock)


async def test_a_token_enrols_one_worker(place: Place) -> None:
    token = await place.keys.make_token(60)
    credential = await place.keys.enrol(token.lower(), "gpu-1")
    assert await place.keys.name_of(credential) == "gpu-1"
    with pytest.raises(NotFound, match="unknown, used or expired"):
        await place.keys.enrol(token, "gpu-2")


async def test_a_reusable_one_enrols_many_until_it_expires(place: Place) -> None:
    token = await place.keys.make_token(60, reusable=True)
    names = [
        await place.keys.name_of(await place.keys.enrol(token, name)) for name in ("a", "b", "c")
    ]
    assert names == ["a", "b", "c"]
    place.clock.now += 61 * 10**9
    with pytest.raises(NotFound):
        await place.keys.enrol(token, "d")


@pytest.mark.parametrize("name", ["", "local", "Gpu", "a b", "-a", "a-", "x" * 64, "a/b", "ä"])
async def test_what_no_worker_can_be_called(place: Place, name: str) -> None:
    token = await place.keys.make_token(60)
    with pytest.raises(RequestInvalid, match="invalid worker name"):
        await place.keys.enrol(token, name)
    await place.keys.enrol(token, "fine")  # it was not used up


async def test_a_name_is_taken_until_its_worker_is_revoked(place: Place) -> None:
    token = await place.keys.make_token(60, reusable=True)
    first = await place.keys.enrol(token, "a")
    with pytest.raises(Conflict, match="there is a worker called a already"):
        await place.keys.enrol(token, "a")
    assert await place.keys.name_of(first) == "a"
    assert await place.keys.revoke("a")
    assert not await place.keys.revoke("a")
    with pytest.raises(Unauthenticated):
        await place.keys.name_of(first)
    second = await place.keys.enrol(token, "a")
    assert await place.keys.name_of(second) == "a"
    with pytest.raises(Unauthenticated):
        await place.keys.name_of(first)


async def test_a_name_is_an_existing_servers_or_an_enrolled_workers(place: Place) -> None:
    fleet = Fleet(place.keys._catalog, place.clock)
    await fleet.add(NewWorker("gpu", "ollama", "http://gpu:11434"))
    token = await place.keys.make_token(60, reusable=True)
    with pytest.raises(Conflict):
        await place.keys.enrol(token, "gpu")
    await place.keys.enrol(token, "cpu")
    with pytest.raises(Conflict):
        await fleet.add(NewWorker("cpu", "ollama", "http://cpu:11434"))


async def test_removing_a_worker_revokes_it(place: Place) -> None:
    credential = await place.keys.enrol(await place.keys.make_token(60), "a")
    fleet = Fleet(place.keys._catalog, place.clock)
    await fleet.remove("A")
    with pytest.raises(Unauthenticated):
        await place.keys.name_of(credential)
    with pytest.raises(NotFound):
        await fleet.remove("a")


async def test_another_process_notices_a_revocation_within_seconds(place: Place) -> None:
    credential = await place.keys.enrol(await place.keys.make_token(60), "a")
    await place.keys.name_of(credential)
    other = WorkerKeys(place.keys._catalog, place.clock)
    await other.revoke("a")
    place.clock.now += 6 * 10**9
    with pytest.raises(Unauthenticated):
        await place.keys.name_of(credential)


@pytest.mark.parametrize(
    "credential",
    ["", "rgw_a", "rgw_a.b", "hf_" + "x" * 40, "rgw_a." + "x" * 43, "rgw_a." + "x" * 9999],
)
async def test_other_credentials_prove_nothing(place: Place, credential: str) -> None:
    await place.keys.enrol(await place.keys.make_token(60), "a")
    with pytest.raises(Unauthenticated):
        await place.keys.name_of(credential)


@pytest.mark.parametrize("token", ["", "none", "0" * 24, "rgw_a." + "x" * 43])
async def test_other_tokens_enrol_nobody(place: Place, token: str) -> None:
    with pytest.raises(NotFound):
        await place.keys.enrol(token, "a")


async def test_a_credential_is_no_token(place: Place) -> None:
    credential = await place.keys.enrol(await place.keys.make_token(60), "a")
    with pytest.raises(NotFound):
        await place.keys.enrol(credential.partition(".")[2], "b")
