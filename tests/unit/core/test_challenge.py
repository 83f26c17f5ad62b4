"""The challenge as the ollama client finds its parts."""

import pytest

from registry.core.challenge import INVALID_TOKEN, Challenge, repository_scope

REALM = "https://models.example.com/v2/token"


@pytest.mark.parametrize(
    ("challenge", "bearer"),
    [
        (
            Challenge(REALM, "models.example.com", repository_scope("team/llama", "pull", "push")),
            f'realm="{REALM}",service="models.example.com",scope="repository:team/llama:pull,push"',
        ),
        (Challenge(REALM, "m"), f'realm="{REALM}",service="m"'),
        (
            Challenge(REALM, "m", "a:b:c", INVALID_TOKEN),
            f'realm="{REALM}",service="m",scope="a:b:c",error="invalid_token"',
        ),
        (Challenge(REALM, 'm",scope="x\\'), f'realm="{REALM}",service="m,scope=x"'),
    ],
)
def test_bearer_comes_first_and_every_value_is_quoted(challenge: Challenge, bearer: str) -> None:
    headers = challenge.headers()
    assert headers[0] == f"Bearer {bearer}"
    assert headers[1:] == [f'Basic realm="{REALM}"']
