"""Collection, scrub and import as jobs: whoever asks for the same waits for the same, anywhere.

Different wishes run beside each other: each step of a collection looks anew at what holds a blob,
so that two do no more harm than one.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import asdict

from registry.core.events import Count, Events, Transfer
from registry.services.sharing.broadcast import Run, broadcast
from registry.services.sharing.efforts import What
from registry.services.sharing.sharing import Sharing
from registry.services.upkeep.importing import Import, Wanted
from registry.services.upkeep.scrub import Findings, ScrubWish
from registry.services.upkeep.upkeep import Upkeep

_LONGEST = 200


class Chores:
    """The use cases. `subject` is the account that asks."""

    def __init__(self, sharing: Sharing, upkeep: Upkeep) -> None:
        self._sharing = sharing
        self._upkeep = upkeep

    def collect(
        self, grace_s: int | None = None, *, untagged: bool = False, subject: str = ""
    ) -> Events:
        """A collection. If its process dies it begins anew: what was done is done."""

        async def begin(run: Run) -> Events:
            sizes: dict[str, int] = {}
            events = self._upkeep.collection.run(grace_s, untagged=untagged)
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Count):
                        sizes[event.text] = event.size
                        run.done = sum(sizes.values())
                    yield event

        grace = "" if grace_s is None else f" with a grace of {grace_s} s"
        title = f"{'untagged manifests too' if untagged else 'what nothing needs'}{grace}"
        return broadcast(self._sharing, What("gc", f"gc {title}", title), subject, begin)

    def scrub(
        self,
        wish: ScrubWish,
        source: str = "",
        subject: str = "",
        take: Callable[[Findings], None] | None = None,
    ) -> Events:
        """A scrub, with repairs from the registry at the URL `source`; `take` gets what came out.

        If its process dies it goes on behind the last blobs that were noted.

        Raises:
            RequestInvalid: `source` is no such URL.
        """
        fetch = self._upkeep.repair_from(source) if source else None
        scrub = self._upkeep.scrub

        async def begin(run: Run) -> Events:
            found = Findings(**json.loads(run.mark)) if run.mark else Findings()
            run.total = await scrub.size_of(wish)
            events = scrub.run(wish, fetch, found)
            after = found.after
            async with aclosing(events):
                async for event in events:
                    run.done = found.size
                    if found.after != after:  # all blobs so far are noted
                        after, run.mark = found.after, json.dumps(asdict(found))
                    yield event
            run.result = json.dumps(asdict(found))

        def taking(result: str) -> None:
            if take is not None:
                take(Findings(**json.loads(result)))

        subset = wish.subset
        part = "" if subset.of == 1 else f" {subset.number} of {subset.of}"
        title = f"{'damaged blobs' if wish.only_suspect else 'blobs'}{part}"
        what = What("scrub", f"scrub {title} {wish.rate} {source}", title)
        return broadcast(self._sharing, what, subject, begin, taking)

    def bring_in(
        self, work: Import, wanted: Wanted, place: str, take: Callable[[int], None]
    ) -> Events:
        """An import from `place`, a name that is this one's on all machines.

        `take` gets the number of models. If its process dies, who waits for it begins anew, and
        passes over what is here.
        """

        async def begin(run: Run) -> Events:
            events = work.run(wanted)
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Transfer) and event.completed == event.total:
                        run.done += event.total
                    yield event
            run.result = str(len(work.taken))

        names = ", ".join(wanted.labels) or "every model"
        wish = hashlib.sha256(repr((place, wanted)).encode()).hexdigest()
        what = What("import", f"import {wish}", f"{names} of {place.rpartition('/')[2]}"[:_LONGEST])
        return broadcast(self._sharing, what, "", begin, lambda result: take(int(result)))
