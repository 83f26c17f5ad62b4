"""What is done at the start and once a day, by one of all replicas: jobs like any other.

At its start every process wants it done, since somebody may have put files into the store before;
those that start together share it. Later it is skipped where another one did it within the day.
"""

from collections.abc import Awaitable, Callable, Mapping

from registry.core.errors import RegistryError
from registry.services.sharing.efforts import Asking, Effort, What
from registry.services.sharing.sharing import Sharing

_NS = 10**9
_FRESH_NS = 23 * 3_600 * _NS
"""Less than a day by what the days of two processes may be apart."""
_WAIT_S = 60.0
_TITLES = {
    "look": "through the store, for what the catalog does not know",
    "retention": "tags that no rule keeps",
}

Duty = Callable[[], Awaitable[object]]


class Daily:
    """Duties by their kinds: `look`, for instance."""

    def __init__(self, sharing: Sharing, duties: Mapping[str, Duty]) -> None:
        self._sharing = sharing
        self._duties = duties
        self._is_first = True

    async def run(self) -> None:
        """Do what is due, here or in another process.

        Raises:
            RegistryError: one failed; the others were done all the same.
        """
        is_first, self._is_first = self._is_first, False
        failed: RegistryError | None = None
        for kind, duty in self._duties.items():
            try:
                if is_first or not await self._is_fresh(kind):
                    await self._do(kind, duty)
            except RegistryError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def _is_fresh(self, kind: str) -> bool:
        """Whether somebody did it within the day."""
        job = await self._sharing.catalog.read(lambda tx: tx.last_job(_key(kind)))
        if job is None or job.state != "done":
            return False
        return 0 <= self._sharing.clock() - job.created_at < _FRESH_NS

    async def _do(self, kind: str, duty: Duty) -> None:
        async def work(effort: Effort) -> str:
            await duty()
            return ""

        what = What(kind, _key(kind), _TITLES.get(kind, "once a day"))
        asking = Asking(f"{_key(kind)} {self._sharing.process}")
        async with self._sharing.join(what, asking, work) as share:
            result = None
            while result is None:
                result = await share.wait(_WAIT_S)


def _key(kind: str) -> str:
    return f"daily {kind}"
