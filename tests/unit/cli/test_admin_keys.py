"""`registry key` and `registry token`."""

import asyncio
import time
from pathlib import Path

import pytest

from registry.core.accounts import is_api_key
from registry.core.ssh_key import fingerprint
from registry.services.access.accounts import Accounts
from registry.services.access.tokens import Subject, TokenInvalid, Tokens
from registry.services.library.signing_keys import SigningKeys
from registry.settings import Settings
from tests.support.accounts import cheap_passwords, key_blob
from tests.support.backends import BACKENDS
from tests.unit.cli.test_admin import data, listed, run

__all__ = ["data"]


@pytest.fixture(autouse=True)
def people(data: Path) -> None:
    run("user add alice --no-password")
    run("user add ci --kind robot")


def test_a_key_is_added_from_file_or_input_listed_and_removed(tmp_path: Path) -> None:
    file = tmp_path / "id_ed25519.pub"
    file.write_text(f"ssh-ed25519 {key_blob(1)} alice@laptop\n")
    result = run(f"key add alice {file}")
    assert (result.exit_code, result.stdout) == (0, fingerprint(key_blob(1)) + "\n")
    assert run("key add ci - --read-only --title builds", key_blob(2)).exit_code == 0
    rows = [(row["user"], row["title"], row["rights"]) for row in listed("key list")]
    assert rows == [("alice", "alice@laptop", ["all"]), ("ci", "builds", ["read"])]
    assert [row["user"] for row in listed("key list ci")] == ["ci"]
    assert fingerprint(key_blob(2)) in run("key list ci").stdout
    assert run(f"key remove {fingerprint(key_blob(1))}").exit_code == 0
    assert listed("key list alice") == []
    assert run("key list alice").stdout == ""


@pytest.mark.parametrize(
    ("command", "stdin", "said"),
    [
        ("key add alice /none/such.pub", None, "cannot read"),
        ("key add alice -", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc", "private key"),
        ("key add alice -", "ssh-rsa AAAA", "only keys of type"),
        ("key add nobody -", key_blob(1), "there is no user"),
        ("key add alice - --rights fly", key_blob(1), "unknown right"),
        ("key remove SHA256:none", None, "no public key"),
        ("key confirm 000000 alice --yes", None, "unknown, used or expired"),
        ("key code nobody", None, "there is no user"),
        ("token create nobody", None, "there is no user"),
        ("token revoke none", None, "no API key"),
        ("token list nobody", None, "there is no user"),
    ],
)
def test_what_cannot_be_is_one_sentence(command: str, stdin: str | None, said: str) -> None:
    result = run(command, stdin)
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr


def test_an_api_key_is_shown_once_and_listed_without_its_text(data: Path) -> None:
    result = run("token create ci --title build --groups read,infer --scope team/*:read")
    text = result.stdout.strip()
    assert is_api_key(text)
    assert text not in result.stderr
    (row,) = listed("token list ci")
    assert (row["title"], row["groups"], row["scopes"]) == (
        "build", ["infer", "read"], ["team/*:read"],
    )  # fmt: skip
    assert text.startswith(str(row["begins"]))
    assert text not in run("token list").stdout
    kept = b"".join(file.read_bytes() for file in data.rglob("*") if file.is_file())
    assert text.encode() not in kept
    assert run(f"token revoke {row['id']}").exit_code == 0
    assert listed("token list") == []


def test_a_key_s_end_can_be_chosen() -> None:
    (made,) = listed("token create ci --expires never")
    assert made["expires"] is None
    assert is_api_key(str(made["key"]))
    assert run("token create ci --expires 12h").exit_code == 0
    assert [row["expires"] is None for row in listed("token list")] == [True, False]


@pytest.mark.parametrize("option", ["--groups fly", "--scope team", "--expires soon"])
def test_wrong_options_are_wrong_usage(option: str) -> None:
    result = run(f"token create ci {option}")
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_key_revoked_by_its_text_is_not_in_the_audit() -> None:
    text = run("token create ci").stdout.strip()
    assert run(f"token revoke {text}").exit_code == 0
    assert text not in run("audit --json").stdout


def test_the_keys_that_sign_are_replaced_while_a_server_runs(data: Path) -> None:
    now = [time.time_ns()]

    async def sign_and_look(rotate: str) -> tuple[bool, bool]:
        """Whether a token and a direct URL outlive a command typed meanwhile."""
        catalog = BACKENDS.catalog(data)
        tokens = Tokens(catalog, Settings.load({}).credentials, lambda: now[0])
        keys = SigningKeys(catalog, lambda: now[0])
        token = (await tokens.issue(Subject(), (), "here")).token
        (newest, *_) = await keys.ring()
        result = await asyncio.to_thread(run, rotate)
        assert (result.exit_code, result.stdout) == (0, "")
        now[0] += 6 * 10**9
        try:
            holds = bool(await tokens.verify(token, "here"))
        except TokenInvalid:
            holds = False
        is_kept = newest.id in {key.id for key in await keys.ring()}
        await catalog.close()
        return holds, is_kept

    assert asyncio.run(sign_and_look("token rotate")) == (False, True)
    assert asyncio.run(sign_and_look("key rotate-urls")) == (True, True)
    assert asyncio.run(sign_and_look("key rotate-urls --revoke")) == (True, False)
    told = [(row["action"], row["target"]) for row in listed("audit")[:3]]
    assert told == [
        ("rotate key of URLs", "revoke"), ("rotate key of URLs", ""), ("rotate key of tokens", ""),
    ]  # fmt: skip


def test_a_node_code_and_a_link_work_in_a_running_server(data: Path) -> None:
    code = run("key code ci").stdout.strip()

    async def server() -> str:
        catalog = BACKENDS.catalog(data)
        accounts = Accounts(catalog, Settings.load({}), time.time_ns, cheap_passwords())
        await accounts.enrol_node(code, key_blob(1))
        link = await accounts.begin_enrolment(key_blob(2), "laptop")
        await catalog.close()
        return link

    link = asyncio.run(server())
    assert [row["user"] for row in listed("key list")] == ["ci"]
    assert run(f"key confirm {link} alice", "n\n").exit_code == 1
    result = run(f"key confirm {link} alice", "y\n")
    assert (result.exit_code, "from laptop" in result.stdout) == (0, True)
    assert [row["user"] for row in listed("key list")] == ["alice", "ci"]
