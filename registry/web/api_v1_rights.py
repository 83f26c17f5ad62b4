"""`/api/v1` for administrators: teams, grants, policies, and the audit."""

from datetime import UTC, datetime

from registry.core.access import Policy, Visibility, parse_rights, right_words
from registry.core.errors import AccountUnknown
from registry.ports import accounts as kept
from registry.services.access.accounts import Accounts
from registry.services.access.audit import Audit
from registry.web import api_v1_schemas as schemas
from registry.web.endpoints import Call, Endpoint, For

_NS = 1_000_000_000


def _accounts(call: Call) -> Accounts:
    found: Accounts = call.request.app.state.services.accounts
    return found


async def teams(call: Call) -> schemas.Teams:
    """All teams with their members, by name."""
    return schemas.Teams(teams=[_team(team) for team in await _accounts(call).teams()])


async def team(call: Call) -> schemas.Team:
    """One team."""
    name = call.path["team"].lower()
    for found in await _accounts(call).teams():
        if found.name.lower() == name:
            return _team(found)
    raise AccountUnknown(call.path["team"], "team")


async def set_team(call: Call) -> schemas.Team:
    """Make a team of just these accounts, or change it to them."""
    members = call.asked(schemas.Members).members
    call.note("team.set", call.path["team"])
    return _team(await _accounts(call).set_team(call.path["team"], members))


async def delete_team(call: Call) -> None:
    """Delete a team and its rights; its members stay."""
    call.note("team.delete", call.path["team"])
    await _accounts(call).delete_team(call.path["team"])


def _team(found: kept.Team) -> schemas.Team:
    return schemas.Team(name=found.name, members=list(found.members))


async def grants(call: Call) -> schemas.Grants:
    """All grants, by id."""
    return schemas.Grants(grants=[_grant(item) for item in await _accounts(call).grants()])


async def add_grant(call: Call) -> schemas.Grant:
    """Let a user, a team, everybody signed in or everybody do more. An equal one is found again."""
    ask = call.asked(schemas.NewGrant).root
    call.note("grant.add", f"{ask.subject} {ask.pattern}:{','.join(ask.rights)}")
    rights = parse_rights(",".join(ask.rights))
    return _grant(await _accounts(call).grant(ask.subject, ask.pattern, rights))


async def remove_grant(call: Call) -> None:
    """Take a grant away; it holds no longer from the next request on."""
    call.note("grant.remove", str(call.path["grant"]))
    await _accounts(call).revoke(call.path["grant"])


def _grant(found: kept.Grant) -> schemas.Grant:
    return schemas.Grant.model_validate(
        {
            "id": found.id,
            "subject": found.subject,
            "pattern": found.rule.pattern,
            "rights": right_words(found.rule.rights),
        }
    )


async def policies(call: Call) -> schemas.Policies:
    """All policies, by pattern. For a repository the longest pattern that fits holds."""
    found = await _accounts(call).policies()
    return schemas.Policies(policies=[_policy(policy) for policy in found])


async def set_policy(call: Call) -> schemas.Policy:
    """Say what holds for the repositories of a pattern."""
    ask = call.asked(schemas.Policy)
    call.note("policy.set", f"{ask.pattern} {ask.visibility}")
    made = await _accounts(call).set_policy(
        ask.pattern, Visibility(ask.visibility), tuple(ask.immutable)
    )
    return _policy(made)


async def delete_policy(call: Call) -> None:
    """Let nothing special hold for the repositories of a pattern."""
    pattern = call.wanted(schemas.OnePattern).pattern
    call.note("policy.delete", pattern)
    await _accounts(call).delete_policy(pattern)


def _policy(found: Policy) -> schemas.Policy:
    return schemas.Policy.model_validate(
        {
            "pattern": found.pattern,
            "visibility": found.visibility.value,
            "immutable": list(found.immutable),
        }
    )


async def audit(call: Call) -> schemas.Audit:
    """Who did what, newest first."""
    page = call.wanted(schemas.AuditPage)
    service: Audit = call.request.app.state.services.audit
    found = await service.entries(page.after or 0, page.limit)
    following = found[-1].id if len(found) == page.limit else None
    return schemas.Audit(entries=[_entry(entry) for entry in found], next=following)


def _entry(entry: kept.AuditEntry) -> schemas.AuditEntry:
    return schemas.AuditEntry(
        id=entry.id,
        at=datetime.fromtimestamp(entry.at // _NS, UTC),
        who=entry.who,
        via=entry.via,
        address=entry.address,
        action=entry.action,
        target=entry.target,
        result=entry.result,
        request_id=entry.request_id,
    )


_V1 = "/api/v1"
ENDPOINTS = (
    Endpoint("GET", f"{_V1}/teams", teams, For.ADMIN, schemas.Teams),
    Endpoint("GET", f"{_V1}/teams/{{team}}", team, For.ADMIN, schemas.Team),
    Endpoint(
        "PUT", f"{_V1}/teams/{{team}}", set_team, For.ADMIN, schemas.Team, body=schemas.Members
    ),
    Endpoint("DELETE", f"{_V1}/teams/{{team}}", delete_team, For.ADMIN),
    Endpoint("GET", f"{_V1}/grants", grants, For.ADMIN, schemas.Grants),
    Endpoint(
        "POST", f"{_V1}/grants", add_grant, For.ADMIN, schemas.Grant,
        body=schemas.NewGrant, status=201, errors=(404,),
    ),
    Endpoint("DELETE", f"{_V1}/grants/{{grant}}", remove_grant, For.ADMIN),
    Endpoint("GET", f"{_V1}/policies", policies, For.ADMIN, schemas.Policies),
    Endpoint("PUT", f"{_V1}/policies", set_policy, For.ADMIN, schemas.Policy, body=schemas.Policy),
    Endpoint(
        "DELETE", f"{_V1}/policies", delete_policy, For.ADMIN,
        query=schemas.OnePattern, errors=(404,),
    ),
    Endpoint("GET", f"{_V1}/audit", audit, For.ADMIN, schemas.Audit, query=schemas.AuditPage),
)  # fmt: skip
