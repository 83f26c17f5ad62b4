"""`registry worker`, as far as it needs no library."""

from pathlib import Path

import pytest

from registry.cli.worker_process import parse_size
from registry.core.errors import RequestInvalid
from tests.unit.cli.test_admin import data, run

__all__ = ["data"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("2K", 2048), ("3mb", 3 << 20), ("200GiB", 200 << 30), (" 1T ", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "x", "-1G", "1.5G", "9" * 10])
def test_other_texts_are_no_sizes(text: str) -> None:
    with pytest.raises(RequestInvalid, match="is no size"):
        parse_size(text)


@pytest.fixture
def library(data: Path) -> None:
    run("user add alice --no-password")  # makes it


@pytest.mark.usefixtures("library")
def test_a_token_is_shown_once_and_alone() -> None:
    result = run("worker token")
    assert result.exit_code == 0
    assert len(result.stdout.strip().replace("-", "")) == 24
    assert "registry worker --server URL --token TOKEN" in result.stderr
    assert run("worker token --reusable --expires never").exit_code == 0


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("worker", 2, "--server URL"),
        ("worker token --expires soon", 2, "is no time"),
        ("worker revoke nobody", 1, "no worker called 'nobody' is enrolled"),
        ("worker --server ftp://x", 1, "not the URL of a library"),
        ("worker --server http://x --cache-max much", 1, "is no size"),
    ],
)
def test_what_cannot_be_is_one_sentence(command: str, code: int, said: str) -> None:
    result = run(command)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
