"""What the catalog keeps of workers, of where models may run, and of what they were used for.

`FleetReader` and `FleetWriter` are mixed into `Reader` and `Transaction`. Times are integer
nanoseconds since the epoch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from registry.core.names import ModelName
from registry.core.placement import Placement

HOUR_NS = 3_600 * 10**9


@dataclass(frozen=True, slots=True)
class Enlisted:
    """An existing server that was made a worker; names are unique, in lower case.

    `models` maps our models' full names to the server's ids. `key` is the bearer token it wants: it
    has to be sent, so it lies here as it is.
    """

    name: str
    kind: str  # ollama, openai
    url: str
    created_at: int
    labels: frozenset[str] = frozenset()
    models: Mapping[str, str] = field(default_factory=dict)
    slots: int = 0
    drained: bool = False
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class NewWorker:
    """A server that is to become a worker; see `Enlisted`."""

    name: str
    kind: str
    url: str
    key: str = field(default="", repr=False)
    labels: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    slots: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What one account had one worker do with one model in one hour. `hour` is when it began.

    Counts of tokens and requests; `milliseconds` is the time that slots were taken.
    """

    hour: int
    account: str
    model: str
    worker: str
    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    milliseconds: int = 0


@dataclass(frozen=True, slots=True)
class Replica:
    """A process that serves this library. `id` is new with each start.

    `url` is where others reach it, empty if they cannot. It moves `beat` on as long as it lives;
    `seen_at` is its own clock. `workers` is JSON: what it last saw of them.
    """

    id: str
    url: str
    beat: int
    seen_at: int
    workers: str


class FleetReader(Protocol):
    """What a read function may ask."""

    def drained(self) -> frozenset[str]:
        """Workers that get nothing new and are no servers of `workers`, which say it themselves."""

    def replicas(self) -> list[Replica]:
        """All rows, also of processes that ended without a word."""

    def workers(self) -> list[Enlisted]:
        """All existing servers that are workers, by name."""

    def placements(self) -> list[tuple[ModelName, Placement]]:
        """What was decided for models, by name."""

    def usage(self, since: int, until: int, limit: int) -> list[Usage]:
        """Up to `limit` rows with an hour in `[since, until)`, newest first."""


class FleetWriter(FleetReader, Protocol):
    """What a write function may do besides."""

    def put_worker(self, worker: Enlisted) -> None:
        """Add a server, or change the one of that name."""

    def drain(self, name: str, *, drained: bool) -> None:
        """Give a worker nothing new, or something again; see `drained`."""

    def put_replica(self, replica: Replica) -> None:
        """Add a process, or what is new of it."""

    def delete_replica(self, id_: str) -> None:
        """Forget a process."""

    def delete_worker(self, name: str) -> bool:
        """Forget a server; False if there was none."""

    def put_placement(self, name: ModelName, placement: Placement) -> None:
        """Decide for a model; a placement that says nothing is forgotten."""

    def add_usage(self, rows: Sequence[Usage]) -> None:
        """Add to the counts of the same hour, account, model and worker."""

    def trim_usage(self, before: int) -> int:
        """Forget rows of hours that began before; how many it were."""
