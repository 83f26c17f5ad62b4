"""`/api/v1`: what the store holds, collection, scrub, quotas, retention, history of tags.

For administrators, without authentication for everybody, as deleting is; history is for whoever may
read the model, bringing it back for whoever may move the tag. Long work answers with a stream.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from starlette.responses import Response

from registry.core.access import Group, Right
from registry.core.errors import ModelUnknown
from registry.core.events import Done, Events, Status
from registry.core.names import ModelName
from registry.core.retention import RetentionRule
from registry.ports import upkeep as kept
from registry.services.upkeep.chores import Chores
from registry.services.upkeep.gc import REASONS, Finding, Plan
from registry.services.upkeep.retention import Outlived
from registry.services.upkeep.scrub import ScrubWish, Subset
from registry.services.upkeep.storage import Taken
from registry.services.upkeep.upkeep import Upkeep
from registry.web import api_v1_upkeep_schemas as schemas
from registry.web import auth
from registry.web.auditing import noted_events
from registry.web.endpoints import Call, Endpoint, For
from registry.web.streams import respond

_NS = 10**9


def _upkeep(call: Call) -> Upkeep:
    found: Upkeep = call.request.app.state.services.upkeep
    return found


def _chores(call: Call) -> Chores:
    found: Chores = call.request.app.state.services.chores
    return found


def _moment(ns: int) -> datetime | None:
    return datetime.fromtimestamp(ns // _NS, UTC) if ns else None


async def _stream(call: Call, action: str, target: str, events: Events) -> Response:
    return await respond(noted_events(call.request, action, target, events), stream=True)


# storage


async def storage(call: Call) -> schemas.Storage:
    """How many bytes there are, whose they are, and what only looks like use."""
    ask, service = call.wanted(schemas.StorageQuery), _upkeep(call).storage
    totals = await service.totals()
    if ask.name:
        taken = await service.within(ask.name, ask.after, ask.limit)
    else:
        taken = await service.namespaces(ask.after, ask.limit)
    return schemas.Storage(
        blobs=_heap(totals.blobs),
        unused=_heap(totals.unused),
        uploads=_heap(totals.uploads),
        fetches=_heap(totals.fetches),
        damaged=[_damaged(item) for item in totals.suspects],
        quotas=[_quota(item) for item in totals.quotas],
        names=[_share(item) for item in taken],
        next=service.cursor(taken[-1].name) if len(taken) == ask.limit else None,
    )


def _heap(tally: kept.Tally) -> schemas.Heap:
    return schemas.Heap(count=tally.count, bytes=tally.size, since=_moment(tally.since))


def _damaged(item: kept.Suspect) -> schemas.Damaged:
    found_at = datetime.fromtimestamp(item.suspect_at // _NS, UTC)
    names = [name.path for name in item.repositories]
    return schemas.Damaged(
        digest=str(item.digest), bytes=item.size, found_at=found_at, repositories=names
    )


def _share(item: Taken) -> schemas.Share:
    shares = item.shares
    return schemas.Share(
        name=item.name, blobs=shares.blobs, bytes=shares.size, unique=shares.unique
    )


# collection and scrub


async def plan(call: Call) -> schemas.Plan:
    """What a collection would do now, and why. Nothing is changed."""
    ask = call.wanted(schemas.PlanQuery)
    found: Plan = await _upkeep(call).collection.plan(
        ask.grace_s, untagged=ask.untagged, orphans=ask.orphans
    )
    return schemas.Plan(
        goes=[_finding(item) for item in found.goes], stays=[_finding(item) for item in found.stays]
    )


def _finding(item: Finding) -> schemas.Finding:
    return schemas.Finding(
        reason=item.reason,
        text=REASONS[item.reason],
        count=item.count,
        bytes=item.size,
        since=_moment(item.since),
    )


async def collect(call: Call) -> Response:
    """Free what nothing needs, while everything goes on.

    Who asks for what another one asked for, at any replica, is told of the same collection. It ends
    when the last of them leaves.
    """
    ask = call.asked(schemas.CollectionAsk)
    subject = call.caller.name
    events = _chores(call).collect(ask.grace_s, untagged=ask.untagged, subject=subject)
    return await _stream(call, "gc", "", events)


async def scrub(call: Call) -> Response:
    """Read blobs again and compare them with their digests; perhaps repair those that are wrong.

    Shared with those who ask for the same, and ended by the last who leaves, as a collection is.
    """
    ask = call.asked(schemas.ScrubAsk)
    wish = ScrubWish(Subset.parse(ask.subset), ask.bytes_per_second, ask.only_damaged)
    events = _chores(call).scrub(wish, ask.repair_from or "", call.caller.name)
    return await _stream(call, "scrub", ask.subset, events)


# quotas


async def quotas(call: Call) -> schemas.Quotas:
    """What namespaces may take, and take."""
    return schemas.Quotas(quotas=[_quota(item) for item in await _upkeep(call).quotas.all()])


async def set_quota(call: Call) -> schemas.Quota:
    """Let a namespace take so many bytes. What is over it already stays."""
    ask = call.asked(schemas.QuotaAsk)
    call.note("quota.set", f"{ask.namespace} {ask.bytes}")
    return _quota(await _upkeep(call).quotas.set(ask.namespace, ask.bytes))


async def delete_quota(call: Call) -> None:
    """Let a namespace take what it likes."""
    ask = call.wanted(schemas.OneNamespace)
    call.note("quota.delete", ask.namespace)
    await _upkeep(call).quotas.remove(ask.namespace)


def _quota(item: kept.Quota) -> schemas.Quota:
    return schemas.Quota(namespace=item.namespace, bytes=item.size, used=item.used)


# retention


async def rules(call: Call) -> schemas.Rules:
    """The rules by which tags go."""
    found = await _upkeep(call).retention.rules()
    return schemas.Rules(rules=[_rule(item) for item in found])


async def set_rule(call: Call) -> schemas.Rule:
    """Add a rule, or overwrite that of the same pattern. The longest pattern holds alone."""
    ask = call.asked(schemas.Rule)
    call.note("retention.set", ask.pattern)
    rule = RetentionRule(ask.pattern, ask.keep_last, ask.keep_s, tuple(ask.keep_tags))
    return _rule(await _upkeep(call).retention.set_rule(rule))


async def delete_rule(call: Call) -> None:
    """Remove a rule."""
    ask = call.wanted(schemas.OnePattern)
    call.note("retention.delete", ask.pattern)
    await _upkeep(call).retention.delete_rule(ask.pattern)


async def retain(call: Call) -> Response:
    """Delete the tags that no rule keeps, as is done once a day, or only name them."""
    ask, retention = call.asked(schemas.RetentionAsk), _upkeep(call).retention
    if ask.dry_run:
        return await respond(_named("would go", retention.victims()), stream=True)
    return await _stream(call, "retention", "", _named("gone", retention.deleting()))


async def _named(word: str, victims: AsyncGenerator[Outlived, None]) -> Events:
    async with aclosing(victims):
        async for victim in victims:
            yield Status(f"{word}: {victim.name.short}")
    yield Done()


def _rule(item: RetentionRule) -> schemas.Rule:
    return schemas.Rule(
        pattern=item.pattern,
        keep_last=item.keep_last,
        keep_s=item.keep_s,
        keep_tags=list(item.keep_tags),
    )


# history


async def history(call: Call) -> schemas.Changes:
    """What became of a tag, newest first, and who did it."""
    ask = call.wanted(schemas.HistoryQuery)
    name = await _readable(call, ask.model)
    found = await _upkeep(call).history.of(name, ask.before, ask.limit)
    return schemas.Changes(model=name.short, changes=[_change(item) for item in found])


async def restore(call: Call) -> schemas.Restored:
    """Point a tag at what it was: also bring a deleted model back, while that is possible."""
    ask = call.asked(schemas.RestoreAsk)
    await auth.require(call.request, Group.WRITE)
    call.note("model.restore", f"{ask.model} {ask.to}")
    name = await _readable(call, ask.model)
    guard = await auth.guard(call.request, name.repository)
    tag = await _upkeep(call).history.restore(name, ask.to, guard)
    return schemas.Restored(model=tag.model.short, digest=str(tag.digest))


async def _readable(call: Call, text: str) -> ModelName:
    name = ModelName.checked(text)
    if not await auth.may(call.request, name.repository, Right.READ):
        raise ModelUnknown(f"model '{name.short}' not found")
    return name


def _change(item: kept.TagEvent) -> schemas.Change:
    return schemas.Change(
        id=item.id,
        at=datetime.fromtimestamp(item.at // _NS, UTC),
        who=item.who,
        old=str(item.old) if item.old else None,
        new=str(item.new) if item.new else None,
        kept=item.kept,
    )


_V1 = "/api/v1"
ENDPOINTS = (
    Endpoint(
        "GET", f"{_V1}/storage", storage, For.KEEPER, schemas.Storage,
        query=schemas.StorageQuery, errors=(404,),
    ),
    Endpoint("GET", f"{_V1}/gc", plan, For.KEEPER, schemas.Plan, query=schemas.PlanQuery),
    Endpoint(
        "POST", f"{_V1}/gc", collect, For.KEEPER, schemas.Line,
        body=schemas.CollectionAsk, errors=(500,), stream=True,
    ),
    Endpoint(
        "POST", f"{_V1}/scrub", scrub, For.KEEPER, schemas.Line,
        body=schemas.ScrubAsk, errors=(500,), stream=True,
    ),
    Endpoint("GET", f"{_V1}/quotas", quotas, For.KEEPER, schemas.Quotas),
    Endpoint("PUT", f"{_V1}/quotas", set_quota, For.KEEPER, schemas.Quota, body=schemas.QuotaAsk),
    Endpoint(
        "DELETE", f"{_V1}/quotas", delete_quota, For.KEEPER,
        query=schemas.OneNamespace, errors=(404,),
    ),
    Endpoint("GET", f"{_V1}/retention", rules, For.KEEPER, schemas.Rules),
    Endpoint("PUT", f"{_V1}/retention", set_rule, For.KEEPER, schemas.Rule, body=schemas.Rule),
    Endpoint(
        "POST", f"{_V1}/retention", retain, For.KEEPER, schemas.Line,
        body=schemas.RetentionAsk, errors=(500,), stream=True,
    ),
    Endpoint(
        "DELETE", f"{_V1}/retention", delete_rule, For.KEEPER,
        query=schemas.OnePattern, errors=(404,),
    ),
    Endpoint(
        "GET", f"{_V1}/history", history, For.SIGNED_IN, schemas.Changes,
        query=schemas.HistoryQuery, errors=(404,),
    ),
    Endpoint(
        "POST", f"{_V1}/history", restore, For.SIGNED_IN, schemas.Restored,
        body=schemas.RestoreAsk, errors=(404,),
    ),
)  # fmt: skip
