"""`/api/v1/jobs`: who sees which jobs, and who ends them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from registry.core.access import Group
from registry.core.errors import OperationFailed
from registry.services.access.keys import ApiKeyWish
from registry.services.sharing.efforts import Asking, Effort, Progress, What
from tests.support.site import Site, site

pytestmark = pytest.mark.anyio


class Place:
    """A site, and people who ask."""

    def __init__(self, made: Site) -> None:
        self.site = made
        self.sharing = made.services.sharing
        self.keys: dict[str, str] = {}

    async def enter(self, name: str, groups: Group, *, admin: bool = False) -> None:
        account = await self.site.person(name, admin=admin)
        key = await self.site.accounts.create_api_key(account, ApiKeyWish("k", groups))
        self.keys[name] = key.text

    async def ask(self, who: str, method: str, path: str) -> tuple[int, Any]:
        return await self.site.api(method, path, None, self.keys[who])


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with site(tmp_path) as made:
        found = Place(made)
        await found.enter("root", Group.ALL, admin=True)
        for name in ("ann", "bob", "eve"):
            await found.enter(name, Group.READ | Group.WRITE)
        await found.enter("reader", Group.READ)
        yield found


async def forever(effort: Effort) -> str:
    effort.look = lambda: Progress(3, 10)
    await asyncio.Event().wait()
    return ""


WHAT = What("quantize", "quantize x", "quantize to Q4_K_M")


async def test_jobs_are_shown_to_whom_they_concern(place: Place) -> None:
    async with (
        place.sharing.join(WHAT, Asking("h", "ann", "team/a:1"), forever),
        place.sharing.join(WHAT, Asking("i", "bob", "team/b:1"), forever),
    ):
        await asyncio.sleep(0)
        status, answer = await place.ask("root", "GET", "/jobs")
        (job,) = answer["jobs"]
        assert status == 200
        times = {key: job.pop(key) for key in ("id", "created")}
        assert job == {
            "kind": "quantize",
            "title": "quantize to Q4_K_M",
            "model": "team/a:1",
            "account": "ann",
            "state": "running",
            "completed": 3,
            "total": 10,
            "finished": None,
            "error": None,
        }
        for who, seen in (("ann", 1), ("bob", 1), ("eve", 0), ("reader", 0)):
            assert len((await place.ask(who, "GET", "/jobs?limit=5"))[1]["jobs"]) == seen
            status, _ = await place.ask(who, "GET", f"/jobs/{times['id']}")
            assert status == (200 if seen else 404)


async def test_who_waits_may_leave_and_an_administrator_may_end_it(place: Place) -> None:
    async with (
        place.sharing.join(WHAT, Asking("h", "ann", "team/a:1"), forever) as first,
        place.sharing.join(WHAT, Asking("i", "bob", "team/b:1"), forever) as second,
    ):
        path = f"/jobs/{first.job.id}"
        assert (await place.ask("eve", "DELETE", path))[0] == 404
        assert (await place.ask("reader", "DELETE", path))[0] == 403
        status, job = await place.ask("bob", "DELETE", path)
        assert (status, job["state"]) == (200, "running")
        with pytest.raises(OperationFailed, match="the job was cancelled"):
            await second.wait(5)
        assert await first.wait(0) is None
        status, job = await place.ask("root", "DELETE", path)
        assert (status, job["state"], job["error"]) == (200, "cancelled", "cancelled by root")
        with pytest.raises(OperationFailed, match="cancelled by root"):
            await first.wait(5)
        assert (await place.ask("root", "DELETE", path))[0] == 409


@pytest.mark.parametrize("path", ["/jobs/none", "/jobs/0123456789abcdef", "/jobs/x%00"])
async def test_what_is_no_job_is_not_found(place: Place, path: str) -> None:
    assert (await place.ask("root", "GET", path))[0] == 404
