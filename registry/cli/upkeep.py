"""`registry gc`, `scrub`, `du`, `history`, `quota`, `retention`: what keeps a library in order.

They work on the library of `--data` itself, also while servers run on it.
"""

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.admin import Data, Json, group, moment_of, show
from registry.cli.fleet import model
from registry.cli.host import loaded, settings_of, told
from registry.cli.models import Name as ModelText
from registry.cli.render import age_text, remark, size_text, table, write
from registry.core.duration import parse_duration
from registry.core.errors import RequestInvalid
from registry.core.names import ModelName

if TYPE_CHECKING:
    from registry.services.upkeep.gc import Finding

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?) ?([kmgt]i?)?b?", re.IGNORECASE)
_DAYS = re.compile(r"([0-9]{1,5})d")

Namespace = Annotated[str, typer.Argument(metavar="NAMESPACE", help="team, or HOST/team.")]
Pattern = Annotated[str, typer.Argument(metavar="PATTERN", help="team/*, team/llama, *.")]

quota = group("quota", "How many bytes namespaces may take.")
retention = group("retention", "By which rules tags go.")


def size_of(text: str) -> int:
    """Bytes of `500GB`, `1.5 TiB` or `1000`.

    Raises:
        typer.BadParameter: it is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"not a size: {text!r}; give 500GB, 1.5TiB or a number of bytes")
    unit = (found[2] or "").lower()
    return int(float(found[1]) * (_UNITS | _BINARY)[unit])


def seconds_of(text: str) -> int:
    """Seconds of `30d`, `12h` or `90m`.

    Raises:
        typer.BadParameter: it is no duration.
    """
    days = _DAYS.fullmatch(text.strip())
    if days:
        return int(days[1]) * 86_400
    try:
        found = parse_duration(text.strip())
    except RequestInvalid as error:
        raise typer.BadParameter(f"not a duration: {text!r}; give 30d, 12h or 90m") from error
    if found < 0:
        raise typer.BadParameter("a duration cannot be negative")
    return found // 10**9


def _work() -> Any:
    return loaded("cli.upkeep_work")


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    grace: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="Of unused blobs and fetches.", show_default="the setting's"
        ),
    ] = "",
    untagged: Annotated[
        bool, typer.Option("--untagged", help="Also manifests without a tag: replaced by a push.")
    ] = False,
    orphans: Annotated[
        bool, typer.Option(help="List the store, for files that nothing knows.")
    ] = True,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Free what nothing needs: first a report of what and why, then the work.

    Also while models are pushed and pulled. The server does the same by itself every few minutes;
    with `--grace 0s` go even uploads whose model was not created yet.
    """
    grace_s = seconds_of(grace) if grace else None
    with told():
        settings = settings_of(data)
        plan = _work().plan(settings, grace_s, untagged=untagged, orphans=orphans)
        if not as_json:
            _show_plan("Goes", plan.goes)
            _show_plan("Stays", plan.stays)
        done = [] if dry_run else _work().collect(settings, grace_s, untagged=untagged)
    if as_json:
        rows = {key: [_finding(i) for i in getattr(plan, key)] for key in ("goes", "stays")}
        freed = [{"what": item.text, "count": item.count, "bytes": item.size} for item in done]
        write(json.dumps(rows if dry_run else {**rows, "freed": freed}, indent=2))
        return
    for item in done:
        size = f", {size_text(item.size)}" if item.size else ""
        remark(f"Freed {item.count} {item.text}{size}.")
    if not plan.goes:
        remark("There is nothing to free.")
    elif dry_run:
        remark(f"{size_text(plan.size)} would be freed.")


def _show_plan(word: str, findings: tuple["Finding", ...]) -> None:
    if findings:
        rows = [
            [str(item.count), size_text(item.size), _age(item.since), _words(item.reason)]
            for item in findings
        ]
        write(table([[word.upper(), "SIZE", "OLDEST", "WHAT"], *rows]))


def _words(reason: str) -> str:
    found: str = loaded("services.upkeep.gc").REASONS[reason]
    return found


