"""`registry user`, `setup-code`, `audit`: on the database itself, secrets once, never again."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from registry.cli.main import app
from tests.support.backends import BACKENDS

PASSWORD = "correct horse battery"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    data = tmp_path / "data"
    monkeypatch.setenv("REGISTRY_DATA", str(data))
    monkeypatch.delenv("REGISTRY_DATABASE_URL", raising=False)
    for name, value in BACKENDS.environ(data).items():
        monkeypatch.setenv(name, value)
    return data


def run(command: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, command.split(), input=stdin)


def listed(command: str) -> list[dict[str, object]]:
    result = run(f"{command} --json")
    assert result.exit_code == 0, result.stderr
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def test_the_first_administrator_is_made_on_the_host(data: Path) -> None:
    result = run("user add root --admin --password-stdin", f"{PASSWORD}\n")
    assert (result.exit_code, result.stderr) == (0, "Added user root.\n")
    assert run("user add ci --kind robot").exit_code == 0
    assert run("user add keyed --no-password").exit_code == 0
    rows = [
        (row["name"], row["kind"], row["admin"], row["password"]) for row in listed("user list")
    ]
    assert rows == [
        ("ci", "robot", False, False),
        ("keyed", "user", False, False),
        ("root", "user", True, True),
    ]
    assert "root" in run("user list").stdout


def test_an_account_is_changed_and_deleted(data: Path) -> None:
    run("user add root --admin --no-password")
    run("user add alice --no-password")
    steps = [
        ("user passwd alice --password-stdin", PASSWORD, "alice has a new password."),
        ("user admin alice", None, "alice is an administrator."),
        ("user admin alice --off", None, "alice is no longer an administrator."),
        ("user disable alice", None, "alice is disabled."),
        ("user enable alice", None, "alice is enabled."),
        ("user delete alice --yes", None, "Deleted alice."),
    ]
    for command, stdin, said in steps:
        result = run(command, stdin)
        assert (result.exit_code, result.stderr) == (0, f"{said}\n")
    assert [row["name"] for row in listed("user list")] == ["root"]
    assert [(row["action"], row["target"]) for row in listed("audit --limit 3")] == [
        ("delete account", "alice"), ("enable account", "alice"), ("disable account", "alice"),
    ]  # fmt: skip


def test_deleting_asks(data: Path) -> None:
    run("user add alice --no-password")
    assert run("user delete alice", "n\n").exit_code == 1
    assert run("user delete alice", "y\n").exit_code == 0


@pytest.mark.parametrize(
    ("command", "stdin", "code", "said"),
    [
        ("user add a/b --no-password", None, 1, "invalid user name"),
        ("user add bob", None, 1, "--password-stdin"),
        ("user add bob --password-stdin", "", 1, "standard input"),
        ("user add bob --password-stdin", "short\n", 1, "at least 10"),
        ("user add n --kind node --admin", None, 2, "only users"),
        ("user passwd nobody --password-stdin", PASSWORD, 1, "there is no user 'nobody'"),
        ("user disable root", None, 1, "last administrator"),
        ("user delete root --yes", None, 1, "last administrator"),
        ("user add ROOT --no-password", None, 1, "already"),
        ("setup-code", None, 1, "administrator already"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    data: Path, command: str, stdin: str | None, code: int, said: str
) -> None:
    run("user add root --admin --no-password")
    result = run(command, stdin)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""


@pytest.mark.sqlite("a database of the tests has a schema")
def test_a_folder_without_a_library_is_not_made_by_looking(data: Path) -> None:
    for command in ("user list", "audit", "user disable alice"):
        result = run(command)
        assert (result.exit_code, data.exists()) == (1, False)
        assert "--data" in result.stderr


@pytest.mark.sqlite("looks for the file")
def test_data_names_the_folder(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert run(f"user add alice --no-password --data {other}").exit_code == 0
    assert (other / "registry.db").exists()
    assert not data.exists()


def test_bad_settings_are_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_PORT", "many")
    result = run("user list")
    assert result.exit_code == 1
    assert "REGISTRY_PORT" in result.stderr


def test_a_set_up_code_is_shown_once_and_nowhere_kept(data: Path) -> None:
    result = run("setup-code")
    code = result.stdout.strip()
    assert (result.exit_code, len(code)) == (0, 27)
    kept = b"".join(file.read_bytes() for file in data.rglob("*") if file.is_file())
    for text in (code, code.replace("-", "")):
        assert text.encode() not in kept


def test_the_audit_tells_who_did_what_and_what_failed(data: Path) -> None:
    run("user add alice --no-password")
    run("user disable nobody")
    failed, done = listed("audit")
    assert (done["action"], done["target"], done["result"]) == ("add account", "user alice", "done")
    assert str(failed["result"]).startswith("failed: there is no user")
    assert (done["via"], str(done["who"]).endswith("on the host")) == ("command line", True)
    assert [row["id"] for row in listed(f"audit --before {failed['id']}")] == [done["id"]]
    assert "alice" in run("audit").stdout
