"""The storage URL says where; what it cannot mean is refused in one sentence."""

import pytest

from registry.core.errors import RequestInvalid
from registry.core.storage_url import S3Url


def test_a_bucket_alone_is_a_place() -> None:
    assert S3Url.parse("s3://models") == S3Url("models", "", "", "", "", False)


def test_everything_that_can_be_said() -> None:
    text = (
        "s3://my-bucket/team/models/?endpoint=http://10.0.0.5:9000/&region=eu-1"
        "&public_endpoint=https://s3.example.com"
    )
    assert S3Url.parse(text) == S3Url(
        "my-bucket", "team/models", "http://10.0.0.5:9000", "https://s3.example.com", "eu-1", True
    )


@pytest.mark.parametrize(
    ("query", "path_style"),
    [
        ("", False),
        ("?endpoint=http://h", True),
        ("?endpoint=http://h&path_style=false", False),
        ("?path_style=1", True),
    ],
)
def test_an_endpoint_of_its_own_has_path_style_unless_told(query: str, path_style: bool) -> None:
    assert S3Url.parse("s3://bucket" + query).path_style is path_style


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("file:///x", "begin with s3://"),
        ("bucket", "begin with s3://"),
        ("s3://", "name a bucket"),
        ("s3://b", "name a bucket"),
        ("s3://key:secret@bucket", "credentials"),
        ("s3://bucket/a/../b", "prefix"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/a b", "prefix"),
        ("s3://bucket/" + "a" * 513, "prefix"),
        ("s3://bucket?endpoint", "URL"),
        ("s3://[bucket", "URL"),
        ("s3://bucket?access_key=x", "no option 'access_key'"),
        ("s3://bucket?endpoint=host:9000", "endpoint must be"),
        ("s3://bucket?endpoint=http://user:secret@host", "endpoint must be"),
        ("s3://bucket?public_endpoint=http://h/path", "public_endpoint must be"),
        ("s3://bucket?path_style=perhaps", "path_style"),
    ],
)
def test_what_it_cannot_mean_is_refused(text: str, why: str) -> None:
    with pytest.raises(RequestInvalid, match=why):
        S3Url.parse(text)
