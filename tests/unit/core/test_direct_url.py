from urllib.parse import parse_qsl

import pytest

from registry.core.digest import Digest
from registry.core.direct_url import Grant, SigningKey, is_direct, verify
from registry.core.names import RepositoryName

KEY, OTHER_KEY = SigningKey(b"k" * 32), SigningKey(b"o" * 32)
REPOSITORY = RepositoryName.parse("team/llama")
DIGEST = Digest.of(b"weights")
NOW = 1_760_000_000
GRANT = Grant(REPOSITORY, DIGEST, NOW + 60)
QUERY = dict(parse_qsl(GRANT.query(KEY)))


def test_a_signed_url_is_good_until_its_time() -> None:
    assert is_direct(QUERY)
    assert verify(QUERY, REPOSITORY, DIGEST, (KEY,), NOW)
    assert verify(QUERY, REPOSITORY, DIGEST, (OTHER_KEY, KEY), NOW + 59)
    assert not verify(QUERY, REPOSITORY, DIGEST, (KEY,), NOW + 60)


def test_the_spelling_of_the_repository_does_not_matter() -> None:
    assert verify(QUERY, RepositoryName.parse("Team/LLAMA"), DIGEST, (KEY,), NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"exp": str(NOW + 61)},
        {"exp": ""},
        {"exp": "-1"},
        {"exp": "١٢٣"},
        {"exp": "9" * 5000},
        {"exp": "1e99"},
        {"kid": OTHER_KEY.id},
        {"kid": ""},
        {"sig": ""},
        {"sig": "é" * 64},
        {"sig": QUERY["sig"][:-1]},
        {"sig": QUERY["sig"].upper()},
        {"sig": OTHER_KEY.signature(GRANT)},
    ],
)
def test_a_changed_url_is_no_good(change: dict[str, str]) -> None:
    assert not verify(QUERY | change, REPOSITORY, DIGEST, (KEY, OTHER_KEY), NOW)


def test_it_is_good_for_one_blob_of_one_repository_and_one_key() -> None:
    assert not verify(QUERY, RepositoryName.parse("team/other"), DIGEST, (KEY,), NOW)
    assert not verify(QUERY, REPOSITORY, Digest.of(b"other"), (KEY,), NOW)
    assert not verify(QUERY, REPOSITORY, DIGEST, (OTHER_KEY,), NOW)
    assert not verify(QUERY, REPOSITORY, DIGEST, (), NOW)


def test_a_request_without_signature_is_not_direct() -> None:
    assert not is_direct({"exp": "1"})


def test_the_secret_is_not_in_the_url() -> None:
    assert KEY.id != OTHER_KEY.id
    assert len(KEY.id) == 8
