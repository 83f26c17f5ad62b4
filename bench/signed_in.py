"""Measure what authentication costs: the same small requests with it on and off, side by side.

    python bench/signed_in.py --folder /fast/disk [--repositories 1000 100000]

Two servers of ours over equal catalogs run at once, one with authentication, and are asked in turn,
round after round. The figure is the ratio of CPU time per request, which a busy machine distorts
least, beside that of the rates. "Kept" answers are those that are asked again while nothing is
written; the others are made anew each time (the request has an If-None-Match that fits nothing).

A token is never issued without authentication. Its cost is shown beside a manifest that is made
anew without it: the request that a client could make in its place.
"""

import argparse
import asyncio
import base64
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import load
import servers
from small import BLOB, CONFIG, MANIFEST_TYPE, digest, manifest

from registry.app import build, prepare
from registry.core.access import Group, Right, Scope, Visibility
from registry.core.names import ModelName
from registry.ports.catalog import Transaction
from registry.services import Services
from registry.services.access.keys import ApiKeyWish
from registry.services.access.tokens import Access, Subject
from registry.settings import Settings

PASSWORD = "correct horse battery"
_BATCH = 1000
_RULES = 50
_SPREAD = 500  # repositories that are asked in turn
_ON = {"REGISTRY_AUTH": "true", "REGISTRY_CREDENTIALS__TOKENS_PER_MINUTE": "1000000000"}
_NEW = 'If-None-Match: "other"\r\n'


def repository(number: int) -> str:
    return f"team{number % 100}/model{number}"


def blob() -> str:
    return digest(BLOB)


async def fill(data: Path, count: int, *, auth: bool) -> dict[str, str]:
    """Make `count` repositories of one image; with `auth` people and rights too."""
    settings = Settings.load({}, data=data, auth=auth)
    prepare(settings)
    services = build(settings)
    try:
        for content in (CONFIG, BLOB):
            await services.blobs.put_bytes(content)
        prepared = await services.manifests.prepare(manifest(), MANIFEST_TYPE)
        for start in range(0, count, _BATCH):
            names = [
                ModelName.parse(f"{repository(number)}:latest")
                for number in range(start, min(start + _BATCH, count))
            ]

            def work(tx: Transaction, names: Sequence[ModelName] = names) -> None:
                for name in names:
                    services.manifests.replace_model(tx, name, prepared)

            await services.catalog.write(work)
            await services.housekeeping.settle([])
        return await _people(services, count) if auth else {}
    finally:
        await services.housekeeping.finish()
        await services.accounts.close()
        await services.catalog.close()


async def _people(services: Services, count: int) -> dict[str, str]:
    """A user with rules about many teams, an API key and a token of hers; a policy for each tenth
    repository."""
    accounts = services.accounts
    await accounts.create_user("root", PASSWORD, admin=True)
    anna = await accounts.create_user("anna", PASSWORD)
    for number in range(_RULES):
        await accounts.grant("user:anna", f"team{number}/*", Right.READ | Right.WRITE)
    for number in range(0, count, 10):
        await accounts.set_policy(repository(number), Visibility.INTERNAL, ())
    wish = ApiKeyWish("bench", Group.ALL, (Scope("team*", Right.READ),), None)
    key = await accounts.create_api_key(anna.id, wish)
    access = [Access("repository", repository(0), ("pull",))]
    token = await services.tokens.issue(Subject("anna", f"user:{anna.id}"), access, "registry")
    text = base64.b64encode(f"anna:{PASSWORD}".encode()).decode()
    return {
        "token": f"Bearer {token.token}",
        "API key": f"Bearer {key.text}",
        "Basic": f"Basic {text}",
    }


