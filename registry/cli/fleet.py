"""`registry worker add`, `registry model`, `registry usage`: workers, placements, the books.

They work on the database of `--data`, also while a server runs: it takes changes up within seconds.
`model warm` alone asks a running server.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from registry.cli.admin import Data, Json, administer, group, moment_of, read_stdin, show
from registry.cli.client import DEFAULT_SERVER
from registry.cli.models import Name as ModelText
from registry.cli.models import Server, session
from registry.cli.render import complain, remark
from registry.core.errors import OperationFailed
from registry.core.names import ModelName
from registry.ports.fleet import HOUR_NS, Enlisted, NewWorker, Usage

if TYPE_CHECKING:
    from registry.cli.administration import Administration
    from registry.services.inference.fleet import Sighting

    _Found = tuple[list[Enlisted], list[Sighting], frozenset[str]]

WorkerName = Annotated[str, typer.Argument(metavar="NAME", help="As `worker list` shows it.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="May be given several times.")]

model = group("model", "Where models run: labels, pins, loading ahead.")


class Kind(StrEnum):
    """What a server speaks."""

    OLLAMA = "ollama"
    OPENAI = "openai"


class By(StrEnum):
    """What usage is added up over."""

    MODEL = "model"
    ACCOUNT = "account"
    WORKER = "worker"
    HOUR = "hour"


def add_worker(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of an existing server.")],
    kind: Annotated[Kind, typer.Option(help="openai: llama-server, vLLM and the like.")],
    name: Annotated[str, typer.Option(help="What to call it.", show_default="after its host")] = "",
    label: Labels = None,
    served: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="OURS=THEIRS", help="Its name of a model of ours."),
    ] = None,
    slots: Annotated[
        int, typer.Option(help="Requests it serves at once per model.", show_default="it tells")
    ] = 0,
    key_stdin: Annotated[
        bool, typer.Option("--key-stdin", help="Read the key it wants from standard input.")
    ] = False,
    data: Data = None,
) -> None:
    """Make an existing server a worker: it needs no program of ours.

    An Ollama server pulls from this library what it lacks. A server with OpenAI's API serves the
    models it lists, or those named with --model; THEIRS may be `*` where it has one only.
    """
    try:
        models = dict(_pair(item) for item in served or ())
        key = read_stdin() if key_stdin else ""
    except OperationFailed as error:
        complain(str(error))
        raise typer.Exit(2) from error
    name = name or _named_after(url)
    wish = NewWorker(name, kind.value, url, key, tuple(label or ()), models, slots)
    made = administer(data, lambda place: place.fleet.add(wish), ("worker.add", f"{name} {url}"))
    remark(f"Worker {made.name}: {made.kind} at {made.url}.")


def list_workers(data: Data = None, as_json: Json = False) -> None:
    """List all workers: servers that were added, and whatever a running server sees."""

    async def work(place: "Administration") -> "_Found":
        return await place.fleet.workers(), await place.fleet.seen(), await place.fleet.drained()

    rows, seen, drained = administer(data, work)
    servers = {row.name: row for row in rows}
    states: dict[str, list[Mapping[str, Any]]] = {name: [] for name in servers}
    for sighting in seen:
        states.setdefault(sighting.state["name"], []).append(sighting.state)
    shown = [
        _shown(name, servers.get(name), states[name], drained=name in drained)
        for name in sorted(states)
    ]
    show(shown, as_json)


def _shown(
    name: str, row: Enlisted | None, states: list[Mapping[str, Any]], *, drained: bool
) -> dict[str, Any]:
    """A worker: its row, and how the servers that run see it."""
    reachable = [state for state in states if state["reachable"]]
    best = (reachable or states or [{}])[0]
    running = {item["model"] for state in states for item in state["running"]}
    return {
        "name": name,
        "kind": row.kind if row else "node",
        "state": _state_of(states, reachable, drained=drained),
        "engine": best.get("engine") or None,
        "running": sorted(running),
        "url": row.url if row else None,
        "labels": sorted(row.labels) if row else list(best.get("labels", ())),
        "models": [f"{ours}={theirs}" for ours, theirs in row.models.items()] if row else [],
        "slots": row.slots or None if row else None,
        "drained": drained,
        "added": moment_of(row.created_at) if row else None,
    }


def _state_of(
    states: list[Mapping[str, Any]], reachable: list[Mapping[str, Any]], *, drained: bool
) -> str:
    if not states:
        return "not seen"  # no server runs, or it has just been added
    if not reachable:
        return "away"
    return "drained" if drained or all(state["drained"] for state in reachable) else "ready"


def remove_worker(name: WorkerName, data: Data = None) -> None:
    """Make an existing server a worker no longer. What runs there may end."""
    administer(data, lambda place: place.fleet.remove(name), ("worker.remove", name))
    remark(f"{name} is no worker any more.")


def drain_worker(name: WorkerName, data: Data = None) -> None:
    """Send nothing new to a worker; what runs there goes on."""
    administer(data, lambda place: place.fleet.drain(name), ("worker.drain", name))
    remark(f"{name} gets nothing new; `registry worker resume {name}` ends that.")


def resume_worker(name: WorkerName, data: Data = None) -> None:
    """Send requests to a drained worker again."""
    administer(data, lambda place: place.fleet.drain(name, drained=False), ("worker.resume", name))
    remark(f"{name} gets requests again.")


@model.command("place")
def place(name: ModelText, label: Labels = None, data: Data = None) -> None:
    """Let a model run only on workers with all these labels; without any, everywhere."""
    labels = tuple(label or ())

    async def work(at: "Administration") -> None:
        await at.fleet.place(ModelName.checked(name), labels)

    administer(data, work, ("model.place", f"{name} {' '.join(labels)}".strip()))
    remark(f"{name} runs {'on workers with ' + ', '.join(labels) if labels else 'everywhere'}.")


@model.command("pin")
def pin(name: ModelText, data: Data = None) -> None:
    """Keep a model loaded: it is loaded when a server runs, and never makes room."""
    _pin(name, data, pinned=True)
    remark(f"{name} stays loaded.")


@model.command("unpin")
def unpin(name: ModelText, data: Data = None) -> None:
    """Let a pinned model go when it is not used."""
    _pin(name, data, pinned=False)
    remark(f"{name} is loaded as it is needed.")


@model.command("warm")
def warm(name: ModelText, server: Server = DEFAULT_SERVER) -> None:
    """Have the server load a model now, before anybody asks."""
    with session(server) as client:
        client.load(name)
    remark(f"{name} is loaded.")


@model.command("placements")
def list_placements(data: Data = None, as_json: Json = False) -> None:
    """List the models that were placed or pinned."""
    found = administer(data, lambda at: at.fleet.placements())
    rows: list[dict[str, Any]] = [
        {"model": name.short, "labels": sorted(item.labels), "pinned": item.pinned}
        for name, item in found
    ]
    show(rows, as_json)


def usage(
    hours: Annotated[int, typer.Option(min=1, max=9600, help="So many hours back.")] = 24,
    by: Annotated[By, typer.Option(help="What it is added up over.")] = By.MODEL,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show tokens, requests and seconds that models were used for."""

    async def work(at: "Administration") -> list[Usage]:
        until = at.clock() // HOUR_NS * HOUR_NS + HOUR_NS
        return await at.ledger.totals(until - hours * HOUR_NS, until, by.value)

    rows = administer(data, work)
    shown: list[dict[str, Any]] = [
        {
            by.value: moment_of(row.hour) if by is By.HOUR else getattr(row, by.value),
            "requests": row.requests,
            "prompt_tokens": row.prompt_tokens,
            "tokens": row.tokens,
            "seconds": row.milliseconds / 1e3,
        }
        for row in rows
    ]
    show(shown, as_json)


def add_to(app: typer.Typer, worker: typer.Typer) -> None:
    """Add the commands."""
    worker.command("add")(add_worker)
    worker.command("list")(list_workers)
    worker.command("remove")(remove_worker)
    worker.command("drain")(drain_worker)
    worker.command("resume")(resume_worker)
    app.add_typer(model)
    app.command("usage")(usage)


def _pin(name: str, data: Data, *, pinned: bool) -> None:
    async def work(at: "Administration") -> None:
        await at.fleet.pin(ModelName.checked(name), pinned=pinned)

    administer(data, work, ("model.pin" if pinned else "model.unpin", name))


def _pair(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not ours or not equals or not theirs:
        raise OperationFailed(f"{text[:80]!r} is no OURS=THEIRS")
    return ours, theirs


def _named_after(url: str) -> str:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # told when the URL is looked at
        host = ""
    return re.sub(r"[^a-z0-9_.-]", "-", host).strip("-.")[:60] or "worker"
