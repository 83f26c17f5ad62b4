"""`registry team`, `registry grant`, `registry policy`."""

from pathlib import Path

import pytest

from tests.unit.cli.test_admin import data, listed, run

__all__ = ["data"]


@pytest.fixture(autouse=True)
def people(data: Path) -> None:
    for name in ("alice", "bob"):
        run(f"user add {name} --no-password")


def test_a_team_is_set_and_deleted() -> None:
    assert run("team set core alice BOB").stderr == "Team core: alice, bob.\n"
    assert listed("team list") == [{"name": "core", "members": ["alice", "bob"]}]
    assert run("team set core").stderr == "Team core: nobody.\n"
    assert "core" in run("team list").stdout
    assert run("team delete core").exit_code == 0
    assert listed("team list") == []


def test_rules_are_added_listed_and_removed() -> None:
    run("team set core alice")
    assert run("grant add team:core team/* read,write").exit_code == 0
    assert run("grant add everybody public/* read").exit_code == 0
    first, second = listed("grant list")
    assert (first["subject"], first["pattern"], first["rights"]) == (
        "team:core", "team/*", ["read", "write"],
    )  # fmt: skip
    assert "team:core" in run("grant list").stdout
    assert run(f"grant remove {first['id']}").exit_code == 0
    assert listed("grant list") == [second]


def test_a_policy_is_set_changed_and_removed() -> None:
    run("policy set public/*")
    assert (
        run("policy set public/* --visibility public --immutable v* --immutable r1").exit_code == 0
    )
    assert listed("policy list") == [
        {"pattern": "public/*", "visibility": "public", "immutable": ["v*", "r1"]}
    ]
    assert "v*, r1" in run("policy list").stdout
    assert run("policy remove public/*").exit_code == 0
    assert listed("policy list") == []


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("team set core nobody", 1, "there is no user"),
        ("team delete core", 1, "there is no team"),
        ("grant add alice team/* read", 1, "unknown subject"),
        ("grant add user:nobody team/* read", 1, "there is no user"),
        ("grant add users team/* fly", 1, "unknown right"),
        ("grant add everybody team/* write", 1, "no right but read"),
        ("grant remove 9", 1, "there is no rule 9"),
        ("policy set a//b", 1, "invalid repository pattern"),
        ("policy set a/* --visibility secret", 2, "secret"),
        ("policy remove a/*", 1, "there is no policy"),
    ],
)
def test_what_cannot_be_is_one_sentence(command: str, code: int, said: str) -> None:
    result = run(command)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
