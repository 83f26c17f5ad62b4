"""The OpenAPI document is true: schemathesis asks what it allows, and what it does not.

Every answer must have a documented status, media type and body, and none may be a 5xx; what does
not fit the schema must be refused, what fits must not be; nothing answers without credentials.
Examples are few and always the same, so that the run is quick and a failure comes again.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case, CheckFunction
from schemathesis.specs.openapi.checks import positive_data_acceptance

from registry.app import build, prepare
from registry.core.access import Group
from registry.services.access.keys import ApiKeyWish
from registry.web.api_v1 import ENDPOINTS
from registry.web.openapi import document
from tests.support.accounts import PASSWORD
from tests.support.backends import BACKENDS
from tests.support.server import running

ENVIRON = {
    "REGISTRY_AUTH": "true",
    "REGISTRY_CREDENTIALS__TRIES_PER_MINUTE": "100000",  # wrong credentials are part of it
}


async def _administrator(data: Path) -> str:
    """Make one in an empty folder; the text of an API key of theirs."""
    given = BACKENDS.settings(data, auth=True)
    prepare(given)
    services = build(given)
    try:
        account = await services.accounts.create_user("root", PASSWORD, admin=True)
        wish = ApiKeyWish("schemathesis", Group.ALL)
        return (await services.accounts.create_api_key(account.id, wish)).text
    finally:
        await services.accounts.close()
        await services.catalog.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A started server's URL, and the key."""
    data = tmp_path_factory.mktemp("openapi") / "data"
    key = asyncio.run(_administrator(data))
    with running(data, **ENVIRON) as server:
        yield server.url, key


# whether a text is a point of the curve
BEYOND_SCHEMAS = {"POST /api/v1/keys", "POST /api/v1/enrol"}
schema = schemathesis.openapi.from_dict(document(ENDPOINTS))  # a unit test: it is what is served


@schema.parametrize()
@settings(
    max_examples=10,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_the_document_says(case: Case[Any], service: tuple[str, str]) -> None:
    url, key = service
    excluded: list[CheckFunction] | None = None
    if case.operation.label in BEYOND_SCHEMAS:
        excluded = [positive_data_acceptance]
    case.call_and_validate(
        base_url=url, headers={"Authorization": f"Bearer {key}"}, excluded_checks=excluded
    )
