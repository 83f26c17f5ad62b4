"""Presigned URLs: the documented example, and the same as a client library's for what it can."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from registry.core.sigv4 import LONGEST_S, Keys, Signer

_EXAMPLE = Signer(
    Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    region="us-east-1",
    endpoint="https://examplebucket.s3.amazonaws.com",
    now_s=1_369_353_600,
    expires_s=86_400,
)


def test_the_example_of_the_documentation_comes_out() -> None:
    assert _EXAMPLE.url("GET", "/test.txt") == (
        "https://examplebucket.s3.amazonaws.com/test.txt"
        "?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@pytest.mark.parametrize(
    ("method", "endpoint", "path", "query", "headers", "token"),
    [
        ("GET", "http://localhost:7070", "/bucket/blobs/ab/cd", {}, {}, ""),
        (
            "GET",
            "https://s3.example.net:443",
            "/models/a b/ü~(1)",
            {"response-content-type": "application/octet-stream"},
            {},
            "",
        ),
        (
            "PUT",
            "http://store:80",
            "/models/key",
            {"partNumber": "2", "uploadId": "a/b+c=="},
            {"Content-Type": "application/octet-stream", "Content-Length": "100000000"},
            "",
        ),
        (
            "PUT",
            "https://models.s3.eu-west-1.amazonaws.com",
            "/key",
            {},
            {"x-amz-checksum-sha256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
            "FwoGZXIvYXdzE+/==",
        ),
    ],
)
def test_a_client_library_signs_the_same(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    endpoint: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    token: str,
) -> None:
    signer = replace(
        _EXAMPLE,
        endpoint=endpoint,
        region="eu-west-1",
        keys=replace(_EXAMPLE.keys, token=token),
    )
    ours = signer.url(method, path, query, headers)

    now = datetime.fromtimestamp(signer.now_s, UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)
    request = AWSRequest(method, ours.partition("?")[0], params=dict(query), headers=dict(headers))
    keys = Credentials(signer.keys.access, signer.keys.secret, token or None)
    auth = S3SigV4QueryAuth(keys, "s3", "eu-west-1", expires=86_400)
    auth.add_auth(request)
    theirs = request.prepare().url
    assert parse_qs(urlsplit(ours).query) == parse_qs(urlsplit(theirs).query)
    assert urlsplit(ours)[:3] == urlsplit(theirs)[:3]


def test_no_url_lives_longer_than_a_store_takes() -> None:
    url = replace(_EXAMPLE, expires_s=LONGEST_S + 1).url("GET", "/x")
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == [str(LONGEST_S)]


def test_spaces_in_a_signed_header_do_not_count() -> None:
    one = _EXAMPLE.url("PUT", "/x", headers={"Content-Type": " a   b "})
    assert one == _EXAMPLE.url("PUT", "/x", headers={"content-type": "a b"})
    assert "X-Amz-SignedHeaders=content-type%3Bhost&" in one


def test_keys_do_not_show_their_secret() -> None:
    assert repr(Keys("AKIA", "secret", "token")) == "Keys('AKIA')"
