"""Administration of rights: `registry team`, `registry grant`, `registry policy`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.cli.admin import Data, Json, Name, administer, group, show
from registry.cli.render import remark
from registry.core.access import Visibility, parse_rights, right_words

if TYPE_CHECKING:
    from registry.cli.administration import Administration

Pattern = Annotated[
    str, typer.Argument(metavar="PATTERN", help="Of repositories: 'team/*', 'team/llama', '*'.")
]

team = group("team", "Teams of accounts.")
grant = group("grant", "Rules: who may do what with which repositories.")
policy = group("policy", "What holds for repositories, whoever asks.")


@team.command("set")
def set_team(
    name: Name,
    members: Annotated[list[str] | None, typer.Argument(metavar="[USER]…")] = None,
    data: Data = None,
) -> None:
    """Make a team of just these accounts, or change it."""
    made = administer(
        data,
        lambda place: place.accounts.set_team(name, members or []),
        ("set team", f"{name}: {', '.join(members or [])}"),
    )
    remark(f"Team {made.name}: {', '.join(made.members) or 'nobody'}.")


@team.command("list")
def list_teams(data: Data = None, as_json: Json = False) -> None:
    """List the teams and their members."""
    teams = administer(data, lambda place: place.accounts.teams())
    show([{"name": found.name, "members": list(found.members)} for found in teams], as_json)


@team.command("delete")
def delete_team(name: Name, data: Data = None) -> None:
    """Delete a team and its rules; its members stay."""
    administer(data, lambda place: place.accounts.delete_team(name), ("delete team", name))
    remark(f"Deleted team {name}.")


@grant.command("add")
def add_grant(
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="user:NAME, team:NAME, users or everybody.")
    ],
    pattern: Pattern,
    rights: Annotated[
        str,
        typer.Argument(
            metavar="RIGHTS", help="Of read, create, move, write, delete, manage, all; with commas."
        ),
    ],
    data: Data = None,
) -> None:
    """Let somebody do more."""

    async def work(place: "Administration") -> int:
        return (await place.accounts.grant(subject, pattern, parse_rights(rights))).id

    made = administer(data, work, ("add rule", f"{subject} {pattern} {rights}"))
    remark(f"Rule {made}: {subject} may {rights} {pattern}.")


@grant.command("list")
def list_grants(data: Data = None, as_json: Json = False) -> None:
    """List all rules."""
    grants = administer(data, lambda place: place.accounts.grants())
    rows: list[dict[str, Any]] = [
        {
            "id": found.id,
            "subject": found.subject,
            "pattern": found.rule.pattern,
            "rights": right_words(found.rule.rights),
        }
        for found in grants
    ]
    show(rows, as_json)


@grant.command("remove")
def remove_grant(
    rule_id: Annotated[int, typer.Argument(metavar="ID", min=1)], data: Data = None
) -> None:
    """Remove a rule."""
    administer(data, lambda place: place.accounts.revoke(rule_id), ("remove rule", str(rule_id)))
    remark(f"Removed rule {rule_id}.")


@policy.command("set")
def set_policy(
    pattern: Pattern,
    visibility: Annotated[
        Visibility, typer.Option(help="Who may read without a rule.")
    ] = Visibility.PRIVATE,
    immutable: Annotated[
        list[str] | None,
        typer.Option(metavar="TAGS", help="Tags that are made once and not moved: 'v*'."),
    ] = None,
    data: Data = None,
) -> None:
    """Say what holds for a pattern; the longest pattern that covers a repository counts."""
    administer(
        data,
        lambda place: place.accounts.set_policy(pattern, visibility, immutable or ()),
        ("set policy", f"{pattern} {visibility.value} {' '.join(immutable or ())}".strip()),
    )
    remark(f"{pattern} is {visibility.value}.")


@policy.command("list")
def list_policies(data: Data = None, as_json: Json = False) -> None:
    """List all policies. What none covers is private."""
    policies = administer(data, lambda place: place.accounts.policies())
    rows: list[dict[str, Any]] = [
        {
            "pattern": found.pattern,
            "visibility": found.visibility.value,
            "immutable": list(found.immutable),
        }
        for found in policies
    ]
    show(rows, as_json)


@policy.command("remove")
def remove_policy(pattern: Pattern, data: Data = None) -> None:
    """Remove a policy."""
    administer(
        data, lambda place: place.accounts.delete_policy(pattern), ("remove policy", pattern)
    )
    remark(f"Removed the policy for {pattern}.")
