"""What long work told last, as a text that other processes read beside it.

Not a log: of many events the newest are kept, of those about one thing the last. Who reads it every
now and then misses only steps in between.
"""

import json
from collections.abc import Hashable
from typing import Any, Self, assert_never

from registry.core.digest import Digest
from registry.core.errors import DigestInvalid
from registry.core.events import Advance, Count, Done, Event, Status, Transfer

_KEPT = 32
_LONGEST = 500


class Transcript:
    """The newest events of one run, numbered from 1. `run` differs for every run.

    `mark` is the work's own word for where it is.
    """

    def __init__(self, run: str = "", mark: str = "") -> None:
        self.run = run
        self.mark = mark
        self._count = 0
        self._told: dict[Hashable, tuple[int, Event]] = {}  # in the order of their numbers

    def add(self, event: Event) -> None:
        """Take an event in."""
        self._count += 1
        self._put(self._count, event)

    def _put(self, number: int, event: Event) -> None:
        self._count = number
        key = _about(event) or number
        self._told.pop(key, None)
        self._told[key] = number, event
        if len(self._told) > _KEPT:
            del self._told[next(iter(self._told))]

    def since(self, number: int) -> list[tuple[int, Event]]:
        """The events with greater numbers, in order."""
        return [told for told in self._told.values() if told[0] > number]

    @property
    def text(self) -> str:
        """The text that `parse` reads."""
        told = [[number, *_plain(event)] for number, event in self._told.values()]
        return json.dumps([self.run, self.mark, told], separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read such a text; of any other nothing was told."""
        try:
            run, mark, told = json.loads(text)
            found = cls(run, mark)
            for number, kind, *values in told:
                found._put(number, _event(kind, values))
        except (ValueError, TypeError, KeyError, DigestInvalid):
            return cls()
        return found


def _about(event: Event) -> Hashable:
    """What an event replaces an earlier one about; None: nothing."""
    match event:
        case Transfer() | Advance():
            return event.text, event.digest
        case Count():
            return event.text
        case Status() | Done():
            return None
        case _:
            assert_never(event)


def _plain(event: Event) -> list[Any]:
    match event:
        case Status():
            return ["status", event.text[:_LONGEST]]
        case Transfer():
            return ["transfer", event.verb, str(event.digest), event.total, event.completed]
        case Advance():
            return ["advance", event.text, str(event.digest), event.total, event.completed]
        case Count():
            return ["count", event.text, event.count, event.size]
        case Done():
            return ["done"]
        case _:
            assert_never(event)


def _event(kind: str, values: list[Any]) -> Event:
    if kind in {"transfer", "advance"}:
        text, digest, *sizes = values
        made = Transfer if kind == "transfer" else Advance
        return made(text, Digest.parse(digest), *sizes)
    simple: dict[str, type[Status | Count | Done]] = {"status": Status, "count": Count}
    return {**simple, "done": Done}[kind](*values)
