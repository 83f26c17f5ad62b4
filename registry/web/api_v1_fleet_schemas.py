"""What `/api/v1` takes and gives about workers, placements and usage; see `api_v1_schemas.py`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, RootModel, StringConstraints

from registry.web.api_v1_schemas import Answer, Ask, _whole

WORD = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
KEY = r"^[\x21-\x7e]*$"
ID = r"^[^\x00-\x1f\x7f-\x9f]+$"
URL = r"^https?://[A-Za-z0-9][A-Za-z0-9.-]*(:[1-9][0-9]{0,3}|:[1-5][0-9]{4})?(/[A-Za-z0-9_.~-]*)*$"
MODEL = (
    r"^(([A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}/)?[A-Za-z0-9_][A-Za-z0-9_-]{0,79}/)?"
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})?$"
)

Word = Annotated[str, StringConstraints(pattern=WORD)]
ModelText = Annotated[str, StringConstraints(pattern=MODEL, max_length=350)]
ServerId = Annotated[str, StringConstraints(pattern=ID, max_length=200)]
Slots = Annotated[int, Field(ge=0, le=4096), BeforeValidator(_whole)]
Hours = Annotated[int, Field(ge=1, le=9600)]


class Mapped(Ask):
    """A model of ours, and the server's name for it; `*` for the only one it has."""

    model: ModelText
    id: ServerId


class _Server(Ask):
    name: Word
    url: Annotated[str, StringConstraints(pattern=URL, max_length=500)]
    key: Annotated[str, StringConstraints(pattern=KEY, max_length=4096)] | None = Field(
        None, repr=False, description="bearer token that it wants; never shown again"
    )
    labels: list[Word] = Field(default=[], max_length=20)
    slots: Slots = Field(0, description="requests at once per model; 0: it tells")


class OllamaServer(_Server):
    """An Ollama server: it pulls from here what it lacks."""

    kind: Literal["ollama"]


class OpenAIServer(_Server):
    """A llama-server, or another one with OpenAI's API: it serves what it was started with."""

    kind: Literal["openai"]
    models: list[Mapped] = Field(
        default=[], max_length=40, description="none: every model that it lists"
    )


class NewWorker(RootModel[OllamaServer | OpenAIServer]):
    """An existing server that is to become a worker."""


class WorkerChange(Ask):
    """What can be changed of a worker."""

    drained: bool


class Running(Answer):
    """A model on a worker. Sizes in bytes."""

    model: str
    size: int
    slots: int
    busy: int
    waiting: int
    loading: bool


class MappedModel(Answer):
    """A model of ours and the server's name for it; `*` stands for all of them, or any."""

    model: str
    id: str


class Worker(Answer):
    """A worker. Memory in bytes, 0 where it is not known; `kind` is `node` for our own program."""

    name: str
    kind: Literal["node", "ollama", "openai"]
    url: str | None
    has_key: bool
    labels: list[str]
    models: list[MappedModel]
    drained: bool
    reachable: bool
    engine: str
    version: str
    memory_total: int
    memory_free: int
    running: list[Running]


class Resting(Answer):
    """A model that took its runners down and is not run for so long."""

    model: str
    seconds: int
    reason: str


class Workers(Answer):
    """All workers, by name; models that rest after crashes, as the process asked knows it."""

    workers: list[Worker]
    resting: list[Resting]


class PlacementWish(Ask):
    """Where a model may run, and whether it stays loaded."""

    model: ModelText
    labels: list[Word] = Field(default=[], max_length=20)
    pinned: bool = False


class Placement(Answer):
    """What is decided for a model."""

    model: str
    labels: list[str]
    pinned: bool


class Placements(Answer):
    """What is decided for models, by name."""

    placements: list[Placement]


class UsageQuery(Ask):
    """Which usage, and what it is added up over."""

    hours: Hours = Field(24, description="so many hours back")
    by: Literal["model", "account", "worker", "hour"] = "model"


class UsageRow(Answer):
    """Counts of one model, account, worker or hour; the other three are null."""

    hour: datetime | None
    account: str | None
    model: str | None
    worker: str | None
    requests: int
    prompt_tokens: int
    tokens: int
    seconds: float


class UsageRows(Answer):
    """What models were used for; most tokens first, hours newest first."""

    usage: list[UsageRow]
