"""A worker's links: one with each replica of its library, all by the library's one address.

The replicas say who they are. To each an agent keeps a line; requests bear the replica's id, so
that whichever process a balancer picks passes them on to the right one. The node behind the agents
is the arbiter between them. See ADR 0013.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from registry.core.errors import UpstreamFailed
from registry.ports.workers import Crash
from registry.workers.agent import REFUSALS, Agent
from registry.workers.library import Library, LinkRefused

_LOOK_S = 5.0
_SOON_S = 1.0
_MOST = 64

log = structlog.get_logger()


@dataclass(slots=True)
class _Link:
    agent: Agent
    library: Library
    task: asyncio.Task[None]


class Links:
    """Links a node to all replicas, until `leave`.

    `scout` asks who they are; `make` makes the agent of one, and what it asks by.
    """

    def __init__(self, scout: Library, make: Callable[[str], tuple[Agent, Library]]) -> None:
        self._scout = scout
        self._make = make
        self._links: dict[str, _Link] = {}

    async def run(self) -> None:
        """Keep a line with each replica; raise only what trying again cannot mend.

        Raises:
            LinkRefused: the credential is not good any more.
        """
        while True:
            try:
                await self._follow(await self._scout.replicas())
            except LinkRefused as error:
                if error.status in REFUSALS:
                    raise
                log.warning("the library refuses to say where it runs", reason=str(error))
            except UpstreamFailed as error:
                log.warning("no link to the library", reason=str(error))
            tasks = [link.task for link in self._links.values()]
            if not tasks:
                await asyncio.sleep(_SOON_S)
                continue
            linked = all(link.agent.is_linked for link in self._links.values())
            done, _ = await asyncio.wait(
                tasks,
                timeout=_LOOK_S if linked else _SOON_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                task.result()  # raises why no more is to be tried

    def crashed(self, crash: Crash) -> None:
        """Tell every replica that a model has taken its runner down."""
        for link in self._links.values():
            link.agent.crashed(crash)

    async def leave(self) -> None:
        """Tell all that we go; what they still run here is lost."""
        leaving: list[Any] = [self._leave(id_) for id_ in list(self._links)]
        await asyncio.gather(*leaving)

    async def _follow(self, ids: list[str]) -> None:
        for id_ in ids[:_MOST]:
            if id_ not in self._links:
                agent, library = self._make(id_)
                task = asyncio.create_task(agent.run())
                self._links[id_] = _Link(agent, library, task)
        for id_, link in list(self._links.items()):
            if id_ not in ids and not link.agent.is_linked:
                await self._leave(id_)

    async def _leave(self, id_: str) -> None:
        link = self._links.pop(id_)
        await link.agent.leave()
        link.task.cancel()
        await asyncio.gather(link.task, return_exceptions=True)
        await link.library.close()