def _age(since_ns: int) -> str:
    then = moment_of(since_ns or None)
    return age_text(then, datetime.now(UTC)) if then else "-"


def _finding(item: "Finding") -> dict[str, Any]:
    since = moment_of(item.since or None)
    return {
        "reason": item.reason,
        "count": item.count,
        "bytes": item.size,
        "since": since.isoformat() if since else None,
    }


def scrub(
    subset: Annotated[
        str, typer.Option(metavar="I/N", help="Only the i-th of n parts of all blobs.")
    ] = "1/1",
    repair_from: Annotated[
        str, typer.Option(metavar="URL", help="A registry that has the same blobs.")
    ] = "",
    rate: Annotated[
        float, typer.Option(min=0, metavar="MB/S", help="Read so fast at most; 0: no limit.")
    ] = 0,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Only blobs that were found damaged before.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Read blobs again and compare them with their digests; exit code 1 if some are damaged.

    A damaged blob is not served, and counts as absent for a push or pull, which so repairs it.
    """
    with told():
        found = _work().scrub(
            settings_of(data), subset, int(rate * 10**6), repair_from, damaged=damaged
        )
    left = found.damaged - found.repaired
    if as_json:
        rows = {"blobs": found.blobs, "bytes": found.size}
        write(json.dumps({**rows, "damaged": found.damaged, "repaired": found.repaired}))
    elif left:
        remark(f"{left} blobs are damaged; `registry du` names the models they are part of.")
    raise typer.Exit(1 if left > 0 else 0)


def du(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="A namespace, or a model.", show_default="")
    ] = "",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show what namespaces, the models of one or the tags of one take, and share.

    UNIQUE is what would be free without it: bytes that nothing else refers to.
    """
    with told():
        totals, rows = _work().taken(settings_of(data), name)
    heaps = {
        "blobs": totals.blobs,
        "of no model": totals.unused,
        "uploads under way": totals.uploads,
        "fetches under way": totals.fetches,
    }
    if as_json:
        names = [
            {"name": row.name, "bytes": row.shares.size, "unique": row.shares.unique}
            for row in rows
        ]
        sums = {key.replace(" ", "_"): item.size for key, item in heaps.items()}
        damaged = [str(item.digest) for item in totals.suspects]
        write(json.dumps({"names": names, **sums, "damaged": damaged}, indent=2))
        return
    cells = [[row.name, size_text(row.shares.size), size_text(row.shares.unique)] for row in rows]
    if cells:
        write(table([["NAME", "SIZE", "UNIQUE"], *cells]))
    if not name:
        for text, item in heaps.items():
            if item.count:
                remark(f"{item.count} {text}, {size_text(item.size)}.")
    for item in totals.suspects:
        of = ", ".join(str(path) for path in item.repositories) or "no model"
        remark(f"Damaged: {item.digest}, {size_text(item.size)}, of {of}.")


def history(
    name: ModelText,
    to: Annotated[
        int, typer.Option("--to", metavar="ID", help="Point the tag at what it was after that.")
    ] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many changes.")] = 50,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show what became of a tag, newest first, who did it, and what can be brought back."""
    if to:
        restore(name, to, data)
        return
    with told():
        checked = ModelName.checked(name)
        found = _work().changes(settings_of(data), checked, limit)
    rows = [
        {
            "id": item.id,
            "at": moment_of(item.at),
            "who": item.who or None,
            "from": item.old.hex[:12] if item.old else None,
            "to": item.new.hex[:12] if item.new else None,
            "kept": item.kept,
        }
        for item in found
    ]
    show(rows, as_json)


def restore(
    name: ModelText,
    to: Annotated[
        int, typer.Option("--to", metavar="ID", help="What it was after that change of its history")
    ] = 0,
    data: Data = None,
) -> None:
    """Bring a deleted or replaced model back: what the tag was before its last change."""
    with told():
        tag = _work().restore(settings_of(data), ModelName.checked(name), to)
    remark(f"{tag.model.short} is {tag.digest.hex[:12]} again.")


@quota.command("list")
def list_quotas(data: Data = None, as_json: Json = False) -> None:
    """List the quotas and what is used of them."""
    with told():
        found = _work().keep(settings_of(data), lambda it: it.upkeep.quotas.all())
    if as_json:
        rows = [{"namespace": i.namespace, "bytes": i.size, "used": i.used} for i in found]
        write(json.dumps(rows, indent=2))
    elif found:
        cells = [[i.namespace, size_text(i.size), size_text(i.used)] for i in found]
        write(table([["NAMESPACE", "QUOTA", "USED"], *cells]))


@quota.command("set")
def set_quota(
    namespace: Namespace,
    size: Annotated[str, typer.Argument(metavar="SIZE", help="500GB, 1.5TiB, or bytes.")],
    data: Data = None,
) -> None:
    """Let a namespace take so much. What it has over that stays; nothing new comes."""
    wanted = size_of(size)
    with told():
        deed = loaded("cli.administration").Deed("quota.set", f"{namespace} {wanted}")
        made = _work().keep(
            settings_of(data), lambda it: it.upkeep.quotas.set(namespace, wanted), deed
        )
    remark(f"{made.namespace} may take {size_text(made.size)}; {size_text(made.used)} are used.")


@quota.command("remove")
def remove_quota(namespace: Namespace, data: Data = None) -> None:
    """Let a namespace take what it likes."""
    with told():
        deed = loaded("cli.administration").Deed("quota.delete", namespace)
        _work().keep(settings_of(data), lambda it: it.upkeep.quotas.remove(namespace), deed)
    remark(f"{namespace} has no quota any more.")


@retention.command("list")
def list_rules(data: Data = None, as_json: Json = False) -> None:
    """List the rules."""
    with told():
        found = _work().keep(settings_of(data), lambda it: it.upkeep.retention.rules())
    rows = [
        {
            "pattern": rule.pattern,
            "keep_last": rule.keep_last or None,
            "younger_than_s": rule.keep_s or None,
            "tags": list(rule.keep_tags),
        }
        for rule in found
    ]
    show(rows, as_json)


@retention.command("set")
def set_rule(
    pattern: Pattern,
    keep_last: Annotated[
        int, typer.Option(min=0, metavar="N", help="Keep the n tags that were moved last.")
    ] = 0,
    younger: Annotated[
        str, typer.Option("--younger-than", metavar="30d", help="Keep tags moved since then.")
    ] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="v*", help="Keep tags of that form; may be repeated."),
    ] = None,
    data: Data = None,
) -> None:
    """Delete every tag of the repositories under a pattern that the rule does not keep.

    Once a day, and with `registry retention run`. The longest pattern holds alone. Pinned models,
    immutable tags and what is being worked with stay.
    """
    keep_s = seconds_of(younger) if younger else 0
    with told():
        rule = loaded("core.retention").RetentionRule(pattern, keep_last, keep_s, tuple(tag or ()))
        deed = loaded("cli.administration").Deed("retention.set", pattern)
        made = _work().keep(settings_of(data), lambda it: it.upkeep.retention.set_rule(rule), deed)
    remark(f"A rule for {made.pattern}; `registry retention run --dry-run` shows what it deletes.")


@retention.command("remove")
def remove_rule(pattern: Pattern, data: Data = None) -> None:
    """Remove a rule."""
    with told():
        deed = loaded("cli.administration").Deed("retention.delete", pattern)
        _work().keep(settings_of(data), lambda it: it.upkeep.retention.delete_rule(pattern), deed)
    remark(f"No rule for {pattern} any more.")


@retention.command("run")
def run_rules(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Delete the tags that no rule keeps, now."""
    with told():
        found = _work().retain(settings_of(data), dry_run=dry_run)
    rows = [
        {"name": it.name.short, "moved": moment_of(it.updated_at), "rule": it.rule.pattern}
        for it in found
    ]
    show(rows, as_json)
    if not as_json:
        remark(f"{len(found)} tags {'would go' if dry_run else 'are gone'}.")


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program's."""
    app.command("gc")(gc)
    app.command("scrub")(scrub)
    app.command("du")(du)
    app.command("history")(history)
    model.command("restore")(restore)
    app.add_typer(quota)
    app.add_typer(retention)