def cases(header: str) -> dict[str, list[load.Ask]]:
    """By name; `header` is a line for `Authorization`."""
    accept = f"Accept: {MANIFEST_TYPE}\r\n{header}"

    def manifests(numbers: Sequence[int], extra: str = "") -> list[load.Ask]:
        return [
            load.Ask("GET", f"/v2/{repository(n)}/manifests/latest", headers=accept + extra)
            for n in numbers
        ]

    def blobs(numbers: Sequence[int], extra: str = "") -> list[load.Ask]:
        return [
            load.Ask("HEAD", f"/v2/{repository(n)}/blobs/{blob()}", headers=header + extra)
            for n in numbers
        ]

    many = [n for n in range(_SPREAD) if n % 100 < _RULES]
    return {
        "manifest by tag, kept": manifests([0]),
        "manifest by tag": manifests([0], _NEW),
        "manifests of many repositories": manifests(many, _NEW),
        "HEAD blob, kept": blobs([0]),
        "HEAD blob": blobs([0], _NEW),
        "HEAD blob in many repositories": blobs(many, _NEW),
    }


def ask_token(number: int) -> str:
    return f"/v2/token?service=registry&scope=repository:{repository(number)}:pull"


@dataclass(slots=True)
class Runs:
    """What was measured for one case and one kind of credentials."""

    rates: list[float]
    cpus: list[float]


def run(server: servers.Server, asks: list[load.Ask], seconds: float) -> tuple[float, float]:
    """Requests per second, and CPU seconds of the server for each."""
    cpu = server.cpu
    rate = load.run(server.port, asks, seconds=seconds).rate
    return rate, (server.cpu - cpu) / (rate * seconds)


def measure(
    off: servers.Server, on: servers.Server, values: dict[str, str], args: argparse.Namespace
) -> dict[tuple[str, str], Runs]:
    found: dict[tuple[str, str], Runs] = defaultdict(lambda: Runs([], []))
    plain = cases("")
    todo: list[tuple[str, str, servers.Server, list[load.Ask]]] = []
    for case in plain:
        todo.append((case, "off", off, plain[case]))
        for kind, value in values.items():
            if kind == "token" and "many" in case:
                continue  # a token is for what it was asked for
            asks = cases(f"Authorization: {value}\r\n")[case]
            todo.append((case, kind, on, asks))
    for kind, value in {"nobody": "", **values}.items():
        if kind == "token":
            continue
        header = f"Authorization: {value}\r\n" if value else ""
        asks = [load.Ask("GET", ask_token(0), headers=header)]
        todo.append(("token issue", kind, on, asks))
    todo.append(("token issue", "off", off, plain["manifest by tag"]))
    for number in range(args.rounds + 1):
        for case, kind, server, asks in todo:
            rate, cpu = run(server, asks, args.seconds if number else 0.3)
            if number:  # the first round warms up
                found[case, kind].rates.append(rate)
                found[case, kind].cpus.append(cpu)
    return found


def report(found: dict[tuple[str, str], Runs]) -> None:
    print(f"{'':31} {'':8} {'r/s':>8} {'CPU µs':>7}  CPU on ÷ off  time on ÷ off")
    for (case, kind), runs in sorted(found.items(), key=lambda item: item[0][0]):
        base = found[case, "off"]
        cpus = [on / off for on, off in zip(runs.cpus, base.cpus, strict=True)]
        rates = [off / on for on, off in zip(runs.rates, base.rates, strict=True)]
        ratio = (
            ""
            if kind == "off"
            else (f"{statistics.median(cpus):10.2f} x {statistics.median(rates):12.2f} x")
        )
        print(
            f"{case:31} {kind:8} {statistics.median(runs.rates):8,.0f} "
            f"{statistics.median(runs.cpus) * 1e6:7.1f}  {ratio}"
        )


def main() -> None:
    options = servers.options(__doc__)
    options.add_argument("--repositories", type=int, nargs="*", default=[1000])
    options.add_argument("--seconds", type=float, default=1.0, help="of each run")
    args = options.parse_args()
    for count in args.repositories:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder)))
            began = time.perf_counter()
            asyncio.run(fill(folder / "off", count, auth=False))
            values = asyncio.run(fill(folder / "on", count, auth=True))
            print(f"\n{count:,} repositories, filled in {time.perf_counter() - began:.0f} s")
            off = stack.enter_context(servers.ours(args.ours, folder / "off"))
            on = stack.enter_context(servers.ours(args.ours, folder / "on", environ=_ON))
            report(measure(off, on, values, args))


if __name__ == "__main__":
    main()
