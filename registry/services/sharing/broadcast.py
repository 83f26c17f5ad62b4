"""Shared work that tells events: everybody who asks for the same hears the same.

What was told last is the note of the job's row (`core/transcript.py`), and so is the mark at which
the work can be gone on with should its process die.
"""

import secrets
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from registry.core.errors import RegistryError
from registry.core.events import Done, Event, Events
from registry.core.transcript import Transcript
from registry.services.sharing.efforts import Asking, Effort, Progress, What
from registry.services.sharing.sharing import Share, Sharing

_TICK_S = 0.25


@dataclass(slots=True)
class Run:
    """The work as it sees itself: what it tells besides its events.

    `mark` is, when it begins, where the process before came to that died over it. `done` and
    `total` are bytes. `result` is for all who wait.
    """

    mark: str = ""
    done: int = 0
    total: int = 0
    result: str = ""


Begin = Callable[[Run], Events]


def _ignore(result: str) -> None:
    """Nobody wants the result."""


async def broadcast(
    sharing: Sharing,
    what: What,
    subject: str,
    begin: Begin,
    take: Callable[[str], None] = _ignore,
) -> Events:
    """The events of work that others may have begun; `take` gets its result before the last one.

    Whoever comes later hears what was told last. Who leaves, leaves it to the others.

    Raises:
        RegistryError: the work failed, or was cancelled.
    """
    asking = Asking(f"{what.kind}:{secrets.token_hex(8)}", subject)
    async with sharing.join(what, asking, partial(_work, begin)) as share:
        heard = _Heard(share)
        result = None
        while result is None:
            try:
                result = await share.wait(_TICK_S)
            except RegistryError:
                for event in heard.news():
                    yield event
                raise
            for event in heard.news():
                yield event
    take(result)
    yield Done()


async def _work(begin: Begin, effort: Effort) -> str:
    run = Run(Transcript.parse(effort.note).mark)
    told = Transcript(secrets.token_hex(4))

    def look() -> Progress:
        told.mark = run.mark
        return Progress(run.done, max(run.done, run.total), told.text)

    effort.look = look
    async with aclosing(begin(run)) as events:
        async for event in events:
            if not isinstance(event, Done):
                told.add(event)
    return run.result


class _Heard:
    """What one who waits has heard."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._run = ""
        self._number = 0

    def news(self) -> list[Event]:
        """What was told since."""
        told = Transcript.parse(self._share.progress.note)
        if told.run != self._run:  # begun anew, by another process perhaps
            self._run, self._number = told.run, 0
        found = told.since(self._number)
        if found:
            self._number = found[-1][0]
        return [event for _, event in found]
