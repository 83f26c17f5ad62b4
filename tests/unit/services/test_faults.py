"""Whatever call to the database or the store fails, at whatever point of whatever is being done.

Each deed is done once to count its calls, then once for each of them, which goes wrong. The client
is told so in words that it can act upon; asked again, or begun anew in a new process, all is well;
nothing acknowledged is lost, nothing half-written shows, nothing is left behind.

Of the calls every few are tried, others in each way of failing; `REGISTRY_FAULTS_EVERY=1`: all.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.backends import CHOSEN
from tests.support.deeds import DEEDS, Bench, Deed
from tests.support.faults import How
from tests.support.shaky import Client, GaveUp, Shaky
from tests.support.upstream import ScriptedRegistry

pytestmark = pytest.mark.anyio

WAYS: list[tuple[How, bool]] = [
    ("refused", True), ("refused", False), ("lost", True), ("lost", False),
    ("full", False),  # who has no room does not ask again at once
    ("slow", True), ("left", False),
]  # fmt: skip
TRIED = [way for way in WAYS if way[0] in {"lost", "left"}] if CHOSEN else WAYS
EVERY = int(os.environ.get("REGISTRY_FAULTS_EVERY", "16" if CHOSEN else "5"))
DESCRIPTORS = Path("/proc/self/fd")


@dataclass(frozen=True)
class Trial:
    """One library in which a deed is done many times."""

    site: Shaky
    other: ScriptedRegistry
    deed: Deed
    how: How
    again: bool

    async def run(self, n: int, at: int) -> None:
        """Do it with the call number `at` failing; 0: none."""
        client = Client(self.site, self.again)
        bench = Bench(client, self.other, n)
        await self.deed.before(bench)
        self.site.faults.arm(at, self.how)
        try:
            await self.deed.act(bench)
        except GaveUp:
            self.site.faults.disarm()
            if not self.deed.mends:
                await self.site.models()  # what can be seen is whole
            await self.site.restart()
            client.anew = True
            await self.deed.act(bench)
        await self.site.settle()
        self.site.faults.disarm()
        await self.check(client)

    async def check(self, client: Client) -> None:
        """Nothing acknowledged is lost; what nobody needs any more goes."""
        await self.site.settle()
        seen = await self.site.models()
        for model, digest in client.expected.items():
            assert (model in seen) == (digest is not None), model
            assert not digest or seen[model] == digest, model
        await self.site.check_models_folder()
        await self.site.clean()


@asynccontextmanager
async def trial(deed: Deed, how: How, again: bool, folder: Path) -> AsyncIterator[Trial]:
    site = Shaky(folder)
    other = ScriptedRegistry()
    async with other.running():
        site.start()
        site.faults.meanwhile = site.sweep_meanwhile
        try:
            yield Trial(site, other, deed, how, again)
        finally:
            site.faults.disarm()
            await site.stop()


def descriptors() -> int:
    """How many files and sockets are open here."""
    return len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.is_dir() else 0


@pytest.mark.parametrize(("how", "again"), TRIED)
@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.name)
async def test_one_failing_call_loses_nothing_and_leaves_nothing(
    deed: Deed, how: How, again: bool, tmp_path: Path
) -> None:
    if deed.direct and "s3" not in CHOSEN:
        pytest.skip("of an object store")
    tasks, files = asyncio.all_tasks(), descriptors()
    async with trial(deed, how, again, tmp_path / "data") as one:
        await one.run(0, 0)
        clean, count = one.site.traces(), len(one.site.faults.calls)
        assert count > 2
        for at in range(1 + WAYS.index((how, again)) % EVERY, count + 1, EVERY):
            try:
                await one.run(at, at)
                assert one.site.traces() == clean
            except BaseException as error:
                error.add_note(f"call {at} of {one.site.faults.calls}: {one.site.faults.call}")
                raise
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks
    assert descriptors() <= files
