"""What an administrator may write of workers."""

import pytest

from registry.core.errors import RequestInvalid
from registry.core.fleet import check_labels, check_server_url, check_worker_name


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://gpu:8000", "http://gpu:8000"),
        ("http://gpu:8000/v1/", "http://gpu:8000"),
        ("https://api.example/llm/v1", "https://api.example/llm"),
        ("http://gpu:11434/api", "http://gpu:11434"),
        (" http://[::1]:80 ", "http://[::1]:80"),
    ],
)
def test_urls_are_read(url: str, expected: str) -> None:
    assert check_server_url(url) == expected


@pytest.mark.parametrize(
    "url",
    ["", "gpu:8000", "ftp://gpu", "ftp://gpu:21", "http://", "http://u:p@gpu", "http://gpu/?x",
     "http://gpu#x", "http://gpu:99999", "http://gpü", "http://g pu", "http://[::1", "http://g\x01"],
)  # fmt: skip
def test_urls_that_mean_nothing_are_refused(url: str) -> None:
    with pytest.raises(RequestInvalid):
        check_server_url(url)


def test_names_and_labels_are_words_in_lower_case() -> None:
    assert check_worker_name("GPU-1.a_b") == "gpu-1.a_b"
    assert check_labels(["GPU", "gpu", "eu-1"]) == {"gpu", "eu-1"}
    assert check_labels([]) == frozenset()


@pytest.mark.parametrize("name", ["", "-a", "a b", "ä", "a/b", "a" * 64, "a\n"])
def test_other_words_are_refused(name: str) -> None:
    with pytest.raises(RequestInvalid):
        check_worker_name(name)
    with pytest.raises(RequestInvalid):
        check_labels([name])


def test_no_more_labels_than_twenty() -> None:
    with pytest.raises(RequestInvalid):
        check_labels([f"l{number}" for number in range(21)])
