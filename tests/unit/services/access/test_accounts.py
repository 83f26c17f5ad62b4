"""Proofs of upload, the sweep, and that no secret is left anywhere."""

import logging
from contextlib import suppress
from pathlib import Path

import pytest

from registry.core.digest import Digest
from registry.core.errors import RegistryError
from registry.ports.accounts import AuditEntry
from registry.ports.catalog import Catalog
from registry.services.access.accounts import Accounts
from registry.services.access.audit import Audit
from registry.services.access.keys import ApiKeyWish
from registry.settings import Retention
from tests.support.accounts import PASSWORD, Clock, key_blob, new_accounts

pytestmark = pytest.mark.anyio


async def test_who_sent_a_blob_has_proven_it(accounts: Accounts, clock: Clock) -> None:
    alice, bob = await accounts.create_user("alice"), await accounts.create_user("bob")
    blob = Digest.of(b"bytes")
    await accounts.prove_blob(alice.id, blob)
    assert await accounts.has_proven(alice.id, blob)
    assert not await accounts.has_proven(bob.id, blob)
    assert not await accounts.has_proven(alice.id, Digest.of(b"other"))


async def test_the_sweep_forgets_what_ran_out(accounts: Accounts, clock: Clock) -> None:
    alice = await accounts.create_user("alice")
    short = await accounts.create_api_key(alice.id, ApiKeyWish(lifetime_s=10))
    long = await accounts.create_api_key(alice.id, ApiKeyWish(lifetime_s=1000))
    clock.pass_s(10)
    await accounts.sweep()
    assert await accounts.api_keys(alice.id) == [long.key]
    assert short.key.id != long.key.id


@pytest.mark.sqlite("reads the file of the database")
async def test_no_secret_is_left_in_files_logs_or_texts(
    accounts_catalog: Catalog,
    clock: Clock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    accounts = new_accounts(accounts_catalog, clock)
    audit = Audit(accounts_catalog, Retention(), clock)
    second = "another secret phrase"
    setup = await accounts.make_setup_code()
    await accounts.complete_setup(setup, "root", PASSWORD)
    alice = await accounts.create_user("alice", PASSWORD)
    await accounts.set_password(alice.id, second)
    made = await accounts.create_api_key(alice.id, ApiKeyWish("title"))
    signed_in = await accounts.sign_in("alice", second)
    link = await accounts.begin_enrolment(key_blob(1), "host")
    node = await accounts.make_node_code(alice.id)
    secrets = [PASSWORD, second, made.text, signed_in.session, signed_in.csrf, setup, link, node]
    secrets += [code.replace("-", "") for code in (setup, link, node)]

    said = [repr(made), repr(signed_in), repr(accounts)]
    for secret in secrets:
        for attempt in (
            accounts.by_password("alice", secret + "x"),
            accounts.by_password(secret, secret),
            accounts.by_api_key(secret + "x"),
            accounts.by_session(secret),
            accounts.pending(secret + "x"),
            accounts.enrol_node(secret + "x", key_blob(2)),
            accounts.complete_setup(secret, "mallory", secret),
            accounts.set_password(99, secret),
            accounts.revoke_api_key(secret + "x"),
            accounts.add_public_key(alice.id, secret),
        ):
            clock.pass_s(60)
            with suppress(RegistryError):
                try:
                    await attempt
                except RegistryError as error:
                    said.append(repr(error))
                    raise
    audit.record(AuditEntry(1, "alice", "api key", "", "get", f"/?q={made.text}", "done", ""))
    await audit.close()
    await accounts.close()
    await accounts_catalog.close()

    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    kept = b"".join(file.read_bytes() for file in files)
    assert made.key.sha256.encode() in kept  # the search does look at the rows
    output = capsys.readouterr()
    told = "\n".join([*said, caplog.text, output.out, output.err])
    for secret in secrets:
        assert secret.encode() not in kept
        assert secret not in told
